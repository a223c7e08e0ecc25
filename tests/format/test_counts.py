"""After every act what the store's records say of each other is so, counted by code that is not the engine's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Final

import reader
from counts import miscounted

from ckpt.repository import Repository
from ckpt.repository.incoming import Channel, NewCheckpoint, Typed
from ckpt.repository.memory import Memory, Put
from ckpt.repository.prune import keep_last
from ckpt.storage.base import RECORD_KEY_MAX
from ckpt.storage.memory import MemoryStorage


def put(r: Repository, thread: str, made: str, parent: str | None = None, namespace: str = "", text: str = "") -> None:
    value = Typed("text", (text or made).encode())
    r.put(NewCheckpoint(thread, namespace, made, parent, None, value, value, {"v": Channel(lambda: value)}))


def write(r: Repository, thread: str, made: str, task: str, namespace: str = "", text: str = "x") -> None:
    r.put_writes(thread, namespace, made, task, "", [(0, "v", Typed("text", text.encode()))])


def line(r: Repository, thread: str, count: int, namespace: str = "") -> None:
    for number in range(1, count + 1):
        put(r, thread, f"c{number}", f"c{number - 1}" if number > 1 else None, namespace)


def busy(r: Repository) -> None:
    for task in range(40):
        write(r, "ana", "c4", f"task {task}", text="y" * 100)


def read_later(memory: Memory) -> None:
    """Renew all that has a lifetime as if it was read when the last of that is about to end."""
    _, (entries,) = memory.read(prefixes=[()])
    memory._memories.writer.renew(memory.name, entries, max(entry.expires or 0 for entry in entries))


ACTS: Final[list[Callable[[Repository], object]]] = [
    lambda r: line(r, "ana", 4),
    lambda r: line(r, "ana", 3, "sub"),
    lambda r: write(r, "ana", "early", "before its checkpoint"),
    lambda r: write(r, "ana", "c4", "first"),
    lambda r: write(r, "ana", "c2", "to an older one"),
    lambda r: write(r, "ana", "c3", "below", "sub"),
    busy,
    lambda r: put(r, "ana", "c4", "c3", text="again"),
    lambda r: put(r, "ana", "b0", "c1", text="another head, with a lesser id"),
    lambda r: r.copy_thread("ana", "copy"),
    lambda r: write(r, "copy", "c4", "of the copy"),
    lambda r: write(r, "copy", "c2", "of the copy, to an older one"),
    lambda r: write(r, "copy", "c3", "of the copy, below", "sub"),
    lambda r: put(r, "copy", "c5", "c4"),
    lambda r: r.fork("ana~1", "older"),
    lambda r: put(r, "older", "d1", "c3"),
    lambda r: put(r, "older", "d2", None, "sub"),
    lambda r: r.tag("v1", "ana"),
    lambda r: r.tag("v2", "copy"),
    lambda r: r.untag("v1"),
    lambda r: r.undo(),
    lambda r: r.rewind("copy"),
    lambda r: r.undo(),
    lambda r: r.rewind("ana"),
    lambda r: put(r, "ana", "s4", "c2", "sub"),
    lambda r: write(r, "ana", "s4", "after a rewind", "sub"),
    lambda r: r.prune(["ana"], keep_last=1),
    lambda r: r.undo(),
    lambda r: r.prune(["copy"], keep_last=1),
    lambda r: write(r, "copy", "c3", "to a hidden one"),
    lambda r: r.expire("copy", timedelta(days=1)),
    lambda r: r.undo(),
    lambda r: r.prune_thread("older", keep_last(1)),
    lambda r: line(r, "gone", 3),
    lambda r: r.delete("gone"),
    lambda r: r.undo(),
    lambda r: r.delete("gone"),
    lambda r: line(r, "gone", 1),
    lambda r: write(r, "ana", "c4", "after the forks"),
    lambda r: write(r, "ana", "c1", "after the forks", "sub"),
    lambda r: put(r, "ana", "z1", "c4"),
    lambda r: put(r, "ana", "z1", None, "another"),
    lambda r: r.delete("ana"),
    lambda r: r.gc(grace=timedelta(0)),
    lambda r: r.memory().put(("n",), "a", {"v": 1}),
    lambda r: r.memory().apply([Put(("n",), key, {"v": key}, timedelta(days=1)) for key in "abc"]),
    lambda r: r.memory().apply([Put(("n", "m"), "d", {"v": 1}), Put(("n",), "a", None)]),
    lambda r: read_later(r.memory()),
    lambda r: [r.memory().put(("n",), "b", {"v": "z" * 300, "n": number}) for number in range(12)],
    lambda r: r.memory().fork("fork"),
    lambda r: read_later(r.memory("fork")),
    lambda r: read_later(r.memory("fork")),
    lambda r: r.memory("fork").put(("n",), "b", {"v": "of the fork"}),
    lambda r: r.memory("fork").delete(("n", "m"), "d"),
    lambda r: r.memory().put(("n",), "c", {"v": "after the fork"}),
    lambda r: (time.sleep(0.001), r.memory("fork").prune(timedelta(0))),
    lambda r: (r.memory().delete(("n", "m"), "d"), r.memory().prune(timedelta(0))),
    lambda r: r.memory().drop(),
    lambda r: r.gc(grace=timedelta(0)),
    lambda r: r.delete("copy"),
    lambda r: r.gc(grace=timedelta(0)),
]


def records(storage: MemoryStorage) -> dict[bytes, bytes]:
    return dict(storage.scan(b"", b"\xff" * (RECORD_KEY_MAX + 1)))


def states() -> Iterator[dict[bytes, bytes]]:
    storage = MemoryStorage()
    repository = Repository(storage)
    for act in ACTS:
        act(repository)
        yield records(storage)
    assert repository.fsck().problems == []


def test_after_every_act_all_adds_up() -> None:
    told = {number: found for number, state in enumerate(states()) if (found := miscounted(state))}
    assert told == {}


def test_an_earlier_version_of_a_counted_record_does_not_add_up() -> None:
    kept = list(states())
    checked = set[str]()
    for before, after in pairwise(kept):
        for key, raw in before.items():
            part = part_of(key)
            # A lease changes without what counts its item; counters, threads and the registry are counted by nothing.
            if part in {"c", "r", "t"} or key not in after or body(part, raw) == body(part, after[key]):
                continue
            checked.add(part)
            assert miscounted({**after, key: raw}), (part, key)
    assert checked == {"d", "g", "n", "o", "tc", "ti", "tl", "tn"}


def part_of(key: bytes) -> str:
    key = key[17:] if key[:1] == b"s" else key
    return (key[:1] + key[2 + key[1] : 3 + key[1]]).decode() if key[:1] == b"t" else key[:1].decode()


def body(part: str, raw: bytes) -> object:
    return reader.unpack(raw[:-8])[1:] if part == "ti" else raw

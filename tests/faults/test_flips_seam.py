"""What any backend may come to hold: a byte of a record, of its key, of a frame or an index entry that is another one.

Done through the seam, on a store of every kind of record, so it stands for every backend: none of them is relied on
to notice. By default a sample; all of it when CKPT_ALL_FLIPS is set (half an hour).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from engine_kit import put
from flip_kit import everything_asked, fill

from ckpt.errors import IntegrityError, StoreError
from ckpt.repository import Memory, Repository
from ckpt.storage.base import Batch, Frame
from ckpt.storage.memory import MemoryStorage

ALL = bool(os.environ.get("CKPT_ALL_FLIPS"))
GRAPH = "second graph"
TEXT = "a text that is long enough to be an object of its own, so that it can be shared: " * 3
ANA, BEN = ("users", "ana"), ("users", "ben")

Ask = Callable[[MemoryStorage], object]


@dataclass(frozen=True)
class Content:
    """All that a store holds: its records, and its frames with the index keys of their objects, by number from 1 on."""

    records: dict[bytes, bytes]
    frames: tuple[Frame, ...]

    @staticmethod
    def of(storage: MemoryStorage) -> Content:
        numbers = [number for number, _, _ in storage.scan_frames(0, 10_000)]
        assert numbers == [*range(1, len(numbers) + 1)]
        stored = storage.load(numbers)
        index = storage.scan_index(b"", 100_000)
        found: dict[int, dict[int, bytes]] = {number: {} for number in numbers}
        for key, place in index:
            found[place.frame][place.position] = key
        frames = []
        for number in numbers:
            there = found[number]
            # A position that the index does not name holds an object that was stored twice.
            keys = tuple(there.get(at, b"nothing here %d" % number) for at in range(max(there, default=-1) + 1))
            frames.append(Frame(stored[number].previous, stored[number].data, keys))
        return Content(dict(storage.scan(b"", b"\xff" * 40)), tuple(frames))

    def store(self) -> MemoryStorage:
        storage = MemoryStorage()
        storage.publish(Batch(records=self.records, frames=self.frames))
        return storage

    def without(self, key: bytes) -> Content:
        return replace(self, records={each: value for each, value in self.records.items() if each != key})

    def with_record(self, key: bytes, value: bytes) -> Content:
        return replace(self, records={**self.records, key: value})

    def with_frame(self, at: int, **changes: object) -> Content:
        frames = list(self.frames)
        frames[at] = frames[at]._replace(**changes)
        return replace(self, frames=tuple(frames))


def fill_all(storage: MemoryStorage) -> None:
    """Make what `fill` makes, and what else there can be: pruned forks, rewinds, a second graph, memories."""
    repository = Repository(storage)
    fill(repository)
    put(repository, "fork", "c4", {"n": "put once more"}, parent="c3")
    repository.copy_thread("fork", "fork of the fork")
    repository.copy_thread("alpha", "pruned")
    repository.prune(["pruned"], keep_last=1)
    for turn in range(3):
        repository.commit("plain", {"turn": turn, "text": f"{turn} {TEXT}"})
    repository.rewind("plain")
    repository.tag("a-second-tag", "thread:plain")
    repository.expire("plain", "90d")
    other = Repository(storage, graph=GRAPH)
    put(other, "alpha", "x0", {"n": "of another graph"})
    other.tag("v1", "thread:alpha")
    memory = repository.memory("notes")
    for n in range(4):
        memory.put(ANA, f"key {n}", {"n": n, "text": TEXT})
    memory.put(BEN, "key 0", {"n": "ben's"})
    memory.put(ANA, "key 0", {"n": "changed"})
    memory.delete(ANA, "key 3")
    copy = memory.fork("copy")
    copy.put(ANA, "key 1", {"n": "of the copy"})
    memory.put(BEN, "key 0", {"n": "not the copy's"})


def questions(storage: MemoryStorage) -> dict[str, Ask]:
    """Return every question, by what it asks."""
    asked: dict[str, Ask] = {}
    for graph in ("", GRAPH):
        for label, ask in everything_asked(Repository(storage, graph=graph)):
            asked[f"{graph}: {label}"] = lambda store, graph=graph, ask=ask: ask(opened(store, graph))
    for name in ("alpha", "fork", "fork of the fork", "older", "pruned", "plain"):
        asked[f"log of {name}"] = lambda store, name=name: [
            (info.id, info.status, info.is_head, info.is_current, info.tags)
            for info in opened(store).thread(name).log()
        ]
    asked["the second tag"] = lambda store: opened(store).resolve("tag:a-second-tag").id
    asked["graphs"] = lambda store: [(each.name, each.threads) for each in opened(store).graphs()]
    asked["memories"] = lambda store: opened(store).memories()
    for name in ("notes", "copy"):
        for namespace in (ANA, BEN):
            for n in range(4):
                asked[f"{name} {namespace} {n}"] = lambda store, at=(name, namespace, f"key {n}"): said(store, *at)
                asked[f"past of {name} {namespace} {n}"] = lambda store, at=(name, namespace, f"key {n}"): past(
                    store, *at
                )
        asked[f"all of {name}"] = lambda store, name=name: sorted(
            (item.namespace, item.key, str(item.value)) for item in remembered(store, name).items()
        )
        asked[f"namespaces of {name}"] = lambda store, name=name: remembered(store, name).namespaces()
    return asked


_OPEN: dict[tuple[int, str], tuple[MemoryStorage, Repository]] = {}


def opened(storage: MemoryStorage, graph: str = "") -> Repository:
    """Return the repository over a store, the same one for all questions."""
    found = _OPEN.get((id(storage), graph))
    if found is None or found[0] is not storage:
        found = _OPEN[id(storage), graph] = storage, Repository(storage, graph=graph)
    return found[1]


def remembered(storage: MemoryStorage, name: str) -> Memory:
    return opened(storage).memory(name)


def said(storage: MemoryStorage, name: str, namespace: tuple[str, ...], key: str) -> object:
    item = remembered(storage, name).get(namespace, key)
    return item and (item.value, item.created, item.updated)


def past(storage: MemoryStorage, name: str, namespace: tuple[str, ...], key: str) -> object:
    return [(each.moment, each.value) for each in remembered(storage, name).history(namespace, key)]


def record_damages(content: Content) -> Iterator[tuple[str, Content]]:
    for key, value in content.records.items():
        yield f"{key.hex()} is lost", content.without(key)
        for at in range(len(value)):
            for mask in (0x01, 0xFF):
                flipped = value[:at] + bytes([value[at] ^ mask]) + value[at + 1 :]
                yield f"byte {at} of what {key.hex()} holds", content.with_record(key, flipped)


def key_damages(content: Content) -> Iterator[tuple[str, Content]]:
    order = sorted(content.records)
    for key, value in content.records.items():
        for at in range(len(key)):
            for changed in (key[at] ^ 0x01, key[at] ^ 0xFF, key[at] + 1, key[at] - 1):
                other = key[:at] + bytes([changed % 256]) + key[at + 1 :]
                if other not in content.records:
                    kept = sorted({*order, other} - {key}).index(other) == order.index(key)
                    text = f"{key.hex()} became {other.hex()}" + (" (in order)" if kept else "")
                    yield text, content.without(key).with_record(other, value)


def frame_damages(content: Content) -> Iterator[tuple[str, Content]]:
    for at, frame in enumerate(content.frames):
        for byte in range(len(frame.data)):
            flipped = frame.data[:byte] + bytes([frame.data[byte] ^ 0xFF]) + frame.data[byte + 1 :]
            yield f"byte {byte} of frame {at + 1}", content.with_frame(at, data=flipped)
        for previous in {0, at, 1} - {frame.previous, at + 1}:
            yield f"frame {at + 1} follows {previous}", content.with_frame(at, previous=previous)
        yield f"frame {at + 1} is empty", content.with_frame(at, data=b"")


def index_damages(content: Content) -> Iterator[tuple[str, Content]]:
    for at, frame in enumerate(content.frames):
        keys = frame.keys
        for n, key in enumerate(keys):
            for byte in range(len(key)):
                other = key[:byte] + bytes([key[byte] ^ 0x01]) + key[byte + 1 :]
                damaged = content.with_frame(at, keys=(*keys[:n], other, *keys[n + 1 :]))
                yield f"byte {byte} of index key {key.hex()}", damaged
            if n:
                swapped = (*keys[: n - 1], keys[n], keys[n - 1], *keys[n + 1 :])
                yield f"index key {key.hex()} has the place before", content.with_frame(at, keys=swapped)


DAMAGES = {
    "records": (record_damages, 149),
    "keys": (key_damages, 41),
    "frames": (frame_damages, 257),
    "index": (index_damages, 83),
}


@pytest.fixture(scope="module")
def sound() -> tuple[Content, dict[str, Ask], dict[str, object]]:
    storage = MemoryStorage()
    fill_all(storage)
    asked, content = questions(storage), Content.of(storage)
    copy = content.store()
    truth = {label: ask(copy) for label, ask in asked.items()}
    assert truth == {label: ask(storage) for label, ask in asked.items()}
    return content, asked, truth


def told(asked: dict[str, Ask], truth: dict[str, object], storage: MemoryStorage) -> Iterator[str]:
    """Yield the questions that are neither answered right nor with the error for damage, which `fsck` must know of."""
    noticed = ""
    for label, ask in asked.items():
        try:
            answer = ask(storage)
        except (IntegrityError, StoreError):
            noticed = label
            continue
        except Exception as error:
            answer = error
        if answer != truth[label]:
            yield f"{label}: {answer!r:.100}"
    try:
        if noticed and not opened(storage).fsck().problems:
            yield f"fsck: finds nothing, unlike {noticed}"
    except Exception as error:
        yield f"fsck: {error!r:.100}"


@pytest.mark.timeout(7200 if ALL else 300)
@pytest.mark.parametrize("what", DAMAGES)
def test_what_is_damaged_is_never_answered_wrongly(
    sound: tuple[Content, dict[str, Ask], dict[str, object]], what: str
) -> None:
    content, asked, truth = sound
    damages, stride = DAMAGES[what]
    found = []
    for number, (text, damaged) in enumerate(damages(content)):
        if number % stride and not ALL:
            continue
        lies = list(told(asked, truth, damaged.store()))
        _OPEN.clear()
        found += [f"{text}: {lies[0]} (and {len(lies) - 1} more)"] if lies else []
    assert not found, "\n".join([f"{len(found)} times", *found])


@pytest.mark.timeout(600)
def test_a_collector_takes_nothing_that_a_record_out_of_place_needs(
    sound: tuple[Content, dict[str, Ask], dict[str, object]],
) -> None:
    content, asked, truth = sound
    refused = 0
    for number, (key, value) in enumerate(content.records.items()):
        if number % 5 and not ALL:
            continue
        storage = content.without(key).store()
        try:
            Repository(storage).gc(grace=timedelta(0))
        except IntegrityError:
            refused += 1
        storage.publish(Batch(records={key: value}))
        assert {label: ask(storage) for label, ask in asked.items()} == truth, key.hex()
        _OPEN.clear()
    assert refused > number / 10


@pytest.mark.parametrize("kinds", ["n", "nd", "ndc", "ndcog"])
def test_a_collector_takes_nothing_from_threads_whose_names_are_lost(
    sound: tuple[Content, dict[str, Ask], dict[str, object]], kinds: str
) -> None:
    content, asked, truth = sound
    lost = {key: value for key, value in content.records.items() if key[:1] in kinds.encode()}
    assert len(lost) >= len(kinds)
    storage = replace(content, records={key: raw for key, raw in content.records.items() if key not in lost}).store()
    with pytest.raises(IntegrityError):
        Repository(storage).gc(grace=timedelta(0))
    storage.publish(Batch(records=lost))
    assert {label: ask(storage) for label, ask in asked.items()} == truth
    _OPEN.clear()

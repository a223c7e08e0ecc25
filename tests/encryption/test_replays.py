"""An old version of a single record put back: the question it would answer wrongly is refused, in a fresh process.

Every record that an act changed is put back alone, as whoever can write to the store could do without a key. What
only those questions find out that read the other records of its kind is listed here and in docs/encryption.md.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest

from ckpt.encryption import HEADER_KEY, encrypted
from ckpt.encryption.storage import ALL_RECORDS
from ckpt.errors import IntegrityError, NotFoundError
from ckpt.repository import Repository
from ckpt.repository.engine import StoredCheckpoint
from ckpt.repository.incoming import Channel, NewCheckpoint, Typed
from ckpt.repository.prune import keep_last
from ckpt.storage.base import Batch
from ckpt.storage.memory import MemoryStorage

KEY = bytes(range(32))
NAMES = ("ana", "bob", "old", "fork", "new")
IDS = ("c1", "c2", "c3", "c4", "d1", "s1", "s2", "z1", "n1")
ITEMS = ("a", "b", "c", "d")


class Kept(MemoryStorage):
    """A store that outlives the repositories on it."""

    def close(self) -> None:
        pass


def put(repository: Repository, thread: str, made: str, parent: str | None, value: str, namespace: str = "") -> None:
    text = Typed("text", value.encode())
    repository.put(NewCheckpoint(thread, namespace, made, parent, None, text, text, {"v": Channel(lambda: text)}))


def write(repository: Repository, thread: str, checkpoint_id: str, task: str, namespace: str = "") -> None:
    repository.put_writes(thread, namespace, checkpoint_id, task, "", [(0, "v", Typed("text", task.encode()))])


def begin(repository: Repository) -> None:
    for name in ("ana", "bob", "old"):
        for number in range(1, 4):
            put(repository, name, f"c{number}", f"c{number - 1}" if number > 1 else None, f"{name}{number}")
        write(repository, name, "c3", "first")
        put(repository, name, "s1", None, f"{name} sub", "sub")
    repository.fork("ana~1", "fork")
    repository.tag("v1", "ana")
    repository.tag("v2", "bob~1")
    for key in ITEMS[:3]:
        repository.memory().put(("n",), key, {"v": key})
    repository.memory().put(("alone",), "e", {"v": "e"})


PREPARED: Final[dict[str, Callable[[Repository], object]]] = {
    "undo": lambda r: r.delete("old"),
    "undo prune": lambda r: r.prune(["old"], keep_last=1),
    "undo rewind": lambda r: r.rewind("ana"),
    "undo tag": lambda r: r.tag("v9", "bob"),
    "write to the head of a base": lambda r: r.fork("bob", "new"),
    "forget versions": lambda r: r.memory().put(("n",), "a", {"v": "again"}),
}
"""What happens before some acts."""


ACTS: Final[dict[str, Callable[[Repository], object]]] = {
    "put": lambda r: put(r, "ana", "c4", "c3", "ana4"),
    "put below": lambda r: put(r, "ana", "s2", "s1", "sub 2", "sub"),
    "put again": lambda r: put(r, "bob", "c3", "c2", "replaced"),
    "put in a fork": lambda r: put(r, "fork", "z1", "c2", "fork 1"),
    "put in a new thread": lambda r: put(r, "new", "n1", None, "new"),
    "write": lambda r: write(r, "ana", "c3", "second"),
    "write below": lambda r: write(r, "ana", "s1", "second", "sub"),
    "write to an older one": lambda r: write(r, "ana", "c1", "late"),
    "rewind": lambda r: r.rewind("ana"),
    "prune": lambda r: r.prune(["old"], keep_last=1),
    "fork": lambda r: r.fork("bob", "new"),
    "delete": lambda r: r.delete("old"),
    "delete and begin again": lambda r: (r.delete("old"), put(r, "old", "d1", None, "again")),
    "undo": lambda r: r.undo(),
    "undo prune": lambda r: r.undo(),
    "undo rewind": lambda r: r.undo(),
    "undo tag": lambda r: r.undo(),
    "expire": lambda r: r.expire("ana", timedelta(days=1)),
    "write to a fork": lambda r: write(r, "fork", "c2", "of the fork"),
    "write to the head of a base": lambda r: write(r, "bob", "c3", "late"),
    "remove checkpoints": lambda r: r.prune_thread("bob", keep_last(1)),
    "tag": lambda r: r.tag("v9", "bob"),
    "untag": lambda r: r.untag("v2"),
    "collect": lambda r: (r.delete("old"), r.gc(grace=timedelta(0))),
    "remember": lambda r: r.memory().put(("n",), "a", {"v": "new"}),
    "remember more": lambda r: r.memory().put(("n",), "d", {"v": "d"}),
    "remember elsewhere": lambda r: r.memory().put(("m",), "d", {"v": "d"}),
    "remember alone": lambda r: r.memory().put(("alone",), "e", {"v": "new"}),
    "forget": lambda r: r.memory().delete(("n",), "b"),
    "forget versions": lambda r: r.memory().prune(timedelta(0)),
}

UNTOLD: Final = {
    ("write to an older one", "checkpoint"): {"ana//c1"},
    ("undo prune", "checkpoint"): {"old//c1", "old//c2"},
    ("prune", "checkpoint"): {"old//c1", "old//c2"},
    ("remove checkpoints", "checkpoint"): {"bob//c1"},
    ("expire", "thread"): {"threads"},
    ("remember", "item"): {"item a", "history a"},
    ("forget", "item"): {"item b", "history b"},
    ("forget versions", "item"): {"history a"},
}
"""Questions about one record that is no head: the record of a checkpoint asked for by its id, an item by its key; and
about a lifetime, which no other record tells of."""

COUNTING: Final = {
    "ana//c1": "list ana/",
    "old//c1": "list old/",
    "old//c2": "list old/",
    "bob//c1": "list bob/",
    **dict.fromkeys(("item a", "history a", "item b", "history b"), "items"),
}
"""For each of them, but the lifetime, one that finds it out."""

UNSEEN: Final = {("expire", "thread"), ("collect", "other")}
"""What `fsck` does not see: a lifetime, and the line of a thread that is gone."""


def kind_of(key: bytes) -> str:
    """Return what a record is, from its disguised key, which shows that much."""
    key = key[17:] if key[:1] == b"s" else key
    if key[:1] != b"t":
        return {b"c": "counter", b"g": "tag", b"n": "name", b"o": "operation"}.get(key[:1], "other")
    return {b"": "thread", b"c": "checkpoint", b"i": "item"}.get(key[2 + key[1] : 3 + key[1]], "other")


def told(checkpoint: StoredCheckpoint | None) -> object:
    return checkpoint and (checkpoint.checkpoint_id, checkpoint.oid, tuple(checkpoint.writes))


def state(repository: Repository, revision: str) -> object:
    try:
        return {name: str(value) for name, value in repository.state(revision).items()}
    except NotFoundError:
        return "not found"


def threads(repository: Repository) -> list[str]:
    found = repository.threads()
    if any(info.status == "damaged" for info in found):
        raise IntegrityError("a thread is listed as damaged")  # which tells it, as an error would
    return [str(info) for info in found]


def questions() -> dict[str, Callable[[Repository], object]]:
    found: dict[str, Callable[[Repository], object]] = {
        "names": lambda r: r.thread_names(),
        "threads": threads,
        "tags": lambda r: {name: info.id for name, info in r.tags().items()},
        "items": lambda r: [(item.key, item.value) for item in r.memory().items()],
        "memory namespaces": lambda r: r.memory().namespaces(),
        "graphs": lambda r: r.graphs(),
        "operations": lambda r: [(each.kind, each.text, each.undone) for each in r.operations()],
        "problems": lambda r: len(r.fsck().problems),
    }
    for name in NAMES:
        found[f"state {name}"] = lambda r, name=name: state(r, f'thread:"{name}"')
        for ns in ("", "sub"):
            found[f"head {name}/{ns}"] = lambda r, name=name, ns=ns: told(r.read(name, ns))
            found[f"list {name}/{ns}"] = lambda r, name=name, ns=ns: [*map(told, r.read_all(name, ns))]
            for made in IDS:
                found[f"{name}/{ns}/{made}"] = lambda r, name=name, ns=ns, made=made: told(r.read(name, ns, made))
    for tag in ("v1", "v2", "v9"):
        found[f"tag {tag}"] = lambda r, tag=tag: state(r, f"tag:{tag}")
    found["item e"] = lambda r: r.memory().get(("alone",), "e")
    found["history e"] = lambda r: r.memory().history(("alone",), "e")
    for key in ITEMS:
        found[f"item {key}"] = lambda r, key=key: r.memory().get(("n",), key)
        found[f"history {key}"] = lambda r, key=key: r.memory().history(("n",), key)
    return found


QUESTIONS: Final = questions()


def answer(inner: MemoryStorage, question: Callable[[Repository], object]) -> object:
    try:
        return question(Repository(encrypted(inner, KEY)))
    except IntegrityError:
        return IntegrityError


def records(inner: MemoryStorage) -> dict[bytes, bytes]:
    return {key: value for key, value in inner.scan(*ALL_RECORDS) if key != HEADER_KEY}


def replayed(prepare: Callable[[Repository], object], act: Callable[[Repository], object]) -> list[Any]:
    """Return (kind, answers) for each record that an act changes, when it is put back alone; right ones left out."""
    inner = Kept()
    repository = Repository(encrypted(inner, KEY))
    begin(repository)
    prepare(repository)
    before = records(inner)
    act(repository)
    after = records(inner)
    right = {name: answer(inner, question) for name, question in QUESTIONS.items()}
    assert IntegrityError not in right.values()
    found = []
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            inner.publish(Batch(records={key: before.get(key)}))
            given = {name: answer(inner, question) for name, question in QUESTIONS.items()}
            inner.publish(Batch(records={key: after.get(key)}))
            found.append((kind_of(key), {name: said for name, said in given.items() if said != right[name]}))
    return found


@pytest.mark.parametrize("name", ACTS)
def test_a_record_put_back_is_never_believed(name: str) -> None:
    found = replayed(PREPARED.get(name, lambda repository: None), ACTS[name])
    assert found
    for kind, answers in found:
        wrong = {question for question, given in answers.items() if given is not IntegrityError}
        assert wrong - {"problems"} <= UNTOLD.get((name, kind), set()), (name, kind, wrong)
        assert all(answers[COUNTING[question]] is IntegrityError for question in wrong & COUNTING.keys())
        assert "problems" in wrong or (name, kind) in UNSEEN, (name, kind)


def test_what_one_record_cannot_tell_is_not_listed_in_vain() -> None:
    for name, kind in UNTOLD:
        found = replayed(PREPARED.get(name, lambda repository: None), ACTS[name])
        told = {question for each, answers in found if each == kind for question in answers}
        assert UNTOLD[name, kind] <= told


def opened(inner: MemoryStorage) -> Repository:
    return Repository(encrypted(inner, KEY))


def begun() -> tuple[Kept, Repository]:
    inner = Kept()
    repository = opened(inner)
    begin(repository)
    return inner, repository


def put_back(inner: MemoryStorage, before: dict[bytes, bytes], *kinds: str) -> None:
    """Put the records of these kinds back that are not as they were."""
    after = records(inner)
    changed = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
    inner.publish(Batch(records={key: before.get(key) for key in changed if kind_of(key) in kinds}))


def test_a_name_from_between_its_deletion_and_its_next_thread_is_refused() -> None:
    inner, repository = begun()
    repository.delete("old")
    between = records(inner)
    put(repository, "old", "d1", None, "again")
    put_back(inner, between, "name")
    with pytest.raises(IntegrityError):
        opened(inner).read("old")


def test_nothing_is_written_onto_an_earlier_version_of_the_head() -> None:
    inner, repository = begun()
    before = records(inner)
    write(repository, "ana", "c3", "second")
    put_back(inner, before, "checkpoint")
    now = records(inner)
    for writer in (repository, opened(inner)):
        with pytest.raises(IntegrityError):
            write(writer, "ana", "c3", "third")
    assert records(inner) == now


def test_a_collector_leaves_all_in_place_when_a_thread_seems_deleted_again() -> None:
    inner, repository = begun()
    repository.delete("old")
    deleted = records(inner)
    repository.undo()
    now = records(inner)
    put_back(inner, deleted, "thread")
    with pytest.raises(IntegrityError):
        opened(inner).read("old")
    collector = opened(inner)
    collector.gc(grace=timedelta(0))
    collector.close()
    left = records(inner)
    assert {key for key in now if kind_of(key) == "checkpoint"} <= left.keys()


def test_many_rows_put_back_at_once_do_not_add_up() -> None:
    inner, repository = begun()
    ids = [f"m{number:03}" for number in range(150)]
    for made in ids:
        put(repository, "many", made, None, made)
    before = records(inner)
    for made in ids:
        write(repository, "many", made, "late")
    after = records(inner)
    rows = [key for key in after if before.get(key) != after[key] and kind_of(key) == "checkpoint"]
    assert len(rows) == len(ids)
    for step in (1, 2, 3, 75):
        inner.publish(Batch(records={key: before[key] for key in rows[::step]}))
        with pytest.raises(IntegrityError):
            list(opened(inner).read_all("many"))
        inner.publish(Batch(records={key: after[key] for key in rows}))
    assert len(list(opened(inner).read_all("many"))) == len(ids)

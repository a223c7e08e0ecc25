"""Records that are sealed as they should be and say what cannot be: damage, whatever reads them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import msgpack
import pytest

from ckpt.errors import CkptError, IntegrityError
from ckpt.history import keys
from ckpt.history.records import Base, Line, Reset, Tally, ThreadRecord, encode_line
from ckpt.history.seal import seal
from ckpt.repository import Repository
from ckpt.repository.scopes import MEMORY, within
from ckpt.storage.base import Batch, Storage
from ckpt.storage.memory import MemoryStorage


def thread_record(storage: Storage, number: int) -> ThreadRecord:
    raw = storage.read([keys.thread_key(number)])[0]
    assert raw is not None
    return ThreadRecord.decode(number, raw)


def put(storage: Storage, key: bytes, record: bytes) -> None:
    storage.publish(Batch({}, {key: record}))


@pytest.mark.parametrize(("number", "base"), [(1, 1), (1, 2), (2, 2), (2, 0), (2, 3)])
def test_a_base_that_is_not_older_than_its_fork_is_damage(number: int, base: int) -> None:
    storage = MemoryStorage()
    repository = Repository(storage)
    repository.thread("t").commit({"x": 1})
    repository.thread("t").fork("f").tag("v1")
    left = thread_record(storage, number)
    said = left._replace(base=Base(base, left.sequence, None, left.sequence, left.greatest), forks=1)
    put(storage, keys.thread_key(number), said.encode())
    repository = Repository(storage)
    named = f"thread number {number} is damaged"
    for read in (repository.threads, repository.gc, repository.log, repository.thread(left.name).state):
        with pytest.raises(IntegrityError, match=named):
            read()
    assert any(named in problem.message and left.name in problem.needed_by for problem in repository.fsck().problems)


@pytest.mark.parametrize("base", [1, 2])
def test_a_memory_whose_base_is_not_older_is_damage(base: int) -> None:
    storage = MemoryStorage()
    repository = Repository(storage)
    repository.memory("m").put(("a",), "k", {"x": 1})
    scope = within(storage, MEMORY, "")
    left = thread_record(scope, 1)
    put(scope, keys.thread_key(1), left._replace(base=Base(base, left.sequence, None, left.sequence, "")).encode())
    repository = Repository(storage)
    with pytest.raises(IntegrityError, match="thread number 1 is damaged"):
        repository.memory("m").get(("a",), "k")
    assert any("thread number 1 is damaged" in problem.message for problem in repository.fsck().problems)


WRONG = (None, -1, 2**62, 2**64 - 1, "x", [7])


@pytest.fixture(scope="module")
def store() -> MemoryStorage:
    """A store with a record of each kind, and with an operation of each."""
    storage = MemoryStorage()
    repository = Repository(storage)
    for n in range(4):
        repository.thread("t").commit({"x": n})
    repository.tag("v1", "t")
    repository.thread("t").fork("f")
    repository.rewind("f")
    repository.checkout("t~2")
    repository.expire("t", "30d")
    repository.untag("v1")
    repository.undo()
    repository.thread("t").fork("g")
    repository.prune(["f"], keep_last=1)
    repository.delete("g")
    for n in range(2):
        repository.memory("m").put(("a",), "k", {"x": n}, ttl=timedelta(days=n + 1))
    thread = thread_record(storage, 2)
    line = Line("sub")
    key, record = keys.line_key(2, "sub"), encode_line(2, line)
    put(storage, key, record)
    put(storage, keys.thread_key(2), thread.recounted(key, None, record).encode())
    return storage


MEMORY_PREFIX = keys.scope_prefix(MEMORY, "")
PATH = keys.namespace_path(["a"])
KINDS = {
    "counter": keys.COUNTERS,
    "directory": keys.directory_key(keys.name_bucket("t")),
    "name": keys.name_key("t"),
    "thread": keys.thread_key(2),
    "line": keys.line_key(2, "sub"),
    "tag": keys.tag_key("v1"),
    "tags": keys.TAGS,
    "operations": keys.OPERATIONS,
    **{f"operation {number:03x}": keys.operation_key(number) for number in range(1, 11)},
    "registry": keys.registration_key(MEMORY_PREFIX),
    "memory": MEMORY_PREFIX + keys.thread_key(1),
    "namespace of a memory": MEMORY_PREFIX + keys.namespace_key(1, PATH),
    "item": MEMORY_PREFIX + keys.item_key(1, PATH, "k"),
}


def sealed(storage: Storage, key: bytes, fields: object) -> dict[bytes, bytes]:
    """Return a record that says these fields, and with it the tally that counts it."""
    own = key.removeprefix(MEMORY_PREFIX)
    record = seal(own, fields)
    above = {b"o": keys.OPERATIONS, b"g": keys.TAGS, b"n": keys.directory_key(own[1]) if own[1:] else b""}
    counted = above.get(own[:1]) if own[1:] else None
    if counted is None:
        return {key: record}
    before, raw = storage.read([key, counted])
    return {key: record, counted: Tally.decode(counted, raw).replaced(own, before, record).encode(counted)}


@contextmanager
def saying(storage: Storage, key: bytes, fields: object) -> Iterator[None]:
    """Have a record say these fields for a while."""
    records = sealed(storage, key, fields)
    before = dict(zip(records, storage.read(list(records)), strict=True))
    storage.publish(Batch({}, records))
    try:
        yield
    finally:
        storage.publish(Batch({}, before))


def said(storage: Storage, key: bytes) -> Any:
    (record,) = storage.read([key])
    assert record is not None
    return msgpack.unpackb(record[:-8])


def changes(fields: object) -> Iterator[object]:
    """Yield what else a record might say, with each part of it replaced, and one more or less."""
    yield from WRONG
    if isinstance(fields, list):
        yield [*fields, 0]
        for i, each in enumerate(fields):
            yield fields[:i] + fields[i + 1 :]
            yield from ([*fields[:i], other, *fields[i + 1 :]] for other in changes(each))


def ask(storage: Storage, operation: str | None) -> None:
    """Read all that there is, and undo an operation; what cannot be read is said in our own words."""
    repository = Repository(storage)
    memory = repository.memory("m")
    for read in (
        repository.threads, repository.log, repository.tags, repository.operations, repository.stats,
        repository.memories, memory.items, memory.namespaces,
        lambda: repository.gc(dry_run=True),
        lambda: memory.history(("a",), "k"),
        lambda: repository.state("@", thread="f"),
lambda: repository.undo(operation, dry_run=True),
    ):  # fmt: skip
        with suppress(CkptError):
            read()


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_that_says_something_else_crashes_nobody(store: MemoryStorage, kind: str) -> None:
    key = KINDS[kind]
    for fields in changes(said(store, key)):
        try:
            with saying(store, key, fields):
                problems = Repository(store).fsck(read_data=False).problems
                assert problems or isinstance(fields, list if kind != "counter" else int)
                ask(store, kind.partition("operation ")[2] or None)
        except Exception as error:
            raise AssertionError(f"{fields!r}") from error


@pytest.mark.parametrize("when", [math.nan, math.inf, -1.0, 1e300, 2**64 - 1, 7, b"x", "x", None])
def test_a_time_that_is_none_is_damage(store: MemoryStorage, when: object) -> None:
    key = keys.operation_key(1)
    repository = Repository(store)
    with saying(store, key, [when, *said(store, key)[1:]]):
        with pytest.raises(IntegrityError, match="op 001"):
            repository.operations()
        assert [problem.kind for problem in repository.fsck().problems] == ["operation"]


@pytest.mark.parametrize(
    "reset",
    [Reset(5, 99), Reset(5, 5), Reset(5, -1), Reset(5, 1, 2), Reset(5, 1, 2**62), Reset(5, 1, -1), Reset(5, 99, 1)],
)
def test_a_rewind_to_what_a_thread_never_had_is_damage(store: MemoryStorage, reset: Reset) -> None:
    key = keys.thread_key(2)
    fields = said(store, key)
    fields[1], fields[9] = 9, [list(reset)]
    repository = Repository(store)
    with saying(store, key, fields):
        with pytest.raises(IntegrityError, match="the record of thread 'f' is damaged"):
            repository.log(thread="f", namespace="sub")
        assert any("thread 'f' is damaged" in problem.message for problem in repository.fsck().problems)

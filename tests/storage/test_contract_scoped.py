"""The contract of storages on one scope of a store: what is apart is apart, and what is shared is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckpt.storage.base import Batch, Frame, Place, RecordChangedError, Storage
from ckpt.storage.memory import MemoryStorage
from ckpt.storage.scoped import HEADER_KEY, ScopedStorage
from ckpt.storage.sqlite import SqliteStorage
from ckpt.testing import StorageContract

PREFIX = b"s0123456789abcdef"
REGISTRATION = (b"r0123456789abcdef", b"what it stands for")


def scope(root: Storage, prefix: bytes = PREFIX) -> ScopedStorage:
    return ScopedStorage(root, prefix, (b"r" + prefix[1:], b"what it stands for"))


class TestScopedMemory(StorageContract):
    def open_storage(self, location: Path) -> Storage:
        return scope(MemoryStorage())

    def reopen(self, storage: Storage, location: Path) -> Storage:
        return storage


class TestScopedSqlite(StorageContract):
    def open_storage(self, location: Path) -> Storage:
        return scope(SqliteStorage(location / "store.db"))


@pytest.fixture
def root() -> MemoryStorage:
    return MemoryStorage()


def test_a_scope_sees_its_own_records_only(root: MemoryStorage) -> None:
    one, two = scope(root), scope(root, b"s" + b"2" * 16)
    root.publish(Batch(records={b"a": b"root"}))
    # Neighbours on both sides of the scope, one key away.
    root.publish(Batch(records={PREFIX[:-1] + b"e\xff": b"before", PREFIX[:-1] + b"g": b"behind"}))
    one.publish(Batch({b"a": None}, {b"a": b"one", b"b": b"one"}))
    two.publish(Batch({b"a": None}, {b"a": b"two"}))
    assert [each.read([b"a", b"b"]) for each in (root, one, two)] == [
        [b"root", None],
        [b"one", b"one"],
        [b"two", None],
    ]
    assert two.scan(b"", b"\xff" * 20) == [(b"a", b"two")]
    assert one.scan(b"", b"\xff" * 20, reverse=True) == [(b"b", b"one"), (b"a", b"one")]
    assert one.view([b"b"], [(b"", b"b"), (b"b", b"c")]) == ([b"one"], [[(b"a", b"one")], [(b"b", b"one")]])


def test_a_scope_registers_itself_with_its_first_record(root: MemoryStorage) -> None:
    one = scope(root)
    one.publish(Batch(frames=[Frame(0, b"f", (b"k" * 16,))]))
    assert root.read([REGISTRATION[0]]) == [None]
    with pytest.raises(RecordChangedError):
        one.publish(Batch({b"a": b"not there"}, {b"a": b"1"}))
    assert root.read([REGISTRATION[0]]) == [None]
    one.publish(Batch(records={b"a": b"1"}))
    assert root.read([REGISTRATION[0], PREFIX + b"a"]) == [REGISTRATION[1], b"1"]
    scope(root).publish(Batch(records={b"a": b"2"}))
    assert root.scan(b"", b"\xff" * 20) == [REGISTRATION, (PREFIX + b"a", b"2")]


def test_two_threads_may_be_the_first_at_once(root: MemoryStorage) -> None:
    class Overtaken(tuple[bytes, bytes]):
        """A registration that another thread writes while this one looks at it."""

        def __getitem__(self, position: object) -> bytes:  # type: ignore[override]
            if not root.read([REGISTRATION[0]])[0]:
                root.publish(Batch(records={REGISTRATION[0]: REGISTRATION[1]}))
                one.publish(Batch(records={b"b": b"2"}))
            return super().__getitem__(position)  # type: ignore[call-overload, no-any-return]

    one = ScopedStorage(root, PREFIX, Overtaken(REGISTRATION))
    one.publish(Batch(records={b"a": b"1"}))
    assert root.scan(b"", b"\xff" * 20) == [REGISTRATION, (PREFIX + b"a", b"1"), (PREFIX + b"b", b"2")]


def test_an_exclusive_session_registers_too(root: MemoryStorage) -> None:
    with scope(root).exclusive() as session:
        session.write(Batch(records={b"a": b"1"}))
        assert session.read([b"a"]) == [b"1"]
    assert root.scan(b"", b"\xff" * 20) == [REGISTRATION, (PREFIX + b"a", b"1")]


def test_objects_and_the_epoch_are_shared(root: MemoryStorage) -> None:
    one, two = scope(root), scope(root, b"s" + b"2" * 16)
    (number,) = one.publish(Batch(records={b"a": b"1"}, frames=[Frame(0, b"data", (b"k" * 16,))]))
    assert two.locate([b"k" * 16]) == {b"k" * 16: Place(number, 0)} == root.locate([b"k" * 16])
    before = two.epoch()
    one.publish(Batch(records={b"a": None}))
    assert two.epoch() == root.epoch() > before


def test_the_header_of_the_store_is_seen_from_every_scope(root: MemoryStorage) -> None:
    one = scope(root)
    one.publish(Batch({HEADER_KEY: None}, {b"a": b"1"}))
    root.publish(Batch(records={HEADER_KEY: b"header"}))
    assert one.read([b"a", HEADER_KEY]) == [b"1", b"header"]
    assert one.view([HEADER_KEY, b"a"], [(b"", b"\xff")]) == ([b"header", b"1"], [[(b"a", b"1")]])
    with pytest.raises(RecordChangedError) as caught:
        one.publish(Batch({b"a": b"1", HEADER_KEY: None}, {b"a": b"2"}))
    assert caught.value.current == {b"a": b"1", HEADER_KEY: b"header"}


def test_a_lost_race_is_told_in_the_keys_of_the_scope(root: MemoryStorage) -> None:
    one = scope(root)
    one.publish(Batch(records={b"a": b"1"}))
    with pytest.raises(RecordChangedError) as caught:
        one.publish(Batch({b"a": b"0", b"b": None}, {b"a": b"2"}))
    assert caught.value.current == {b"a": b"1", b"b": None}
    with one.exclusive() as session, pytest.raises(RecordChangedError) as caught:
        session.write(Batch({b"a": b"0", b"b": None}, {b"a": b"2"}))
    assert caught.value.current == {b"a": b"1", b"b": None}

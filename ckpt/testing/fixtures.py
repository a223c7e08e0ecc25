"""What the tests of the contract share: hostile bytes, threads that start together, and the fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from threading import Barrier, Thread
from typing import TypeVar

import pytest

from ckpt.storage.base import RECORD_KEY_MAX, Batch, RecordChangedError, Storage

HOSTILE_KEYS = (
    b"", b"\x00", b"\x00\x00", b"\x00\xff", b"'; DROP TABLE record; --", b"a", b"a\x00", b"a\x00b", b"a%", b"a*",
    b"a_", b"aa", b"\xc3\xa9", b"\xed\xa0\x80", b"\xfe", b"\xff", b"\xff\x00", b"\xff\xff",
    b"k" * RECORD_KEY_MAX, b"\x00" * RECORD_KEY_MAX, b"\xff" * RECORD_KEY_MAX,
)  # fmt: skip
"""Keys that sort, escape or compare differently where bytes are taken for text. All are in use at once."""

HOSTILE_VALUES = (
    b"",
    b"\x00",
    b"\xff",
    b"\x00\xff\x00",
    b"NULL",
    b"\xed\xa0\x80",
    bytes(1 << 20),
    b"\xff" * 1_048_577,
)

LAST = b"\xff" * (RECORD_KEY_MAX + 1)
WAIT_SECONDS = 20.0

_T = TypeVar("_T")


def object_key(number: int) -> bytes:
    """Return an index key of the usual length; they sort as their numbers do."""
    return number.to_bytes(16, "big")


def at_once(count: int, act: Callable[[int], _T]) -> list[_T]:
    """Return what `act` returns in each of `count` threads that start together, or raise what one of them raised."""
    barrier = Barrier(count)
    done: dict[int, Future[_T]] = {number: Future() for number in range(count)}

    def run(number: int) -> None:
        try:
            barrier.wait(WAIT_SECONDS)
            done[number].set_result(act(number))
        except BaseException as error:
            done[number].set_exception(error)

    for number in range(count):
        # Daemons, so that a backend that blocks fails its test instead of hanging the whole run.
        Thread(target=run, args=(number,), daemon=True).start()
    return [done[number].result(WAIT_SECONDS) for number in range(count)]


def add(storage: Storage, key: bytes, amount: int) -> int:
    """Add to a number kept in a record, as every writer does it: read, compare, write; return the tries it took."""
    for tries in range(1, 10_000):
        old = storage.read([key])[0]
        new = b"%d" % (int(old or b"0") + amount)
        try:
            storage.publish(Batch({key: old}, {key: new}))
        except RecordChangedError as lost:
            assert lost.current[key] != old
        else:
            return tries
    raise AssertionError("the same writer loses every race")


class StorageFixtures:
    """Opens the store under test; each test has one of its own."""

    def open_storage(self, location: Path) -> Storage:
        """Open the store in this directory, creating it when it is not there yet."""
        raise NotImplementedError

    def reopen(self, storage: Storage, location: Path) -> Storage:
        """Return another handle on the same store, as another process would open it.

        A backend whose store ends with its handle returns `storage` itself.
        """
        return self.open_storage(location)

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Storage]:
        """A new store."""
        with closing(self.open_storage(tmp_path)) as storage:
            yield storage

    @pytest.fixture
    def other(self, storage: Storage, tmp_path: Path) -> Iterator[Storage]:
        """A second handle on the same store."""
        with closing(self.reopen(storage, tmp_path)) as other:
            yield other

"""Writers that wait are committed together, and yet each batch of such a group succeeds or fails on its own."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from ckpt.errors import CkptError, InvalidInputError, StoreUnavailableError
from ckpt.storage import sqlite_file
from ckpt.storage.base import CHAINED, Batch, Frame, RecordChangedError
from ckpt.storage.sqlite import SqliteStorage

LENGTH_MAX = 50_000


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteStorage]:
    """Return a store whose SQLite takes values of up to LENGTH_MAX bytes, not of a billion."""
    connect = sqlite_file.connect

    def limited(*args: object, **kwargs: object) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)  # type: ignore[arg-type]
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LENGTH_MAX)
        return connection

    monkeypatch.setattr(sqlite_file, "connect", limited)
    with closing(SqliteStorage(tmp_path / "store.db")) as storage:
        yield storage


def together(storage: SqliteStorage, batches: Sequence[Batch]) -> list[Future[list[int]]]:
    """Publish batches that all wait for the same writer, in this order; return what became of each."""
    futures = []
    with ThreadPoolExecutor(len(batches)) as pool, storage.exclusive():
        for queued, batch in enumerate(batches, start=1):
            futures.append(pool.submit(storage.publish, batch))
            while len(storage._queue) < queued:
                time.sleep(0.001)
    return futures


def good(number: int) -> Batch:
    """Return a batch with a bit of everything."""
    frame = Frame(0, b"frame %d" % number, (b"object %09d" % number,))
    return Batch({b"k%d" % number: None}, {b"k%d" % number: b"v%d" % number}, [frame])


def refused(kind: str) -> Batch:
    """Return a batch of which SQLite refuses the last part."""
    frames = [Frame(0, b"of a refused batch", (b"object of nobody",))]
    if kind == "record":
        return Batch(records={b"bad": b"first", b"worse": bytes(LENGTH_MAX + 1)}, frames=frames)
    data = bytes(LENGTH_MAX + 1) if kind == "frame" else b"x"
    frames.append(Frame(1 << 63 if kind == "number" else CHAINED, data, ()))
    return Batch(records={b"bad": b"first"}, frames=frames)


@pytest.mark.parametrize("kind", ["record", "frame", "number"])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_batch_that_is_refused_fails_alone(storage: SqliteStorage, kind: str, place: int) -> None:
    batches = [good(number) for number in range(4)]
    batches.insert(place, refused(kind))
    futures = together(storage, batches)
    error = futures.pop(place).exception()
    assert isinstance(error, InvalidInputError)
    assert "SQLite" in str(error)
    assert error.hints
    numbers = [future.result() for future in futures]
    assert storage.scan(b"", b"\xff") == [(b"k%d" % number, b"v%d" % number) for number in range(4)]
    assert [row[0] for row in storage.scan_frames(0, 10)] == sorted(number for (number,) in numbers)
    assert {number: storage.load(each)[each[0]].data for number, each in enumerate(numbers)} == {
        number: b"frame %d" % number for number in range(4)
    }
    assert storage.locate([b"object of nobody"]) == {}
    storage.publish(good(9))


def test_of_a_group_some_lose_a_race_and_some_are_refused(storage: SqliteStorage) -> None:
    unsuitable: dict[bytes, bytes] = {b"odd": object()}  # type: ignore[dict-item]
    batches = [good(0), good(0), refused("record"), Batch(records=unsuitable), good(1), good(1)]
    outcomes = [type(future.exception()) for future in together(storage, batches)]
    assert outcomes[:3] == [type(None), RecordChangedError, InvalidInputError]
    assert issubclass(outcomes[3], CkptError)
    assert outcomes[4:] == [type(None), RecordChangedError]
    assert storage.scan(b"", b"\xff") == [(b"k0", b"v0"), (b"k1", b"v1")]


def test_a_batch_alone_is_refused_in_the_same_words(storage: SqliteStorage) -> None:
    with pytest.raises(InvalidInputError, match="more than SQLite holds"):
        storage.publish(refused("frame"))
    assert storage.scan(b"", b"\xff") == []
    assert storage.scan_frames(0, 10) == []
    storage.publish(good(0))


def test_a_full_disk_fails_the_whole_group_and_leaves_nothing_of_it(storage: SqliteStorage) -> None:
    storage.publish(good(0))
    assert storage._writer is not None
    storage._writer.execute("PRAGMA max_page_count = 30")
    large = Batch(records={b"large%d" % number: bytes(40_000) for number in range(5)})
    before = storage.scan(b"", b"\xff"), storage.scan_frames(0, 10)
    futures = together(storage, [good(1), large, good(2)])
    assert [type(future.exception()) for future in futures] == [StoreUnavailableError] * 3
    assert (storage.scan(b"", b"\xff"), storage.scan_frames(0, 10)) == before
    futures = together(storage, [good(1), good(2)])
    assert [future.exception() for future in futures] == [None, None]

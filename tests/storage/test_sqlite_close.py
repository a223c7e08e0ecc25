"""A store that is closed while others are in a call of it, and its file, which this process opens again meanwhile.

A connection that outlives `close` must be known of: a file that SQLite has open must not be opened and closed past
it (see `ckpt.storage.sqlite_fork.opening`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from script_kit import output_of, python

from ckpt.errors import StoreUnavailableError
from ckpt.storage import sqlite_file
from ckpt.storage.base import Batch
from ckpt.storage.sqlite import SqliteStorage

_LOOK = """
    import sys
    from contextlib import closing
    from pathlib import Path
    from ckpt.storage.sqlite import SqliteStorage

    with closing(SqliteStorage(Path(sys.argv[1]))) as storage:
        print(*[key.decode() for key, _ in storage.scan(b"", b"z")])
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


class _Gate:
    """Where a thread waits until it is let through."""

    def __init__(self) -> None:
        self._reached, self._open = threading.Event(), threading.Event()

    def wait(self) -> None:
        self._reached.set()
        assert self._open.wait(20)

    @contextmanager
    def held(self) -> Iterator[None]:
        assert self._reached.wait(20)
        try:
            yield
        finally:
            self._open.set()


def _paused(gate: _Gate, plain: Callable[..., Any]) -> Callable[..., Any]:
    def pause(*given: Any, **named: Any) -> Any:
        found = plain(*given, **named)
        if threading.current_thread() is not threading.main_thread():
            gate.wait()
        return found

    return pause


def _keeps_what_is_written(path: Path) -> None:
    """Open the file once more, have another process open and close it in between, and look for all that was written."""
    with closing(SqliteStorage(path)) as storage:
        storage.publish(Batch(records={b"one": b"1"}))
        assert output_of(python(_LOOK, path)).split() == ["before", "one"]
        storage.publish(Batch(records={b"two": b"2"}))
        assert path.with_name("store.db-wal").exists()
        assert output_of(python(_LOOK, path)).split() == ["before", "one", "two"]
    assert output_of(python(_LOOK, path)).split() == ["before", "one", "two"]


def _begun(path: Path) -> SqliteStorage:
    storage = SqliteStorage(path)
    storage.publish(Batch(records={b"before": b"0"}))
    return storage


def test_a_reader_may_take_longer_than_its_store_is_open(path: Path) -> None:
    storage, gate = _begun(path), _Gate()

    def read(session: Any) -> list[Any]:
        gate.wait()
        found: list[Any] = session.execute("SELECT key FROM record").fetchall()
        return found

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(storage._lend, read)
        with gate.held():
            storage.close()
            assert storage.file is not None
            _keeps_what_is_written(path)
        assert reading.result() == [(b"before",), (b"one",), (b"two",)]
    assert storage.file is None
    assert storage._pool == []


def test_a_connection_that_is_just_being_made_is_known_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, gate = _begun(path), _Gate()
    storage._close_pool()
    monkeypatch.setattr(sqlite_file, "connect", _paused(gate, sqlite_file.connect))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(storage.read, [b"before"])
        with gate.held():
            storage.close()
            assert storage.file is not None
            _keeps_what_is_written(path)
        assert reading.result() == [b"0"]
    assert storage.file is None
    assert storage._pool == []


def test_a_writer_that_comes_too_late_is_refused_and_leaves_no_connection(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, gate = _begun(path), _Gate()
    monkeypatch.setattr(storage, "_check_writable", _paused(gate, storage._check_writable))
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(storage.publish, Batch(records={b"late": b"1"}))
        with gate.held():
            storage.close()
        with pytest.raises(StoreUnavailableError, match="has been closed"):
            writing.result()
    assert storage._writer is None
    assert storage.file is None
    _keeps_what_is_written(path)


def test_a_reader_that_comes_too_late_is_refused_and_leaves_no_connection(path: Path) -> None:
    storage = _begun(path)
    storage.close()
    with pytest.raises(StoreUnavailableError, match="has been closed"):
        storage.read([b"before"])
    assert storage.file is None
    assert storage._reading_threads == set()


def test_handles_that_come_and_go_while_others_write_lose_nothing(path: Path) -> None:
    """Threads write through whatever handle there is, which is closed and opened again all the time."""
    handles = [_begun(path)]
    stored: list[bytes] = []
    done = threading.Event()

    def write(name: str) -> None:
        for turn in range(10_000):
            if done.is_set():
                return
            key = f"{name}{turn}".encode()
            try:
                handles[0].publish(Batch(expected={key: None}, records={key: b"1"}))
            except StoreUnavailableError as error:
                assert "has been closed" in str(error)
            else:
                stored.append(key)

    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write, name) for name in "abc"]
        for _ in range(6):
            output_of(python(_LOOK, path))
            handles[0].close()
            handles[0] = SqliteStorage(path)
        done.set()
        for writer in writers:
            writer.result()
    handles[0].close()
    assert len(stored) > 30
    assert set(output_of(python(_LOOK, path)).split()) >= {key.decode() for key in stored}
    assert [each.name for each in path.parent.iterdir()] == [path.name]

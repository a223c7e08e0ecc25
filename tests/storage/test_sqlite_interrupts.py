"""Ctrl-C, forks, and files that vanish: what was acknowledged is there, and what was not is not written later."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from interrupt_kit import interrupt_at
from script_kit import output_of, python

from ckpt.errors import StoreUnavailableError
from ckpt.storage import sqlite_fork
from ckpt.storage.base import Batch
from ckpt.storage.sqlite import SqliteStorage
from ckpt.storage.sqlite_session import Session

ALL = (b"", b"\xff")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def storage(path: Path) -> Iterator[SqliteStorage]:
    with closing(SqliteStorage(path)) as storage:
        yield storage


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Have SIGINT raise KeyboardInterrupt: a shell starts what runs in the background with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def batch(name: str) -> Batch:
    """Return a batch that can be applied only once."""
    return Batch({name.encode(): None}, {name.encode(): b"of " + name.encode()})


def others_can_write(path: Path) -> bool:
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        return True


INSIDE = ("sqlite", "contextlib")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# -- interrupts ----------------------------------------------------------------------------------------


def test_an_interrupt_anywhere_in_a_write_leaves_all_or_nothing(storage: SqliteStorage, path: Path) -> None:
    outcomes = set()
    for moment in range(1, 1000):
        name = f"k{moment:04}"
        if interrupt_at(moment, lambda name=name: storage.publish(batch(name)), INSIDE) is not None:  # type: ignore[misc]
            break
        assert others_can_write(path), moment
        written = storage.read([name.encode()]) == [f"of {name}".encode()]
        outcomes.add(written)
        storage.publish(batch(f"next {moment}"))
        assert (storage.read([name.encode()]) != [None]) is written, moment
        assert not storage._queue
    else:
        pytest.fail("it never ended")
    assert outcomes == {True, False}


class MineFirst:
    """A lock that other threads get only after the one that made this."""

    def __init__(self, lock: threading.Lock) -> None:
        self.lock = lock
        self.over = threading.Event()
        self._first = threading.get_ident()

    def __enter__(self) -> None:
        if threading.get_ident() != self._first:
            assert self.over.wait(20)
        self.lock.acquire()

    def __exit__(self, *_error: object) -> None:
        self.lock.release()


@pytest.mark.parametrize("together", [True, False])
def test_the_interrupt_of_one_loses_and_repeats_nothing_of_another(storage: SqliteStorage, together: bool) -> None:
    outcomes = set()
    lock = storage._write_lock
    for moment in range(1, 2000):
        mine, other = f"mine {moment:04}", f"other {moment:04}"
        with ThreadPoolExecutor(1) as pool:
            turns = MineFirst(lock)
            storage._write_lock = turns if together else lock  # type: ignore[assignment]
            lock.acquire()
            future = pool.submit(storage.publish, batch(other))
            wait_for(lambda: len(storage._queue) == 1)

            def publish(name: str = mine) -> None:
                lock.release()
                storage.publish(batch(name))

            ended = interrupt_at(moment, publish, INSIDE)
            turns.over.set()
            assert future.result(20) == []
        assert storage.read([other.encode()]) == [f"of {other}".encode()]
        outcomes.add(storage.read([mine.encode()]) != [None])
        if ended is not None:
            break
    else:
        pytest.fail("it never ended")
    assert outcomes == {True, False}


def test_an_interrupt_before_a_group_is_committed_leaves_the_other_batch(
    storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, fails = SqliteStorage._begin, [True]

    def interrupted(self: SqliteStorage) -> Session:
        if len(self._queue) == 2 and fails:
            fails.pop()
            raise KeyboardInterrupt
        return begin(self)

    monkeypatch.setattr(SqliteStorage, "_begin", interrupted)
    with ThreadPoolExecutor(2) as pool:
        with storage.exclusive():
            futures = [pool.submit(storage.publish, batch(name)) for name in "ab"]
            wait_for(lambda: len(storage._queue) == 2)
        errors = [future.exception() for future in futures]
    assert sorted(type(error).__name__ for error in errors) == ["KeyboardInterrupt", "NoneType"]
    kept = "ab"[errors.index(None)].encode()
    assert storage.scan(*ALL) == [(kept, b"of " + kept)]


@pytest.mark.usefixtures("ctrl_c")
def test_a_batch_whose_writer_was_interrupted_in_the_queue_is_never_written(storage: SqliteStorage) -> None:
    def press() -> None:
        wait_for(lambda: len(storage._queue) == 1)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    released = threading.Event()

    def hold() -> None:
        with storage.exclusive():
            released.wait(20)

    with ThreadPoolExecutor(2) as pool:
        holder = pool.submit(hold)
        wait_for(storage._write_lock.locked)
        pool.submit(press)
        with pytest.raises(KeyboardInterrupt):
            storage.publish(batch("given up"))
        released.set()
        holder.result(20)
    storage.publish(batch("next"))
    assert storage.scan(*ALL) == [(b"next", b"of next")]


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_while_another_process_holds_the_lock_wedges_nothing(storage: SqliteStorage, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")

        def press() -> None:
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGINT)
            other.execute("COMMIT")

        with ThreadPoolExecutor(1) as pool:
            pool.submit(press)
            with pytest.raises(KeyboardInterrupt):
                storage.publish(batch("given up"))
    assert others_can_write(path)
    storage.publish(batch("next"))
    assert storage.scan(*ALL) == [(b"next", b"of next")]


def test_an_interrupt_anywhere_in_a_read_leaves_no_old_moment(storage: SqliteStorage) -> None:
    for moment in range(1, 1000):
        if interrupt_at(moment, lambda: storage.view([b"k"], [ALL]), INSIDE) is not None:
            return
        value = b"%d" % moment
        storage.publish(Batch(records={b"k": value}))
        assert storage.read([b"k"]) == [value], moment
        assert storage.view([b"k"], [ALL]).values == [value], moment
    pytest.fail("it never ended")


# -- forks ---------------------------------------------------------------------------------------------


def run(script: str, path: Path) -> str:
    return output_of(python(script, path))


@pytest.mark.parametrize("fresh", [False, True])
def test_what_a_forked_process_wrote_outlives_its_parent_and_its_own_death(path: Path, fresh: bool) -> None:
    script = f"""
        import os, sys
        from pathlib import Path
        from ckpt.storage.base import Batch
        from ckpt.storage.sqlite import SqliteStorage

        path = Path(sys.argv[1])
        storage = SqliteStorage(path)
        storage.publish(Batch(records={{b"parent": b"1"}}))
        assert storage.read([b"parent"]) == [b"1"]
        wrote, closed = os.pipe(), os.pipe()
        child = os.fork()
        if not child:
            if {fresh}:
                storage = SqliteStorage(path)
            storage.publish(Batch(records={{b"first": b"1"}}))
            os.write(wrote[1], b"x")
            os.read(closed[0], 1)
            storage.publish(Batch(records={{b"second": b"2"}}))
            os.kill(os.getpid(), 9)
        os.read(wrote[0], 1)
        storage.close()
        os.write(closed[1], b"x")
        os.waitpid(child, 0)
    """
    run(script, path)
    with closing(SqliteStorage(path)) as storage:
        assert dict(storage.scan(*ALL)) == {b"parent": b"1", b"first": b"1", b"second": b"2"}


def test_a_fork_waits_for_the_threads_that_use_the_store(path: Path) -> None:
    script = """
        import os, sys, threading
        from pathlib import Path
        from ckpt.storage.base import Batch
        from ckpt.storage.sqlite import SqliteStorage

        storage = SqliteStorage(Path(sys.argv[1]))
        ended = threading.Event()

        def work(name):
            turn = 0
            while not ended.is_set():
                turn += 1
                value = b"%d" % turn
                storage.publish(Batch(records={name: value}))
                assert storage.read([name, b"none"]) == [value, None]

        threads = [threading.Thread(target=work, args=(b"thread %d" % number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for number in range(10):
            child = os.fork()
            if not child:
                storage.publish(Batch(records={b"child %d" % number: b"done"}))
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        ended.set()
        for thread in threads:
            thread.join()
        storage.close()
    """
    run(script, path)
    with closing(SqliteStorage(path)) as storage:
        assert storage.scan(b"child", b"child~") == [(b"child %d" % number, b"done") for number in range(10)]


def test_a_child_forked_in_the_middle_of_a_write_refuses_the_file(path: Path) -> None:
    script = """
        import os, sys, threading
        from pathlib import Path
        from ckpt.errors import StoreUnavailableError
        from ckpt.storage import sqlite_fork
        from ckpt.storage.base import Batch
        from ckpt.storage.sqlite import SqliteStorage

        sqlite_fork.FORK_SECONDS = 0.1
        path = Path(sys.argv[1])
        storage = SqliteStorage(path)
        holds, forked = threading.Event(), threading.Event()

        def hold():
            with storage.exclusive() as session:
                session.write(Batch(records={b"held": b"1"}))
                holds.set()
                forked.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        holds.wait()
        child = os.fork()
        if not child:
            for open_storage in (lambda: storage, lambda: SqliteStorage(path)):
                for use in (lambda each: each.read([b"a"]), lambda each: each.publish(Batch(records={b"a": b"1"}))):
                    try:
                        use(open_storage())
                    except StoreUnavailableError as error:
                        assert "forked" in str(error) and error.hints
                    else:
                        os._exit(1)
            SqliteStorage(path.with_name("another.db")).publish(Batch(records={b"a": b"1"}))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        forked.set()
        thread.join()
        storage.publish(Batch(records={b"after": b"1"}))
        storage.close()
    """
    run(script, path)
    with closing(SqliteStorage(path)) as storage:
        assert storage.scan(*ALL) == [(b"after", b"1"), (b"held", b"1")]


def test_a_store_that_nobody_refers_to_is_not_kept_for_forks(path: Path) -> None:
    storage = SqliteStorage(path)
    assert storage in sqlite_fork._forks._stores
    storage.close()
    count = len(sqlite_fork._forks._stores)
    del storage
    assert len(sqlite_fork._forks._stores) == count - 1


# -- files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("logs", [False, True])
@pytest.mark.parametrize("written", [False, True])
def test_a_file_deleted_underneath_is_not_written_to(
    storage: SqliteStorage, path: Path, logs: bool, written: bool
) -> None:
    if written:
        storage.publish(batch("before"))
    for name in (path.name, *([f"{path.name}-wal", f"{path.name}-shm"] if logs else [])):
        path.with_name(name).unlink(missing_ok=True)
    with pytest.raises(StoreUnavailableError):
        storage.publish(batch("after"))
    with pytest.raises(StoreUnavailableError), storage.exclusive() as session:
        session.write(batch("after"))
    assert not path.exists()


def test_a_file_replaced_underneath_is_not_written_to(storage: SqliteStorage, path: Path, tmp_path: Path) -> None:
    storage.publish(batch("before"))
    with closing(SqliteStorage(tmp_path / "other.db")) as other:
        other.publish(batch("of the other"))
    for suffix in ("", "-wal", "-shm"):
        path.with_name(f"store.db{suffix}").rename(tmp_path / f"kept.db{suffix}")
    (tmp_path / "other.db").rename(path)
    with pytest.raises(StoreUnavailableError, match="replaced"):
        storage.publish(batch("after"))
    with closing(sqlite3.connect(path)) as plain:
        assert plain.execute("SELECT key FROM record").fetchall() == [(b"of the other",)]
    path.unlink()
    for suffix in ("", "-wal", "-shm"):
        path.with_name(f"kept.db{suffix}").rename(tmp_path / f"store.db{suffix}")
    storage.publish(batch("put back"))
    assert [key for key, _ in storage.scan(*ALL)] == [b"before", b"put back"]

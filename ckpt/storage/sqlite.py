"""A store in one SQLite file, shared by any number of threads and processes.

WAL mode, `BEGIN IMMEDIATE` for every write, `synchronous=FULL` unless the URL says otherwise. Writers of one
process that arrive while another commits are committed together by whichever of them gets the lock next, so
that waiting costs one fsync for all and an uncontended write costs no handover.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from ckpt.errors import CkptError, InvalidInputError, StoreUnavailableError
from ckpt.storage import sqlite_file
from ckpt.storage.base import (
    CHAINED,
    Batch,
    EpochChangedError,
    Exclusive,
    Place,
    Range,
    RecordChangedError,
    StoredFrame,
    Usage,
    View,
)

_T = TypeVar("_T")


class _Waiter:
    """A batch in the queue of one process, and what became of it."""

    __slots__ = ("batch", "done", "error", "numbers")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.done = False
        self.numbers: list[int] = []
        self.error: BaseException | None = None


class SqliteStorage:
    """A store in the SQLite file at `path`; see `ckpt.storage.sqlite_file` for what `options` may say."""

    def __init__(
        self,
        path: Path,
        *,
        create: bool = True,
        readonly: bool = False,
        options: sqlite_file.Options | None = None,
    ) -> None:
        self._path = path
        self._readonly = readonly
        self._options = options or sqlite_file.Options()
        self._write_lock = threading.Lock()
        self._queue: deque[_Waiter] = deque()
        self._pool: list[_Session] = []
        self._writer: _Session | None = None
        self._process = os.getpid()
        self._closed = False
        self._checked = False
        first = sqlite_file.prepare(path, create=create and not readonly, readonly=readonly, options=self._options)
        self._pool.append(_Session(first))

    @property
    def url(self) -> str:
        return f"sqlite:///{quote(str(self._path))}"

    @property
    def remote(self) -> bool:
        return False

    # -- connections --------------------------------------------------------------------------------

    def _connect(self) -> _Session:
        return _Session(sqlite_file.connect(self._path, readonly=self._readonly, options=self._options))

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreUnavailableError(f"the store {self._path} has been closed", hints=["open it again"])
        if self._process != os.getpid():
            # SQLite connections must not be carried into a forked process, not even to be closed there.
            self._pool, self._writer = [], None
            self._write_lock, self._queue = threading.Lock(), deque()
            self._process = os.getpid()

    def _check_writable(self) -> None:
        self._check_usable()
        if self._readonly:
            raise StoreUnavailableError(
                f"the store {self._path} was opened read-only", hints=["open it without readonly=True to change it"]
            )

    def _reading(self, call: Callable[[_Session], _T]) -> _T:
        """Run a read on a connection of its own."""
        self._check_usable()
        try:
            session = self._pool.pop()
        except IndexError:
            with sqlite_file.translated(self._path):
                session = self._connect()
        try:
            return call(session)
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
            raise sqlite_file.translate(self._path, error) from error
        finally:
            if self._closed:
                session.connection.close()
            else:
                self._pool.append(session)

    def epoch(self) -> int:
        return self._reading(lambda session: session.epoch())

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._reading(lambda session: session.read(keys))

    def scan(
        self, start: bytes, end: bytes, *, limit: int | None = None, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        return self._reading(lambda session: session.scan(start, end, limit=limit, reverse=reverse))

    def view(self, keys: Sequence[bytes], ranges: Sequence[Range]) -> View:
        return self._reading(lambda session: session.view(keys, ranges))

    def locate(self, keys: Collection[bytes]) -> dict[bytes, Place]:
        return self._reading(lambda session: session.locate(keys))

    def load(self, frames: Collection[int], known: Collection[int] = ()) -> dict[int, StoredFrame]:
        return self._reading(lambda session: session.load(frames, known))

    def scan_index(self, after: bytes, limit: int) -> list[tuple[bytes, Place]]:
        return self._reading(lambda session: session.scan_index(after, limit))

    def scan_frames(self, after: int, limit: int) -> list[tuple[int, int, int]]:
        return self._reading(lambda session: session.scan_frames(after, limit))

    def usage(self) -> Usage:
        return self._reading(lambda session: session.usage())

    # -- writing ------------------------------------------------------------------------------------

    def publish(self, batch: Batch) -> list[int]:
        self._check_writable()
        waiter = _Waiter(batch)
        self._queue.append(waiter)
        with self._write_lock:
            # Whoever holds the lock commits all that queued up while the holder before it did.
            if not waiter.done:
                # Taken one by one: whoever queues up meanwhile is either in this group or still in the queue.
                self._commit([self._queue.popleft() for _ in range(len(self._queue))])
        if waiter.error is not None:
            raise waiter.error
        return waiter.numbers

    def _commit(self, group: list[_Waiter]) -> None:
        try:
            with self._transaction() as session:
                if len(group) == 1:
                    group[0].numbers = session.write(group[0].batch, replace=False)
                else:
                    for waiter in group:
                        self._write_apart(session, waiter)
        except BaseException as error:
            for waiter in group:
                waiter.error = waiter.error or error
            if not isinstance(error, CkptError):
                raise
        finally:
            for waiter in group:
                waiter.done = True

    def _write_apart(self, session: _Session, waiter: _Waiter) -> None:
        """Write one batch of several: when it is refused, the others are as if it had not been there."""
        session.execute("SAVEPOINT batch")
        try:
            waiter.numbers = session.write(waiter.batch, replace=False)
        except Exception as error:
            # A disk that is full or fails is no fault of this batch, and may have ended the transaction for all.
            if isinstance(error, sqlite3.OperationalError) or not session.connection.in_transaction:
                raise
            session.execute("ROLLBACK TO batch")
            known = isinstance(error, sqlite3.Error | UnicodeDecodeError)
            waiter.error = sqlite_file.translate(self._path, error) if known else error
        session.execute("RELEASE batch")

    @contextmanager
    def _transaction(self) -> Iterator[_Session]:
        with sqlite_file.translated(self._path):
            if self._writer is None:
                self._writer = self._connect()
            session = self._writer
            session.execute("BEGIN IMMEDIATE")
            try:
                yield session
                session.execute("COMMIT")
            except BaseException:
                if session.connection.in_transaction:
                    session.execute("ROLLBACK")
                raise

    @contextmanager
    def exclusive(self) -> Iterator[Exclusive]:
        self._check_writable()
        with self._write_lock, self._transaction() as session:
            before = session.connection.total_changes
            yield session
            if session.connection.total_changes != before:
                session.raise_epoch()

    def check(self) -> None:
        if self._checked:
            return
        found = self._reading(lambda session: sqlite_file.check(session.connection))
        if found:
            raise sqlite_file.damaged(self._path, found[0])
        self._checked = True

    def verify(self) -> list[str]:
        return self._reading(lambda session: sqlite_file.verify(session.connection))

    def compact(self) -> None:
        self._check_writable()
        with self._write_lock, sqlite_file.translated(self._path):
            if self._writer is None:
                self._writer = self._connect()
            sqlite_file.compact(self._writer.connection)

    def close(self) -> None:
        self._closed = True
        if self._process != os.getpid():
            return
        with self._write_lock:
            if self._writer is not None:
                self._writer.connection.close()
                self._writer = None
        while self._pool:
            self._pool.pop().connection.close()

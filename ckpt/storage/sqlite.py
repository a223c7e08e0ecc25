"""A store in one SQLite file, shared by any number of threads and processes.

WAL mode, `BEGIN IMMEDIATE` for every write, `synchronous=FULL` unless the URL says otherwise. Writers of one
process that arrive while another commits are committed together by whichever of them gets the lock next, so
that waiting costs one fsync for all and an uncontended write costs no handover.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from ckpt.errors import StoreUnavailableError
from ckpt.storage import sqlite_file, sqlite_fork
from ckpt.storage.base import Batch, Exclusive, Ranking
from ckpt.storage.lending import LendingReads
from ckpt.storage.sqlite_session import Session

_T = TypeVar("_T")


class _Waiter:
    """A batch in the queue of one process, and what became of it.

    `taken` says that somebody began to commit it, `done` that nobody will from now on.
    """

    __slots__ = ("batch", "done", "error", "numbers", "taken")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.taken = False
        self.done = False
        self.numbers: list[int] = []
        self.error: BaseException | None = None


class SqliteStorage(LendingReads):
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
        # Whatever directory the process works in later.
        self._place = path.absolute()
        self._readonly = readonly
        self._options = options or sqlite_file.Options()
        self._write_lock = threading.Lock()
        self._queue: deque[_Waiter] = deque()
        self._pool: list[Session] = []
        self._writer: Session | None = None
        self._reading_threads: set[int] = set()
        self._fork_gate = threading.Lock()
        self._write_locked_by_fork = False
        self._closed = False
        self._released = False
        """Whether it was closed and writers have no connection any more. Readers close theirs when they are done."""
        self._checked = False
        self._file: sqlite_fork.Identity | None = None
        sqlite_fork.watch(self)
        create = create and not readonly
        with sqlite_fork.opening(path) as in_use, self._no_fork():
            first = sqlite_file.prepare(path, create=create, readonly=readonly, options=self._options, in_use=in_use)
            self._file = sqlite_fork.identity(path)
            self._pool.append(Session(first))

    @property
    def url(self) -> str:
        return f"sqlite:///{quote(os.fsencode(self._path))}"

    @property
    def file(self) -> sqlite_fork.Identity | None:
        """The file that this store has, or may have, connections to; None once it is closed and all calls ended."""
        gone = self._released and not self._pool and not self._reading_threads
        return None if gone else self._file

    @property
    def remote(self) -> bool:
        return False

    @property
    def ranking(self) -> Ranking | None:
        return None

    # -- connections --------------------------------------------------------------------------------

    def _connect(self) -> Session:
        return Session(sqlite_file.connect(self._place, readonly=self._readonly, options=self._options))

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreUnavailableError(f"the store {self._path} has been closed", hints=["open it again"])

    def _check_writable(self) -> None:
        self._check_usable()
        if self._readonly:
            raise StoreUnavailableError(
                f"the store {self._path} was opened read-only", hints=["open it without readonly=True to change it"]
            )

    @contextmanager
    def _no_fork(self) -> Iterator[None]:
        """Have a fork wait for what is done here, and wait for a fork that is under way."""
        thread = threading.get_ident()
        try:
            self._reading_threads.add(thread)
            # Announced first, then looked: either the fork sees this thread or this thread sees the fork.
            while self._fork_gate.locked():
                self._reading_threads.discard(thread)
                with self._fork_gate:
                    self._reading_threads.add(thread)
            yield
        finally:
            self._reading_threads.discard(thread)

    def _lend(self, call: Callable[[Session], _T]) -> _T:
        """Run a read on a connection of its own."""
        with self._no_fork():
            # Not before: until it is announced, whoever closes the store does not know of this reader.
            self._check_usable()
            try:
                session = self._pool.pop()
            except IndexError:
                with sqlite_file.translated(self._path):
                    session = self._connect()
            try:
                found = call(session)
            except BaseException as error:
                # What a read that was broken off has left open would show an old moment to the next one.
                session.connection.close()
                if isinstance(error, sqlite3.Error | OverflowError | UnicodeDecodeError):
                    raise sqlite_file.translate(self._path, error) from error
                raise
            self._pool.append(session)
            if self._closed:
                self._close_pool()
        return found

    # -- writing ------------------------------------------------------------------------------------

    def publish(self, batch: Batch) -> list[int]:
        """Apply a batch as the seam says.

        An interrupt (KeyboardInterrupt) is raised when it is settled what became of the batch: either nothing of it
        was written and nobody will write it later, or all of it was. Other batches of the group are not touched by it.
        A second interrupt does not wait for that.
        """
        self._check_writable()
        waiter = _Waiter(batch)
        try:
            self._queue.append(waiter)
            while not waiter.done:
                with self._write_lock:
                    # Whoever holds the lock commits all that queued up while the holder before it did.
                    if not waiter.done:
                        self._commit()
        except BaseException:
            waiter.done = True
            if waiter.taken:
                with self._write_lock:
                    self._forget_done()
            raise
        if waiter.error is not None:
            raise waiter.error
        return waiter.numbers

    def _commit(self) -> None:
        """Commit all that is in the queue, and say of each batch what became of it.

        After an interrupt the batches are still in the queue, unless they had been committed by then.
        """
        group: list[_Waiter] = []
        ending = False
        try:
            # By position, as others may append meanwhile; only the holder of the lock takes something out.
            for position in range(len(self._queue)):
                waiter = self._queue[position]
                # The other way round in `publish`: either it is left out here or its owner waits for this group.
                waiter.taken = True
                if not waiter.done:
                    waiter.error = None
                    group.append(waiter)
            session = self._begin()
            if len(group) == 1:
                group[0].numbers = session.write(group[0].batch, replace=False)
            else:
                for waiter in group:
                    self._write_apart(session, waiter)
            ending = True
            session.execute("COMMIT")
            # Here and not after the block: an interrupt on the way must not leave what was committed in the queue.
            self._settle(group)
        except Exception as error:
            for waiter in group:
                waiter.error = waiter.error or self._translated(error)
            with sqlite_file.translated(self._path):
                self._roll_back()
            self._settle(group)
        except BaseException:
            if ending and not session.connection.in_transaction:
                self._settle(group)
            self._roll_back()
            raise

    def _settle(self, group: list[_Waiter]) -> None:
        for waiter in group:
            waiter.done = True
        self._forget_done()

    def _forget_done(self) -> None:
        while self._queue and self._queue[0].done:
            self._queue.popleft()

    def _translated(self, error: Exception) -> Exception:
        if not isinstance(error, sqlite3.Error | OverflowError | UnicodeDecodeError):
            return error
        translated = sqlite_file.translate(self._path, error)
        translated.__cause__ = error
        return translated

    def _write_apart(self, session: Session, waiter: _Waiter) -> None:
        """Write one batch of several: when it is refused, the others are as if it had not been there."""
        session.execute("SAVEPOINT batch")
        try:
            waiter.numbers = session.write(waiter.batch, replace=False)
        except Exception as error:
            # A disk that is full or fails is no fault of this batch, and may have ended the transaction for all.
            if isinstance(error, sqlite3.OperationalError) or not session.connection.in_transaction:
                raise
            session.execute("ROLLBACK TO batch")
            waiter.error = self._translated(error)
        session.execute("RELEASE batch")

    def _begin(self) -> Session:
        """Begin a transaction that writes. Whoever calls this rolls back when it raises."""
        session = self._writing()
        session.execute("BEGIN IMMEDIATE")
        if self._file is None or sqlite_fork.identity(self._place) != self._file:
            raise StoreUnavailableError(
                f"the file {self._path} was deleted or replaced while it was open; nothing was written",
                hints=["put it back, or open the store again"],
            )
        return session

    def _writing(self) -> Session:
        """Return the connection of writers, in no transaction. Only under the lock of writers."""
        # Who waited for the lock may get it after the store was closed, and nobody would close a new connection.
        self._check_usable()
        if self._writer is None:
            self._writer = self._connect()
        # Whoever used it last may have been interrupted before this was done.
        self._roll_back()
        return self._writer

    def _roll_back(self) -> None:
        if self._writer is not None and self._writer.connection.in_transaction:
            self._writer.execute("ROLLBACK")

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with sqlite_file.translated(self._path):
            try:
                session = self._begin()
                yield session
                session.execute("COMMIT")
            except BaseException:
                self._roll_back()
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
        found = self._lend(lambda session: sqlite_file.check(session.connection))
        if found:
            raise sqlite_file.damaged(self._path, found[0])
        self._checked = True

    def verify(self) -> list[str]:
        return self._lend(lambda session: sqlite_file.verify(session.connection))

    def compact(self) -> None:
        self._check_writable()
        with self._write_lock, sqlite_file.translated(self._path):
            sqlite_file.compact(self._writing().connection)

    def close(self) -> None:
        self._closed = True
        with self._write_lock:
            self._close_writer()
            self._released = True
        self._close_pool()

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.connection.close()
            self._writer = None

    def _close_pool(self) -> None:
        with suppress(IndexError):
            while True:
                self._pool.pop().connection.close()

    # -- forks; see `ckpt.storage.sqlite_fork` ------------------------------------------------------

    def before_fork(self, deadline: float) -> None:
        # Readers are kept out last: a writer that is waited for may be reading too.
        self._write_locked_by_fork = self._write_lock.acquire(timeout=max(0.0, deadline - time.monotonic()))
        self._fork_gate.acquire()
        if self._write_locked_by_fork:
            self._close_writer()
        while self._reading_threads and time.monotonic() < deadline:
            time.sleep(0.0005)
        self._close_pool()

    def after_fork_in_parent(self) -> None:
        if self._write_locked_by_fork:
            self._write_locked_by_fork = False
            self._write_lock.release()
        if self._fork_gate.locked():
            self._fork_gate.release()

    def after_fork_in_child(self) -> None:
        left = [session for session in (self._writer, *self._pool) if session is not None]
        if (left or self._reading_threads) and self._file is not None:
            sqlite_fork.refuse(self._file, [*left])
        self._pool, self._writer = [], None
        # The batches that wait are the parent's.
        self._queue, self._write_lock = deque(), threading.Lock()
        self._reading_threads, self._fork_gate = set(), threading.Lock()
        self._write_locked_by_fork = False

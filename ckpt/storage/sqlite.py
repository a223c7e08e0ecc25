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

_PLACE_BITS = 16
_T = TypeVar("_T")
_VARIABLES = 500
_CHAIN = """
    WITH RECURSIVE chain(number) AS (
        SELECT number FROM frame WHERE number IN ({})
        UNION SELECT frame.previous FROM frame JOIN chain ON frame.number = chain.number
        WHERE frame.previous NOT IN (0{})
    )
    SELECT frame.number, frame.previous, frame.data FROM frame JOIN chain ON frame.number = chain.number
"""
_INSERT_FRAME = "INSERT INTO frame (number, previous, data) VALUES (?, ?, ?)"
_KEEP_LAST = """
    INSERT INTO counter (name, value) SELECT 'frame', coalesce(max(number), 0) FROM frame WHERE true
    ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)
"""
_PUT_RECORD = "INSERT INTO record (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_INDEX_KEEP = "INSERT INTO object (key, place) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"
_INDEX_REPLACE = "INSERT INTO object (key, place) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET place = excluded.place"


def _chunks(keys: Sequence[object]) -> Iterator[Sequence[object]]:
    for start in range(0, len(keys), _VARIABLES):
        yield keys[start : start + _VARIABLES]


def _marks(count: int) -> str:
    return ",".join("?" * count)


class _Session:
    """One connection, and the statements of the seam on it. Not for two threads at once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.execute = connection.execute

    def epoch(self) -> int:
        row = self.execute("SELECT value FROM counter WHERE name = 'epoch'").fetchone()
        if row is None or type(row[0]) is not int:
            raise sqlite3.DatabaseError("the epoch is missing")
        return row[0]

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if len(keys) == 1:
            row = self.execute("SELECT value FROM record WHERE key = ?", keys).fetchone()
            return [_bytes(row[0]) if row is not None else None]
        if len(keys) <= _VARIABLES:
            found = self._found(keys)
        else:
            with self._one_moment():
                found = {key: value for part in _chunks(keys) for key, value in self._found(part).items()}
        return [found.get(key) for key in keys]

    def _found(self, keys: Sequence[object]) -> dict[bytes, bytes]:
        rows = self.execute(f"SELECT key, value FROM record WHERE key IN ({_marks(len(keys))})", keys)
        return {key: _bytes(value) for key, value in rows}

    def view(self, keys: Sequence[bytes], ranges: Sequence[Range]) -> View:
        with self._one_moment():
            return View(self.read(keys), [self.scan(start, end) for start, end in ranges])

    @contextmanager
    def _one_moment(self) -> Iterator[None]:
        """Have several statements see the store as of one moment."""
        if self.connection.in_transaction:
            yield
            return
        self.execute("BEGIN")
        try:
            yield
        finally:
            self.execute("COMMIT")

    def scan(
        self, start: bytes, end: bytes, *, limit: int | None = None, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        order = "DESC" if reverse else "ASC"
        rows = self.execute(
            f"SELECT key, value FROM record WHERE key >= ? AND key < ? ORDER BY key {order} LIMIT ?",
            (start, end, -1 if limit is None else limit),
        )
        return [(_bytes(key), _bytes(value)) for key, value in rows]

    def locate(self, keys: Collection[bytes]) -> dict[bytes, Place]:
        found: dict[bytes, Place] = {}
        for part in _chunks(list(keys)):
            rows = self.execute(f"SELECT key, place FROM object WHERE key IN ({_marks(len(part))})", part)
            found.update((key, _place(place)) for key, place in rows)
        return found

    def load(self, frames: Collection[int], known: Collection[int] = ()) -> dict[int, StoredFrame]:
        found: dict[int, StoredFrame] = {}
        stops = list(known)
        for part in _chunks(list(frames)):
            rows = self.execute(_CHAIN.format(_marks(len(part)), ",?" * len(stops)), [*part, *stops])
            found.update((number, StoredFrame(previous, _bytes(data))) for number, previous, data in rows)
        return found

    def scan_index(self, after: bytes, limit: int) -> list[tuple[bytes, Place]]:
        rows = self.execute("SELECT key, place FROM object WHERE key > ? ORDER BY key LIMIT ?", (after, limit))
        return [(key, _place(place)) for key, place in rows]

    def scan_frames(self, after: int, limit: int) -> list[tuple[int, int, int]]:
        return self.execute(
            "SELECT number, previous, length(data) FROM frame WHERE number > ? ORDER BY number LIMIT ?",
            (after, limit),
        ).fetchall()

    def usage(self) -> Usage:
        def number(query: str) -> int:
            return int(self.execute(query).fetchone()[0] or 0)

        page = number("PRAGMA page_size")
        return Usage(
            disk=page * number("PRAGMA page_count"),
            frames=number("SELECT sum(length(data)) FROM frame"),
            records=number("SELECT sum(length(key) + length(value)) FROM record"),
            free=page * number("PRAGMA freelist_count"),
            objects=number("SELECT count(*) FROM object"),
        )

    def check(self, batch: Batch) -> None:
        if batch.expected:
            keys = list(batch.expected)
            current = dict(zip(keys, self.read(keys), strict=True))
            if current != dict(batch.expected):
                raise RecordChangedError(current)
        if batch.epoch is not None and batch.epoch != (epoch := self.epoch()):
            raise EpochChangedError(epoch)

    def write(self, batch: Batch, *, replace: bool = True) -> list[int]:
        self.check(batch)
        try:
            return self._write(batch, replace=replace)
        except (sqlite3.DataError, OverflowError) as error:
            raise InvalidInputError(
                f"this is more than SQLite holds in one place: {error}", hints=["keep large values out of the state"]
            ) from error

    def _write(self, batch: Batch, *, replace: bool) -> list[int]:
        numbers: list[int] = []
        for frame in batch.frames:
            if frame.optional and len(self.locate(set(frame.keys))) == len(set(frame.keys)):
                numbers.append(0)
                continue
            previous = numbers[-1] if frame.previous == CHAINED else frame.previous
            number = self._add_frame(previous, frame.data)
            numbers.append(number)
            self.connection.executemany(
                _INDEX_REPLACE if replace else _INDEX_KEEP,
                [(key, number << _PLACE_BITS | position) for position, key in enumerate(frame.keys)],
            )
        removed = 0
        for key, value in batch.records.items():
            if value is not None:
                self.execute(_PUT_RECORD, (key, value))
            else:
                removed += self.execute("DELETE FROM record WHERE key = ?", (key,)).rowcount
        if removed:
            self.raise_epoch()
        return numbers

    def _add_frame(self, previous: int, data: bytes) -> int:
        number = self.execute(_INSERT_FRAME, (None, previous, data)).lastrowid
        assert number is not None
        (last,) = self.execute("SELECT value FROM counter WHERE name = 'frame'").fetchone() or (0,)
        if number > last:
            return number
        # The newest frames were dropped: theirs are numbers that somebody may remember.
        self.execute("DELETE FROM frame WHERE number = ?", (number,))
        self.execute(_INSERT_FRAME, (last + 1, previous, data))
        return int(last) + 1

    def raise_epoch(self) -> None:
        self.execute("UPDATE counter SET value = value + 1 WHERE name = 'epoch'")

    def forget(self, keys: Collection[bytes]) -> None:
        self.connection.executemany("DELETE FROM object WHERE key = ?", [(key,) for key in keys])

    def drop(self, frames: Collection[int]) -> None:
        self.execute(_KEEP_LAST)
        self.connection.executemany("DELETE FROM frame WHERE number = ?", [(number,) for number in frames])


def _bytes(value: object) -> bytes:
    if type(value) is not bytes:
        raise sqlite3.DatabaseError("a column holds no bytes")
    return value


def _place(packed: object) -> Place:
    if type(packed) is not int:
        raise sqlite3.DatabaseError("an index entry holds no number")
    return Place(packed >> _PLACE_BITS, packed & ((1 << _PLACE_BITS) - 1))


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

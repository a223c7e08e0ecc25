"""A store in a schema of a PostgreSQL database, shared by any number of servers.

Every call of the seam is one statement, and so one round trip and one transaction; publishing is one call of a
function that checks, locks, writes and answers (`ckpt.storage.postgres_schema`). Nothing depends on the session:
a pooler may run each statement on another connection.

A connection that died is replaced, and one whose call was interrupted is not used again. What was read is read
again. When the answer to a `publish` is lost, the store is asked whether it was applied: it is neither applied twice
nor reported lost when it was stored.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import psycopg
import psycopg_pool
from psycopg.pq import TransactionStatus

from ckpt.errors import CkptError, ConflictError, InvalidInputError, StoreUnavailableError
from ckpt.storage import postgres_connect, postgres_functions, postgres_given, postgres_pool, postgres_schema
from ckpt.storage.base import UNSETTLED, Batch, EpochChangedError, Exclusive, Fetched, Ranking
from ckpt.storage.lending import LendingReads
from ckpt.storage.postgres_exchange import Connection
from ckpt.storage.postgres_pool import Lost
from ckpt.storage.postgres_sql import WAIT_SECONDS, Session
from ckpt.storage.postgres_vectors import PostgresVectors

_RECOVER_SECONDS = 15.0
"""How long a server that went away is given to come back: about what a restart takes."""

_DOUBT_SHIFT = 128
"""Where in an epoch the doubts stand, above what the database knows of it."""

_LOST_MAX = 5
_PASSING_MAX = 20

_LOCK_SECONDS_MAX = 60.0
"""How long a transaction that somebody keeps open keeps others from having the store to themselves."""

_T = TypeVar("_T")


class _TakenError(Exception):
    """Somebody publishes, and did not end while we waited; the cause is what psycopg raised."""


def _take(session: Session) -> None:
    try:
        session.lock_within_bounds()
    except psycopg.errors.LockNotAvailable as error:
        raise _TakenError from error


class PostgresStorage(LendingReads):
    """A store in one schema of a PostgreSQL database.

    `database` is a URL (`postgresql://`; `schema` and `pool_size` in its query are ours, all else is libpq's), a
    libpq connection string, or a `psycopg_pool.ConnectionPool` or `psycopg.Connection` of the caller's, which is
    left open and as it was. On a connection with an open transaction, all that is done is part of it, and neither
    durable nor seen by others before the caller commits. What was published in it is not relied on afterwards, as it
    may be rolled back: the epoch is another one after each `publish` there, and after the transaction.

    Opening creates the store unless `create` is False or `readonly` True; one that is there costs a connection and
    one statement. That looks at the record `ahead` in passing, if one is named, and at the epoch: the first `read` of
    this record alone and the first `epoch` return what was found then, and cost nothing. Raises StoreNotFoundError,
    NotAStoreError, FormatTooNewError, StoreUnavailableError, and InvalidInputError for what cannot be read.
    """

    def __init__(
        self,
        database: str | psycopg_pool.ConnectionPool[Any] | psycopg.Connection[Any],
        *,
        schema: str | None = None,
        pool_size: int | None = None,
        create: bool = True,
        readonly: bool = False,
        ahead: bytes | None = None,
    ) -> None:
        self._readonly = readonly
        self._ahead = ahead
        self._closed = False
        self._process = os.getpid()
        self._forking = threading.Lock()
        self._newest = 0
        self._doubts = 0
        """How often what was published or seen may have been undone, or a server gone away."""
        self._inside = False
        """Whether the last call was part of a transaction of the caller's."""
        self._explicit = False
        create = create and not readonly
        if isinstance(database, str):
            url, given = postgres_connect.parse_url(database)
            options = postgres_connect.read_options(schema, pool_size, given)
            parameters = postgres_connect.read_conninfo(url)
            self._secrets = postgres_connect.secrets_of(parameters)
            self._name(options.schema, postgres_connect.shown_url(parameters, options))
            with self._translated():
                parameters, first = postgres_connect.first_connection(parameters, readonly=readonly)
                try:
                    self._prepare(first, create=create)
                    more = partial(postgres_connect.connect, parameters, direct=first.direct)
                    self._source: postgres_pool.Source = postgres_pool.OwnPool(more, options.pool_size, first)
                except BaseException:
                    first.close()
                    raise
            return
        self._secrets = []
        options = postgres_connect.read_options(schema, pool_size, {})
        self._name(options.schema, "the PostgreSQL database passed in")
        self._source = postgres_given.given(database)
        with self._translated(), self._source.lend() as connection:
            parameters = connection.info.get_parameters()
            self._secrets = postgres_connect.secrets_of({**parameters, "password": connection.info.password})
            self._name(options.schema, postgres_connect.shown_url(parameters, options))
            self._prepare(connection, create=create)

    def _name(self, schema: str, url: str) -> None:
        self._schema = postgres_schema.quoted(schema)
        self._url = url
        self._ranking = PostgresVectors(self._lend, self._schema, readonly=self._readonly)

    def _prepare(self, connection: Connection, *, create: bool) -> None:
        opened = postgres_schema.prepare(connection, self._schema, self._url, create=create, ahead=self._ahead)
        self._newest = opened.newest
        # Each is taken once, by whoever comes first.
        self._first_epoch = [opened.epoch] if self._ahead is not None else []
        self._first_read = [opened.record] if self._ahead is not None else []

    @property
    def url(self) -> str:
        return self._url

    @property
    def remote(self) -> bool:
        return True

    @property
    def ranking(self) -> Ranking | None:
        return self._ranking

    # -- one call -------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._closed:
            raise self._closed_error()
        if self._process != os.getpid():
            with self._forking:
                if self._process != os.getpid():
                    self._source = self._source.abandon()
                    self._process = os.getpid()

    def _closed_error(self) -> CkptError:
        return StoreUnavailableError(f"the store {self._url} has been closed", hints=["open it again"])

    def _check_writable(self) -> None:
        if self._readonly:
            self._check_usable()
            raise StoreUnavailableError(
                f"the store {self._url} was opened read-only", hints=["open it without readonly=True to change it"]
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise self._translate(error) from error

    def _translate(self, error: BaseException | None) -> CkptError:
        assert isinstance(error, psycopg.Error)
        if isinstance(error, psycopg_pool.PoolClosed):
            return self._closed_error()
        return postgres_connect.translate(error, self._url, self._secrets)

    def _once(self, call: Callable[[Session, bool], _T], lost: bool) -> _T:
        """Lend a session for one call, which is told whether an answer was lost before.

        Raises Lost when its connection dies, unless that was in a transaction.
        """
        with self._source.lend() as connection:
            if connection.pgconn.transaction_status == TransactionStatus.INTRANS:
                self._inside = True
                with connection.transaction():
                    return call(Session(connection, self._schema), lost)
            if self._inside:
                self._inside = False
                self._doubts += 1
            try:
                return call(Session(connection, self._schema), lost)
            except psycopg.Error as error:
                if postgres_connect.is_lost(error, connection):
                    raise Lost from error
                raise

    def _again(self, act: Callable[[bool], _T]) -> _T:
        """Call `act` until it ends well or the bounds are reached; it is told whether an answer was lost before."""
        self._check_usable()
        deadline = time.monotonic() + _RECOVER_SECONDS
        lost = passing = 0
        while True:
            try:
                return act(lost > 0)
            except Lost as error:
                lost += 1
                if lost > _LOST_MAX:
                    raise self._translate(error.__cause__) from error.__cause__
                self._recover(deadline, error)
            except psycopg.Error as error:
                passing += 1
                if passing > _PASSING_MAX or not postgres_connect.is_passing(error):
                    raise self._translate(error) from error
                time.sleep(random.random() * 0.005 * passing)

    def _recover(self, deadline: float, lost: Lost) -> None:
        self._doubts += 1
        with self._translated():
            if not self._source.recover(deadline):
                raise StoreUnavailableError(
                    f"the connection passed in for {self._url} is dead: {lost.__cause__}",
                    hints=["pass in a pool or a URL instead: their connections are replaced"],
                ) from lost.__cause__

    def _lend(self, call: Callable[[Session], _T]) -> _T:
        return self._again(partial(self._once, lambda session, lost: call(session)))

    def epoch(self) -> int:
        if self._first_epoch:
            with suppress(IndexError):
                return self._first_epoch.pop()
        # Taken first: an epoch must not look newer than it is.
        doubts = self._doubts
        return doubts << _DOUBT_SHIFT | super().epoch()

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if self._first_read and list(keys) == [self._ahead]:
            with suppress(IndexError):
                return [self._first_read.pop()]
        return super().read(keys)

    def fetch(self, keys: Collection[bytes], known: Collection[int] = ()) -> Fetched:
        return self._lend(lambda session: session.fetch(keys, known))

    # -- writing --------------------------------------------------------------------------------------

    def publish(self, batch: Batch) -> list[int]:
        self._check_writable()
        newest, careful, unsettled = self._newest, False, False

        def write(session: Session, lost: bool) -> list[int]:
            nonlocal careful, unsettled
            if lost and (numbers := self._settled(session, batch, newest)) is not None:
                return numbers
            inside = session.connection.pgconn.transaction_status == TransactionStatus.INTRANS
            # What was part of a transaction of the caller's is gone with it.
            unsettled = not inside
            try:
                numbers = self._write(session, self._undoubted(session, batch), careful)
            except ConflictError:
                # The request that was lost may have been on its way still when it was asked for.
                if lost and (numbers := self._settled(session, batch, newest)) is not None:
                    return numbers
                raise
            except psycopg.Error as error:
                careful = careful or error.sqlstate == postgres_functions.CAREFUL
                unsettled = unsettled and postgres_connect.is_lost(error, session.connection)
                raise
            self._doubts += inside
            return numbers

        try:
            numbers = self._again(partial(self._once, write))
        except EpochChangedError as changed:
            self._newest = 0
            raise EpochChangedError(self._doubts << _DOUBT_SHIFT | changed.epoch) from None
        except StoreUnavailableError as error:
            if not unsettled:
                raise
            raise type(error)(error.message, hints=[*error.hints, UNSETTLED]) from error.__cause__
        self._newest = max(self._newest, *numbers, 0)
        return numbers

    def _undoubted(self, session: Session, batch: Batch) -> Batch:
        """Return a batch as the database takes it; raise EpochChangedError if it is from before the last doubt."""
        if batch.epoch is None:
            return batch
        doubts = batch.epoch >> _DOUBT_SHIFT
        if doubts != self._doubts:
            raise EpochChangedError(session.epoch())
        return replace(batch, epoch=batch.epoch & ((1 << _DOUBT_SHIFT) - 1)) if doubts else batch

    def _settled(self, session: Session, batch: Batch, newest: int) -> list[int] | None:
        with session.connection.transaction():
            return session.settled(batch, newest)

    def _write(self, session: Session, batch: Batch, careful: bool) -> list[int]:
        # In a transaction of the caller's, nothing can be said any more.
        if not self._explicit or session.connection.pgconn.transaction_status != TransactionStatus.IDLE:
            try:
                return session.write(batch, replace=False, careful=careful)
            except psycopg.Error as error:
                if error.sqlstate != postgres_functions.ISOLATION:
                    raise
                if session.connection.info.transaction_status != TransactionStatus.IDLE:
                    raise InvalidInputError(
                        "the open transaction of this connection does not see what others commit",
                        hints=["begin it with: BEGIN ISOLATION LEVEL READ COMMITTED"],
                    ) from error
                # The server's default is another level: from now on it is said each time.
                self._explicit = True
        with session.connection.transaction():
            session.read_committed()
            return session.write(batch, replace=False, careful=careful)

    @contextmanager
    def exclusive(self) -> Iterator[Exclusive]:
        self._check_writable()
        self._first_epoch.clear()
        with self._translated():
            # Not an ExitStack: one that is interrupted at its end ends nothing, and the exception keeps it alive.
            context, session = self._alone()
            try:
                yield session
                transaction = session.finish()
            except BaseException:
                with suppress(Lost):
                    context.__exit__(*sys.exc_info())
                raise
            try:
                context.__exit__(None, None, None)
            except Lost as error:
                if transaction is None or not self._was_committed(transaction):
                    raise self._translate(error.__cause__) from error.__cause__

    def _alone(self) -> tuple[AbstractContextManager[Session], Session]:
        """Take the store, between tries giving way to those who would wait behind us for a transaction that is open."""
        deadline = time.monotonic() + _LOCK_SECONDS_MAX
        while True:
            try:
                return self._again(self._entered)
            except _TakenError as error:
                if time.monotonic() > deadline:
                    raise self._translate(error.__cause__) from error.__cause__
            time.sleep(random.uniform(0.5, 1.5) * WAIT_SECONDS)

    def _entered(self, lost: bool) -> tuple[AbstractContextManager[Session], Session]:
        context = self._locked()
        return context, context.__enter__()

    @contextmanager
    def _locked(self) -> Iterator[Session]:
        """Lend a session in a transaction that has the store to itself."""
        with self._source.lend() as connection:
            inside = connection.pgconn.transaction_status == TransactionStatus.INTRANS
            try:
                with connection.transaction():
                    session = Session(connection, self._schema)
                    if inside:
                        session.lock()
                    else:
                        _take(session)
                    self._doubts += inside
                    yield session
            except psycopg.Error as error:
                if not inside and postgres_connect.is_lost(error, connection):
                    raise Lost from error
                raise

    def _was_committed(self, transaction: int) -> bool:
        deadline = time.monotonic() + _RECOVER_SECONDS
        while True:
            answer = self._lend(lambda session: session.committed(transaction))
            if answer is not None or time.monotonic() > deadline:
                return bool(answer)
            time.sleep(0.05)

    # -- looking after it -----------------------------------------------------------------------------

    def check(self) -> None:
        """PostgreSQL checks nothing by itself that could be looked at here; see `verify`."""

    def verify(self) -> list[str]:
        return self._lend(postgres_schema.verify)

    def compact(self) -> None:
        self._check_writable()
        self._lend(postgres_schema.vacuum)

    def close(self) -> None:
        self._closed = True
        if self._process == os.getpid():
            self._source.close()

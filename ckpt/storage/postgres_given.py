"""What a caller passed in as a PostgreSQL database, a pool or a connection: lent for one call, and left as it was.

What is lent runs single statements in autocommit mode, or takes part in the transaction that the caller has open.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import psycopg_pool
from psycopg.pq import PipelineStatus, TransactionStatus

from ckpt.errors import InvalidInputError, StoreUnavailableError
from ckpt.storage.postgres_exchange import Connection
from ckpt.storage.postgres_pool import Pool, Source, returned, settle, surely


class _Foreign:
    """What the caller passed in: it is not closed here, and not taken into a forked child."""

    def abandon(self) -> Source:
        raise StoreUnavailableError(
            "the connections of this store belong to the process that opened it",
            hints=["open the store again in the new process"],
        )

    def close(self) -> None:
        pass


class GivenPool(_Foreign):
    """A pool that the caller passed in."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @contextmanager
    def lend(self) -> Iterator[Connection]:
        try:
            taken = self._pool.getconn()
        except psycopg_pool.PoolClosed as error:
            raise StoreUnavailableError(
                "the connection pool that was passed in is not open", hints=["open it, and close the store before it"]
            ) from error
        with returned(self._pool, taken) as connection, _plain(connection):
            yield connection

    def recover(self, deadline: float) -> bool:
        self._pool.check()
        return True


class GivenConnection(_Foreign):
    """A connection that the caller passed in, lent to one call at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # Whoever has the store to itself may read it too, on the same connection.
        self._lock = threading.RLock()

    @contextmanager
    def lend(self) -> Iterator[Connection]:
        with self._lock, _plain(self._connection):
            if self._connection.pgconn.pipeline_status != PipelineStatus.OFF:
                raise InvalidInputError(
                    "the connection passed in is in pipeline mode, in which no answer comes before the end",
                    hints=["leave the pipeline first, or pass in a connection that nobody else uses"],
                )
            if self._connection.info.transaction_status == TransactionStatus.INERROR:
                # As the server would say. psycopg 3.3.0 takes a transaction that it could not begin for one that is
                # open, and would not let the caller roll back.
                raise psycopg.errors.InFailedSqlTransaction("the current transaction is aborted")
            try:
                yield self._connection
            finally:
                settle(self._connection)

    def recover(self, deadline: float) -> bool:
        return False


@contextmanager
def _plain(connection: Connection) -> Iterator[None]:
    """Have a connection in autocommit mode, unless it is in a transaction: then the call is part of that."""
    if connection.autocommit or connection.info.transaction_status != TransactionStatus.IDLE:
        yield
        return

    def restore() -> None:
        if connection.info.transaction_status == TransactionStatus.IDLE:
            connection.autocommit = False

    try:
        connection.autocommit = True
        yield
    finally:
        surely(restore)


def given(thing: object) -> Source:
    """Return the source for what a caller passed in; InvalidInputError for what cannot serve."""
    if isinstance(thing, psycopg_pool.ConnectionPool):
        return GivenPool(thing)
    if isinstance(thing, psycopg.Connection):
        return GivenConnection(thing)
    raise InvalidInputError(
        f"a {type(thing).__name__} is no PostgreSQL database to keep a store in",
        hints=["pass a URL, a psycopg_pool.ConnectionPool or a psycopg.Connection (not the asynchronous ones)"],
    )

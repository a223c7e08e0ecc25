"""Where a store's connections come from: a pool of its own, or what the caller passed in; each lends one for one call.

What is lent runs single statements in autocommit mode, or takes part in the transaction that the caller has open.
Pools are psycopg's. A signal may raise an exception between any two steps of the main thread: a connection whose call
was interrupted is not used again, and a pool of ours that has lost connections that way is replaced.
"""

from __future__ import annotations

import selectors
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Protocol

import psycopg
import psycopg_pool
from psycopg.pq import TransactionStatus

from ckpt.errors import CkptError, InvalidInputError, StoreUnavailableError

Connection = psycopg.Connection[Any]
Pool = psycopg_pool.ConnectionPool[Connection]

_WAIT_SECONDS = 30.0
"""How long a call waits for a connection when all are in use."""

_LOOK_SECONDS = 1.0
"""How long it waits before it looks whether the server can be reached at all."""

_CANCEL_SECONDS = 5.0


class Lost(Exception):
    """A connection is gone, and with it the answer; the cause is what psycopg raised."""


class Source(Protocol):
    """Where a store's connections come from."""

    def lend(self) -> AbstractContextManager[Connection]:
        """Return a context with a connection for one call. Raises Lost when the server cannot be reached."""

    def recover(self, deadline: float) -> bool:
        """Wait until the server can be reached again; False when a dead connection is not ours to replace.

        Raises psycopg.OperationalError when the server is not back by then (`time.monotonic`).
        """

    def abandon(self) -> Source:
        """Return what a forked child uses instead; the parent's sockets are not touched."""

    def close(self) -> None:
        """Close what is ours to close; a connection that is lent is closed when it is given back."""


class _Pooled(psycopg.Connection[Any]):
    """What psycopg's pool connects by: as the store says, and while there are some that are `ready`, with those."""

    @classmethod
    def connect(  # type: ignore[override]
        cls, _conninfo: str = "", *, make: Callable[[], Connection], ready: list[Connection], **_options: Any
    ) -> Connection:
        return ready.pop() if ready else make()


class _Lease:
    """What a caller holds on to while it has a connection, or waits for one."""

    __slots__ = ("__weakref__", "holds")

    def __init__(self) -> None:
        self.holds = False


_abandoned: list[object] = []
"""Pools of a parent process, kept so that nothing tidies them up in the child."""


class OwnPool:
    """A pool of up to `size` connections that `connect` makes; `first`, if given, is the first of them."""

    def __init__(self, connect: Callable[[], Connection], size: int, first: Connection | None = None) -> None:
        self._connect, self._size = connect, size
        self._lock = threading.Lock()
        # Plain references: what a handler of signals raises in a callback of one reaches nobody.
        self._leases: list[weakref.ref[_Lease]] = []
        self._pool = self._begun([first] if first is not None else [])

    def _begun(self, ready: list[Connection]) -> Pool:
        pool: Pool = psycopg_pool.ConnectionPool(
            connection_class=_Pooled,
            kwargs={"make": self._made, "ready": ready},
            min_size=1,
            max_size=self._size,
            open=True,
            name="ckpt",
        )
        if ready:
            # No more than a change of threads; then whatever closes the pool closes this connection too.
            pool.wait()
        return pool

    def _made(self) -> Connection:
        return self._connect()

    @contextmanager
    def lend(self) -> Iterator[Connection]:
        lease = _Lease()
        known = weakref.ref(lease)
        with self._lock:
            self._leases.append(known)
        try:
            pool, connection = self._take(lease)
            with _returned(pool, connection):
                yield connection
        finally:
            lease.holds = False
            with self._lock, suppress(ValueError):
                self._leases.remove(known)

    def _take(self, lease: _Lease) -> tuple[Pool, Connection]:
        deadline = time.monotonic() + _WAIT_SECONDS
        pool, failed = self._pool, self._failed()
        while True:
            try:
                connection = pool.getconn(timeout=_LOOK_SECONDS)
            except psycopg_pool.PoolTimeout:
                # The pool tries again for minutes and keeps the reason to itself.
                if self._failed() > failed:
                    try:
                        self._connect().close()
                    except psycopg.OperationalError as error:
                        raise Lost from error
                if time.monotonic() > deadline:
                    if not self._has_lost(pool):
                        raise
                    pool, deadline = self._replaced(pool), time.monotonic() + _WAIT_SECONDS
            else:
                lease.holds = True
                return pool, connection

    def _failed(self) -> int:
        return self._pool.get_stats().get("connections_errors", 0)

    def _has_lost(self, pool: Pool) -> bool:
        """Whether a pool has connections that are neither free nor anybody's.

        That happens to one whose own code is interrupted by what a handler of signals raises.
        """
        with self._lock:
            alive = [known for known in self._leases if known() is not None]
            self._leases = alive
            held = sum(lease.holds for known in alive if (lease := known()) is not None)
        return pool is not self._pool or held < pool.get_stats().get("pool_size", 0)

    def _replaced(self, pool: Pool) -> Pool:
        """Go on with another pool; what is lent by this one is closed when it is given back."""
        with self._lock:
            if pool is self._pool:
                self._pool = self._begun([])
        pool.close()
        return self._pool

    def recover(self, deadline: float) -> bool:
        pause = 0.05
        while True:
            try:
                self._connect().close()
                break
            except psycopg.OperationalError:
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
        self._pool.check()
        return True

    def abandon(self) -> Source:
        _abandoned.append(self._pool)
        return OwnPool(self._connect, self._size)

    def close(self) -> None:
        self._pool.close()


@contextmanager
def _returned(pool: Pool, connection: Connection) -> Iterator[None]:
    """Give a connection back to its pool in the end; closed, so that the pool replaces it, if its call broke off."""
    try:
        yield
    except (psycopg.Error, CkptError):
        raise
    except BaseException:
        # Interrupted anywhere, or the connection is gone.
        settle(connection)
        connection.close()
        raise
    finally:
        _surely(lambda: pool.putconn(connection))


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
        connection = self._pool.getconn()
        with _returned(self._pool, connection), _plain(connection):
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
        _surely(restore)


def _surely(act: Callable[[], None]) -> None:
    """Do what may be done twice, also when the first time is interrupted."""
    try:
        act()
    except BaseException:
        with suppress(Exception):
            act()
        raise


def settle(connection: Connection) -> None:
    """End what a connection is still at after an interrupt, so that nothing is written once the caller has the error.

    Waits a few seconds at most. psycopg does this by itself for KeyboardInterrupt, not for what else a handler of
    signals may raise.
    """
    if connection.closed or connection.info.transaction_status != TransactionStatus.ACTIVE:
        return
    deadline = time.monotonic() + _CANCEL_SECONDS
    with suppress(psycopg.Error), selectors.DefaultSelector() as selector:
        connection.cancel_safe(timeout=_CANCEL_SECONDS)
        selector.register(connection.pgconn.socket, selectors.EVENT_READ)
        while True:
            while connection.pgconn.is_busy():
                if not selector.select(deadline - time.monotonic()):
                    return
                connection.pgconn.consume_input()
            if connection.pgconn.get_result() is None:
                return


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

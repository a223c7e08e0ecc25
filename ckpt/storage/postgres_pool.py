"""Where a store's connections come from, each lent for one call, and the pool of a store's own.

What is lent runs single statements in autocommit mode. What the caller passed in is the matter of
`ckpt.storage.postgres_given`. Pools are psycopg's. A signal may raise an exception between any two steps of the main
thread: a connection whose call was interrupted is not used again, and a pool that has lost connections that way is
replaced.
"""

from __future__ import annotations

import logging
import selectors
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import TracebackType
from typing import Any, Protocol

import psycopg
import psycopg_pool
from psycopg.pq import ConnStatus, PipelineStatus, TransactionStatus

from ckpt.errors import CkptError
from ckpt.storage.postgres_exchange import Connection, Owned

Pool = psycopg_pool.ConnectionPool[Connection]

_WAIT_SECONDS = 30.0
"""How long a call waits for a connection when all are in use."""

_LOOK_SECONDS = 1.0
"""How long it waits before it looks whether the server can be reached at all."""

_NAME = "ckpt"
_AGE_SECONDS = 3600.0
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
    """What psycopg's pool connects by: as the store says."""

    @classmethod
    def connect(  # type: ignore[override]
        cls, _conninfo: str = "", *, make: Callable[[], Connection], **_options: Any
    ) -> Connection:
        return make()


class _AtHand:
    """The connection that is kept at hand, or the place for it."""

    __slots__ = ("__weakref__", "born", "connection")

    def __init__(self, connection: Connection | None = None) -> None:
        self.connection = connection
        self.born = time.monotonic()


class _Lease:
    """What a caller holds on to while it has a connection of the pool, or waits for one."""

    __slots__ = ("__weakref__", "holds")

    def __init__(self) -> None:
        self.holds = False


_abandoned: list[object] = []
"""Pools of a parent process, kept so that nothing tidies them up in the child."""


class _Discreet(logging.Filter):
    """Leaves what psycopg logs about pools of ours to handlers that a program has set up.

    Without any, Python prints warnings; what is lost is replaced here, or told by the error of a call.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        subjects = record.args if isinstance(record.args, tuple) else ()
        ours = any(isinstance(each, Owned) or each == _NAME for each in subjects)
        return not ours or logging.getLogger(record.name).hasHandlers()


_discreet = _Discreet()


class OwnPool:
    """Up to `size` connections, two at least, that `connect` makes when they are needed; `first` may be one of them.

    One is kept at hand, and lent without asking anybody: whoever calls alone needs no other. For who calls while that
    is in use there is psycopg's pool, which is begun, with its threads, when it is first needed.
    """

    def __init__(self, connect: Callable[[], Connection], size: int, first: Connection | None = None) -> None:
        self._connect, self._size = connect, size
        self._lock = threading.Lock()
        self._closed = False
        hand = _AtHand(first)
        self._free = [hand]
        # Plain references: what a handler of signals raises in a callback of one reaches nobody.
        self._hand = weakref.ref(hand)
        self._leases: list[weakref.ref[_Lease]] = []
        self._pool: Pool | None = None

    def lend(self) -> AbstractContextManager[Connection]:
        hand = self._at_hand()
        return _AtHandLent(self, hand) if hand is not None else self._pooled()

    # -- the one at hand ------------------------------------------------------------------------------

    def _at_hand(self) -> _AtHand | None:
        """Return the connection at hand, which is nobody else's then; None while it is somebody's."""
        try:
            return self._free.pop()
        except IndexError:
            if self._hand() is not None:
                return None
        with self._lock:
            if self._hand() is not None:
                return None
            # An interrupt took it from who had it, and it went away with the traceback.
            hand = _AtHand()
            self._hand = weakref.ref(hand)
            return hand

    def connected(self, hand: _AtHand) -> Connection:
        """Return the connection at hand. Raises Lost when there is none and none can be made."""
        if self._closed:
            raise psycopg_pool.PoolClosed("the pool is closed")
        connection = hand.connection
        if connection is not None and connection.pgconn.status != ConnStatus.BAD:
            return connection
        try:
            hand.connection = connection = self._connect()
        except psycopg.OperationalError as error:
            raise Lost from error
        hand.born = time.monotonic()
        return connection

    def put_back(self, hand: _AtHand) -> None:
        """Have a connection at hand again, closed if it is not as it was lent, or is old. May be done twice."""
        connection = hand.connection
        if connection is not None and (
            connection.pgconn.transaction_status != TransactionStatus.IDLE
            or time.monotonic() > hand.born + _AGE_SECONDS
        ):
            connection.close()
        if not self._free:
            self._free.append(hand)
        if self._closed:
            self._drop()

    def _drop(self) -> None:
        hand = self._hand()
        if self._free and hand is not None and hand.connection is not None:
            hand.connection.close()

    # -- the pool -------------------------------------------------------------------------------------

    def _begun(self) -> Pool:
        """Return the pool, with none of its connections in it yet when it is new."""
        with self._lock:
            if self._closed:
                raise psycopg_pool.PoolClosed("the pool is closed")
            if self._pool is None:
                logging.getLogger("psycopg.pool").addFilter(_discreet)
                self._pool = psycopg_pool.ConnectionPool(
                    connection_class=_Pooled,
                    kwargs={"make": self._made},
                    min_size=0,
                    max_size=self._size - 1,
                    open=True,
                    name=_NAME,
                )
            return self._pool

    def _made(self) -> Connection:
        return self._connect()

    @contextmanager
    def _pooled(self) -> Iterator[Connection]:
        lease = _Lease()
        known = weakref.ref(lease)
        with self._lock:
            self._leases.append(known)
        try:
            with self._take(lease) as connection:
                yield connection
        finally:
            lease.holds = False
            with self._lock, suppress(ValueError):
                self._leases.remove(known)

    def _take(self, lease: _Lease) -> AbstractContextManager[Connection]:
        deadline = time.monotonic() + _WAIT_SECONDS
        pool = self._begun()
        failed = _failures(pool)
        while True:
            try:
                connection = pool.getconn(timeout=_LOOK_SECONDS)
            except psycopg_pool.PoolTimeout as late:
                # The one at hand does not go to who waits for the pool.
                if (hand := self._at_hand()) is not None:
                    try:
                        return _AtHandLent(self, hand)
                    finally:
                        # The pool keeps the error, and by it this frame; what an interrupt takes away must go.
                        del hand
                # The pool tries again for minutes and keeps the reason to itself.
                if _failures(pool) > failed:
                    try:
                        self._connect().close()
                    except psycopg.OperationalError as error:
                        raise Lost from error
                if time.monotonic() > deadline:
                    if not self._has_lost(pool):
                        message = f"all {self._size} were in use for {_WAIT_SECONDS:g} seconds"
                        raise psycopg_pool.PoolTimeout(message) from late
                    pool, deadline = self._replaced(pool), time.monotonic() + _WAIT_SECONDS
            else:
                lease.holds = True
                return returned(pool, connection)

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
                self._pool = None
        pool.close()
        return self._begun()

    # -- both -----------------------------------------------------------------------------------------

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
        # What killed one has mostly killed all.
        self._drop()
        if self._pool is not None:
            self._pool.check()
        return True

    def abandon(self) -> Source:
        _abandoned.append(self)
        return OwnPool(self._connect, self._size)

    def close(self) -> None:
        self._closed = True
        self._drop()
        with self._lock:
            pool = self._pool
        if pool is not None:
            pool.close()


class _AtHandLent:
    """The connection at hand, lent for one call."""

    __slots__ = ("_hand", "_pool")

    def __init__(self, pool: OwnPool, hand: _AtHand) -> None:
        self._pool, self._hand = pool, hand

    def __enter__(self) -> Connection:
        try:
            return self._pool.connected(self._hand)
        except BaseException:
            self._pool.put_back(self._hand)
            raise

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        connection = self._hand.connection
        try:
            if connection is not None and error is not None and not isinstance(error, psycopg.Error | CkptError):
                _break_off(connection)
        finally:
            self._pool.put_back(self._hand)


def _failures(pool: Pool) -> int:
    return pool.get_stats().get("connections_errors", 0)


@contextmanager
def returned(pool: Pool, connection: Connection) -> Iterator[Connection]:
    """Give a connection back to its pool in the end; closed, so that the pool replaces it, if its call broke off."""
    try:
        yield connection
    except (psycopg.Error, CkptError):
        raise
    except BaseException:
        _break_off(connection)
        raise
    finally:
        surely(lambda: pool.putconn(connection))


def _break_off(connection: Connection) -> None:
    """End what is gone, or was interrupted anywhere."""
    try:
        settle(connection)
    finally:
        connection.close()


def surely(act: Callable[[], None]) -> None:
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
    pgconn = connection.pgconn
    with suppress(psycopg.Error), selectors.DefaultSelector() as selector:
        if pgconn.pipeline_status != PipelineStatus.OFF:
            # Whether it was sent its end cannot be known, and without one there is no answer. A second does no harm.
            pgconn.pipeline_sync()
        selector.register(pgconn.socket, selectors.EVENT_WRITE)
        # Until it has all, the server is at nothing that could be cancelled, and does not answer.
        while pgconn.flush():
            if not selector.select(deadline - time.monotonic()):
                return
        connection.cancel_safe(timeout=_CANCEL_SECONDS)
        selector.modify(pgconn.socket, selectors.EVENT_READ)
        ends = 0
        # In a pipeline, each answer has an end of its own; behind two of them there is no other.
        while pgconn.transaction_status == TransactionStatus.ACTIVE and ends < 2:
            while pgconn.is_busy():
                if not selector.select(deadline - time.monotonic()):
                    return
                pgconn.consume_input()
            ends = ends + 1 if pgconn.get_result() is None else 0

"""Connections to PostgreSQL: reading URLs, lending connections, replacing dead ones, and naming what went wrong.

A store lends connections from a pool of its own, from a pool that the caller passed in, or lends the caller's one
connection to one call at a time. Whatever is lent runs single statements in autocommit mode, or takes part in the
transaction that the caller has open; what the caller set on a connection is set again when it is given back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, unquote

import psycopg
import psycopg_pool
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo, TransactionStatus

from ckpt.errors import (
    CkptError,
    IntegrityError,
    InvalidInputError,
    StoreNotFoundError,
    StoreUnavailableError,
)
from ckpt.storage.postgres_schema import SCHEMA

Connection = psycopg.Connection[Any]
Pool = psycopg_pool.ConnectionPool[Connection]

POOL_SIZE = 10
"""Connections of a store at most, unless `pool_size` says otherwise."""

_FORM = "postgresql://user@host:5432/database?schema=ckpt&pool_size=10"
_SCHEMES = ("postgresql://", "postgres://")
_POOL_SIZE_MAX = 1000
_WAIT_SECONDS = 30.0
"""How long a call waits for a connection when all are in use."""

_LOOK_SECONDS = 1.0
"""After how long a call that waits for a connection asks why there is none."""

_OPTION_DEFAULTS = {
    "connect_timeout": "10",
    "application_name": "ckpt",
    # A firewall that drops an idle connection says nothing; without these, libpq would wait a quarter of an hour.
    "keepalives_idle": "60",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
_SECRETS = ("password", "sslpassword", "oauth_client_secret")


@dataclass(frozen=True, slots=True)
class Options:
    """What `ckpt` itself reads of a `postgresql://` URL; everything else goes to libpq.

    `schema`: where the store is. `pool_size`: connections at most; two at least, as a collector reads with one
    while it holds another.
    """

    schema: str = SCHEMA
    pool_size: int = POOL_SIZE

    def __post_init__(self) -> None:
        if not 2 <= self.pool_size <= _POOL_SIZE_MAX:
            raise InvalidInputError(
                f"pool_size={self.pool_size} is not between 2 and {_POOL_SIZE_MAX}", hints=[f"write {_FORM}"]
            )


def parse_url(url: str) -> tuple[str, dict[str, str]]:
    """Split a URL into what libpq is given and our own options, decoded.

    Raises InvalidInputError for one that would be misread; the error does not repeat the URL, which may hold a
    password.
    """
    front, mark, query = url.partition("?")
    authority = front.partition("://")[2].partition("/")[0]
    if front.count("@") > authority.count("@") or authority.count("@") > 1:
        raise InvalidInputError(
            "the PostgreSQL URL has an '@' that cannot be told from the one before the host",
            hints=["percent-encode the password: '@' is %40, '/' is %2F, '?' is %3F", f"write {_FORM}"],
        )
    own: dict[str, str] = {}
    rest: list[str] = []
    for item in query.split("&") if mark else ():
        name, _, value = item.partition("=")
        if unquote(name) in ("schema", "pool_size"):
            own[unquote(name)] = unquote(value)
        else:
            rest.append(item)
    return front + ("?" + "&".join(rest) if rest else ""), own


def read_options(schema: str | None, pool_size: int | None, given: dict[str, str]) -> Options:
    """Return the options of a store: those of the call, else those of its URL, else the defaults."""
    if pool_size is None and "pool_size" in given:
        try:
            pool_size = int(given["pool_size"])
        except ValueError:
            raise InvalidInputError(
                f"pool_size={given['pool_size']!r} is not a number", hints=[f"write {_FORM}"]
            ) from None
    schema = given.get("schema", SCHEMA) if schema is None else schema
    return Options(schema, POOL_SIZE if pool_size is None else pool_size)


def read_conninfo(text: str) -> dict[str, Any]:
    """Return libpq's parameters of a URL or of a `key=value` string, with our defaults for those not set."""
    try:
        parameters = conninfo_to_dict(text)
    except psycopg.Error:
        # libpq repeats what it could not read, and that may be a piece of the password.
        raise InvalidInputError("this cannot be read as a PostgreSQL URL", hints=[f"write {_FORM}"]) from None
    from_environment = {
        option.keyword.decode()
        for option in Conninfo.get_defaults()
        if option.envvar and option.val is not None and option.val != option.compiled
    }
    for name, value in _OPTION_DEFAULTS.items():
        if name not in from_environment:
            parameters.setdefault(name, value)
    return parameters


def shown_url(parameters: dict[str, Any], options: Options) -> str:
    """Return the URL of a store without secrets and without what is ours to choose anyway."""
    rest = {
        name: str(value)
        for name, value in parameters.items()
        if name not in _SECRETS and value not in (None, "", _OPTION_DEFAULTS.get(name))
    }
    user, database = rest.pop("user", ""), rest.pop("dbname", "")
    authority = f"{quote(user, safe='')}@" if user else ""
    hosts, ports = rest.get("host", "").split(","), rest.get("port", "").split(",")
    if all(host and "/" not in host and ":" not in host for host in hosts):
        ports = ports * len(hosts) if len(ports) == 1 else ports
        rest.pop("host"), rest.pop("port", None)
        authority += ",".join(f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=True))
    rest["schema"] = options.schema
    if options.pool_size != POOL_SIZE:
        rest["pool_size"] = str(options.pool_size)
    query = "&".join(f"{name}={quote(value, safe='/,')}" for name, value in sorted(rest.items()))
    return f"postgresql://{authority}/{quote(database, safe='')}?{query}"


# -- lending ------------------------------------------------------------------------------------------


class Lost(Exception):
    """A connection is gone, and with it the answer; the cause is what psycopg raised."""


class Source(Protocol):
    """Where a store's connections come from."""

    def lend(self) -> AbstractContextManager[Connection]:
        """Return a context with a connection for one call. Raises Lost when the server cannot be reached."""

    def recover(self, deadline: float) -> bool:
        """Replace dead connections, waiting for the server if need be; False when that is not ours to do.

        Raises psycopg.OperationalError when the server is not back by then (`time.monotonic`).
        """

    def abandon(self) -> Source:
        """Return what a forked child uses instead; the parent's sockets are not touched."""

    def close(self) -> None: ...


_AS_OURS: dict[str, Any] = {"autocommit": True, "prepare_threshold": None}
"""What every connection that we open is told."""

_abandoned: list[object] = []
"""Pools of a parent process, kept so that nothing tidies them up in the child."""


class _Pooled(psycopg.Connection[Any]):
    """What a pool of ours connects with: while `ready` holds connections, they are handed out before new ones."""

    @classmethod
    def connect(cls, conninfo: str = "", *, ready: list[Connection], **options: Any) -> Connection:  # type: ignore[override]
        return ready.pop() if ready else super().connect(conninfo, **options)


class OwnPool:
    """A pool of our own, of connections with these parameters; `first`, if given, is the first of them."""

    def __init__(self, parameters: dict[str, Any], size: int, first: Connection | None = None) -> None:
        self._parameters, self._size = parameters, size
        self._pool: Pool = psycopg_pool.ConnectionPool(
            make_conninfo(**parameters),
            connection_class=_Pooled,
            kwargs={**_AS_OURS, "ready": [first] if first else []},
            min_size=1,
            max_size=size,
            open=True,
            name="ckpt",
        )
        if first:
            # No more than a change of threads; then whatever closes the pool closes this connection too.
            self._pool.wait()

    @contextmanager
    def lend(self) -> Iterator[Connection]:
        connection = self._take()
        try:
            yield connection
        finally:
            self._pool.putconn(connection)

    def _take(self) -> Connection:
        deadline = time.monotonic() + _WAIT_SECONDS
        failed = self._failed()
        while True:
            try:
                return self._pool.getconn(timeout=_LOOK_SECONDS)
            except psycopg_pool.PoolTimeout:
                # The pool tries again for minutes and keeps the reason to itself.
                if self._failed() > failed:
                    try:
                        connect(self._parameters).close()
                    except psycopg.OperationalError as error:
                        raise Lost from error
                if time.monotonic() > deadline:
                    raise

    def _failed(self) -> int:
        return self._pool.get_stats().get("connections_errors", 0)

    def recover(self, deadline: float) -> bool:
        pause = 0.05
        while True:
            try:
                connect(self._parameters).close()
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
        return OwnPool(self._parameters, self._size)

    def close(self) -> None:
        self._pool.close()


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
        try:
            with _plain(connection):
                yield connection
        finally:
            self._pool.putconn(connection)

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
            yield self._connection

    def recover(self, deadline: float) -> bool:
        return False


@contextmanager
def _plain(connection: Connection) -> Iterator[None]:
    """Have a connection in autocommit mode, unless it is in a transaction: then the call is part of that."""
    if connection.autocommit or connection.info.transaction_status != TransactionStatus.IDLE:
        yield
        return
    connection.autocommit = True
    try:
        yield
    finally:
        if connection.info.transaction_status == TransactionStatus.IDLE:
            connection.autocommit = False


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


def connect(parameters: dict[str, Any]) -> Connection:
    """Open one connection as a pool of ours would."""
    return psycopg.connect(make_conninfo(**parameters), **_AS_OURS)


def first_connection(parameters: dict[str, Any], *, readonly: bool) -> tuple[dict[str, Any], Connection]:
    """Open a connection, read-only if asked; return the parameters that the others of the store shall have."""
    if not readonly:
        return parameters, connect(parameters)
    options = f"{parameters.get('options') or ''} -c default_transaction_read_only=on".strip()
    guarded = {**parameters, "options": options}
    try:
        return guarded, connect(guarded)
    except psycopg.OperationalError:
        # A pooler may refuse options. The store refuses to write by itself; the server's word is a second lock.
        return parameters, connect(parameters)


# -- errors -------------------------------------------------------------------------------------------


def is_lost(error: psycopg.Error, connection: Connection | None) -> bool:
    """Return whether an error means that the connection is gone, and with it the answer."""
    state = error.sqlstate or ""
    if connection is not None and (connection.closed or connection.broken):
        return True
    return state.startswith("08") or state in ("57P01", "57P02", "57P03")


def is_passing(error: psycopg.Error) -> bool:
    """Return whether the server undid a transaction that is worth sending again."""
    return error.sqlstate in ("40001", "40P01")


def translate(error: psycopg.Error, words: str, secret: str | None) -> CkptError:
    """Return the error to raise for what PostgreSQL or the pool raised; `words` name the store."""
    text = " ".join(str(error).split())
    if secret:
        text = text.replace(secret, "…")
    state = error.sqlstate or ""
    if state in ("42P01", "42883", "3F000"):
        return StoreNotFoundError(f"the store in {words} is gone: {text}", hints=["create one with: ckpt init"])
    if state in ("XX001", "XX002"):
        return IntegrityError(
            f"the database of {words} is damaged: {text}",
            hints=["stop writing to it, and restore it from a backup or repair it as PostgreSQL's manual says"],
        )
    hints = {
        "28": "check user and password",
        "3D": "create the database first: createdb NAME",
        "25": "connect to the primary server, with a user who may write",
        "42": "grant what is missing; docs/postgres.md lists it",
        "53": "free what is exhausted on the server: disk, memory or connections; nothing was written",
        "57": "the server ended the call; wait, then try again",
        "55": "the server ended the call; wait, then try again",
    }
    if isinstance(error, psycopg_pool.PoolTimeout):
        text, hint = f"no connection became free ({text})", "raise pool_size, or look whether the server is up"
    else:
        # libpq gives no state for what fails while it connects, a wrong password included.
        hint = hints.get(
            state[:2], "check that the server is up and that host, port, database, user and password are right"
        )
    return StoreUnavailableError(f"{words} cannot be used: {text}", hints=[hint])

"""Reaching PostgreSQL: reading URLs, opening connections, and naming what went wrong, all without telling a secret.

Who uses which connection when is the matter of `ckpt.storage.postgres_pool`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
from urllib.parse import quote, unquote

import psycopg
import psycopg_pool
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from ckpt.addresses import how_to_create
from ckpt.errors import (
    CkptError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    StoreLockedError,
    StoreNotFoundError,
    StoreUnavailableError,
    StoreUnreachableError,
)
from ckpt.storage.postgres_exchange import Connection, Owned
from ckpt.storage.postgres_functions import CAREFUL
from ckpt.storage.postgres_schema import SCHEMA, checked

POOL_SIZE = 10
"""Connections of a store at most, unless `pool_size` says otherwise."""

_FORM = "postgresql://user@host:5432/database?schema=ckpt&pool_size=10"
_SCHEMES = ("postgresql://", "postgres://")
_OWN = ("schema", "pool_size")
_POOL_SIZE_MAX = 1000
_OPTION_DEFAULTS = {
    "connect_timeout": "10",
    "application_name": "ckpt",
    # A firewall that drops an idle connection says nothing; without these, libpq would wait a quarter of an hour.
    "keepalives_idle": "60",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
_ENVIRONMENT = ("PGSERVICE", "PGCONNECT_TIMEOUT", "PGAPPNAME")
"""What of the environment may set one of these, as libpq says."""
_ENCODING = "client_encoding"
_ALL_TAKEN = ("too many clients", "too many connections", "connection slots")
"""What a server says where it has as many connections as it may have, without a state."""
_SECRETS = frozenset(
    ("password", "passfile", "sslpassword", "sslkey", "oauth_client_secret", "scram_client_key", "scram_server_key")
)
"""What libpq is told and nobody else: passwords, keys, and where they lie."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `ckpt` itself reads of a `postgresql://` URL; everything else goes to libpq.

    `schema`: where the store is. `pool_size`: connections at most; two at least, one at hand and one of a pool.
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
        name = unquote(name)
        if name in own:
            raise InvalidInputError(f"the PostgreSQL URL sets {name} twice", hints=["keep one of them"])
        if name in _OWN:
            own[name] = unquote(value)
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
    schema = checked(given.get("schema", SCHEMA) if schema is None else schema)
    return Options(schema, POOL_SIZE if pool_size is None else pool_size)


def read_conninfo(text: str) -> dict[str, Any]:
    """Return libpq's parameters of a URL or of a `key=value` string, with our defaults for those not set."""
    try:
        parameters = conninfo_to_dict(text)
    except UnicodeError:
        # Its arguments are the URL, or a piece of it.
        raise InvalidInputError(
            "the PostgreSQL URL is not Unicode text",
            hints=["percent-encode what is not ASCII as its UTF-8 bytes: 'é' is %C3%A9", f"write {_FORM}"],
        ) from None
    except psycopg.Error:
        # libpq repeats what it could not read, and that may be a piece of the password.
        hints = [*_meant(text), f"write {_FORM}"]
        raise InvalidInputError("this cannot be read as a PostgreSQL URL", hints=hints) from None
    from_environment = _from_environment()
    for name, value in _OPTION_DEFAULTS.items():
        if name not in from_environment:
            parameters.setdefault(name, value)
    # Whatever the database has and the environment says: under SQL_ASCII psycopg gives texts as bytes.
    parameters[_ENCODING] = "utf8"
    return parameters


def _from_environment() -> set[str]:
    """Return the names of libpq's parameters that the environment sets, or a service that it names."""
    # To have libpq list all of its options takes as long as a statement.
    if not any(name in os.environ for name in _ENVIRONMENT):
        return set()
    return {
        option.keyword.decode()
        for option in Conninfo.get_defaults()
        if option.envvar and option.val is not None and option.val != option.compiled
    }


def _meant(url: str) -> list[str]:
    """Return a hint for each option that is not known: the nearest one, or where it stands; it may be of a password."""
    known = [*_OWN, *(option.keyword.decode() for option in Conninfo.get_defaults())]
    _, mark, query = url.partition("?")
    hints: list[str] = []
    for position, item in enumerate(query.split("&") if mark else (), start=1):
        name = unquote(item.partition("=")[0]).lower()
        near = get_close_matches(name, known, 1, cutoff=0.8)
        if near and name not in known:
            hints.append(f"did you mean the option {near[0]!r}?")
        elif not near:
            hints.append(f"the option in place {position} behind the '?' is none of libpq's")
    return hints


def shown_url(parameters: dict[str, Any], options: Options) -> str:
    """Return the URL of a store without secrets and without what is ours to choose anyway."""
    rest = {
        name: str(value)
        for name, value in parameters.items()
        if name not in _SECRETS and name != _ENCODING and value not in (None, "", _OPTION_DEFAULTS.get(name))
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


# -- connecting ---------------------------------------------------------------------------------------


def connect(parameters: dict[str, Any], *, direct: bool = False) -> Owned:
    """Open one connection of a store's own; `direct` is what is known of another with the same parameters."""
    connection = Owned.connect(**parameters, autocommit=True, prepare_threshold=None)
    connection.direct = direct
    return connection


def first_connection(parameters: dict[str, Any], *, readonly: bool) -> tuple[dict[str, Any], Owned]:
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
    return error.sqlstate in ("40001", "40P01", CAREFUL)


def secrets_of(parameters: dict[str, Any]) -> list[str]:
    """Return what no message may repeat, the longest first, as one may be part of another."""
    found = {str(value) for name, value in parameters.items() if name in _SECRETS and value}
    return sorted(found, key=len, reverse=True)


def translate(error: psycopg.Error, words: str, secrets: Sequence[str]) -> CkptError:
    """Return the error to raise for what PostgreSQL or the pool raised; `words` name the store."""
    # What the server says beyond that, the functions and statements of ours that it was in, tells a user nothing.
    said = [error.diag.message_primary or str(error), error.diag.message_detail or ""]
    text = " ".join(" ".join(said).split())
    for secret in secrets:
        text = text.replace(secret, "…")
    state = error.sqlstate or ""
    if state in ("42P01", "42883", "3F000"):
        return StoreNotFoundError(f"the store in {words} is gone: {text}", hints=[how_to_create(words)])
    if state == "55P03":
        return StoreLockedError(
            f"{words} is locked by another process",
            hints=[
                "wait for it to finish, then try again",
                "look in pg_stat_activity for a program that keeps a transaction open",
            ],
        )
    if state == "25P03":
        return ConflictError(
            f"{words} was held for too long without a word, and others went on",
            hints=["nothing was applied: do it again"],
        )
    if state == "25P02":
        return InvalidInputError(
            f"the open transaction of the connection to {words} has failed", hints=["roll it back first"]
        )
    if state == "22P05":
        # Names are the only texts that a store sends.
        return InvalidInputError(
            f"{words} cannot have this name: {text}", hints=["name the schema in letters that its database has"]
        )
    if state in ("XX001", "XX002"):
        return IntegrityError(
            f"the database of {words} is damaged: {text}",
            hints=["stop writing to it, and restore it from a backup or repair it as PostgreSQL's manual says"],
        )
    hints = {
        "28": "check user and password",
        "3D": "create the database first: createdb NAME",
        "25006": "connect to the primary server, with a user who may write",
        "42": "grant what is missing; docs/postgres.md lists it",
        "53": "free what is exhausted on the server: disk, memory or connections; nothing was written",
        "57": "the server ended the call; wait, then try again",
        "55": "the server ended the call; wait, then try again",
    }
    if isinstance(error, psycopg_pool.PoolTimeout):
        text = f"no connection became free ({text})"
        hint = "raise pool_size, or max_size of a pool that was passed in, or look whether the server is up"
    elif not state and any(words in text for words in _ALL_TAKEN):
        hint = hints["53"]
    elif "statement pooling mode" in text:
        hint = "let the pooler hand out connections for transactions: pool_mode = transaction"
    elif not state and any(word in text for word in ("certificate", "SSL", "encryption")):
        hint = "check sslmode, sslrootcert, sslcert and sslkey, and that the host is named as in its certificate"
    else:
        # libpq gives no state for what fails while it connects, a wrong password included.
        hint = hints.get(state) or hints.get(
            state[:2], "check that the server is up and that host, port, database, user and password are right"
        )
    # What the server itself says while one connects has no state either, but names its severity.
    silent = not state and type(error) is psycopg.OperationalError and "FATAL" not in text
    kind = StoreUnreachableError if silent or is_lost(error, None) else StoreUnavailableError
    return kind(f"{words} cannot be used: {text}", hints=[hint])

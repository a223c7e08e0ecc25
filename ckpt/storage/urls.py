"""From a URL or a path to a store."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

from ckpt.addresses import PATH_HINT, inside_folder, is_mistyped
from ckpt.errors import InvalidInputError
from ckpt.storage.base import Storage
from ckpt.storage.memory import MemoryStorage
from ckpt.storage.sqlite import SqliteStorage
from ckpt.storage.sqlite_file import Options

_FORMS = (
    "write memory://, sqlite:///relative/path, sqlite:////absolute/path, postgresql://…, redis://…, unix://… for a"
    " Redis behind a socket, or a plain path"
)
_OPEN_ALREADY = (
    "hand over a connection, pool or client of yours as Repository(PostgresStorage(connection)) or"
    " Repository(RedisStorage(client)): of ckpt.repository, ckpt.storage.postgres and ckpt.storage.redis"
)

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}")


def open_storage(
    url: str | Path, *, create: bool = True, readonly: bool = False, ahead: bytes | None = None
) -> Storage:
    """Open the store that a URL or a path names.

    `memory://` is a new, empty store of its own at each call. `sqlite:///x` is relative to the working
    directory, `sqlite:////x` absolute; percent-encoding is decoded and the query sets `Options` of
    `ckpt.storage.sqlite_file`. A Path, and any other text without `://`, is a path, except for a text that begins
    as a URL or a connection string does. A folder with a store of `ckpt init` names that store, and so does its
    `.ckpt`, be it there yet or not. `ahead` is the key of a record that is read next, which a store that is opened
    with a question asks along with it. Raises InvalidInputError, which repeats no part of a URL that may hold a secret,
    for what cannot be read, and the errors of the store that is named.
    """
    if not isinstance(url, str | PurePath):
        raise InvalidInputError(
            f"a store is named by a text or a Path, not by a {type(url).__name__}", hints=[_FORMS, _OPEN_ALREADY]
        )
    text = str(url)
    if isinstance(url, PurePath) or "://" not in text:
        if text in ("", ":memory:"):
            raise InvalidInputError(f"{text!r} names no store", hints=[_FORMS])
        if isinstance(url, str) and is_mistyped(text):
            raise InvalidInputError(
                "the store begins as a URL or a connection string does, but has no ://", hints=[PATH_HINT, _FORMS]
            )
        return _sqlite(text, create=create, readonly=readonly)
    scheme, _, rest = text.partition("://")
    if scheme == "memory":
        if rest:
            raise InvalidInputError("memory:// takes nothing behind it", hints=[_FORMS])
        return MemoryStorage()
    if scheme in ("postgresql", "postgres"):
        return _postgres(text, create=create, readonly=readonly, ahead=ahead)
    if scheme in ("redis", "rediss", "unix"):
        return _redis(text, create=create, readonly=readonly)
    if scheme != "sqlite":
        shown = f"of kind {scheme!r}" if _SCHEME.fullmatch(scheme) else "of this kind"
        raise InvalidInputError(f"a store {shown} is not known", hints=[_FORMS])
    try:
        parts = urlsplit(text)
    except ValueError:
        # Without a cause: the words of the parser may repeat a part of the URL.
        raise InvalidInputError("the sqlite URL cannot be read", hints=[_FORMS]) from None
    if parts.netloc or len(parts.path) < 2 or parts.fragment:
        # Not repeated: what stands where a server would be named may hold a password.
        raise InvalidInputError("a sqlite URL names a file, no server, and has no #", hints=[_FORMS])
    path = os.fsdecode(unquote_to_bytes(os.fsencode(parts.path[1:])))
    if path == ":memory:":
        raise InvalidInputError("':memory:' names no store", hints=[_FORMS])
    return _sqlite(path, create=create, readonly=readonly, options=_options(parts.query))


def _sqlite(path: str, *, create: bool, readonly: bool, options: Options | None = None) -> Storage:
    try:
        return SqliteStorage(Path(inside_folder(path)), create=create, readonly=readonly, options=options or Options())
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not Unicode text"
        raise InvalidInputError(
            f"the path of the store cannot be used: {reason}", hints=["name a file that can exist here"]
        ) from error


def _options(query: str) -> Options:
    given = dict(parse_qsl(query, keep_blank_values=True))
    known: dict[str, Callable[[str], Any]] = {
        "synchronous": str.lower,
        "cache_kb": int,
        "busy_timeout": float,
    }
    if unknown := given.keys() - known.keys():
        raise InvalidInputError(
            f"the sqlite URL sets {sorted(unknown)[0]!r}, which is not known",
            hints=[f"known are {', '.join(known)}"],
        )
    values: dict[str, Any] = {}
    for name, value in given.items():
        try:
            values[name] = known[name](value)
        except ValueError:
            raise InvalidInputError(
                f"{name} in the sqlite URL is not a number", hints=["write one, such as 5"]
            ) from None
    return Options(**values)


def _redis(url: str, *, create: bool, readonly: bool) -> Storage:
    try:
        from ckpt.storage.redis import RedisStorage
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        raise InvalidInputError(
            "a store on Redis needs the package redis, which is not installed",
            hints=["install it with: pip install 'ckpt-store[redis]'"],
        ) from error
    return RedisStorage(url, create=create, readonly=readonly)


def _postgres(url: str, *, create: bool, readonly: bool, ahead: bytes | None) -> Storage:
    try:
        from ckpt.storage.postgres import PostgresStorage
    except ImportError as error:
        # Without libpq, psycopg itself raises an ImportError that names no module.
        if error.name is not None and error.name.partition(".")[0] not in ("psycopg", "psycopg_pool"):
            raise
        raise InvalidInputError(
            "a store on PostgreSQL needs the packages psycopg and psycopg-pool, which are not installed",
            hints=["install them with: pip install 'ckpt-store[postgres]'"],
        ) from error
    return PostgresStorage(url, create=create, readonly=readonly, ahead=ahead)

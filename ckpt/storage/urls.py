"""From a URL or a path to a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from ckpt.errors import InvalidInputError
from ckpt.storage.base import Storage
from ckpt.storage.memory import MemoryStorage
from ckpt.storage.sqlite import SqliteStorage
from ckpt.storage.sqlite_file import Options

_FORMS = (
    "write memory://, sqlite:///relative/path, sqlite:////absolute/path, postgresql://…, redis://…, or a plain path"
)


def open_storage(url: str | Path, *, create: bool = True, readonly: bool = False) -> Storage:
    """Open the store that a URL or a path names.

    `memory://` is a new, empty store of its own at each call. `sqlite:///x` is relative to the working
    directory, `sqlite:////x` absolute; percent-encoding is decoded and the query sets `Options` of
    `ckpt.storage.sqlite_file`. Anything without `://` is a path. Raises InvalidInputError for a URL that
    cannot be read and the errors of `sqlite_file.prepare`.
    """
    text = str(url)
    if isinstance(url, Path) or "://" not in text:
        if text in ("", ":memory:"):
            raise InvalidInputError(f"{text!r} names no store", hints=[_FORMS])
        return SqliteStorage(Path(text), create=create, readonly=readonly)
    scheme, _, rest = text.partition("://")
    if scheme == "memory":
        if rest:
            raise InvalidInputError(f"{text!r}: memory:// takes nothing behind it", hints=[_FORMS])
        return MemoryStorage()
    if scheme in ("postgresql", "postgres"):
        return _postgres(text, create=create, readonly=readonly)
    if scheme in ("redis", "rediss", "unix"):
        return _redis(text, create=create, readonly=readonly)
    if scheme != "sqlite":
        raise InvalidInputError(f"a store of kind {scheme!r} is not known", hints=[_FORMS])
    parts = urlsplit(text)
    if parts.netloc or len(parts.path) < 2 or parts.fragment:
        # Not repeated: what stands where a server would be named may hold a password.
        raise InvalidInputError("a sqlite URL names a file, no server, and has no #", hints=[_FORMS])
    return SqliteStorage(
        Path(unquote(parts.path[1:])), create=create, readonly=readonly, options=_options(text, parts.query)
    )


def _options(url: str, query: str) -> Options:
    given = dict(parse_qsl(query, keep_blank_values=True))
    known: dict[str, Callable[[str], Any]] = {
        "synchronous": str.lower,
        "cache_kb": int,
        "busy_timeout": float,
    }
    if unknown := given.keys() - known.keys():
        raise InvalidInputError(
            f"{url!r} sets {sorted(unknown)[0]!r}, which is not known",
            hints=[f"known are {', '.join(known)}"],
        )
    try:
        return Options(**{name: known[name](value) for name, value in given.items()})
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{url!r} cannot be read: {error}") from error


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


def _postgres(url: str, *, create: bool, readonly: bool) -> Storage:
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
    return PostgresStorage(url, create=create, readonly=readonly)

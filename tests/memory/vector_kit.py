"""What the tests of vectors in PostgreSQL share: a database without the extension, and a storage that counts."""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import psycopg
import pytest
from langgraph.store.base import PutOp
from memory_kit import DIMS, embed
from psycopg.conninfo import conninfo_to_dict

from ckpt.langgraph import CkptStore
from ckpt.storage.base import Fetched, StoredFrame
from ckpt.storage.postgres import PostgresStorage
from ckpt.storage.postgres_sql import Session

TABLE = "ckpt.ckpt_embedding"

_T = TypeVar("_T")


@contextmanager
def new_database(dsn: str) -> Iterator[str]:
    """Yield the URL of an empty database on the server, which has pgvector and nothing that uses it."""
    name = f"d_{secrets.token_hex(6)}"
    with psycopg.connect(dsn, autocommit=True) as admin:
        if not rows(dsn, "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"):
            text = "NO PGVECTOR on this PostgreSQL server, its tests did not run"
            if os.environ.get("CI"):
                pytest.fail(text)
            pytest.skip(text)
        admin.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield url_of(dsn, dbname=name)
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextmanager
def new_role(url: str) -> Iterator[tuple[str, str]]:
    """Yield a user without any permission, and the URL under which it opens this database."""
    if not str(conninfo_to_dict(url).get("host", "")).startswith("/"):
        pytest.skip("the server asks for passwords")
    name = f"r_{secrets.token_hex(6)}"
    run(url, f"CREATE ROLE {name} LOGIN")
    try:
        yield name, url_of(url, user=name, password="")
    finally:
        run(url, f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def url_of(dsn: str, **changes: str) -> str:
    """Return the URL of a database with some of its parameters changed."""
    parameters = {**conninfo_to_dict(dsn), **changes}
    query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in parameters.items() if value)
    return f"postgresql://?{query}"


def run(url: str, statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statements.encode())


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def kept(url: str) -> int | None:
    """Return how many vectors the table has; None where there is no table."""
    if rows(url, f"SELECT to_regclass('{TABLE}') IS NULL")[0][0]:
        return None
    return int(rows(url, f"SELECT count(*) FROM {TABLE}")[0][0])


ANA = ("users", "ana")
INDEX: Any = {"dims": DIMS, "embed": embed, "fields": ["text", "parts[*].text"]}


def fill(store: CkptStore, count: int = 5) -> None:
    """Put some items, each with a text of its own: `text 0` under `0`."""
    store.batch([PutOp(ANA, f"{number}", {"text": f"text {number}", "n": number}) for number in range(count)])


def packed(*vectors: Sequence[float]) -> list[bytes]:
    """Return vectors as they are kept."""
    return [struct.pack(f"<{len(vector)}f", *vector) for vector in vectors]


def name(number: int) -> bytes:
    """Return the name of a list of vectors."""
    return number.to_bytes(16, "big")


class Watched(PostgresStorage):
    """Counts the round trips, and the bytes of frames that come."""

    def __init__(self, url: str, **options: Any) -> None:
        self.trips = self.bytes = 0
        super().__init__(url, **options)

    def _lend(self, call: Callable[[Session], _T]) -> _T:
        self.trips += 1
        return super()._lend(call)

    def load(self, frames: Collection[int], known: Collection[int] = ()) -> dict[int, StoredFrame]:
        return self._weighed(super().load(frames, known))

    def fetch(self, keys: Collection[bytes], known: Collection[int] = ()) -> Fetched:
        found = super().fetch(keys, known)
        self._weighed(found.frames)
        return found

    def _weighed(self, frames: dict[int, StoredFrame]) -> dict[int, StoredFrame]:
        self.bytes += sum(len(frame.data) for frame in frames.values())
        return frames

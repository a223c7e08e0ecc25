"""The savers over one PostgreSQL server, each in a schema of its own, opened as its documentation says.

Not here: starting a server (`servers`) and what is measured on it (`shared`).
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import psycopg
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from benchmarks.contenders import Contender, Ours, Saver
from benchmarks.figures import Figures
from benchmarks.servers import Server
from benchmarks.wire import Wire, connect, wire

_POOL_SIZE = 10
"""Connections that many threads share: the default of `CkptSaver`, and as many for the peer."""

_OPTIONS: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
"""As `PostgresSaver.from_conn_string` has them, and as its documentation asks for in a pool."""

_COPIED = {
    "checkpoints": ("checkpoint_ns", "checkpoint_id", "parent_checkpoint_id", "type", "checkpoint", "metadata"),
    "checkpoint_blobs": ("checkpoint_ns", "channel", "version", "type", "blob"),
    "checkpoint_writes": (
        "checkpoint_ns", "checkpoint_id", "task_id", "task_path", "idx", "channel", "type", "blob",
    ),
}  # fmt: skip


class _InSchema(Contender):
    """One saver over one schema; its place is a URL that names both."""

    @property
    def schema(self) -> str:
        """The schema's name."""
        return self.place.rpartition("schema=")[2]


class CkptPostgres(_InSchema, Ours):
    """`CkptSaver` over a schema."""

    modules = ("ckpt.langgraph", "ckpt.storage.postgres")


class PostgresContender(_InSchema):
    """LangGraph's `PostgresSaver` as `from_conn_string` opens it: one connection, statements prepared.

    It has no `copy_thread`. Whoever forks copies the thread's rows by SQL, which this does too: nothing is cheaper.
    """

    name = "postgres"
    modules = ("langgraph.checkpoint.postgres",)
    _pool: ConnectionPool[Any] | None = None

    def __init__(self, place: str) -> None:
        super().__init__(place)
        # Made here and without libpq, as it is no part of opening: a program has it, and finds libpq as cold as we do.
        front, _, query = place.rpartition("&schema=")[0].partition("?")
        given = dict(parse_qsl(query))
        given["options"] = f"{given.get('options', '')} -c search_path={self.schema}".strip()
        self.conninfo = f"{front}?{urlencode(given, quote_via=quote)}"

    def _open(self) -> Saver:
        return PostgresSaver(psycopg.connect(self.conninfo, **_OPTIONS))

    def _close(self, saver: Any) -> None:
        saver.conn.close()

    def close(self) -> None:
        super().close()
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def copy_thread(self, source: str, target: str) -> None:
        saver: Any = self.saver
        with saver.conn.transaction():
            for table, columns in _COPIED.items():
                names = sql.SQL(", ").join(map(sql.Identifier, columns))
                saver.conn.execute(
                    sql.SQL("INSERT INTO {0} (thread_id, {1}) SELECT %s, {1} FROM {0} WHERE thread_id = %s").format(
                        sql.Identifier(table), names
                    ),
                    (target, source),
                )

    def crowd(self, count: int) -> Sequence[Contender]:
        """Return a saver for each thread over one pool: a `PostgresSaver` takes one call at a time."""
        self._pool = ConnectionPool(self.conninfo, kwargs=_OPTIONS, max_size=_POOL_SIZE, open=True)
        self._pool.wait()
        return [_Pooled(self.place, self._pool) for _ in range(count)]


class _Pooled(PostgresContender):
    def __init__(self, place: str, pool: ConnectionPool[Any]) -> None:
        super().__init__(place)
        self._saver = PostgresSaver(pool)


class PostgresServer(Server):
    """A PostgreSQL server. The user must be allowed to create schemas."""

    def __init__(self, url: str) -> None:
        self._parameters = {name: str(value) for name, value in conninfo_to_dict(url).items()}
        with self._connect() as connection:
            number = connection.info.server_version
            (synced,) = connection.execute("SHOW fsync").fetchone() or ("?",)
        self.version = f"PostgreSQL {number // 10_000}.{number % 10_000}, fsync {synced}"

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(make_conninfo(**self._parameters), autocommit=True)

    @contextmanager
    def new(self) -> Iterator[Sequence[Contender]]:
        schemas = [f"bench_{secrets.token_hex(6)}" for _ in range(2)]
        ours, theirs = (self._place(schema) for schema in schemas)
        contenders: list[_InSchema] = [CkptPostgres(ours), PostgresContender(theirs)]
        with self._connect() as connection:
            try:
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(contenders[1].schema)))
                peer: Any = contenders[1].saver
                peer.setup()
                yield contenders
            finally:
                for each in contenders:
                    each.close()
                    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(each.schema)))

    def _place(self, schema: str) -> str:
        return f"postgresql:///?{urlencode(self._parameters, quote_via=quote)}&schema={schema}"

    @contextmanager
    def wired(self) -> Iterator[tuple[PostgresServer, Wire]]:
        with wire(self._socket, ".s.PGSQL.5432") as lent:
            near = {name: value for name, value in self._parameters.items() if name not in ("hostaddr", "port")}
            yield PostgresServer(make_conninfo(**{**near, "host": str(lent.folder)})), lent

    def _socket(self) -> socket.socket:
        host, port = self._parameters.get("host", "localhost"), self._parameters.get("port", "5432")
        return connect(host, port, f"{host}/.s.PGSQL.{port}" if host.startswith("/") else "")

    def sizes(self, contenders: Sequence[Contender], checkpoints: int) -> Figures:
        figures: Figures = {"bytes": {}, "rows": {}}
        with self._connect() as connection:
            for each in contenders:
                assert isinstance(each, _InSchema)
                found = connection.execute(
                    "SELECT c.oid::regclass::text, pg_total_relation_size(c.oid)"
                    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                    " WHERE n.nspname = %s AND c.relkind = 'r'",
                    (each.schema,),
                ).fetchall()
                count = partial(_rows, connection)
                figures["bytes"][each.name] = sum(size for _, size in found)
                figures["rows"][each.name] = sum(count(table) for table, _ in found)
        return figures


def _rows(connection: psycopg.Connection[Any], table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])

"""One statement sent and its answer read, on a connection of a store's own or on one that was passed in.

What a statement means is the matter of `ckpt.storage.postgres_sql`, which connection it goes to that of
`ckpt.storage.postgres_pool`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap, Transformer
from psycopg.errors import error_from_result
from psycopg.generators import execute
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGresult
from psycopg.rows import tuple_row

from ckpt.storage.postgres_arrays import ADAPTERS, BIGINT, BYTEA, AsReceived, BigintArray, ByteaArray, Cursor

Connection = psycopg.Connection[Any]

_AS_INFERRED, _TEXT = 0, 25


class Owned(psycopg.Connection[Any]):
    """A connection of a store's own: in autocommit mode, never in pipeline mode, used by one call at a time.

    Dropped without being closed, it is closed without a warning.
    """

    # psycopg's would warn. This one is in C: what a handler of signals raises in a finalizer in Python reaches nobody.
    __del__: Any = bool


class _Reading:
    """What the rows of an answer are read with: nothing that a program taught psycopg since."""

    adapters: AdaptersMap = ADAPTERS

    def __init__(self, connection: Connection) -> None:
        self.connection = connection


def run(connection: Connection, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
    """Run one statement and return its rows as tuples, whatever the connection's own settings are.

    Its parameters ($1, $2, …) are byte strings, numbers, texts, None, and what `ckpt.storage.postgres_arrays` has.
    Raises psycopg's errors.
    """
    result = _exchanged(connection, statement, parameters)
    if result.status != ExecStatus.TUPLES_OK:
        return []
    reader = Transformer(_Reading(connection))
    reader.set_pgresult(result)
    return reader.load_rows(0, result.ntuples, tuple)


def run_for_bytes(connection: Connection, statement: str, parameters: Sequence[object]) -> bytes:
    """Do as `run` does for a statement that returns a single byte string."""
    value = _exchanged(connection, statement, parameters).get_value(0, 0)
    assert value is not None
    return value


def _exchanged(connection: Connection, statement: str, parameters: Sequence[object]) -> PGresult:
    if not isinstance(connection, Owned):
        with Cursor(connection, row_factory=tuple_row) as cursor:
            cursor.execute(statement.encode(), parameters, prepare=False, binary=True)
            assert cursor.pgresult is not None
            return cursor.pgresult
    # Without a cursor, whose care for what a program may want costs as much as a short statement.
    pgconn = connection.pgconn
    given = [_encoded(connection, each) for each in parameters]
    pgconn.send_query_params(
        statement.encode(),
        [value for _, value in given],
        param_types=[kind for kind, _ in given],
        param_formats=[Format.BINARY] * len(given),
        result_format=Format.BINARY,
    )
    result: PGresult = connection.wait(execute(pgconn))[-1]
    if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
        raise error_from_result(result, connection.info.encoding)
    return result


def _encoded(connection: Connection, parameter: object) -> tuple[int, bytes | None]:
    """Return the type of a parameter, and the bytes that it is sent as."""
    if parameter is None or isinstance(parameter, AsReceived):
        return _AS_INFERRED, parameter
    if isinstance(parameter, ByteaArray | BigintArray):
        return parameter.oid, parameter
    if isinstance(parameter, bytes):
        return BYTEA, parameter
    if isinstance(parameter, int):
        return BIGINT, parameter.to_bytes(8, "big", signed=True)
    assert isinstance(parameter, str)
    return _TEXT, parameter.encode(connection.info.encoding)


def run_script(connection: Connection, statements: str) -> None:
    """Run statements without parameters, in one transaction unless they may not be in any."""
    with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(statements.encode(), prepare=False)

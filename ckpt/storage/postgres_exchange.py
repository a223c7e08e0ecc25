"""One statement sent and its answer read, on a connection of a store's own or on one that was passed in.

What a statement means is the matter of `ckpt.storage.postgres_sql`, which connection it goes to that of
`ckpt.storage.postgres_pool`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Any, NamedTuple

import psycopg
from blake3 import blake3
from psycopg.adapt import Transformer
from psycopg.errors import DuplicatePreparedStatement, InvalidSqlStatementName, error_from_result
from psycopg.generators import execute, fetch_many
from psycopg.pq import ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.rows import tuple_row

from ckpt.storage.postgres_arrays import BIGINT, BYTEA, AsReceived, BigintArray, ByteaArray, Cursor, Reading

Connection = psycopg.Connection[Any]

_AS_INFERRED, _TEXT = 0, 25


class Owned(psycopg.Connection[Any]):
    """A connection of a store's own: in autocommit mode, never in pipeline mode, used by one call at a time.

    Dropped without being closed, it is closed without a warning.
    """

    direct = False
    """Whether it leads to one session of the server, in which a statement that was prepared stays prepared.

    Through a pooler it may not: see `look_whether_direct`.
    """
    prepared: Set[bytes] = frozenset()
    """The names of the statements that are prepared in that session."""

    # psycopg's would warn. This one is in C: what a handler of signals raises in a finalizer in Python reaches nobody.
    __del__: Any = bool


def run(connection: Connection, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
    """Run one statement and return its rows as tuples, whatever the connection's own settings are.

    Its parameters ($1, $2, …) are byte strings, numbers, texts, None, and what `ckpt.storage.postgres_arrays` has.
    Raises psycopg's errors.
    """
    result = _exchanged(connection, statement, parameters)
    if result.status != ExecStatus.TUPLES_OK:
        return []
    reader = Transformer(Reading(connection))
    reader.set_pgresult(result)
    return reader.load_rows(0, result.ntuples, tuple)


class Prepared(NamedTuple):
    """A statement that returns a single byte string and is run by most calls of a store."""

    name: bytes
    statement: bytes
    types: tuple[int, ...]
    formats: tuple[Format, ...]

    @classmethod
    def of(cls, name: str, statement: str, types: Sequence[int]) -> Prepared:
        """Name a statement by what it is as well: should a session ever be shared unawares, nothing is mistaken for it.

        `types` are those of its parameters.
        """
        encoded = statement.encode()
        full_name = f"{name} {blake3(encoded).hexdigest(16)}".encode()
        return cls(full_name, encoded, tuple(types), (Format.BINARY,) * len(types))


def run_prepared(
    connection: Connection,
    prepared: Prepared,
    values: Sequence[bytes | None],
    meanwhile: Callable[[], None] | None = None,
) -> bytes:
    """Run a statement with the values of its parameters as the server receives them, and return its byte string.

    `meanwhile` is called once it was sent, if that is known before the answer has come.

    It is prepared, which saves the server a fifth of its time and costs no trip, on a connection that leads to it
    directly and is in no transaction. One that was taken from the server's session meanwhile is prepared no more.
    """
    result: PGresult | None = None
    if isinstance(connection, Owned) and connection.direct:
        try:
            result = _exchanged_prepared(connection, prepared, values, meanwhile)
        except (InvalidSqlStatementName, DuplicatePreparedStatement):
            connection.direct = False
    if result is None:
        # Numbers alone have to be told from byte strings, and data is not copied.
        named = zip(prepared.types, values, strict=True)
        parameters = [AsReceived(value) if kind == BIGINT and value is not None else value for kind, value in named]
        result = _exchanged(connection, prepared.statement.decode(), parameters)
    value = result.get_value(0, 0)
    assert value is not None
    return value


def look_whether_direct(connection: Connection, pid: int) -> None:
    """Take note of whether a connection leads to the server itself, which says it answers as process `pid`.

    Who connects is told the number of the process that will answer, to be able to cancel. Through a pooler that is a
    number of the pooler's own making.
    """
    if isinstance(connection, Owned):
        connection.direct = connection.pgconn.backend_pid == pid and psycopg.capabilities.has_pipeline()


def _exchanged(connection: Connection, statement: str, parameters: Sequence[object]) -> PGresult:
    if not isinstance(connection, Owned):
        with Cursor(connection, row_factory=tuple_row) as cursor:
            cursor.execute(statement.encode(), parameters, prepare=False, binary=True)
            assert cursor.pgresult is not None
            return cursor.pgresult
    # Without a cursor, whose care for what a program may want costs as much as a short statement.
    pgconn = connection.pgconn
    sent = [_encoded(connection, each) for each in parameters]
    pgconn.send_query_params(
        statement.encode(),
        [value for _, value in sent],
        param_types=[kind for kind, _ in sent],
        param_formats=[Format.BINARY] * len(sent),
        result_format=Format.BINARY,
    )
    return _checked(connection, connection.wait(execute(pgconn))[-1])


def _exchanged_prepared(
    connection: Owned, prepared: Prepared, values: Sequence[bytes | None], meanwhile: Callable[[], None] | None
) -> PGresult | None:
    """Run a statement that is prepared, or is being prepared in the same trip; None in a transaction, with nothing run.

    There an error would end what others have begun.
    """
    pgconn = connection.pgconn
    if pgconn.transaction_status != TransactionStatus.IDLE:
        return None
    name, statement, types, formats = prepared
    if name in connection.prepared:
        pgconn.send_query_prepared(name, values, param_formats=formats, result_format=Format.BINARY)
        if meanwhile is not None:
            meanwhile()
        return _checked(connection, connection.wait(execute(pgconn))[-1])
    pgconn.enter_pipeline_mode()
    pgconn.send_prepare(name, statement, types)
    pgconn.send_query_prepared(name, values, param_formats=formats, result_format=Format.BINARY)
    pgconn.pipeline_sync()
    made = connection.wait(execute(pgconn))[-1]
    result = connection.wait(fetch_many(pgconn))[-1]
    connection.wait(fetch_many(pgconn))
    pgconn.exit_pipeline_mode()
    _checked(connection, made)
    connection.prepared = {*connection.prepared, name}
    return _checked(connection, result)


def _checked(connection: Connection, result: PGresult) -> PGresult:
    if result.status != ExecStatus.TUPLES_OK and result.status != ExecStatus.COMMAND_OK:
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

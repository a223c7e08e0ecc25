"""Vectors in a PostgreSQL store that has the extension pgvector: the server compares them, and nothing is sent.

One table in the schema of the store, `ckpt_embedding`. It is made when there is first something to keep, and can be
dropped at any time. Vectors lie there with a length of one, so that their inner product with a query's is the cosine
whatever their size; of one list all have equally many dimensions. Types and operators of the extension are named with
the schema it is in, and parameters are sent as the bytes they consist of: no setting of the connection matters.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from math import isfinite, sqrt
from operator import mul
from typing import NamedTuple, Protocol, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from ckpt.errors import CkptError
from ckpt.storage.base import Nearest
from ckpt.storage.postgres_arrays import AsReceived, bigint_array, bytea_array
from ckpt.storage.postgres_exchange import run, run_script
from ckpt.storage.postgres_schema import CREATING
from ckpt.storage.postgres_sql import EMBEDDING, Session

logger = logging.getLogger(__name__)

_DIMS_MAX = 16_000
"""Dimensions that a vector of pgvector may have."""

_VECTORS_MAX = 1 << 15
_STATEMENT_SIZE = 4 << 20
"""Bytes of vectors that are sent in one statement, unless a single list has more."""

_PASSING = ("08", "40", "53", "55", "57")
"""Classes of SQLSTATE that say nothing about what the server can do and what this user may."""

_UNDEFINED = ("42P01", "42703", "42704", "42883", "3F000")

_LOOK = """
    SELECT quote_ident(n.nspname), t.oid::bigint, (
        SELECT array_agg(a.attname::text || ' ' || a.atttypid ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
    )
    FROM pg_catalog.pg_extension e
    JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    JOIN pg_catalog.pg_type t ON t.typnamespace = n.oid AND t.typname = 'vector'
    WHERE e.extname = 'vector'
"""
_COLUMNS = ["id 17", "ordinal 21", "dims 21", "embedding {vector}"]

_CREATE = """
    SELECT pg_catalog.pg_advisory_xact_lock({lock});
    CREATE TABLE IF NOT EXISTS {table} (
        id bytea NOT NULL, ordinal smallint NOT NULL, dims smallint NOT NULL, embedding {extension}.vector NOT NULL,
        PRIMARY KEY (id, ordinal)
    )
"""
_EXTEND = "SELECT pg_catalog.pg_advisory_xact_lock({lock}); CREATE EXTENSION IF NOT EXISTS vector"

# In a CASE a vector of other dimensions never meets the operator, which would refuse it. The number of dimensions
# stands beside a vector because asking the vector itself means to read all of it.
_NEAREST = """
    WITH scored AS (
        SELECT asked.place, max(
            CASE WHEN e.dims = $1::integer THEN -(e.embedding OPERATOR({x}.<#>) $2::{x}.vector) END
        ) AS score
        FROM unnest($3::bytea[]) WITH ORDINALITY AS asked(id, place)
        LEFT JOIN {table} e ON e.id = asked.id GROUP BY asked.place
    )
    SELECT place, score FROM scored WHERE score IS NULL
    UNION ALL
    (SELECT place, score FROM scored WHERE score IS NOT NULL ORDER BY score DESC, place LIMIT $4::bigint)
"""

# In the order of keys, so that two who add the same lists at once wait for each other and never in a circle.
_ADD = """
    INSERT INTO {table} (id, ordinal, dims, embedding)
    SELECT added.id, added.ordinal, {x}.vector_dims(added.embedding), added.embedding
    FROM unnest($1::bytea[], $2::smallint[], $3::{x}.vector[]) AS added(id, ordinal, embedding)
    ORDER BY added.id, added.ordinal ON CONFLICT DO NOTHING
"""

_T = TypeVar("_T")


class Lend(Protocol):
    """Lends a session to one call, and returns what that returns."""

    def __call__(self, call: Callable[[Session], _T], /) -> _T: ...


class _Extension(NamedTuple):
    """Where pgvector is in this database: its schema, quoted, and the number of its type."""

    schema: str
    vector: int


class PostgresVectors:
    """The `Ranking` of one PostgreSQL store. Safe for many threads.

    `lend` lends a session for one call, `schema` is quoted already. Without the extension, or the right to create it
    and the table, nothing is known here and nothing kept, which is found out at the first use. In a transaction of
    the caller's and with `readonly` nothing is added.
    """

    def __init__(self, lend: Lend, schema: str, *, readonly: bool) -> None:
        self._lend = lend
        self._table = f"{schema}.{EMBEDDING}"
        self._found: _Extension | None = None
        """Set once the table is there to be used."""
        self._asking = True
        self._adding = not readonly

    # -- what a search needs ----------------------------------------------------------------------------

    def nearest(self, query: Sequence[float], names: Sequence[bytes], limit: int) -> Nearest:
        wanted = _unit(query)
        if wanted is None or not names:
            return Nearest([], set(names))

        def ask(session: Session, there: _Extension) -> Nearest:
            statement = _NEAREST.format(x=there.schema, table=self._table)
            rows = run(session.connection, statement, (len(query), AsReceived(wanted), bytea_array(names), limit))
            ranked = [(names[place - 1], score) for place, score in rows if score is not None]
            return Nearest(ranked, {names[place - 1] for place, score in rows if score is None})

        return self._ask(ask, Nearest([], set(names)))

    def add(self, vectors: Mapping[bytes, Sequence[bytes]]) -> bool:
        if not self._adding:
            return False
        try:
            return all(self._lend(partial(self._insert, part)) for part in _parts(vectors))
        except CkptError as error:
            self._refused(error, adding=True)
            return False

    # -- what a collector needs -------------------------------------------------------------------------

    def names(self, after: bytes, limit: int) -> list[bytes]:
        def ask(session: Session, there: _Extension) -> list[bytes]:
            statement = "SELECT DISTINCT id FROM {table} WHERE id > $1 ORDER BY id LIMIT $2::bigint"
            return [name for (name,) in run(session.connection, statement.format(table=self._table), (after, limit))]

        return self._ask(ask, [])

    def remove(self, names: Collection[bytes]) -> None:
        def ask(session: Session, there: _Extension) -> None:
            statement = "DELETE FROM {table} WHERE id = ANY ($1::bytea[])"
            run(session.connection, statement.format(table=self._table), (bytea_array(names),))

        self._ask(ask, None)

    # -- the table ----------------------------------------------------------------------------------------

    def _ask(self, ask: Callable[[Session, _Extension], _T], absent: _T) -> _T:
        """Return an answer of the table, or `absent` when there is none to be had. Raises what will pass."""
        try:
            there = self._found
            if there is None and self._asking:
                there = self._found = self._lend(self._look)[1]
            if there is None:
                return absent
            return self._lend(lambda session: ask(session, there))
        except CkptError as error:
            if not self._refused(error):
                raise
            return absent

    def _refused(self, error: CkptError, *, adding: bool = False) -> bool:
        """Return whether an error will be the same next time, and take note of it then."""
        cause = error.__cause__
        state = cause.sqlstate if isinstance(cause, psycopg.Error) else None
        if state is None or state.startswith(_PASSING):
            return False
        there, self._found = self._found, None
        if there is not None and state in _UNDEFINED:
            # Somebody dropped the table, which may be made again.
            return True
        self._adding = False
        if adding and there is not None:
            self._found = there
        else:
            self._asking = False
        logger.info("pgvector is not used, vectors are sent and compared here: %s", error)
        return True

    def _look(self, session: Session) -> tuple[_Extension | None, _Extension | None]:
        """Return the extension if it is there, and again if the table is there too."""
        rows = session.run(_LOOK, (self._table,))
        if not rows:
            return None, None
        ((schema, vector, columns),) = rows
        there = _Extension(schema, vector)
        if columns is None:
            return there, None
        if columns != [each.format(vector=vector) for each in _COLUMNS]:
            self._asking = self._adding = False
            return there, None
        return there, there

    def _prepare(self, session: Session) -> _Extension | None:
        """Make sure that the table is there; None when it is not ours to make. Many may do this at once."""
        if session.connection.info.transaction_status != TransactionStatus.IDLE:
            return None
        there, ready = self._look(session)
        if there is None:
            run_script(session.connection, _EXTEND.format(lock=CREATING))
            there, ready = self._look(session)
        if there is not None and ready is None and self._adding:
            run_script(session.connection, _CREATE.format(lock=CREATING, table=self._table, extension=there.schema))
            ready = self._look(session)[1]
        self._found = ready
        return ready

    def _insert(self, part: Sequence[tuple[bytes, int, bytes]], session: Session) -> bool:
        there = self._found or self._prepare(session)
        if there is None or session.connection.info.transaction_status != TransactionStatus.IDLE:
            # Others would wait for the end of the caller's transaction, which may be far.
            return False
        names, ordinals, vectors = zip(*part, strict=True)
        elements = b"".join(struct.pack(">i", len(vector)) + vector for vector in vectors)
        array = struct.pack(">iiIii", 1, 0, there.vector, len(vectors), 1) + elements
        statement = _ADD.format(x=there.schema, table=self._table)
        run(session.connection, statement, (bytea_array(names), bigint_array(ordinals), AsReceived(array)))
        return True


def _parts(vectors: Mapping[bytes, Sequence[bytes]]) -> Iterator[list[tuple[bytes, int, bytes]]]:
    """Yield rows of bounded size: name, place in its list, vector. A list stays together, or is left out whole."""
    part: list[tuple[bytes, int, bytes]] = []
    size = 0
    for name in sorted(vectors):
        units = [_unit(struct.unpack(f"<{len(vector) // 4}f", vector)) for vector in vectors[name]]
        rows = [(name, at, unit) for at, unit in enumerate(units) if unit is not None]
        if len(rows) < len(units) or len(units) > _VECTORS_MAX or len({len(unit) for _, _, unit in rows}) != 1:
            continue
        part += rows
        size += sum(len(unit) for _, _, unit in rows)
        if size >= _STATEMENT_SIZE:
            yield part
            part, size = [], 0
    if part:
        yield part


def _unit(values: Sequence[float]) -> bytes | None:
    """Return the vector of length one in the same direction as pgvector receives it, or None where it has none."""
    length = sqrt(sum(map(mul, values, values)))
    if not 0 < len(values) <= _DIMS_MAX or not isfinite(length):
        return None
    scaled = [value / length for value in values] if length else [0.0] * len(values)
    return struct.pack(f">hh{len(values)}f", len(values), 0, *scaled)

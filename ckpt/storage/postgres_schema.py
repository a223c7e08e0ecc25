"""The schema behind a PostgreSQL store: creating it, and recognising it.

Three tables and ten functions in a schema of their own, or beside the tables of others. Relations that have our
names and are not ours are named in an error and left untouched. Nothing here keeps a connection.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import psycopg
from psycopg import errors, sql
from psycopg.pq import TransactionStatus

from ckpt.addresses import how_to_create
from ckpt.errors import FormatTooNewError, InvalidInputError, NotAStoreError, StoreNotFoundError
from ckpt.storage.base import with_incarnation
from ckpt.storage.postgres_exchange import Connection, Owned, look_whether_direct, run, run_script
from ckpt.storage.postgres_functions import MARKS, functions, incarnation_of
from ckpt.storage.postgres_sql import EMBEDDING, Session

FORMAT = 1
"""The newest format this version reads and the one it writes; kept in the table `meta`."""

SCHEMA = "ckpt"
"""The schema of a store when none is named."""

_NAME_BYTES_MAX = 63
TABLES = ("meta", "record", "frame")
CREATING = 0x636B7074_00000000
"""The advisory lock under which stores are created; its lower half is the number of no table."""

_LOOK = """
    SELECT c.relname::text, coalesce(array_agg(a.attname::text || ' ' || format_type(a.atttypid, NULL)
                                               ORDER BY a.attname), '{{}}'::text[])
    FROM pg_catalog.pg_class c
    LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.oid IN ({names})
    GROUP BY c.oid, c.relname
"""
_META = ["name text", "value bigint"]

# Read whole, as a table of two rows is; a third shows that it is somebody else's, or of a later format.
_KNOWN = """
    SELECT name, value, (SELECT number FROM {schema}.frame ORDER BY number DESC LIMIT 1),
           (SELECT value FROM {schema}.record WHERE key = $1::bytea), {marks}, pg_catalog.pg_backend_pid()
    FROM {schema}.meta LIMIT 3
"""

# A frame's data is compressed already: PostgreSQL need not try again. The record of a thread is written again with
# every checkpoint: measured with two updates each, full pages serve best (99% of the updates are HOT and the dead
# version's room is used again); a lower fillfactor has the page pruned later and makes the table 1.8 times as large.
# The index of objects is a GIN index over the keys that each frame lists, not a table with a row per object. A
# list has the keys in the order of positions (NULL where the object is found elsewhere), and behind them, as keys
# of one byte, the first bytes that occur: by these the index is read in order. When several frames list a key,
# the one with the greatest number counts.
_CREATE = """
    CREATE TABLE {schema}.meta (name text PRIMARY KEY, value bigint NOT NULL);
    CREATE TABLE {schema}.record (key bytea PRIMARY KEY, value bytea NOT NULL);
    CREATE TABLE {schema}.frame (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        previous bigint NOT NULL, data bytea NOT NULL, keys bytea[] NOT NULL
    );
    ALTER TABLE {schema}.frame ALTER COLUMN data SET STORAGE EXTERNAL, ALTER COLUMN keys SET STORAGE EXTERNAL;
    CREATE INDEX frame_keys ON {schema}.frame USING gin (keys) WITH (fastupdate = off);
    INSERT INTO {schema}.meta (name, value) VALUES ('ckpt format', {format}), ('epoch', 1);
"""


def checked(schema: object) -> str:
    """Return the name of a schema, or raise InvalidInputError."""
    try:
        size = len(schema.encode()) if isinstance(schema, str) else 0
    except UnicodeEncodeError:
        raise InvalidInputError(f"{schema!r} cannot name a schema: it is not Unicode text") from None
    if not isinstance(schema, str) or not 0 < size <= _NAME_BYTES_MAX or "\x00" in schema:
        raise InvalidInputError(f"{schema!r} cannot name a schema", hints=[f"1 to {_NAME_BYTES_MAX} bytes, no NUL"])
    if schema == "$user":
        raise InvalidInputError("PostgreSQL takes '$user' for the name of a role", hints=["name the schema otherwise"])
    return schema


class Opened(NamedTuple):
    """What was found while opening: the number of the newest frame (0 for none), the epoch, the record asked for."""

    newest: int
    epoch: int
    record: bytes | None


def prepare(connection: Connection, schema: str, url: str, *, create: bool, ahead: bytes | None = None) -> Opened:
    """Make sure that a store of a format known here is in the schema (quoted already), creating it if asked.

    `ahead` is the key of a record to look at in passing. A store that is there costs one statement, which also tells
    whether the connection is a direct one.

    Any number of processes may do this at once; one creates the store, in one transaction (or in the caller's,
    when one is open). Asks for no permission that it does not need: an existing store is only read, an existing
    schema is not created. Raises StoreNotFoundError, NotAStoreError, FormatTooNewError, and InvalidInputError for a
    connection in whose encoding the names here cannot be told.
    """
    _check_encoding(connection, schema)
    opened = _opened_at_once(connection, schema, ahead)
    if opened is None:
        _prepare_with_care(connection, schema, url, create=create)
        opened = _opened_at_once(connection, schema, ahead)
    if opened is None:
        raise StoreNotFoundError(f"the store in {url} is gone", hints=[how_to_create(url)])
    return opened


def _check_encoding(connection: Connection, schema: str) -> None:
    if isinstance(connection, Owned):
        return
    # Statements are sent in UTF-8, which for ASCII is any encoding; under SQL_ASCII psycopg gives texts as bytes.
    encoding = connection.info.parameter_status("client_encoding") or "UTF8"
    if encoding == "SQL_ASCII" or (encoding != "UTF8" and not schema.isascii()):
        raise InvalidInputError(
            f"the connection passed in has the encoding {encoding}, in which the schema {schema} cannot be used",
            hints=["connect with client_encoding=utf8, whatever the database has"],
        )


def _opened_at_once(connection: Connection, schema: str, ahead: bytes | None) -> Opened | None:
    """Return what a store of our format holds; None where there may be anything else."""
    inside = connection.info.transaction_status == TransactionStatus.INTRANS
    try:
        # The caller's transaction outlives a statement that fails.
        with connection.transaction() if inside else nullcontext():
            statement = _KNOWN.format(schema=schema, marks=MARKS.format(frames="$2::regclass"))
            rows = run(connection, statement, (ahead, f"{schema}.frame"))
    except (psycopg.ProgrammingError, psycopg.DataError):
        return None
    meta = {name: value for name, value, *_ in rows}
    if meta.keys() != {"ckpt format", "epoch"} or meta["ckpt format"] != FORMAT:
        return None
    _, _, newest, record, *marks, pid = rows[0]
    look_whether_direct(connection, pid)
    return Opened(newest or 0, with_incarnation(incarnation_of(*marks), meta["epoch"]), record)


def _prepare_with_care(connection: Connection, schema: str, url: str, *, create: bool) -> None:
    if _recognised(connection, schema, url):
        return
    if not create:
        raise StoreNotFoundError(f"there is no store in {url}", hints=[how_to_create(url)])
    with connection.transaction():
        run(connection, "SELECT pg_catalog.pg_advisory_xact_lock($1)", (CREATING,))
        # Another process may have been first: what counts is what stands here under the lock.
        if not _recognised(connection, schema, url):
            try:
                _create(connection, schema)
            except (errors.DuplicateTable, errors.DuplicateObject, errors.DuplicateFunction) as error:
                # Only relations with the names of our tables are looked for beforehand, no types, indexes or functions.
                taken = error.diag.message_primary
                raise _foreign(f"{url} has something of another program where a store would be: {taken}") from error


def _create(connection: Connection, schema: str) -> None:
    if run(connection, "SELECT pg_catalog.to_regnamespace($1) IS NULL", (schema,))[0][0]:
        run_script(connection, f"CREATE SCHEMA {schema}")
    run_script(connection, _CREATE.format(schema=schema, format=FORMAT))
    run_script(connection, functions(schema))


def _recognised(connection: Connection, schema: str, url: str) -> bool:
    """Return whether the store is there; raise when something else is, or a store of a newer format."""
    names = ", ".join(f"pg_catalog.to_regclass(${number})" for number in range(1, len(TABLES) + 1))
    rows = run(connection, _LOOK.format(names=names), tuple(f"{schema}.{name}" for name in TABLES))
    tables = dict(rows)
    if not tables:
        return False
    found: list[Any] = []
    if tables.get("meta") == _META:
        found = run(connection, f"SELECT value FROM {schema}.meta WHERE name = 'ckpt format'")
    if not found:
        raise _foreign(f"{url} has a table {sorted(tables)[0]!r} of another program")
    if found[0][0] > FORMAT:
        raise FormatTooNewError(
            f"the store in {url} has format {found[0][0]}; this ckpt reads up to {FORMAT}",
            hints=["update ckpt: pip install -U 'ckpt-store[postgres]'"],
        )
    return True


def _foreign(what: str) -> NotAStoreError:
    return NotAStoreError(f"{what}; it was left untouched", hints=["name another schema: postgresql://…?schema=NAME"])


def quoted(name: str) -> str:
    """Return a name as SQL has it, whatever its characters."""
    return sql.Identifier(name).as_string(None)


def verify(session: Session) -> list[str]:
    """Return what the extension amcheck finds wrong with tables and indexes; nothing where it is not to be had."""
    found: list[str] = []
    try:
        for (schema,) in session.run(
            "SELECT quote_ident(nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
            " WHERE extname = 'amcheck'"
        ):
            for table in map(session.table, TABLES):
                found += _complaints(session, f"SELECT msg FROM {schema}.verify_heapam($1::regclass)", table)
                found += _complaints(
                    session,
                    f"SELECT {schema}.bt_index_check(indexrelid, true)::text FROM pg_index"
                    " WHERE indrelid = $1::regclass",
                    table,
                )
    except errors.InsufficientPrivilege:
        return found
    return found


def _complaints(session: Session, query: str, table: str) -> list[str]:
    try:
        with session.connection.transaction():
            rows = session.run(query, (table,))
    except psycopg.InternalError as error:
        return [f"{table}: {str(error).splitlines()[0]}"]
    return [f"{table}: {text}" for (text,) in rows if text]


def vacuum(session: Session) -> None:
    """Make the room of removed rows usable again; leave it to autovacuum where that is not allowed to this user."""
    if session.connection.info.transaction_status != TransactionStatus.IDLE:
        return
    known = session.run("SELECT pg_catalog.to_regclass($1) IS NOT NULL", (session.table(EMBEDDING),))[0][0]
    for table in map(session.table, (*TABLES, EMBEDDING) if known else TABLES):
        try:
            run_script(session.connection, f"VACUUM {table}")
        except errors.InsufficientPrivilege:
            return

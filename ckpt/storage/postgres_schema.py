"""The schema behind a PostgreSQL store: creating it, recognising it, and the function that publishes.

Three tables and six functions in a schema of their own, or beside the tables of others. Relations that have our
names and are not ours are named in an error and left untouched. Nothing here keeps a connection.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from ckpt.errors import FormatTooNewError, InvalidInputError, NotAStoreError, StoreNotFoundError
from ckpt.storage.postgres_sql import EMBEDDING, LOCK_CLASS, PLACE_BITS, Session, run, run_script

FORMAT = 1
"""The newest format this version reads and the one it writes; kept in the table `meta`."""

SCHEMA = "ckpt"
"""The schema of a store when none is named."""

_NAME_BYTES_MAX = 63
_LOCATED_AT_ONCE = 500
"""Keys that one search of the index takes; its cost grows with the square of this."""

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

_KNOWN = """
    SELECT value, (SELECT coalesce(max(number), 0) FROM {schema}.frame)
    FROM {schema}.meta WHERE name = 'ckpt format'
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

# Functions for what a plan must not be guessed for: none is compiled (`jit`) because of a wild guess of the number
# of rows, none reads all frames because a table was small when the plan was made; two lists are joined by hashing,
# however short they are taken to be, and a chain is followed by the index, as hashing would read all frames again for
# each of its hundreds of steps.
_SETTINGS = "SET search_path = pg_catalog, {schema}, pg_temp SET jit = off SET enable_seqscan = off"

_READING = """
    CREATE FUNCTION {schema}.ckpt_chain(wanted bigint[], known bigint[]) RETURNS bigint[]
    LANGUAGE sql STABLE {settings} SET enable_hashjoin = off SET enable_mergejoin = off
    AS $ckpt$
        WITH RECURSIVE chain(number) AS (
            SELECT frame.number FROM frame WHERE frame.number = ANY (wanted)
            UNION SELECT frame.previous FROM chain JOIN frame ON frame.number = chain.number
            WHERE frame.previous <> 0 AND frame.previous <> ALL (known)
        )
        SELECT array_agg(number) FROM chain
    $ckpt$;
    CREATE FUNCTION {schema}.ckpt_locate(wanted bytea[]) RETURNS TABLE (key bytea, place bigint)
    LANGUAGE plpgsql STABLE {settings} SET enable_nestloop = off
    AS $ckpt$
    DECLARE
        part bytea[];
    BEGIN
        wanted := ARRAY(SELECT DISTINCT unnest(wanted));
        FOR i IN 1 .. cardinality(wanted) BY {part} LOOP
            part := wanted[i : i + {part} - 1];
            RETURN QUERY
                SELECT own.key, max(frame.number << {place_bits} | own.ordinal - 1)
                FROM frame CROSS JOIN LATERAL unnest(frame.keys) WITH ORDINALITY AS own(key, ordinal)
                JOIN unnest(part) AS asked(key) ON asked.key = own.key
                WHERE frame.keys && part GROUP BY own.key;
        END LOOP;
    END
    $ckpt$;
    CREATE FUNCTION {schema}.ckpt_scan(after bytea, wanted bigint) RETURNS TABLE (key bytea, place bigint)
    LANGUAGE plpgsql STABLE {settings}
    AS $ckpt$
    DECLARE
        first integer := CASE after WHEN '' THEN 0 ELSE get_byte(after, 0) END;
        width integer := 1;
        bytes bytea[];
        rows bigint;
    BEGIN
        -- One first byte shows how many keys there are to each, and so how many bytes the rest will take.
        WHILE wanted > 0 AND first < 256 LOOP
            bytes := ARRAY(
                SELECT decode(lpad(to_hex(byte), 2, '0'), 'hex')
                FROM generate_series(first, least(first + width, 256) - 1) AS byte ORDER BY byte
            );
            RETURN QUERY
                SELECT own.key, max(frame.number << {place_bits} | own.ordinal - 1)
                FROM frame CROSS JOIN LATERAL unnest(frame.keys) WITH ORDINALITY AS own(key, ordinal)
                WHERE frame.keys && bytes AND own.key > greatest(bytes[1], after) AND length(own.key) > 1
                AND substring(own.key FROM 1 FOR 1) <= bytes[cardinality(bytes)]
                GROUP BY own.key ORDER BY own.key LIMIT wanted;
            GET DIAGNOSTICS rows = ROW_COUNT;
            wanted := wanted - rows;
            first := first + width;
            width := least(256, 1 + wanted * width / greatest(rows, 1));
        END LOOP;
    END
    $ckpt$;
    CREATE FUNCTION {schema}.ckpt_forget(gone bytea[]) RETURNS bigint
    LANGUAGE sql VOLATILE {settings}
    AS $ckpt$
        WITH changed AS (
            UPDATE frame SET keys = ARRAY(
                SELECT CASE WHEN own.key <> ALL (gone) THEN own.key END
                FROM unnest(frame.keys) WITH ORDINALITY AS own(key, ordinal) ORDER BY own.ordinal
            )
            WHERE frame.keys && gone RETURNING 1
        )
        SELECT count(*) FROM changed
    $ckpt$;
"""

# All comes in two arrays, as a statement with a parameter for each kind costs more than what it does. In `parts`:
# the keys of records in order, so that rows are locked in the same order by everybody; for each what is expected,
# and what is new; the data of each frame; the keys of all frames, NULL where one came before in the batch; and the
# first bytes that occur among those of each frame. In `layout`: how many records, frames and keys there are, the
# expected epoch or -1, and whether places are replaced; for each record whether it is checked (1) and written (2);
# for each frame four numbers: the one before it, whether it is optional, how many keys and first bytes it has.
#
# The answer begins with a word: `done` and the number of each frame, `conflict` and what was found under each key, or
# `epoch` and the number that it is.
#
# What is absent cannot be locked: it is inserted, and whoever comes second finds the key taken, raises 40001, and is
# sent again to see what stands there now. Mostly no key is in the index yet, which a short look tells.
_PUBLISH = """
    CREATE FUNCTION {schema}.ckpt_taken(asked bytea[]) RETURNS boolean[]
    LANGUAGE sql STABLE {settings} SET enable_nestloop = off
    AS $ckpt$
        SELECT array_agg(o.key IS NULL OR located.key IS NOT NULL ORDER BY o.ordinal)
        FROM unnest(asked) WITH ORDINALITY AS o(key, ordinal)
        LEFT JOIN ckpt_locate(array_remove(asked, NULL)) AS located ON located.key = o.key
    $ckpt$;
    CREATE FUNCTION {schema}.ckpt_publish(parts bytea[], layout bigint[]) RETURNS bytea[]
    LANGUAGE plpgsql VOLATILE {settings}
    AS $ckpt$
    DECLARE
        records CONSTANT integer := layout[1];
        frames CONSTANT integer := layout[2];
        objects CONSTANT integer := layout[3];
        replacing CONSTANT boolean := layout[5] = 1;
        at_data CONSTANT integer := 3 * records;
        at_object integer := at_data + frames;
        at_head integer := at_object + objects;
        at_frame integer := 5 + records;
        present bytea;
        before bytea[] := '{{}}';
        conflict boolean := false;
        removed boolean := false;
        taken boolean[];
        own bytea[];
        heads bytea[];
        first integer := 1;
        wanted boolean;
        number_before bigint;
        number_now bigint;
        epoch bigint;
        answer bytea[] := '{{"done"}}';
    BEGIN
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'publishing looks at what others have committed' USING ERRCODE = '{isolation}';
        END IF;
        PERFORM pg_advisory_xact_lock_shared(({lock}::bigint << 32) | 'record'::regclass::oid::bigint);
        FOR i IN 1 .. records LOOP
            SELECT value INTO present FROM record WHERE key = parts[i] FOR UPDATE;
            before[i] := present;
            IF layout[5 + i] & 1 = 1 AND present IS DISTINCT FROM parts[records + i] THEN
                conflict := true;
            END IF;
        END LOOP;
        IF conflict THEN
            RETURN 'conflict'::bytea || before;
        END IF;
        IF layout[4] <> -1 THEN
            SELECT value INTO epoch FROM meta WHERE name = 'epoch';
            IF epoch <> layout[4] THEN
                RETURN ARRAY['epoch'::bytea, int8send(epoch)];
            END IF;
        END IF;
        IF objects > 0 THEN
            own := parts[at_object + 1 : at_head];
            IF objects > {part} OR EXISTS (SELECT FROM frame WHERE frame.keys && own) THEN
                taken := ckpt_taken(own);
            END IF;
        END IF;
        FOR i IN 1 .. frames LOOP
            own := parts[at_object + 1 : at_object + layout[at_frame + 3]];
            heads := parts[at_head + 1 : at_head + layout[at_frame + 4]];
            number_before := number_now;
            number_now := 0;
            IF layout[at_frame + 2] = 0 THEN
                wanted := true;
            ELSIF taken IS NULL THEN
                wanted := array_remove(own, NULL) <> '{{}}';
            ELSE
                wanted := false = ANY (taken[first : first + cardinality(own) - 1]);
            END IF;
            IF wanted THEN
                IF taken IS NOT NULL AND NOT replacing THEN
                    SELECT array_agg(free.key ORDER BY free.ordinal),
                           array_agg(DISTINCT substring(free.key FROM 1 FOR 1)) FILTER (WHERE free.key IS NOT NULL)
                    INTO own, heads
                    FROM (
                        SELECT CASE WHEN NOT o.taken THEN o.key END, o.ordinal
                        FROM unnest(own, taken[first : first + cardinality(own) - 1])
                        WITH ORDINALITY AS o(key, taken, ordinal)
                    ) AS free(key, ordinal);
                END IF;
                INSERT INTO frame (previous, data, keys)
                VALUES (
                    CASE layout[at_frame + 1] WHEN -1 THEN number_before ELSE layout[at_frame + 1] END,
                    parts[at_data + i], coalesce(own, '{{}}') || heads
                )
                RETURNING frame.number INTO number_now;
            END IF;
            answer := answer || int8send(number_now);
            at_object := at_object + layout[at_frame + 3];
            at_head := at_head + layout[at_frame + 4];
            first := first + layout[at_frame + 3];
            at_frame := at_frame + 4;
        END LOOP;
        FOR i IN 1 .. records LOOP
            IF before[i] IS NOT NULL AND layout[5 + i] & 2 = 2 THEN
                IF parts[2 * records + i] IS NULL THEN
                    DELETE FROM record WHERE key = parts[i];
                    removed := true;
                ELSE
                    UPDATE record SET value = parts[2 * records + i] WHERE key = parts[i];
                END IF;
            ELSIF before[i] IS NULL AND layout[5 + i] & 1 = 1 THEN
                INSERT INTO record (key, value) VALUES (parts[i], coalesce(parts[2 * records + i], ''))
                ON CONFLICT (key) DO NOTHING;
                IF NOT FOUND THEN
                    RAISE EXCEPTION 'another writer was first' USING ERRCODE = 'serialization_failure';
                END IF;
                IF parts[2 * records + i] IS NULL THEN
                    DELETE FROM record WHERE key = parts[i];
                END IF;
            ELSIF before[i] IS NULL AND parts[2 * records + i] IS NOT NULL THEN
                INSERT INTO record (key, value) VALUES (parts[i], parts[2 * records + i])
                ON CONFLICT (key) DO UPDATE SET value = excluded.value;
            END IF;
        END LOOP;
        IF removed THEN
            UPDATE meta SET value = value + 1 WHERE name = 'epoch';
        END IF;
        RETURN answer;
    END
    $ckpt$;
"""

ISOLATION = "CK001"
"""The SQLSTATE with which `ckpt_publish` refuses an isolation level that hides what others have committed."""


def checked(schema: str) -> str:
    """Return the name of a schema, or raise InvalidInputError."""
    if not schema or "\x00" in schema or len(schema.encode("utf-8", "replace")) > _NAME_BYTES_MAX:
        raise InvalidInputError(f"{schema!r} cannot name a schema", hints=[f"1 to {_NAME_BYTES_MAX} bytes, no NUL"])
    return schema


def prepare(connection: psycopg.Connection[Any], schema: str, url: str, *, create: bool) -> int:
    """Make sure that a store of a format known here is in the schema (quoted already), creating it if asked.

    Returns the number of the newest frame, 0 when there is none. A store that is there costs one statement.

    Any number of processes may do this at once; one creates the store, in one transaction (or in the caller's,
    when one is open). Asks for no permission that it does not need: an existing store is only read, an existing
    schema is not created. Raises StoreNotFoundError, NotAStoreError, FormatTooNewError.
    """
    newest = _newest_at_once(connection, schema)
    if newest is None:
        _prepare_with_care(connection, schema, url, create=create)
        newest = Session(connection, schema).newest()
    return newest


def _newest_at_once(connection: psycopg.Connection[Any], schema: str) -> int | None:
    """Return the number of the newest frame of a store of our format; None where there may be anything else."""
    inside = connection.info.transaction_status == TransactionStatus.INTRANS
    try:
        # The caller's transaction outlives a statement that fails.
        with connection.transaction() if inside else nullcontext():
            rows = run(connection, _KNOWN.format(schema=schema.replace("%", "%%")))
    except (psycopg.ProgrammingError, psycopg.DataError):
        return None
    return int(rows[0][1]) if len(rows) == 1 and rows[0][0] == FORMAT else None


def _prepare_with_care(connection: psycopg.Connection[Any], schema: str, url: str, *, create: bool) -> None:
    if _recognised(connection, schema, url):
        return
    if not create:
        raise StoreNotFoundError(f"there is no store in {url}", hints=["create one with: ckpt init"])
    with connection.transaction():
        run(connection, "SELECT pg_catalog.pg_advisory_xact_lock(%b)", (CREATING,))
        # Another process may have been first: what counts is what stands here under the lock.
        if not _recognised(connection, schema, url):
            _create(connection, schema)


def _create(connection: psycopg.Connection[Any], schema: str) -> None:
    if run(connection, "SELECT pg_catalog.to_regnamespace(%b) IS NULL", (schema,))[0][0]:
        run_script(connection, f"CREATE SCHEMA {schema}")
    filled: dict[str, object] = {
        "schema": schema,
        "format": FORMAT,
        "lock": LOCK_CLASS,
        "isolation": ISOLATION,
        "place_bits": PLACE_BITS,
        "part": _LOCATED_AT_ONCE,
    }
    filled["settings"] = _SETTINGS.format(**filled)
    for part in (_CREATE, _READING, _PUBLISH):
        run_script(connection, part.format(**filled))


def _recognised(connection: psycopg.Connection[Any], schema: str, url: str) -> bool:
    """Return whether the store is there; raise when something else is, or a store of a newer format."""
    names = ", ".join(["pg_catalog.to_regclass(%b)"] * len(TABLES))
    rows = run(connection, _LOOK.format(names=names), tuple(f"{schema}.{name}" for name in TABLES))
    tables = dict(rows)
    if not tables:
        return False
    found: list[Any] = []
    inside = schema.replace("%", "%%")
    if tables.get("meta") == _META:
        found = run(connection, f"SELECT value FROM {inside}.meta WHERE name = 'ckpt format'")
    if not found:
        raise NotAStoreError(
            f"{url} has a table {sorted(tables)[0]!r} of another program; it was left untouched",
            hints=["name another schema: postgresql://…?schema=NAME"],
        )
    if found[0][0] > FORMAT:
        raise FormatTooNewError(
            f"the store in {url} has format {found[0][0]}; this ckpt reads up to {FORMAT}",
            hints=["update ckpt: pip install -U 'ckpt-store[postgres]'"],
        )
    return True


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
            inside = schema.replace("%", "%%")
            for table in map(session.table, TABLES):
                found += _complaints(session, f"SELECT msg FROM {inside}.verify_heapam(%b::regclass)", table)
                found += _complaints(
                    session,
                    f"SELECT {inside}.bt_index_check(indexrelid, true)::text FROM pg_index"
                    " WHERE indrelid = %b::regclass",
                    table,
                )
    except psycopg.errors.InsufficientPrivilege:
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
    known = session.run("SELECT pg_catalog.to_regclass(%b) IS NOT NULL", (session.table(EMBEDDING),))[0][0]
    for table in map(session.table, (*TABLES, EMBEDDING) if known else TABLES):
        try:
            run_script(session.connection, f"VACUUM {table}")
        except psycopg.errors.InsufficientPrivilege:
            return

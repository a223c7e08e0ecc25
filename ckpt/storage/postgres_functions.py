"""The functions in the schema of a PostgreSQL store, as SQL: what publishes, and what searches the index of objects.

Not here: the tables (`ckpt.storage.postgres_schema`), and who calls what (`ckpt.storage.postgres_sql`).
"""

from __future__ import annotations

from psycopg import sql

PLACE_BITS = 16
"""Bits of a place that are the position in its frame."""

LOCK_CLASS = 0x636B7074
"""`ckpt` in ASCII: the upper half of the advisory lock of a store; the lower one is the number of its table."""

SEARCHED_AT_ONCE = 500
"""Keys that one search of the index takes; its cost grows with the square of this."""

CAREFUL = "CK002"
"""The SQLSTATE with which `ckpt_publish` gives up on writing what it compares at once; nothing is written then."""

_STARTED = "pg_catalog.pg_postmaster_start_time()"
_RECOVERED = (
    "CASE WHEN pg_catalog.current_setting('stats_fetch_consistency', true) IS NOT NULL"
    " THEN pg_catalog.pg_stat_get_bgwriter_stat_reset_time() END"
)
"""When the server last threw its statistics away, as it does where one process of it crashed and it recovers.

NULL before PostgreSQL 15, which the setting tells: statistics were in a file there, to be waited for. Whoever resets
those of the background writer by hand has the store looked at once more, and that is all.
"""

_INCARNATION = (
    f"((pg_catalog.date_part('epoch', GREATEST({_STARTED}, {_RECOVERED})) * 1000000)::bigint"
    " # (coalesce(pg_catalog.pg_relation_filenode({frames}::pg_catalog.regclass), 0)::bigint << 20))"
)
"""What is another number once the store may have gone back in time.

A server that was started anew, or recovered from a crash, may have lost what it was told last, with
`synchronous_commit = off` or as a standby that lagged behind, and does not say so; tables into which a backup was put
back have new files.
"""

MARKS = (
    f"pg_catalog.timestamptz_send({_STARTED}), pg_catalog.timestamptz_send({_RECOVERED}),"
    " pg_catalog.pg_relation_filenode({frames})"
)
"""What that is made of, for `incarnation_of`: each operator in the first statement of a session costs."""

_Y2K = 946_684_800_000_000
"""Microseconds from 1970 to 2000, from which PostgreSQL counts."""


def incarnation_of(started: bytes, recovered: bytes | None, file: int | None) -> int:
    """Return what `_INCARNATION` is, given the `MARKS`."""
    moments = [int.from_bytes(moment, "big", signed=True) for moment in (started, recovered) if moment is not None]
    return (max(moments) + _Y2K) ^ (file or 0) << 20


_CURRENT = (
    "EXISTS (SELECT FROM {schema}.meta WHERE name = 'epoch' AND value = epoch AND incarnation = {incarnation}"
    " AND pg_catalog.current_setting('transaction_isolation') = 'read committed')"
)
"""Whether the epoch that `ckpt_publish_step` is given is the present one, where it sees what others have committed."""

ISOLATION = "CK001"
"""The SQLSTATE with which `ckpt_publish` refuses an isolation level that hides what others have committed."""

# Functions for what a plan must not be guessed for: none is compiled (`jit`) because of a wild guess of the number
# of rows, none reads all frames because a table was small when the plan was made; two lists are joined by hashing,
# however short they are taken to be, and a chain is followed by a question for each of its hundreds of steps, as a
# join may hash all frames again for each.
#
# `ckpt_reach` is what a new process calls first, on a connection that is new too: it is in SQL and takes one search
# of the index, so that nothing has to be loaded and compiled for it but itself. It returns numbers, as whole frames
# would be copied on their way out. Whoever asks for more keys than one search takes calls `ckpt_locate` and
# `ckpt_chain`. What comes out of an array counts as few rows, whatever they are.
_SETTINGS = "SET search_path = pg_catalog, {schema}, pg_temp SET jit = off SET enable_seqscan = off"

_READING = """
    CREATE FUNCTION {schema}.ckpt_chain(wanted bigint[], known bigint[]) RETURNS bigint[]
    LANGUAGE sql STABLE {settings}
    AS ${tag}$
        WITH RECURSIVE chain(number) AS (
            SELECT unnest(wanted)
            UNION SELECT (
                SELECT frame.previous FROM frame WHERE frame.number = chain.number AND frame.previous <> ALL (known)
            ) FROM chain
        )
        SELECT array_agg(number) FROM chain
    ${tag}$;
    CREATE FUNCTION {schema}.ckpt_reach(wanted bytea[], known bigint[]) RETURNS bigint[]
    LANGUAGE sql STABLE SET enable_seqscan = off SET jit = off
    AS ${tag}$
        WITH RECURSIVE chain(number) AS (
            SELECT frame.number FROM {schema}.frame WHERE frame.keys && wanted
            UNION SELECT (
                SELECT frame.previous FROM {schema}.frame
                WHERE frame.number = chain.number AND frame.previous <> ALL (known)
            ) FROM chain
        )
        SELECT pg_catalog.array_agg(number) FROM chain
    ${tag}$;
    CREATE FUNCTION {schema}.ckpt_locate(wanted bytea[]) RETURNS TABLE (key bytea, place bigint)
    LANGUAGE plpgsql STABLE {settings} SET enable_nestloop = off
    AS ${tag}$
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
    ${tag}$;
    CREATE FUNCTION {schema}.ckpt_scan(after bytea, wanted bigint) RETURNS TABLE (key bytea, place bigint)
    LANGUAGE plpgsql STABLE {settings}
    AS ${tag}$
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
    ${tag}$;
    CREATE FUNCTION {schema}.ckpt_forget(gone bytea[]) RETURNS bigint
    LANGUAGE sql VOLATILE {settings}
    AS ${tag}$
        WITH changed AS (
            UPDATE frame SET keys = ARRAY(
                SELECT CASE WHEN own.key <> ALL (gone) THEN own.key END
                FROM unnest(frame.keys) WITH ORDINALITY AS own(key, ordinal) ORDER BY own.ordinal
            )
            WHERE frame.keys && gone RETURNING 1
        )
        SELECT count(*) FROM changed
    ${tag}$;
"""

# All comes in two arrays, as a statement with a parameter for each kind costs more than what it does. In `parts`:
# the keys of records in order, so that rows are locked in the same order by everybody; for each what is expected,
# and what is new; the data of each frame; and for each frame its keys, NULL where one came before in the batch, and
# the first bytes that occur among them. In `layout`: how many records and frames there are, the expected epoch or -1,
# the expected incarnation, whether places are replaced, and whether no record is removed, written without being
# compared, or just found absent; for each record whether it is compared (1) and written (2); for each frame four
# numbers: the one before it, whether it is optional, how many keys and first bytes it has.
#
# The answer begins with a letter: `d` for done and the number of each frame, `c` for a conflict and an array of what
# was found under each key, or `e` and the epoch and the incarnation that it is.
#
# Where no record is any of that, as in each step of a thread, one statement compares and writes it. The first that
# does not match leads back to the way that looks at all before it writes, as long as nothing is written; after that
# CK002 is raised, and the batch is sent again to go that way from the beginning. (To undo it by hand would leave rows
# with the number of this transaction, by which `Session.settled` tells who wrote them.)
#
# Nearly every batch is a step of a thread: two records that are compared and written, and a frame or none.
# `ckpt_publish_step` is the same for those, with a parameter for each part: what a short function costs is what it
# evaluates, and this is half as much. Of the keys that are listed it looks for its `own`: none when all are new. Where
# the first record or the epoch has changed it leaves all to `ckpt_publish`. It names the schema itself and searches no
# index of objects, so that it needs one setting alone: each is made and undone with every call, the path of schemas at
# the highest price. For the same reason its lock is taken in an expression, which no plan is run for.
#
# A record that is only compared is locked so that others can compare it too: all who write to an encrypted store
# compare its header.
#
# What is absent cannot be locked: it is inserted, and whoever comes second finds the key taken, raises 40001, and is
# sent again to see what stands there now. Mostly no key is in the index yet, which a short look tells.
_PUBLISH = """
    CREATE FUNCTION {schema}.ckpt_taken(asked bytea[]) RETURNS boolean[]
    LANGUAGE sql STABLE {settings} SET enable_nestloop = off
    AS ${tag}$
        SELECT array_agg(o.key IS NULL OR located.key IS NOT NULL ORDER BY o.ordinal)
        FROM unnest(asked) WITH ORDINALITY AS o(key, ordinal)
        LEFT JOIN ckpt_locate(array_remove(asked, NULL)) AS located ON located.key = o.key
    ${tag}$;
    CREATE FUNCTION {schema}.ckpt_free(own bytea[], taken boolean[]) RETURNS bytea[]
    LANGUAGE sql IMMUTABLE {settings}
    AS ${tag}$
        SELECT array_agg(free.key ORDER BY free.ordinal) || array_agg(
            DISTINCT substring(free.key, 1, 1)) FILTER (WHERE free.key IS NOT NULL)
        FROM (
            SELECT CASE WHEN NOT o.taken THEN o.key END, o.ordinal
            FROM unnest(own, taken) WITH ORDINALITY AS o(key, taken, ordinal)
        ) AS free(key, ordinal)
    ${tag}$;
    CREATE FUNCTION {schema}.ckpt_unlisted(own bytea[], listed bytea[]) RETURNS bytea[]
    LANGUAGE plpgsql STABLE {settings}
    AS ${tag}$
    BEGIN
        IF cardinality(own) > {part} OR EXISTS (SELECT FROM frame WHERE keys && own) THEN
            RETURN ckpt_free(own, ckpt_taken(own));
        END IF;
        RETURN listed;
    END
    ${tag}$;
    CREATE FUNCTION {schema}.ckpt_publish(parts bytea[], layout bigint[]) RETURNS bytea
    LANGUAGE plpgsql VOLATILE {settings}
    AS ${tag}$
    DECLARE
        records CONSTANT integer := layout[1];
        frames CONSTANT integer := layout[2];
        replacing CONSTANT boolean := layout[5] = 1;
        written boolean := layout[6] = 1;
        at_frame integer := 6 + records;
        at_object integer := 3 * records + frames;
        at_head integer;
        present bytea;
        before bytea[];
        conflict boolean := false;
        removed boolean := false;
        taken boolean[];
        own bytea[];
        listed bytea[];
        wanted boolean;
        number_now bigint;
        epoch bigint;
        answer bytea := 'd';
    BEGIN
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'publishing looks at what others have committed' USING ERRCODE = '{isolation}';
        END IF;
        PERFORM pg_advisory_xact_lock_shared(({lock}::bigint << 32) | {records}::regclass::oid::bigint);
        IF written THEN
            FOR i IN 1 .. records LOOP
                IF layout[6 + i] = 1 THEN
                    PERFORM FROM record WHERE key = parts[i] AND value = parts[records + i] FOR SHARE;
                ELSIF parts[records + i] IS NULL THEN
                    INSERT INTO record (key, value) VALUES (parts[i], parts[2 * records + i])
                    ON CONFLICT (key) DO NOTHING;
                ELSE
                    UPDATE record SET value = parts[2 * records + i]
                    WHERE key = parts[i] AND value = parts[records + i];
                END IF;
                IF NOT FOUND THEN
                    IF 3 = ANY (layout[7 : 5 + i]) THEN
                        RAISE EXCEPTION 'a record has changed' USING ERRCODE = '{careful}';
                    END IF;
                    written := false;
                    EXIT;
                END IF;
            END LOOP;
        END IF;
        IF NOT written THEN
            FOR i IN 1 .. records LOOP
                IF layout[6 + i] = 1 THEN
                    SELECT value INTO present FROM record WHERE key = parts[i] FOR SHARE;
                ELSE
                    SELECT value INTO present FROM record WHERE key = parts[i] FOR UPDATE;
                END IF;
                before[i] := present;
                IF layout[6 + i] & 1 = 1 AND present IS DISTINCT FROM parts[records + i] THEN
                    conflict := true;
                END IF;
            END LOOP;
            IF conflict THEN
                RETURN 'c'::bytea || array_send(before);
            END IF;
        END IF;
        IF layout[3] <> -1 THEN
            SELECT value INTO epoch FROM meta WHERE name = 'epoch';
            IF epoch <> layout[3] OR layout[4] <> {incarnation} THEN
                IF written AND 3 = ANY (layout[7 : 6 + records]) THEN
                    RAISE EXCEPTION 'the epoch has changed' USING ERRCODE = '{careful}';
                END IF;
                RETURN 'e'::bytea || int8send(epoch) || int8send({incarnation});
            END IF;
        END IF;
        FOR i IN 1 .. frames LOOP
            at_head := at_object + layout[at_frame + 3];
            own := parts[at_object + 1 : at_head];
            at_object := at_head + layout[at_frame + 4];
            listed := parts[at_head - layout[at_frame + 3] + 1 : at_object];
            taken := NULL;
            IF layout[at_frame + 4] > 0 AND (
                layout[at_frame + 3] > {part} OR EXISTS (SELECT FROM frame WHERE keys && own)
            ) THEN
                taken := ckpt_taken(own);
            END IF;
            wanted := CASE
                WHEN layout[at_frame + 2] = 0 THEN true
                WHEN taken IS NULL THEN layout[at_frame + 4] > 0
                ELSE false = ANY (taken)
            END;
            IF wanted THEN
                IF taken IS NOT NULL AND NOT replacing THEN
                    listed := ckpt_free(own, taken);
                END IF;
                INSERT INTO frame (previous, data, keys)
                VALUES (
                    CASE layout[at_frame + 1] WHEN -1 THEN number_now ELSE layout[at_frame + 1] END,
                    parts[3 * records + i], listed
                )
                RETURNING number INTO number_now;
            ELSE
                number_now := 0;
            END IF;
            answer := answer || int8send(number_now);
            at_frame := at_frame + 4;
        END LOOP;
        IF written THEN
            RETURN answer;
        END IF;
        FOR i IN 1 .. records LOOP
            IF before[i] IS NOT NULL AND layout[6 + i] & 2 = 2 THEN
                IF parts[2 * records + i] IS NULL THEN
                    DELETE FROM record WHERE key = parts[i];
                    removed := true;
                ELSE
                    UPDATE record SET value = parts[2 * records + i] WHERE key = parts[i];
                END IF;
            ELSIF before[i] IS NULL AND layout[6 + i] & 1 = 1 THEN
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
    ${tag}$;
    CREATE FUNCTION {schema}.ckpt_publish_step(
        key_a bytea, old_a bytea, new_a bytea, key_b bytea, old_b bytea, new_b bytea,
        epoch bigint, incarnation bigint, behind bigint, packed bytea, own bytea[], listed bytea[]
    ) RETURNS bytea
    LANGUAGE plpgsql VOLATILE SET enable_seqscan = off
    AS ${tag}$
    DECLARE
        number_now bigint;
    BEGIN
        IF pg_catalog.pg_advisory_xact_lock_shared(
            ({lock}::bigint << 32) | {records}::pg_catalog.regclass::pg_catalog.oid::bigint
        ) IS NULL THEN
            RETURN NULL;
        END IF;
        IF old_a IS NULL THEN
            INSERT INTO {schema}.record (key, value) SELECT key_a, new_a WHERE {current} ON CONFLICT (key) DO NOTHING;
        ELSE
            UPDATE {schema}.record SET value = new_a WHERE key = key_a AND value = old_a AND {current};
        END IF;
        IF NOT FOUND THEN
            RETURN {schema}.ckpt_publish(
                ARRAY[key_a, key_b, old_a, old_b, new_a, new_b]
                || pg_catalog.array_remove(ARRAY[packed], NULL) || listed,
                ARRAY[2, CASE WHEN packed IS NULL THEN 0 ELSE 1 END, epoch, incarnation, 0, 0, 3, 3,
                      behind, 0, pg_catalog.cardinality(own),
                      pg_catalog.cardinality(listed) - pg_catalog.cardinality(own)]
            );
        END IF;
        IF old_b IS NULL THEN
            INSERT INTO {schema}.record (key, value) VALUES (key_b, new_b) ON CONFLICT (key) DO NOTHING;
        ELSE
            UPDATE {schema}.record SET value = new_b WHERE key = key_b AND value = old_b;
        END IF;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'a record has changed' USING ERRCODE = '{careful}';
        END IF;
        IF packed IS NULL THEN
            RETURN 'd'::pg_catalog.bytea;
        END IF;
        IF pg_catalog.cardinality(own) > 0 THEN
            listed := {schema}.ckpt_unlisted(own, listed);
        END IF;
        INSERT INTO {schema}.frame (previous, data, keys) VALUES (behind, packed, listed)
        RETURNING number INTO number_now;
        RETURN 'd'::pg_catalog.bytea || pg_catalog.int8send(number_now);
    END
    ${tag}$;
"""


def functions(schema: str) -> str:
    """Return the statements that create all functions in a schema, which is quoted already."""
    frames, records = (sql.Literal(f"{schema}.{table}").as_string(None) for table in ("frame", "record"))
    tag = "ckpt"
    while f"${tag}$" in schema:
        tag += "_"
    filled: dict[str, object] = {
        "schema": schema,
        "records": records,
        "tag": tag,
        "lock": LOCK_CLASS,
        "isolation": ISOLATION,
        "careful": CAREFUL,
        "place_bits": PLACE_BITS,
        "part": SEARCHED_AT_ONCE,
        "incarnation": _INCARNATION.format(frames=frames),
    }
    filled["current"] = _CURRENT.format(**filled)
    filled["settings"] = _SETTINGS.format(**filled)
    return "".join(part.format(**filled) for part in (_READING, _PUBLISH))

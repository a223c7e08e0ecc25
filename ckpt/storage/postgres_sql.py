"""The statements of the seam on one PostgreSQL connection: each call is one statement, and so one round trip.

No statement is prepared by name, none leaves anything behind in the session: behind a pooler, each may run on
another connection.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from ckpt.storage.base import (
    CHAINED,
    Batch,
    EpochChangedError,
    Fetched,
    Frame,
    Place,
    Range,
    RecordChangedError,
    StoredFrame,
    Usage,
    View,
)
from ckpt.storage.postgres_arrays import Cursor, bigint_array, bytea_array, sent

PLACE_BITS = 16
EMBEDDING = "ckpt_embedding"
"""The table of vectors, where there is one: see `ckpt.storage.postgres_vectors`."""
LOCK_CLASS = 0x636B7074
"""`ckpt` in ASCII: the upper half of the advisory lock of a store; the lower one is the number of its table."""

_LOCK = "SELECT pg_catalog.pg_advisory_xact_lock((%b::bigint << 32) | %b::regclass::oid::bigint)"


def run(connection: psycopg.Connection[Any], statement: str, parameters: Sequence[object] = ()) -> list[Any]:
    """Run one statement and return its rows as tuples, whatever the connection's own settings are."""
    with Cursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(statement.encode(), [sent(each) for each in parameters], prepare=False, binary=True)
        return cursor.fetchall() if cursor.description is not None else []


def run_script(connection: psycopg.Connection[Any], statements: str) -> None:
    """Run statements without parameters, in one transaction unless they may not be in any."""
    with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(statements.encode(), prepare=False)


class Session:
    """The seam's calls on one connection. Not for two threads at once. `schema` is quoted already."""

    def __init__(self, connection: psycopg.Connection[Any], schema: str) -> None:
        self.connection = connection
        self._schema = schema
        self._in = schema.replace("%", "%%")
        self._changed = False
        self._forgotten: list[bytes] = []

    def run(self, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
        return run(self.connection, statement.replace("{s}", self._in), parameters)

    def newest(self) -> int:
        """Return the number of the newest frame, 0 when there is none."""
        return int(self.run("SELECT coalesce(max(number), 0) FROM {s}.frame")[0][0])

    # -- reading ------------------------------------------------------------------------------------

    def epoch(self) -> int:
        return int(self.run("SELECT value FROM {s}.meta WHERE name = 'epoch'")[0][0])

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        found = dict(self.run("SELECT key, value FROM {s}.record WHERE key = ANY (%b::bytea[])", (list(keys),)))
        return [found.get(key) for key in keys]

    def view(self, keys: Sequence[bytes], ranges: Sequence[Range]) -> View:
        parts = ["SELECT -1 AS part, key, value FROM {s}.record WHERE key = ANY (%b::bytea[])"]
        parameters: list[object] = [list(keys)]
        for part, (start, end) in enumerate(ranges):
            # A branch for each range, not a join with an array of them: the planner sees the bounds.
            parts.append(f"SELECT {part}, key, value FROM {{s}}.record WHERE key >= %b AND key < %b")
            parameters += [start, end]
        found: dict[bytes, bytes] = {}
        rows: list[list[tuple[bytes, bytes]]] = [[] for _ in ranges]
        for part, key, value in self.run(" UNION ALL ".join(parts), parameters):
            if part < 0:
                found[key] = value
            else:
                rows[part].append((key, value))
        for each in rows:
            each.sort()
        return View([found.get(key) for key in keys], rows)

    def scan(
        self, start: bytes, end: bytes, *, limit: int | None = None, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        order = "DESC" if reverse else "ASC"
        return self.run(
            f"SELECT key, value FROM {{s}}.record WHERE key >= %b AND key < %b ORDER BY key {order} LIMIT %b::bigint",
            (start, end, limit),
        )

    def locate(self, keys: Collection[bytes]) -> dict[bytes, Place]:
        self._forget()
        rows = self.run("SELECT key, place FROM {s}.ckpt_locate(%b::bytea[])", (list(keys),))
        return {key: _place(place) for key, place in rows}

    def load(self, frames: Collection[int], known: Collection[int] = ()) -> dict[int, StoredFrame]:
        rows = self.run(
            "SELECT number, previous, data FROM {s}.frame WHERE number = ANY (("
            "SELECT {s}.ckpt_chain(%b::bigint[], %b::bigint[]))::bigint[])",
            (list(frames), list(known)),
        )
        return {number: StoredFrame(previous, data) for number, previous, data in rows}

    def fetch(self, keys: Collection[bytes], known: Collection[int] = ()) -> Fetched:
        self._forget()
        rows = self.run(
            "WITH found AS MATERIALIZED (SELECT key, place FROM {s}.ckpt_locate(%b::bytea[]))"
            " SELECT key, place, NULL::bigint, NULL::bytea FROM found"
            " UNION ALL SELECT NULL, number, previous, data FROM {s}.frame WHERE number = ANY (("
            f"SELECT {{s}}.ckpt_chain(ARRAY(SELECT place >> {PLACE_BITS} FROM found), %b::bigint[]))::bigint[])",
            (list(keys), list(known)),
        )
        places = {key: _place(place) for key, place, _, _ in rows if key is not None}
        frames = {number: StoredFrame(previous, data) for key, number, previous, data in rows if key is None}
        return Fetched(places, frames)

    def scan_index(self, after: bytes, limit: int) -> list[tuple[bytes, Place]]:
        self._forget()
        rows = self.run("SELECT key, place FROM {s}.ckpt_scan(%b, %b::bigint)", (after, limit))
        return [(key, _place(place)) for key, place in rows]

    def scan_frames(self, after: int, limit: int) -> list[tuple[int, int, int]]:
        return self.run(
            "SELECT number, previous, octet_length(data) FROM {s}.frame WHERE number > %b ORDER BY number LIMIT %b",
            (after, limit),
        )

    def usage(self) -> Usage:
        self._forget()
        ((disk, frames, records, objects),) = self.run(
            "SELECT (SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE oid = ANY (ARRAY["
            "%b::regclass, %b::regclass, %b::regclass, to_regclass(%b)])),"
            " (SELECT coalesce(sum(octet_length(data)), 0)::bigint FROM {s}.frame),"
            " (SELECT coalesce(sum(octet_length(key) + octet_length(value)), 0)::bigint FROM {s}.record),"
            " (SELECT count(*) FROM {s}.frame, unnest(keys) AS own(key) WHERE length(own.key) > 1)",
            [self.table(name) for name in ("meta", "record", "frame", EMBEDDING)],
        )
        return Usage(disk=disk, frames=frames, records=records, free=0, objects=objects)

    def table(self, name: str) -> str:
        """Return the full name of a table, for use as a value."""
        return f"{self._schema}.{name}"

    # -- writing ------------------------------------------------------------------------------------

    def write(self, batch: Batch, *, replace: bool = True) -> list[int]:
        self._forget()
        self._changed = self._changed or bool(batch.records or batch.frames)
        keys = sorted(batch.expected.keys() | batch.records.keys())
        flags = [(key in batch.expected) + 2 * (key in batch.records) for key in keys]
        objects, heads, layout = _listed(batch.frames)
        parts = [
            *keys,
            *(batch.expected.get(key) for key in keys),
            *(batch.records.get(key) for key in keys),
            *(frame.data for frame in batch.frames),
            *objects,
            *heads,
        ]
        counts = [len(keys), len(batch.frames), len(objects), -1 if batch.epoch is None else batch.epoch, int(replace)]
        (((word, *answer),),) = self.run(
            "SELECT {s}.ckpt_publish(%b, %b)", (bytea_array(parts), bigint_array([*counts, *flags, *layout]))
        )
        if word == b"conflict":
            raise RecordChangedError(
                {key: value for key, value in zip(keys, answer, strict=True) if key in batch.expected}
            )
        numbers = [int.from_bytes(number, "big") for number in answer]
        if word == b"epoch":
            raise EpochChangedError(numbers[0])
        return numbers

    def read_committed(self) -> None:
        """Have each statement of the transaction that begins here see what others have committed before it."""
        self.run("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")

    def lock(self) -> None:
        """Wait until nobody publishes, and keep all from publishing until the transaction ends."""
        self.read_committed()
        self.run(_LOCK, (LOCK_CLASS, self.table("record")))

    def settled(self, batch: Batch, floor: int) -> list[int] | None:
        """Return the numbers of a batch's frames if it was applied, although no answer came; else None.

        Under `lock`, so that whoever was still at it has finished. All rows of one transaction carry its number
        (`xmin`): the batch was applied if one transaction wrote all of its frames and at least one of the
        records that still stand, and no other record of the batch contradicts it. `floor` is a frame number from
        before the batch was sent.
        """
        self.lock()
        rows = self.run(
            "SELECT key, value, xmin::text FROM {s}.record WHERE key = ANY (%b::bytea[])", (list(batch.records),)
        )
        records: dict[bytes, tuple[bytes, str]] = {key: (value, writer) for key, value, writer in rows}
        frames = self.run(
            "SELECT xmin::text, number, previous, data FROM {s}.frame"
            " WHERE number > %b AND data = ANY (%b::bytea[]) ORDER BY xmin::text, number",
            (floor, [frame.data for frame in batch.frames]),
        )
        groups = {writer: list(group) for writer, group in groupby(frames, key=itemgetter(0))}
        standing = {key: value for key, value in batch.records.items() if value is not None}
        if not standing and not batch.frames:
            return [] if batch.records and not records else None
        writers = {records[key][1] for key, value in standing.items() if key in records and records[key][0] == value}
        for writer in sorted(writers if standing else groups):
            numbers = _matched(batch.frames, groups.get(writer, []))
            if numbers is not None and not _contradicted(batch.records, records, writer):
                return numbers
        return None

    def forget(self, keys: Collection[bytes]) -> None:
        # Put off: the frames that list them are mostly dropped next, and need not be written again before.
        self._forgotten += keys

    def _forget(self) -> None:
        if self._forgotten:
            ((count,),) = self.run("SELECT {s}.ckpt_forget(%b::bytea[])", (self._forgotten,))
            self._changed = self._changed or count > 0
            self._forgotten = []

    def drop(self, frames: Collection[int]) -> None:
        gone = self.run("DELETE FROM {s}.frame WHERE number = ANY (%b::bigint[]) RETURNING 1", (list(frames),))
        self._changed = self._changed or bool(gone)

    def raise_epoch(self) -> None:
        self._changed = True

    def finish(self) -> int | None:
        """Raise the epoch if anything was written; return the number of the transaction then, to ask for its fate."""
        self._forget()
        if not self._changed:
            return None
        rows = self.run("UPDATE {s}.meta SET value = value + 1 WHERE name = 'epoch' RETURNING txid_current()")
        return int(rows[0][0])

    def committed(self, transaction: int) -> bool | None:
        """Return whether a transaction was committed; None while it still goes on."""
        state = self.run("SELECT txid_status(%b)", (transaction,))[0][0]
        return None if state == "in progress" else state == "committed"


def _place(packed: int) -> Place:
    return Place(packed >> PLACE_BITS, packed & ((1 << PLACE_BITS) - 1))


def _listed(frames: Sequence[Frame]) -> tuple[list[bytes | None], list[bytes], list[int]]:
    """Return the keys of all frames, None where one came before; the first bytes that occur in each; their counts.

    Four numbers for each frame: the one before it in its pack, whether it is optional, keys, first bytes.
    """
    seen: set[bytes] = set()
    objects: list[bytes | None] = []
    heads: list[bytes] = []
    layout: list[int] = []
    for frame in frames:
        starts: set[bytes] = set()
        for key in frame.keys:
            objects.append(None if key in seen else key)
            if key not in seen:
                seen.add(key)
                starts.add(key[:1])
        heads += sorted(starts)
        layout += (frame.previous, int(frame.optional), len(frame.keys), len(starts))
    return objects, heads, layout


def _matched(frames: Sequence[Frame], rows: Sequence[tuple[str, int, int, bytes]]) -> list[int] | None:
    """Return the numbers under which one transaction stored these frames, or None if it did not."""
    numbers: list[int] = []
    queue = list(rows)
    for frame in frames:
        previous = numbers[-1] if frame.previous == CHAINED else frame.previous
        if queue and queue[0][2:] == (previous, frame.data):
            numbers.append(queue.pop(0)[1])
        elif frame.optional:
            numbers.append(0)
        else:
            return None
    return numbers if not queue else None


def _contradicted(
    wanted: Mapping[bytes, bytes | None], records: Mapping[bytes, tuple[bytes, str]], writer: str
) -> bool:
    """Return whether the records show that this transaction did not write what was wanted."""
    for key, value in wanted.items():
        found = records.get(key)
        if found is None:
            if value is not None:
                return True
        elif found[0] != value and found[1] == writer:
            return True
    return False

"""The statements of the seam on one PostgreSQL connection: each call is one statement, and so one round trip.

None leaves anything behind in the session, where that may be somebody else's next: behind a pooler, each statement
may run on another connection.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any

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
    with_incarnation,
    without_incarnation,
)
from ckpt.storage.postgres_arrays import (
    BIGINT,
    BYTEA,
    BigintArray,
    ByteaArray,
    bigint_array,
    bytea_array,
    read_bytea_array,
)
from ckpt.storage.postgres_exchange import Connection, Prepared, run, run_prepared
from ckpt.storage.postgres_functions import LOCK_CLASS, MARKS, PLACE_BITS, SEARCHED_AT_ONCE, incarnation_of
from ckpt.storage.postgres_listed import Listed

EMBEDDING = "ckpt_embedding"
"""The table of vectors, where there is one: see `ckpt.storage.postgres_vectors`."""
_COMPARED, _WRITTEN = 1, 2
_INT8 = struct.Struct(">q")
_NO_FRAME = Frame(0, b"", ())

WAIT_SECONDS = 1.0
"""How long whoever wants the store to itself waits at a time; all who come later to publish wait behind."""

IDLE_SECONDS = 30.0
"""How long a holder of the store may be silent, of which each step is a moment, before others go on without it."""

_LOCK = "pg_catalog.pg_advisory_xact_lock(($1::bigint << 32) | $2::regclass::oid::bigint)"
_BOUNDS = (
    "pg_catalog.set_config('lock_timeout', $3, true),"
    " pg_catalog.set_config('idle_in_transaction_session_timeout', $4, true)"
)


class Session:
    """The seam's calls on one connection. Not for two threads at once. `schema` is quoted already."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self.connection = connection
        self._schema = schema
        self._changed = False
        self._forgotten: list[bytes] = []

    def run(self, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
        return run(self.connection, statement.replace("{s}", self._schema), parameters)

    # -- reading ------------------------------------------------------------------------------------

    def epoch(self) -> int:
        marks = MARKS.format(frames="$1::regclass")
        ((epoch, *found),) = self.run(
            f"SELECT value, {marks} FROM {{s}}.meta WHERE name = 'epoch'", (self.table("frame"),)
        )
        return with_incarnation(incarnation_of(*found), epoch)

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if len(keys) == 1:
            return [value for (value,) in self.run("SELECT value FROM {s}.record WHERE key = $1", keys)] or [None]
        found = dict(self.run("SELECT key, value FROM {s}.record WHERE key = ANY ($1::bytea[])", (bytea_array(keys),)))
        return [found.get(key) for key in keys]

    def view(self, keys: Sequence[bytes], ranges: Sequence[Range], *, last: int | None = None) -> View:
        if last is None and len(keys) == len(ranges) == 1 and ranges[0][0] == keys[0] + b"\0" <= ranges[0][1]:
            # Mostly a head, and what may stand behind it. A single range takes half as long as what follows.
            rows = self.scan(keys[0], ranges[0][1])
            return View([rows.pop(0)[1] if rows and rows[0][0] == keys[0] else None], [rows])
        parts = ["SELECT -1, key, value FROM {s}.record WHERE key = ANY ($1::bytea[])"]
        parameters: list[object] = [bytea_array(keys)]
        ordered = "" if last is None else f" ORDER BY key DESC LIMIT {last:d}"
        for part, (start, end) in enumerate(ranges):
            # A branch for each range, not a join with an array of them: the planner sees the bounds.
            at = len(parameters)
            bounds = f"key >= ${at + 1} AND key < ${at + 2}{ordered}"
            parts.append(f"(SELECT {part}, key, value FROM {{s}}.record WHERE {bounds})")
            parameters += [start, end]
        found: dict[bytes, bytes] = {}
        within: list[list[tuple[bytes, bytes]]] = [[] for _ in ranges]
        for part, key, value in self.run(" UNION ALL ".join(parts), parameters):
            if part < 0:
                found[key] = value
            else:
                within[part].append((key, value))
        for each in within:
            each.sort()
        return View([found.get(key) for key in keys], within)

    def scan(
        self, start: bytes, end: bytes, *, limit: int | None = None, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        order = "DESC" if reverse else "ASC"
        return self.run(
            f"SELECT key, value FROM {{s}}.record WHERE key >= $1 AND key < $2 ORDER BY key {order} LIMIT $3::bigint",
            (start, end, limit),
        )

    def locate(self, keys: Collection[bytes]) -> dict[bytes, Place]:
        self._forget()
        rows = self.run("SELECT key, place FROM {s}.ckpt_locate($1::bytea[])", (bytea_array(keys),))
        return {key: _place(place) for key, place in rows}

    def load(self, frames: Collection[int], known: Collection[int] = ()) -> dict[int, StoredFrame]:
        rows = self.run(
            "SELECT number, previous, data FROM {s}.frame WHERE number = ANY (("
            "SELECT {s}.ckpt_chain($1::bigint[], $2::bigint[]))::bigint[])",
            (bigint_array(frames), bigint_array(known)),
        )
        return {number: StoredFrame(previous, data) for number, previous, data in rows}

    def fetch(self, keys: Collection[bytes], known: Collection[int] = ()) -> Fetched:
        self._forget()
        if len(keys) > SEARCHED_AT_ONCE:
            return self._fetch_many(keys, known)
        rows = self.run(
            "SELECT number, previous, data, pg_catalog.array_send(keys) FROM {s}.frame WHERE number = ANY (("
            "SELECT {s}.ckpt_reach($1, $2))::bigint[])",
            (bytea_array(keys), bigint_array(known)),
        )
        frames, listed = _received(rows)
        return Fetched(listed.find(keys), frames, listed)

    def _fetch_many(self, keys: Collection[bytes], known: Collection[int]) -> Fetched:
        rows = self.run(
            "WITH found AS MATERIALIZED (SELECT key, place FROM {s}.ckpt_locate($1::bytea[]))"
            " SELECT key, place, NULL::bigint, NULL::bytea, NULL::bytea FROM found"
            " UNION ALL SELECT NULL, number, previous, data, pg_catalog.array_send(keys)"
            " FROM {s}.frame WHERE number = ANY (("
            f"SELECT {{s}}.ckpt_chain(ARRAY(SELECT place >> {PLACE_BITS} FROM found), $2::bigint[]))::bigint[])",
            (bytea_array(keys), bigint_array(known)),
        )
        places = {key: _place(place) for key, place, *_ in rows if key is not None}
        return Fetched(places, *_received([row for key, *row in rows if key is None]))

    def scan_index(self, after: bytes, limit: int) -> list[tuple[bytes, Place]]:
        self._forget()
        rows = self.run("SELECT key, place FROM {s}.ckpt_scan($1, $2::bigint)", (after, limit))
        return [(key, _place(place)) for key, place in rows]

    def scan_frames(self, after: int, limit: int) -> list[tuple[int, int, int]]:
        return self.run(
            "SELECT number, previous, octet_length(data) FROM {s}.frame WHERE number > $1 ORDER BY number LIMIT $2",
            (after, limit),
        )

    def usage(self) -> Usage:
        self._forget()
        ((disk, frames, records, objects),) = self.run(
            "SELECT (SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE oid = ANY (ARRAY["
            "$1::regclass, $2::regclass, $3::regclass, to_regclass($4)])),"
            " (SELECT coalesce(sum(octet_length(data)), 0)::bigint FROM {s}.frame),"
            " (SELECT coalesce(sum(octet_length(key) + octet_length(value)), 0)::bigint FROM {s}.record),"
            # What was stored as new and was there already is listed twice.
            " (SELECT count(DISTINCT own.key) FROM {s}.frame, unnest(keys) AS own(key) WHERE length(own.key) > 1)",
            [self.table(name) for name in ("meta", "record", "frame", EMBEDDING)],
        )
        return Usage(disk=disk, frames=frames, records=records, free=0, objects=objects)

    def table(self, name: str) -> str:
        """Return the full name of a table, for use as a value."""
        return f"{self._schema}.{name}"

    # -- writing ------------------------------------------------------------------------------------

    def write(self, batch: Batch, *, replace: bool = True, careful: bool = True) -> list[int]:
        """Do as `Exclusive.write` says; with neither `replace` nor `careful` as `Storage.publish` does.

        Without `careful`, which is faster, it may raise an error with the SQLSTATE `CAREFUL`: nothing is written then,
        and the batch has to be sent carefully.
        """
        if self._forgotten:
            self._forget()
        expected, records, frames = batch.expected, batch.records, batch.frames
        self._changed = self._changed or bool(records or frames)
        if not (replace or careful) and _is_step(batch):
            keys = sorted(records)
            answer = self._publish_step(keys, batch)
        else:
            at_once = not careful and None not in records.values()
            if expected.keys() == records.keys():
                keys = sorted(records)
                flags = [_COMPARED | _WRITTEN] * len(keys)
            else:
                keys = sorted(expected.keys() | records.keys())
                flags = [_COMPARED * (key in expected) | _WRITTEN * (key in records) for key in keys]
                at_once = at_once and records.keys() <= expected.keys()
                at_once = at_once and all(key in records for key, value in expected.items() if value is None)
            incarnation, epoch = (0, -1) if batch.epoch is None else without_incarnation(batch.epoch)
            parts: list[bytes | None] = [*keys, *map(expected.get, keys), *map(records.get, keys)]
            layout = [len(keys), len(frames), epoch, incarnation, replace, at_once, *flags]
            _list_frames(frames, parts, layout)
            answer = run_prepared(self.connection, _publish(self._schema), (bytea_array(parts), bigint_array(layout)))
        if answer[:1] == b"c":
            found = zip(keys, read_bytea_array(answer[1:]), strict=True)
            raise RecordChangedError({key: value for key, value in found if key in expected})
        numbers = [number for (number,) in _INT8.iter_unpack(answer[1:])]
        if answer[:1] == b"e":
            raise EpochChangedError(with_incarnation(numbers[1], numbers[0]))
        return numbers

    def _publish_step(self, keys: Sequence[bytes], batch: Batch) -> bytes:
        """Send what nearly all batches are in the form that costs the server least; answered as by `ckpt_publish`."""
        assert batch.epoch is not None
        incarnation, epoch = without_incarnation(batch.epoch)
        previous, packed, listed, _, fresh = batch.frames[0] if batch.frames else _NO_FRAME
        starts = sorted({key[:1] for key in listed})
        a, b = keys
        expected, records = batch.expected, batch.records
        return run_prepared(
            self.connection,
            _publish_step(self._schema),
            (
                *(a, expected[a], records[a], b, expected[b], records[b]),
                *(_INT8.pack(epoch), _INT8.pack(incarnation), _INT8.pack(previous), packed or None),
                *(bytea_array(() if fresh else listed), bytea_array([*listed, *starts])),
            ),
            batch.meanwhile,
        )

    def read_committed(self) -> None:
        """Have each statement of the transaction that begins here see what others have committed before it."""
        self.run("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")

    def lock(self) -> None:
        """Wait until nobody publishes, and keep all from publishing until the transaction ends."""
        self.read_committed()
        self.run(f"SELECT {_LOCK}", (LOCK_CLASS, self.table("record")))

    def lock_within_bounds(self) -> None:
        """Do so in a transaction of our own, for `WAIT_SECONDS` at most, then raise psycopg.errors.LockNotAvailable.

        The server ends the transaction when nothing is heard of it for `IDLE_SECONDS`.
        """
        self.read_committed()
        bounds = [f"{seconds * 1000:.0f}ms" for seconds in (WAIT_SECONDS, IDLE_SECONDS)]
        self.run(f"SELECT {_BOUNDS}, {_LOCK}", (LOCK_CLASS, self.table("record"), *bounds))

    def settled(self, batch: Batch, floor: int) -> list[int] | None:
        """Return the numbers of a batch's frames if it was applied, although no answer came; else None.

        Under `lock`, so that whoever was still at it has finished. All rows of one transaction carry its number
        (`xmin`): the batch was applied if one transaction wrote all of its frames and at least one of the
        records that still stand, and no other record of the batch contradicts it. `floor` is a frame number from
        before the batch was sent.
        """
        self.lock()
        rows = self.run(
            "SELECT key, value, xmin::text FROM {s}.record WHERE key = ANY ($1::bytea[])", (bytea_array(batch.records),)
        )
        records: dict[bytes, tuple[bytes, str]] = {key: (value, writer) for key, value, writer in rows}
        frames = self.run(
            "SELECT xmin::text, number, previous, data FROM {s}.frame"
            " WHERE number > $1 AND data = ANY ($2::bytea[]) ORDER BY xmin::text, number",
            (floor, bytea_array([frame.data for frame in batch.frames])),
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
            ((count,),) = self.run("SELECT {s}.ckpt_forget($1::bytea[])", (bytea_array(self._forgotten),))
            self._changed = self._changed or count > 0
            self._forgotten = []

    def drop(self, frames: Collection[int]) -> None:
        gone = self.run("DELETE FROM {s}.frame WHERE number = ANY ($1::bigint[]) RETURNING 1", (bigint_array(frames),))
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
        state = self.run("SELECT txid_status($1)", (transaction,))[0][0]
        return None if state == "in progress" else state == "committed"


def _place(packed: int) -> Place:
    return Place(packed >> PLACE_BITS, packed & ((1 << PLACE_BITS) - 1))


def _received(rows: Sequence[Sequence[Any]]) -> tuple[dict[int, StoredFrame], Listed]:
    """Return frames, given for each its number, the number of that before it, its data and its list of keys."""
    frames = {number: StoredFrame(previous, data) for number, previous, data, _ in rows}
    return frames, Listed({number: sent for number, _, _, sent in rows})


def _is_step(batch: Batch) -> bool:
    """Whether a batch is what `ckpt_publish_step` takes: two records compared and written, and a frame or none."""
    records, frames = batch.records, batch.frames
    if len(records) != 2 or records.keys() != batch.expected.keys() or None in records.values() or batch.epoch is None:
        return False
    if not frames:
        return True
    frame = frames[0]
    return (
        len(frames) == 1 and not frame.optional and frame.previous != CHAINED and len({*frame.keys}) == len(frame.keys)
    )


@lru_cache
def _publish(schema: str) -> Prepared:
    return Prepared.of("ckpt_publish", f"SELECT {schema}.ckpt_publish($1, $2)", (ByteaArray.oid, BigintArray.oid))


@lru_cache
def _publish_step(schema: str) -> Prepared:
    types = (*[BYTEA] * 6, *[BIGINT] * 3, BYTEA, *[ByteaArray.oid] * 2)
    places = ", ".join(f"${at}" for at in range(1, len(types) + 1))
    return Prepared.of("ckpt_publish_step", f"SELECT {schema}.ckpt_publish_step({places})", types)


def _list_frames(frames: Sequence[Frame], parts: list[bytes | None], layout: list[int]) -> None:
    """Add what `ckpt_publish` gets of frames: their data, their keys and first bytes, and four numbers for each."""
    parts += [frame.data for frame in frames]
    seen: set[bytes] = set()
    for frame in frames:
        starts: set[bytes] = set()
        for key in frame.keys:
            parts.append(None if key in seen else key)
            if key not in seen:
                seen.add(key)
                starts.add(key[:1])
        parts += sorted(starts)
        layout += (frame.previous, frame.optional, len(frame.keys), len(starts))


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

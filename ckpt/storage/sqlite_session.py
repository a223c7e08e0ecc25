"""The statements of the seam on one connection to a SQLite store."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from operator import lt
from typing import Any

from ckpt.errors import InvalidInputError
from ckpt.storage.base import (
    CHAINED,
    Batch,
    Place,
    Range,
    StoredFrame,
    Usage,
    View,
    check_conditions,
    view_in_parts,
)

_PLACE_BITS = 16
_VARIABLES = 500
_CHAIN = """
    WITH RECURSIVE chain(number) AS (
        SELECT number FROM frame WHERE number IN ({})
        UNION SELECT frame.previous FROM frame JOIN chain ON frame.number = chain.number
        WHERE frame.previous NOT IN (0{})
    )
    SELECT frame.number, frame.previous, frame.data FROM frame JOIN chain ON frame.number = chain.number
"""
_INSERT_FRAME = "INSERT INTO frame (number, previous, data) VALUES (?, ?, ?)"
_KEEP_LAST = """
    INSERT INTO counter (name, value) SELECT 'frame', coalesce(max(number), 0) FROM frame WHERE true
    ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)
"""
_PUT_RECORD = "INSERT INTO record (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_INDEX_KEEP = "INSERT INTO object (key, place) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"
_INDEX_REPLACE = "INSERT INTO object (key, place) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET place = excluded.place"


def _chunks(keys: Sequence[object]) -> Iterator[Sequence[object]]:
    for start in range(0, len(keys), _VARIABLES):
        yield keys[start : start + _VARIABLES]


def _marks(count: int) -> str:
    return ",".join("?" * count)


class Session:
    """One connection, and the statements of the seam on it. Not for two threads at once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.execute = connection.execute

    def epoch(self) -> int:
        row = self.execute("SELECT value FROM counter WHERE name = 'epoch'").fetchone()
        if row is None or type(row[0]) is not int:
            raise sqlite3.DatabaseError("the epoch is missing")
        return row[0]

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if len(keys) == 1:
            row = self.execute("SELECT value FROM record WHERE key = ?", keys).fetchone()
            return [_bytes(row[0]) if row is not None else None]
        if len(keys) <= _VARIABLES:
            found = self._found(keys)
        else:
            with self._one_moment():
                found = {key: value for part in _chunks(keys) for key, value in self._found(part).items()}
        return [found.get(key) for key in keys]

    def _found(self, keys: Sequence[object]) -> dict[bytes, bytes]:
        rows = self.execute(f"SELECT key, value FROM record WHERE key IN ({_marks(len(keys))})", keys)
        return {key: _bytes(value) for key, value in rows}

    def view(self, keys: Sequence[bytes], ranges: Sequence[Range], *, last: int | None = None) -> View:
        with self._one_moment():
            return view_in_parts(self, keys, ranges, last)

    @contextmanager
    def _one_moment(self) -> Iterator[None]:
        """Have several statements see the store as of one moment."""
        if self.connection.in_transaction:
            yield
            return
        # A read that is broken off in between ends with its connection.
        self.execute("BEGIN")
        yield
        self.execute("COMMIT")

    def scan(
        self, start: bytes, end: bytes, *, limit: int | None = None, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        order = "DESC" if reverse else "ASC"
        rows = self.execute(
            f"SELECT key, value FROM record WHERE key >= ? AND key < ? ORDER BY key {order} LIMIT ?",
            (start, end, -1 if limit is None else limit),
        )
        found = [(_bytes(key), _bytes(value)) for key, value in rows]
        _check_order(start, [key for key, _ in (reversed(found) if reverse else found)])
        return found

    def locate(self, keys: Collection[bytes]) -> dict[bytes, Place]:
        found: dict[bytes, Place] = {}
        for part in _chunks(list(keys)):
            rows = self.execute(f"SELECT key, place FROM object WHERE key IN ({_marks(len(part))})", part)
            found.update((key, _place(place)) for key, place in rows)
        return found

    def load(self, frames: Collection[int], known: Collection[int] = ()) -> dict[int, StoredFrame]:
        found: dict[int, StoredFrame] = {}
        stops = list(known)
        for part in _chunks(list(frames)):
            rows = self.execute(_CHAIN.format(_marks(len(part)), ",?" * len(stops)), [*part, *stops])
            found.update((number, StoredFrame(_number(previous), _bytes(data))) for number, previous, data in rows)
        return found

    def scan_index(self, after: bytes, limit: int) -> list[tuple[bytes, Place]]:
        rows = self.execute("SELECT key, place FROM object WHERE key > ? ORDER BY key LIMIT ?", (after, limit))
        found = [(_bytes(key), _place(place)) for key, place in rows]
        _check_order(after + b"\0", [key for key, _ in found])
        return found

    def scan_frames(self, after: int, limit: int) -> list[tuple[int, int, int]]:
        rows = self.execute(
            "SELECT number, previous, length(data) FROM frame WHERE number > ? ORDER BY number LIMIT ?",
            (after, limit),
        )
        found = [(number, _number(previous), _number(size)) for number, previous, size in rows]
        _check_order(after + 1, [number for number, _, _ in found])
        return found

    def usage(self) -> Usage:
        def number(query: str) -> int:
            return int(self.execute(query).fetchone()[0] or 0)

        page = number("PRAGMA page_size")
        return Usage(
            disk=page * number("PRAGMA page_count"),
            frames=number("SELECT sum(length(data)) FROM frame"),
            records=number("SELECT sum(length(key) + length(value)) FROM record"),
            free=page * number("PRAGMA freelist_count"),
            objects=number("SELECT count(*) FROM object"),
        )

    def write(self, batch: Batch, *, replace: bool = True) -> list[int]:
        check_conditions(self, batch)
        try:
            return self._write(batch, replace=replace)
        except (sqlite3.DataError, OverflowError) as error:
            raise InvalidInputError(
                f"this is more than SQLite holds in one place: {error}", hints=["keep large values out of the state"]
            ) from error

    def _write(self, batch: Batch, *, replace: bool) -> list[int]:
        numbers: list[int] = []
        for frame in batch.frames:
            if frame.optional and len(self.locate(set(frame.keys))) == len(set(frame.keys)):
                numbers.append(0)
                continue
            previous = numbers[-1] if frame.previous == CHAINED else frame.previous
            number = self._add_frame(previous, frame.data)
            numbers.append(number)
            self.connection.executemany(
                _INDEX_REPLACE if replace else _INDEX_KEEP,
                [(key, number << _PLACE_BITS | position) for position, key in enumerate(frame.keys)],
            )
        removed = 0
        for key, value in batch.records.items():
            if value is not None:
                self.execute(_PUT_RECORD, (key, value))
            else:
                removed += self.execute("DELETE FROM record WHERE key = ?", (key,)).rowcount
        if removed:
            self.raise_epoch()
        return numbers

    def _add_frame(self, previous: int, data: bytes) -> int:
        number = self.execute(_INSERT_FRAME, (None, previous, data)).lastrowid
        assert number is not None
        (last,) = self.execute("SELECT value FROM counter WHERE name = 'frame'").fetchone() or (0,)
        if number > last:
            return number
        # The newest frames were dropped: theirs are numbers that somebody may remember.
        self.execute("DELETE FROM frame WHERE number = ?", (number,))
        self.execute(_INSERT_FRAME, (last + 1, previous, data))
        return int(last) + 1

    def raise_epoch(self) -> None:
        self.execute("UPDATE counter SET value = value + 1 WHERE name = 'epoch'")

    def forget(self, keys: Collection[bytes]) -> None:
        self.connection.executemany("DELETE FROM object WHERE key = ?", [(key,) for key in keys])

    def drop(self, frames: Collection[int]) -> None:
        self.execute(_KEEP_LAST)
        self.connection.executemany("DELETE FROM frame WHERE number = ?", [(number,) for number in frames])


def _bytes(value: object) -> bytes:
    if type(value) is not bytes:
        raise sqlite3.DatabaseError("a column holds no bytes")
    return value


def _number(value: object) -> int:
    if type(value) is not int:
        raise sqlite3.DatabaseError("a column holds no number")
    return value


def _place(packed: object) -> Place:
    number = _number(packed)
    return Place(number >> _PLACE_BITS, number & ((1 << _PLACE_BITS) - 1))


def _check_order(least: Any, found: Sequence[Any]) -> None:
    """Refuse rows that do not ascend from `least` on, as from a page in the place of another.

    Who reads on behind the last one would never come to an end.
    """
    if found and not (least <= found[0] and all(map(lt, found, found[1:]))):
        raise sqlite3.DatabaseError("rows are out of order")

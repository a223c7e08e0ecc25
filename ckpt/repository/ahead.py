"""Reading ahead: some ranges of records in one round trip, and what reads would find once a batch was published."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TypeVar

from ckpt.storage.base import Range, Reading, View, view_in_parts
from ckpt.storage.lending import LendingReads

_T = TypeVar("_T")


class Ahead(LendingReads):
    """The reading half of a store, some ranges of which were read before, all as of one moment.

    What lies in them is told from memory; all else is asked of the store, and may be of a later moment.
    """

    def __init__(self, reading: Reading, ranges: Sequence[Range], rows: Mapping[bytes, bytes | None]) -> None:
        self._reading = reading
        self._ranges = ranges
        self._rows = rows
        self._keys = sorted(key for key, value in rows.items() if value is not None)

    @staticmethod
    def of(reading: Reading, ranges: Sequence[Range], keys: Sequence[bytes] = ()) -> Ahead:
        """Read some ranges and single keys, in one round trip."""
        values, found = reading.view(keys, ranges)
        return Ahead(reading, ranges, {**dict(zip(keys, values, strict=True)), **dict(chain.from_iterable(found))})

    def after(self, records: Mapping[bytes, bytes | None]) -> Ahead:
        """Return what is read once these records were written; those outside of the ranges by `read` alone."""
        return Ahead(self._reading, self._ranges, {**self._rows, **records})

    def _lend(self, call: Callable[[Reading], _T]) -> _T:
        return call(self._reading)

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        asked = [key for key in keys if key not in self._rows and not self._holds(key, key + b"\x00")]
        found = dict(zip(asked, self._reading.read(asked), strict=True)) if asked else {}
        return [found[key] if key in found else self._rows.get(key) for key in keys]

    def view(self, keys: Sequence[bytes], ranges: Sequence[Range], *, last: int | None = None) -> View:
        return view_in_parts(self, keys, ranges, last)

    def scan(
        self, start: bytes, end: bytes, *, limit: int | None = None, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        if start < end and not self._holds(start, end):
            return self._reading.scan(start, end, limit=limit, reverse=reverse)
        keys = self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, end)]
        if reverse:
            keys.reverse()
        return [(key, value) for key in keys[:limit] if (value := self._rows[key]) is not None]

    def rows(self, wanted: Range) -> list[tuple[bytes, bytes]]:
        """Return the records of a range if they were read before, else none."""
        return self.scan(*wanted) if self._holds(*wanted) else []

    def _holds(self, start: bytes, end: bytes) -> bool:
        return any(first <= start and end <= last for first, last in self._ranges)


class Joined:
    """Changes of records that are made as one: each of what those before it would leave, as `reading` shows it."""

    def __init__(self, reading: Ahead) -> None:
        self.reading = reading
        self.expected: dict[bytes, bytes | None] = {}
        self.records: dict[bytes, bytes | None] = {}

    def add(self, expected: Mapping[bytes, bytes | None], records: Mapping[bytes, bytes | None]) -> None:
        """Take a change that was made of `reading`."""
        # What a record is in the store is what the first change expects of it.
        self.expected = {**expected, **self.expected}
        self.records |= records
        self.reading = self.reading.after(records)

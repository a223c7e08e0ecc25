"""A Redis store while one has it to itself: what is written is gathered here and applied by one script at the end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import itemgetter

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
    without_incarnation,
)
from ckpt.storage.redis_client import Argument
from ckpt.storage.redis_reading import Reading, entries, entry, escape

VALUE_BYTES_MAX = 500 << 20
"""Bytes of one frame, or of one record: a server takes 512 MB in one argument."""

BATCH_BYTES_MAX = 1000 << 20
"""Bytes of one batch: a server takes 1 GB in one command."""

_first = itemgetter(0)


class Session:
    """The store as it will be, seen by the one who writes it. Reads ask the server and lay on top what was written.

    Nobody else publishes meanwhile, so the server's answers hold still; should the lock be lost, the next call
    says so. `usage` is that of the beginning.
    """

    def __init__(self, reading: Reading, epoch: int, next_frame: int) -> None:
        self._reading = reading
        self._epoch = epoch
        self._next_frame = next_frame
        self._records: dict[bytes, bytes | None] = {}
        self._places: dict[bytes, Place | None] = {}
        self._frames: dict[int, StoredFrame] = {}
        self._dropped: set[int] = set()
        self.changed = False

    # -- reading ------------------------------------------------------------------------------------

    def epoch(self) -> int:
        return self._epoch

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        stored = self._reading.read(keys)
        return [self._records.get(key, value) for key, value in zip(keys, stored, strict=True)]

    def view(self, keys: Sequence[bytes], ranges: Sequence[Range], *, last: int | None = None) -> View:
        more = last if last is None else last + len(self._records)
        values, found = self._reading.view(keys, ranges, last=more)
        overlaid = [self._overlaid(rows, start, end) for rows, (start, end) in zip(found, ranges, strict=True)]
        return View(
            [self._records.get(key, value) for key, value in zip(keys, values, strict=True)],
            overlaid if last is None else [rows[-last:] for rows in overlaid],
        )

    def scan(
        self, start: bytes, end: bytes, *, limit: int | None = None, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        # So many more rows that enough of them are left when ours hide some.
        hidden = sum(start <= key < end for key in self._records)
        rows = self._reading.scan(start, end, limit=None if limit is None else limit + hidden, reverse=reverse)
        found = self._overlaid(rows, start, end)
        if reverse:
            found.reverse()
        return found[:limit]

    def _overlaid(self, rows: list[tuple[bytes, bytes]], start: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        merged = dict(rows) | {key: value for key, value in self._records.items() if start <= key < end}
        return sorted(((key, value) for key, value in merged.items() if value is not None), key=_first)

    def locate(self, keys: Collection[bytes]) -> dict[bytes, Place]:
        merged = self._reading.locate(keys) | {key: self._places[key] for key in keys if key in self._places}
        return {key: place for key, place in merged.items() if place is not None}

    def load(self, frames: Collection[int], known: Collection[int] = ()) -> dict[int, StoredFrame]:
        found: dict[int, StoredFrame] = {}
        beginning = set()
        for number in frames:
            # New frames may follow stored ones, never the other way round.
            while number in self._frames and number not in found:
                found[number] = self._frames[number]
                number = found[number].previous
                if number in known:
                    break
            else:
                beginning.add(number)
        stored = self._reading.load(beginning, known)
        for number in beginning:
            while number in stored and number not in found and number not in self._dropped:
                found[number] = stored[number]
                number = stored[number].previous
        return found

    def scan_index(self, after: bytes, limit: int) -> list[tuple[bytes, Place]]:
        ours = {key: place for key, place in self._places.items() if key > after}
        merged = dict(self._reading.scan_index(after, limit + len(ours))) | ours
        found = [(key, place) for key, place in merged.items() if place is not None]
        return sorted(found, key=_first)[:limit]

    def scan_frames(self, after: int, limit: int) -> list[tuple[int, int, int]]:
        found: list[tuple[int, int, int]] = []
        more = True
        while more and len(found) < limit:
            page, more = self._reading.page_of_frames(after, limit)
            found += [row for row in page if row[0] not in self._dropped]
            after = page[-1][0] if page else after
        found += [(number, frame.previous, len(frame.data)) for number, frame in self._frames.items() if number > after]
        return found[:limit]

    def usage(self) -> Usage:
        return self._reading.usage()

    # -- writing ------------------------------------------------------------------------------------

    def write(self, batch: Batch) -> list[int]:
        check_conditions(self, batch)
        self.changed = True
        removed = [key for key, value in batch.records.items() if value is None]
        if removed and any(value is not None for value in self.read(removed)):
            self._epoch += 1
        self._records.update(batch.records)
        optional = {key for frame in batch.frames if frame.optional for key in frame.keys}
        known = set(self.locate(optional)) if optional else set()
        numbers: list[int] = []
        for frame in batch.frames:
            if frame.optional and known.issuperset(frame.keys):
                numbers.append(0)
                continue
            number, self._next_frame = self._next_frame, self._next_frame + 1
            previous = numbers[-1] if frame.previous == CHAINED else frame.previous
            self._frames[number] = StoredFrame(previous, frame.data)
            self._places.update((key, Place(number, position)) for position, key in enumerate(frame.keys))
            known.update(frame.keys)
            numbers.append(number)
        return numbers

    def forget(self, keys: Collection[bytes]) -> None:
        self.changed = True
        self._places.update(dict.fromkeys(keys))

    def drop(self, frames: Collection[int]) -> None:
        self.changed = True
        for number in frames:
            if self._frames.pop(number, None) is None:
                self._dropped.add(number)

    def raise_epoch(self) -> None:
        self.changed = True
        self._epoch += 1

    def arguments(self) -> list[Argument]:
        """Return what the script that applies all of it takes."""
        check_sizes([*self._records.values(), *(frame.data for frame in self._frames.values())])
        placed = [(key, place) for key, place in self._places.items() if place is not None]
        gone = entries(key for key, place in self._places.items() if place is None)
        records = [part for key, value in self._records.items() for part in record_arguments(key, value)]
        frames = [part for number, frame in self._frames.items() for part in (number, frame.previous, frame.data)]
        dropped = [number for number in self._dropped if number > 0]
        return [
            without_incarnation(self._epoch)[1] + 1,
            self._next_frame,
            gone,
            b"".join(sorted(entry(key, *place) for key, place in placed)),
            len(self._records),
            *records,
            len(self._frames),
            *frames,
            len(dropped),
            *dropped,
        ]


def record_arguments(key: bytes, value: bytes | None) -> tuple[bytes, bytes]:
    """Return key and value, or its absence, as scripts take them."""
    return escape(key), b"-" if value is None else b"=" + value


def check_sizes(values: Sequence[bytes | None]) -> None:
    """Raise InvalidInputError when values are too large to be sent, each or together."""
    sizes = [len(value) for value in values if value is not None]
    if sizes and (max(sizes) > VALUE_BYTES_MAX or sum(sizes) > BATCH_BYTES_MAX):
        raise InvalidInputError(
            f"Redis takes {VALUE_BYTES_MAX:,} bytes in one value and {BATCH_BYTES_MAX:,} in one batch; "
            f"here are {max(sizes):,} and {sum(sizes):,}",
            hints=["keep large values out of the state, or use a store on SQLite"],
        )

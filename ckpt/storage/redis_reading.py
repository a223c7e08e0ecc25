"""The reading half of a Redis store, and how keys, places and records are written down for its scripts."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from ckpt.errors import InvalidInputError
from ckpt.storage import redis_scripts as scripts
from ckpt.storage.base import (
    Fetched,
    Place,
    Range,
    StoredFrame,
    Usage,
    View,
    with_incarnation,
    without_incarnation,
)
from ckpt.storage.redis_client import Argument, Link

INDEX_KEY_MAX = 16
"""Bytes that the key of an object may have."""

_END = b"\x00\x00"
_ENTRY = struct.Struct(">16sBBIH")
_RECORD_COST = 96
_FRAME_COST = 40
_BUCKET_COST = 72
_ENTRY_COST = 24
_BASE_COST = 1500
"""Bytes that the server takes beside what is stored in it, as measured; see docs/redis.md."""


def escape(key: bytes) -> bytes:
    """Return a record's key so that no other begins with it, and so that they sort as the keys do."""
    return key.replace(b"\x00", b"\x00\xff") + _END


def entry(key: bytes, frame: int = 0, position: int = 0) -> bytes:
    """Return the index entry of an object; entries sort as the keys do."""
    if len(key) > INDEX_KEY_MAX:
        raise InvalidInputError(f"an object's key has at most {INDEX_KEY_MAX} bytes, not {len(key)}")
    return _ENTRY.pack(key, len(key), frame >> 32, frame & 0xFFFFFFFF, position)


def places_of(entries: bytes) -> list[tuple[bytes, Place]]:
    """Undo `entry` for entries laid end to end."""
    return [
        (key[:size], Place(high << 32 | low, position))
        for key, size, high, low, position in _ENTRY.iter_unpack(entries)
    ]


def entries(keys: Iterable[bytes]) -> bytes:
    """Return entries that say nothing but the keys, in order, each once."""
    return b"".join(sorted({entry(key) for key in keys}))


def epoch_of(dated: bytes) -> int:
    """Return the epoch of the seam for what the scripts call dated: an epoch, and the run and replication it is of."""
    epoch, _, run = dated.partition(b":")
    return with_incarnation(int(run or b"0", 16), int(epoch))


def dated(epoch: int) -> str:
    """Undo `epoch_of`."""
    run, count = without_incarnation(epoch)
    return f"{count}:{run:016x}"


class Reading:
    """Reads a store. With a token, for whoever has the store to itself: each call then renews the lock."""

    def __init__(self, link: Link, store_id: bytes, token: str = "") -> None:
        self._link = link
        self._opening: tuple[Argument, ...] = (store_id, token)

    def _read(self, script: scripts.Script, *arguments: Argument) -> list[Any]:
        return self._link.read(script, *self._opening, *arguments)[1]

    def epoch(self) -> int:
        return epoch_of(self._read(scripts.EPOCH)[0])

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._read(scripts.READ, *map(escape, keys))

    def view(self, keys: Sequence[bytes], ranges: Sequence[Range], *, last: int | None = None) -> View:
        bounds = [end for start, stop in ranges for end in _bounds(start, stop)]
        limit = -1 if last is None else last
        values, *found = self._read(scripts.VIEW, limit, len(keys), *map(escape, keys), *bounds)
        return View(values, [self._records(members[::-1]) for members in found])

    def scan(
        self, start: bytes, end: bytes, *, limit: int | None = None, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        low, high = _bounds(start, end)
        command, first, last = ("ZREVRANGEBYLEX", high, low) if reverse else ("ZRANGEBYLEX", low, high)
        (members,) = self._read(scripts.SCAN, command, first, last, -1 if limit is None else limit)
        return self._records(members)

    def _records(self, members: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        """Return key and value of each of these members of the sorted set."""
        split = [member.partition(_END) for member in members]
        if not all(end for _, end, _ in split):
            raise self._link.damaged(self._link.keys[1].decode())
        return [(key.replace(b"\x00\xff", b"\x00"), value) for key, _, value in split]

    def locate(self, keys: Collection[bytes]) -> dict[bytes, Place]:
        return dict(places_of(self._read(scripts.LOCATE, entries(keys))[0]))

    def load(self, frames: Collection[int], known: Collection[int] = ()) -> dict[int, StoredFrame]:
        wanted = [number for number in frames if number > 0]
        return _frames(self._read(scripts.LOAD, len(wanted), *wanted, *known))

    def fetch(self, keys: Collection[bytes], known: Collection[int] = ()) -> Fetched:
        places, *found = self._read(scripts.FETCH, entries(keys), *known)
        return Fetched(dict(places_of(places)), _frames(found))

    def scan_index(self, after: bytes, limit: int) -> list[tuple[bytes, Place]]:
        # The smallest entry behind `after`: no key that is longer than its padded form comes between.
        behind = _ENTRY.pack(after, min(len(after), INDEX_KEY_MAX) + 1, 0, 0, 0)
        found, prefix = b"", 0
        while prefix >= 0:
            part, prefix = self._read(scripts.SCAN_INDEX, behind, limit - len(found) // _ENTRY.size)
            found += part
            behind = _ENTRY.pack(max(prefix, 0).to_bytes(4, "big"), 0, 0, 0, 0)
        return places_of(found)

    def scan_frames(self, after: int, limit: int) -> list[tuple[int, int, int]]:
        return self.page_of_frames(after, limit)[0]

    def page_of_frames(self, after: int, limit: int) -> tuple[list[tuple[int, int, int]], bool]:
        """Return what `scan_frames` does, and whether there may be more."""
        more, *found = self._read(scripts.SCAN_FRAMES, max(after, 0), limit)
        rows = zip(found[::3], found[1::3], found[2::3], strict=True)
        return [(int(number), int(previous), size) for number, previous, size in rows], bool(more)

    def usage(self) -> Usage:
        frame_bytes, frames, record_bytes, records, objects, buckets = self._read(scripts.USAGE)
        overhead = (
            _BASE_COST + frames * _FRAME_COST + records * _RECORD_COST + objects * _ENTRY_COST + buckets * _BUCKET_COST
        )
        return Usage(frame_bytes + record_bytes + overhead, frame_bytes, record_bytes, 0, objects)


def _frames(found: list[Any]) -> dict[int, StoredFrame]:
    return {
        int(number): StoredFrame(int(previous), data)
        for number, previous, data in zip(found[::3], found[1::3], found[2::3], strict=True)
    }


def _bounds(start: bytes, end: bytes) -> tuple[bytes, bytes]:
    return b"[" + escape(start), b"(" + escape(end)

"""Frames as bytes: the new objects of one transaction.

A frame is a list of n objects: `varint n`, their n kind bytes, their n lengths as little-endian 32-bit numbers,
and their bytes one after another. How frames are compressed is the business of `ckpt.objects.packs`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise
from typing import NamedTuple

from ckpt.errors import DamagedObjectError
from ckpt.objects.ids import Kind, ObjectId, object_id
from ckpt.objects.varint import decode_varint, encode_varint


class StoredObject(NamedTuple):
    """One object of a frame."""

    kind: int
    data: bytes


_KINDS = bytes(Kind)
_LENGTH_SIZE = 4
_FEW = 16


class _Lengths(dict[int, struct.Struct]):
    """How the lengths of so many objects are written; that of a few is at hand, as a first read opens a thousand."""

    def __missing__(self, count: int) -> struct.Struct:
        return struct.Struct(f"<{count}I")


_LENGTHS = _Lengths((count, struct.Struct(f"<{count}I")) for count in range(_FEW))


def encode_frame(objects: Iterable[StoredObject]) -> bytes:
    """Return the raw, uncompressed bytes of a frame."""
    kinds, data = bytearray(), []
    for kind, part in objects:
        kinds.append(kind)
        data.append(part)
    return b"".join((encode_varint(len(data)), kinds, _LENGTHS[len(data)].pack(*map(len, data)), *data))


class Frame:
    """A raw frame, whose objects are taken out one by one. It is looked into when the first of them is asked for.

    It lies anywhere in `raw`, which it keeps alive: frames of one pack share the bytes they came from.
    """

    __slots__ = ("_kinds", "_raw", "_starts", "end", "start")

    def __init__(self, raw: bytes, start: int, end: int) -> None:
        """Take a frame that `cut` has found between these two."""
        self._raw, self.start, self.end = raw, start, end
        self._starts: list[int] | None = None

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return self.end - self.start

    def _look(self) -> list[int]:
        """Return where each object begins, and where the last one ends."""
        raw, start = self._raw, self.start
        count, kinds = raw[start], start + 1
        if count >= _FEW:
            count, kinds = decode_varint(raw, start)
        lengths = kinds + count
        self._kinds = raw[kinds:lengths]
        found = _LENGTHS[count].unpack_from(raw, lengths)
        starts = self._starts = list(accumulate(found, initial=lengths + count * _LENGTH_SIZE))
        return starts

    def get(self, position: int) -> StoredObject | None:
        """Return an object, or None where there is none."""
        starts = self._starts or self._look()
        if position + 1 >= len(starts):
            return None
        return StoredObject(self._kinds[position], self._raw[starts[position] : starts[position + 1]])

    def verified(self, position: int, oid: ObjectId) -> bytes | None:
        """Return the bytes of an object, or None unless there is one and this is its id."""
        # As `get` does, whose tuple would be a tenth of the time for each piece of a state that is read first.
        starts = self._starts or self._look()
        if position + 1 >= len(starts):
            return None
        data = self._raw[starts[position] : starts[position + 1]]
        return data if object_id(self._kinds[position], data) == oid else None

    def objects(self) -> list[StoredObject]:
        """Return all objects, in order."""
        raw, starts = self._raw, self._starts or self._look()
        parts = (raw[start:end] for start, end in pairwise(starts))
        return [StoredObject(kind, part) for kind, part in zip(self._kinds, parts, strict=True)]

    def hashed(self) -> Iterator[tuple[ObjectId, bytes]]:
        """Yield the id and the bytes of each object, in order."""
        for kind, data in self.objects():
            yield object_id(kind, data), data


def cut(raw: bytes, count: int) -> list[Frame]:
    """Return so many frames that lie one after another, given all their bytes.

    Raises DamagedObjectError when that is not what the bytes are.
    """
    # Written out, as whoever reads the head of a thread comes by all frames before it.
    ends, found = [0], []
    offset, size = 0, len(raw)
    try:
        for _ in range(count):
            objects, kinds = raw[offset], offset + 1
            if objects >= _FEW:
                objects, kinds = decode_varint(raw, offset)
                # What a forged number stands for is not made first.
                if objects > size:
                    raise _damaged()
            lengths = kinds + objects
            found.append(raw[kinds:lengths])
            offset = lengths + objects * _LENGTH_SIZE + sum(_LENGTHS[objects].unpack_from(raw, lengths))
            ends.append(offset)
    except (IndexError, struct.error):
        raise _damaged() from None
    if offset != size or b"".join(found).translate(None, _KINDS):
        raise _damaged()
    return [Frame(raw, start, end) for start, end in pairwise(ends)]


def _damaged() -> DamagedObjectError:
    return DamagedObjectError("a frame is damaged: its objects do not add up to its length")

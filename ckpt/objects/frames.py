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
    """A raw frame, whose objects are taken out one by one.

    It lies anywhere in `raw`, which it keeps alive: frames of one pack share the bytes they came from.
    """

    __slots__ = ("_kinds", "_raw", "_sizes", "_starts", "end", "start")

    def __init__(self, raw: bytes, start: int, end: int, kinds: bytes, sizes: tuple[int, ...]) -> None:
        """Take a frame that `cut` has found between these two, with objects of these kinds and sizes at its end."""
        self._raw, self.start, self.end = raw, start, end
        self._kinds, self._sizes = kinds, sizes
        # Worked out for those that something is taken out of: whoever asks for a thread's head comes by hundreds.
        self._starts: list[int] | None = None

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return self.end - self.start

    def apart(self) -> Frame:
        """Return the same frame with bytes of its own, so that it keeps no other's alive."""
        return Frame(self._raw[self.start : self.end], 0, self.size, self._kinds, self._sizes)

    def _look(self) -> list[int]:
        """Return where each object begins, and where the last one ends."""
        sizes = self._sizes
        starts = self._starts = list(accumulate(sizes, initial=self.end - sum(sizes)))
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
    frames: list[Frame] = []
    every: list[bytes] = []
    start, end = 0, len(raw)
    try:
        for _ in range(count):
            objects, at = raw[start], start + 1
            if objects >= _FEW:
                objects, at = decode_varint(raw, start)
                # What a forged number stands for is not made first.
                if objects > end:
                    raise _damaged()
            lengths = at + objects
            kinds = raw[at:lengths]
            sizes = _LENGTHS[objects].unpack_from(raw, lengths)
            behind = lengths + objects * _LENGTH_SIZE + sum(sizes)
            frames.append(Frame(raw, start, behind, kinds, sizes))
            every.append(kinds)
            start = behind
    except (IndexError, struct.error):
        raise _damaged() from None
    if start != end or b"".join(every).translate(None, _KINDS):
        raise _damaged()
    return frames


def _damaged() -> DamagedObjectError:
    return DamagedObjectError("a frame is damaged: its objects do not add up to its length")

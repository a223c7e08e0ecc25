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


class _Lengths(dict[int, struct.Struct]):
    """How the lengths of so many objects are written; that of a few is at hand, as a first read opens a thousand."""

    def __missing__(self, count: int) -> struct.Struct:
        return struct.Struct(f"<{count}I")


_LENGTHS = _Lengths((count, struct.Struct(f"<{count}I")) for count in range(16))


def encode_frame(objects: Iterable[StoredObject]) -> bytes:
    """Return the raw, uncompressed bytes of a frame."""
    kinds, data = bytearray(), []
    for kind, part in objects:
        kinds.append(kind)
        data.append(part)
    return b"".join((encode_varint(len(data)), kinds, _LENGTHS[len(data)].pack(*map(len, data)), *data))


class Frame:
    """A raw frame, whose objects are taken out one by one.

    It may lie anywhere in `raw`, which it keeps alive: frames of one pack share the bytes they came from.
    """

    __slots__ = ("_kinds", "_lengths", "_raw", "_start", "_starts", "end", "size")

    def __init__(self, raw: bytes, offset: int = 0) -> None:
        """Read the table of contents at an offset, or raise DamagedObjectError when it reaches beyond the end."""
        count, kinds = decode_varint(raw, offset)
        lengths = kinds + count
        start = self._start = lengths + count * _LENGTH_SIZE
        if start > len(raw):
            raise _damaged()
        self._raw = raw
        self._kinds = raw[kinds:lengths]
        self._lengths: tuple[int, ...] = _LENGTHS[count].unpack_from(raw, lengths)
        self._starts: list[int] | None = None
        size = sum(self._lengths)
        self.end: int = start + size
        if self.end > len(raw) or self._kinds.translate(None, _KINDS):
            raise _damaged()
        self.size: int = size + 8 * count
        """About how many bytes it takes."""

    def __len__(self) -> int:
        return len(self._kinds)

    def __getitem__(self, position: int) -> StoredObject:
        return StoredObject(self._kinds[position], self._data(position))

    def _data(self, position: int) -> bytes:
        if not position:
            return self._raw[self._start : self._start + self._lengths[0]]
        starts = self._starts
        if starts is None:
            starts = self._starts = list(accumulate(self._lengths, initial=self._start))
        return self._raw[starts[position] : starts[position + 1]]

    def verified(self, position: int, oid: ObjectId) -> bytes | None:
        """Return the bytes of an object, or None unless there is one and this is its id."""
        if position >= len(self._kinds):
            return None
        data = self._data(position)
        return data if object_id(self._kinds[position], data) == oid else None

    def objects(self) -> list[StoredObject]:
        """Return all objects, in order."""
        return [self[position] for position in range(len(self))]

    def hashed(self) -> Iterator[tuple[ObjectId, bytes]]:
        """Yield the id and the bytes of each object, in order."""
        raw = self._raw
        for kind, (start, end) in zip(
            self._kinds, pairwise(accumulate(self._lengths, initial=self._start)), strict=True
        ):
            data = raw[start:end]
            yield object_id(kind, data), data


def _damaged() -> DamagedObjectError:
    return DamagedObjectError("a frame is damaged: its objects do not add up to its length")

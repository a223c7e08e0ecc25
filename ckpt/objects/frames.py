"""Frames as bytes: the new objects of one transaction.

A frame is a list of n objects: `varint n`, their n kind bytes, their n lengths as little-endian 32-bit numbers,
and their bytes one after another. How frames are compressed is the business of `ckpt.objects.packs`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple

from ckpt.errors import DamagedObjectError
from ckpt.objects.ids import Kind
from ckpt.objects.varint import decode_varint, encode_varint


class StoredObject(NamedTuple):
    """One object of a frame."""

    kind: int
    data: bytes


_KINDS = bytes(Kind)
_LENGTH_SIZE = 4


def encode_frame(objects: Iterable[StoredObject]) -> bytes:
    """Return the raw, uncompressed bytes of a frame."""
    kinds, data = bytearray(), []
    for obj in objects:
        kinds.append(obj.kind)
        data.append(obj.data)
    lengths = struct.pack(f"<{len(data)}I", *map(len, data))
    return b"".join((encode_varint(len(data)), kinds, lengths, *data))


class Frame:
    """A raw frame, whose objects are taken out one by one.

    It may lie anywhere in `raw`, which it keeps alive: frames of one pack share the bytes they came from.
    """

    __slots__ = ("_kinds", "_lengths", "_raw", "_start", "_starts", "end")

    def __init__(self, raw: bytes, offset: int = 0) -> None:
        """Read the table of contents at an offset, or raise DamagedObjectError when it reaches beyond the end."""
        count, kinds = decode_varint(raw, offset)
        lengths = kinds + count
        self._start = lengths + count * _LENGTH_SIZE
        if self._start > len(raw):
            raise _damaged()
        self._raw = raw
        self._kinds = raw[kinds:lengths]
        self._lengths: tuple[int, ...] = struct.unpack_from(f"<{count}I", raw, lengths)
        self._starts: list[int] | None = None
        self.end: int = self._start + sum(self._lengths)
        if self.end > len(raw) or self._kinds.translate(None, _KINDS):
            raise _damaged()

    def __len__(self) -> int:
        return len(self._kinds)

    def __getitem__(self, position: int) -> StoredObject:
        if self._starts is None:
            self._starts = list(accumulate(self._lengths, initial=self._start))
        start, end = self._starts[position], self._starts[position + 1]
        return StoredObject(self._kinds[position], self._raw[start:end])

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return self.end - self._start + 8 * len(self._kinds)

    def objects(self) -> list[StoredObject]:
        """Return all objects, in order."""
        return [self[position] for position in range(len(self))]


def decode_frame(raw: bytes) -> list[StoredObject]:
    """Return the objects of a raw frame that ends where the bytes end, or raise DamagedObjectError."""
    frame = Frame(raw)
    if frame.end != len(raw):
        raise _damaged()
    return frame.objects()


def _damaged() -> DamagedObjectError:
    return DamagedObjectError("a frame is damaged: its objects do not add up to its length")

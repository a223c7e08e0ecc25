"""Frames and packs as bytes: how the new objects of one transaction are laid down.

A frame is a list of n objects: `varint n`, their n kind bytes, their n lengths as little-endian 32-bit numbers,
and their bytes one after another; all of it compressed as the next block of its pack's zstd stream. A pack is
the concatenation of its frames: one stream, flushed after each frame, so that all that came earlier in the pack
serves as dictionary. Which frames form a pack is kept by the store: each frame names the one before it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

import zstandard

from ckpt.errors import DamagedObjectError
from ckpt.objects.ids import Kind
from ckpt.objects.varint import decode_varint, encode_varint

COMPRESSION_LEVEL = 6
PACKED_LEVEL = 19
WINDOW_LOG = 19
"""512 KB: a little more than a pack holds, so that a whole pack is its own dictionary."""


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
    """A raw frame, whose objects are taken out one by one."""

    __slots__ = ("_kinds", "_starts", "raw")

    def __init__(self, raw: bytes) -> None:
        """Read the table of contents, or raise DamagedObjectError when it does not add up."""
        count, offset = decode_varint(raw, 0)
        start = offset + count * (1 + _LENGTH_SIZE)
        if start > len(raw):
            raise _damaged()
        self._kinds = raw[offset : offset + count]
        lengths = struct.unpack_from(f"<{count}I", raw, offset + count)
        self._starts = list(accumulate(lengths, initial=start))
        if self._starts[-1] != len(raw) or self._kinds.translate(None, _KINDS):
            raise _damaged()
        self.raw = raw

    def __len__(self) -> int:
        return len(self._kinds)

    def __getitem__(self, position: int) -> StoredObject:
        start, end = self._starts[position], self._starts[position + 1]
        return StoredObject(self._kinds[position], self.raw[start:end])


def decode_frame(raw: bytes) -> list[StoredObject]:
    """Return the objects of a raw frame in order, or raise DamagedObjectError."""
    frame = Frame(raw)
    return [frame[position] for position in range(len(frame))]


def _damaged() -> DamagedObjectError:
    return DamagedObjectError("a frame is damaged: its objects do not add up to its length")


class PackStream:
    """The compressing side of one open pack."""

    def __init__(self) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            COMPRESSION_LEVEL, window_log=WINDOW_LOG, write_content_size=False, write_checksum=False
        )
        self._compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        self.raw_size = 0

    def append(self, raw: bytes) -> bytes:
        """Return the compressed block of the next frame. It is useless unless all earlier ones are stored."""
        self.raw_size += len(raw)
        block = self._compressor.compress(raw)
        return block + self._compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


def pack_frame(objects: Iterable[StoredObject]) -> bytes:
    """Return a pack of one frame, compressed as well as it goes: for what is written once and kept."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        PACKED_LEVEL, window_log=WINDOW_LOG + 1, write_content_size=False, write_checksum=False
    )
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(encode_frame(objects)) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


class PackReader:
    """The decompressing side of one pack, which can be continued where it stopped."""

    def __init__(self) -> None:
        self._stream = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()

    def read(self, frames: Iterable[bytes]) -> list[bytes]:
        """Return the raw frames that follow those read before, or raise DamagedObjectError."""
        try:
            return [self._stream.decompress(frame) for frame in frames]
        except zstandard.ZstdError as error:
            raise DamagedObjectError(f"a pack cannot be decompressed: {error}") from error


def decompress_pack(frames: Sequence[bytes]) -> list[bytes]:
    """Return the raw frames of a pack, given its compressed frames from the first on.

    Raises DamagedObjectError when they are not one readable stream.
    """
    return PackReader().read(frames)

"""Frames and packs as bytes: how the new objects of one transaction are laid down.

A frame is a list of objects, each `kind byte, varint length, bytes`, compressed as the next block of its
pack's zstd stream. A pack is the concatenation of its frames: one stream, flushed after each frame, so
that all that came earlier in the pack serves as dictionary. Which frames form a pack is kept by the store:
each frame names the one before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


_KINDS = frozenset(Kind)


def encode_frame(objects: Iterable[StoredObject]) -> bytes:
    """Return the raw, uncompressed bytes of a frame."""
    out = bytearray()
    for kind, data in objects:
        out.append(kind)
        out += encode_varint(len(data))
        out += data
    return bytes(out)


def decode_frame(raw: bytes) -> list[StoredObject]:
    """Return the objects of a raw frame in order, or raise DamagedObjectError."""
    objects = []
    offset, end = 0, len(raw)
    while offset < end:
        kind = raw[offset]
        length, offset = decode_varint(raw, offset + 1)
        if kind not in _KINDS or offset + length > end:
            raise DamagedObjectError("a frame is damaged: its objects do not add up to its length")
        objects.append(StoredObject(kind, raw[offset : offset + length]))
        offset += length
    return objects


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


def decompress_pack(frames: Sequence[bytes]) -> list[bytes]:
    """Return the raw frames of a pack, given its compressed frames from the first on.

    Raises DamagedObjectError when they are not one readable stream.
    """
    stream = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
    try:
        return [stream.decompress(frame) for frame in frames]
    except zstandard.ZstdError as error:
        raise DamagedObjectError(f"a pack cannot be decompressed: {error}") from error

"""Cutting for tests: what a cut emits, its pieces in order, and where docs/format.md says that they end."""

from __future__ import annotations

from zlib import crc32

import msgpack
from hypothesis import HealthCheck, settings
from objects_kit import Stored

from ckpt.objects.ids import ObjectId
from ckpt.values.cut import Cut, Cutter
from ckpt.values.rope import INLINE, ROPE, assemble, decode_items, rope_length

EXAMPLES = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


class Objects(Stored):
    """Collects the objects that cuts emit."""

    def cut(
        self, data: bytes, previous: Cut | None = None, type_: str = "msgpack"
    ) -> tuple[bytes, Cut | None, set[ObjectId]]:
        """Return rope, memo and the objects emitted, having checked that the value can be put together again."""
        self.emitted = []
        rope, memo = Cutter(self.emit).cut(type_, data, previous)
        assert assemble([rope], self.load) == [data]
        assert rope_length(rope) == len(data)
        return rope, memo, set(self.emitted)


def pack(value: object) -> bytes:
    data: bytes = msgpack.packb(value)
    return data


def cut_pieces(data: bytes, type_: str = "msgpack") -> list[bytes]:
    """The pieces of a value, in order, whatever groups they are in."""
    objects = Objects()
    items = decode_items(objects.cut(data, type_=type_)[0])
    while any(item.kind == ROPE for item in items):
        groups = [
            decode_items(objects.stored[ObjectId(item.payload)]) if item.kind == ROPE else [item] for item in items
        ]
        items = [item for group in groups for item in group]
    return [item.payload if item.kind == INLINE else objects.stored[ObjectId(item.payload)] for item in items]


def _pieces_of_lines(text: bytes) -> list[bytes]:
    """What docs/format.md says of line feeds, word by word."""
    pieces, start, line, tried = [], 0, 0, 0
    for end in [at + 1 for at, byte in enumerate(text) if byte == 0x0A]:
        zeros = 0b111 if end - line >= 16 else 0b111111
        tried += end - start >= 1024
        hit = 0 < tried <= 512 and not crc32(text[min(line, end - 64) : end]) & zeros
        if hit or end - start >= 16_384:
            pieces.append(text[start:end])
            start, tried = end, 0
        line = end
    return pieces + [text[start:]] * (start < len(text))


def pieces_of_text(text: bytes) -> list[bytes]:
    """What docs/format.md says of long texts."""
    return [piece for lines in _pieces_of_lines(text) for piece in pieces_of_bytes(lines)]


def pieces_of_bytes(data: bytes) -> list[bytes]:
    """What docs/format.md says of bytes, word by word."""
    pieces = []
    while data:
        marks = [end for end in range(8192, min(65_536, len(data)) + 1) if data[end - 1] in (0x30, 0x70, 0xB0, 0xF0)]
        fitting = [end for end in marks[:512] if not crc32(data[end - 64 : end]) & 63]
        end = [*fitting, *marks[:512][-1:], 65_536][0]
        pieces.append(data[:end])
        data = data[end:]
    return pieces

"""Ropes: a value as an ordered list of inline bytes and references to objects.

The encoding of a rope is a sequence of items, each

    varint(length << 2 | kind)   kind 0 inline, 1 blob, 2 rope; length of the raw bytes it stands for
    varint(count)                how many whole sibling values those bytes are; 0 for a fragment of one
    the bytes themselves (inline), or the 32-byte id of the object

A value is the plain concatenation of its items' bytes, so a cut at an odd place can cost space but never
correctness. The count lets a reader skip pieces without loading them and still know their position in a list.
How bytes are cut is not decided here but in `ckpt.values.cut`.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast

from ckpt.errors import DamagedObjectError
from ckpt.objects.ids import Kind, ObjectId
from ckpt.objects.varint import decode_varint, encode_varint

INLINE, BLOB, ROPE = 0, 1, 2

ID_SIZE = 32
_DEPTH_MAX = 10_000

ITEMS_MAX = 1 << 24
"""Items that are held in memory at once; only forged ropes have more."""

LENGTH_MAX = 1 << 32
"""Bytes of one value that are put together in memory."""


class Item(NamedTuple):
    """One item of a rope; `payload` is the bytes when inline, else the object's id."""

    kind: int
    length: int
    siblings: int
    payload: bytes


_Decoded = tuple[int, int, int, bytes]
"""An item without its names, which cost more than reading it."""

Emit = Callable[[int, bytes], ObjectId]
"""Takes an object (kind, bytes), returns its id, and remembers that it must be stored."""

Load = Callable[[Collection[ObjectId]], Mapping[ObjectId, bytes]]
"""Returns the verified bytes of every id asked for, in one batch."""


def inline(data: bytes, count: int) -> Item:
    """Return an item that holds its bytes itself."""
    return Item(INLINE, len(data), count, data)


def inline_rope(data: bytes) -> bytes:
    """Return the encoding of a rope that is one whole value, which it holds itself."""
    length = len(data)
    if length < 0x20:
        return bytes((length << 2, 1)) + data
    if length < 0x1000:
        return bytes((length << 2 & 0x7F | 0x80, length >> 5, 1)) + data
    return encode_items([inline(data, 1)])


def encode_items(items: Iterable[Item]) -> bytes:
    """Return the encoding of a rope."""
    out = bytearray()
    for kind, length, count, payload in items:
        head = length << 2 | kind
        # The two commonest shapes spelled out: this loop runs for every piece of every value.
        if head < 0x80 and count < 0x80:
            out += bytes((head, count))
        elif head < 0x4000 and count < 0x80:
            out += bytes((head & 0x7F | 0x80, head >> 7, count))
        else:
            out += encode_varint(head) + encode_varint(count)
        out += payload
    return bytes(out)


def decode_items(rope: bytes) -> list[Item]:
    """Return the items of an encoded rope, or raise DamagedObjectError."""
    return list(map(_item, _decoded(rope)))


_item: Callable[[_Decoded], Item] = partial(tuple.__new__, Item)


_COMMONEST = struct.Struct("<HB32s")
"""An object of 32 to 4,095 bytes, and the most of a state that is read: its length and kind take two bytes."""


def _decoded(rope: bytes) -> list[_Decoded]:
    items: list[_Decoded] = []
    offset, end = 0, len(rope)
    padded = rope + bytes(_COMMONEST.size)
    while offset < end:
        head, count, payload = _COMMONEST.unpack_from(padded, offset)
        if head > 0xFF and head & 0x8083 in (0x80 | BLOB, 0x80 | ROPE) and count < 0x80:
            items.append((head & 3, head >> 2 & 0x1F | head >> 3 & 0xFE0, count, payload))
            offset += _COMMONEST.size
            continue
        head, offset = decode_varint(rope, offset)
        count, start = decode_varint(rope, offset)
        kind, length = head & 3, head >> 2
        if kind > ROPE or (kind != INLINE and not length):
            raise DamagedObjectError("a rope is damaged: it names an object of no kind, or for no bytes at all")
        offset = start + (length if kind == INLINE else ID_SIZE)
        items.append((kind, length, count, rope[start:offset]))
    if offset != end:
        raise DamagedObjectError("a rope is damaged: an item reaches beyond its end")
    return items


# Group ends are chosen by the pieces' own ids, one byte per level, so that a change moves only the ends
# near it and the same run of pieces forms the same group wherever it occurs.
_GROUP_MASK = 15
_GROUP_MAX = 128
_FOLD_ABOVE = 12


Levels = list[tuple[list[int], list[Item]]]
"""Per level of a fold: the end position of each complete group among that level's items, and the groups."""


def fold(items: list[Item], emit: Emit, same: int = 0, previous: Levels | None = None) -> tuple[list[Item], Levels]:
    """Group a long list of items into ropes of ropes, and return the short list that stands for it.

    Complete groups become objects; the open end of each level stays in the list returned, so that appending
    one item to n changes O(log n) of it and usually creates no new group at all. The result depends on the
    items only. When the first `same` items are those of an earlier fold whose objects are all stored, its
    `previous` levels spare making their groups again.
    """
    tails: list[Item] = []
    levels: Levels = []
    while len(items) > _FOLD_ABOVE and len(levels) < ID_SIZE:
        level = len(levels)
        ends: list[int] = []
        groups: list[Item] = []
        if previous is not None and level < len(previous):
            kept = bisect_right(previous[level][0], same)
            ends, groups = previous[level][0][:kept], previous[level][1][:kept]
            same = kept
        start = ends[-1] if ends else 0
        for position in range(start, len(items)):
            item = items[position]
            if (item[0] and not item[3][level] & _GROUP_MASK) or position - start + 1 >= _GROUP_MAX:
                groups.append(_group(items[start : position + 1], emit))
                start = position + 1
                ends.append(start)
        if not groups:
            break
        levels.append((ends, groups))
        tails = items[start:] + tails
        items = groups
    return items + tails, levels


def _group(items: list[Item], emit: Emit) -> Item:
    if len(items) == 1:
        return items[0]
    oid = emit(Kind.ROPE, encode_items(items))
    return Item(ROPE, sum(item.length for item in items), sum(item.siblings for item in items), oid)


def rope_length(rope: bytes) -> int:
    """Return how many bytes the value has; nothing is loaded."""
    return sum(item.length for item in decode_items(rope))


def whole(rope: bytes) -> bytes | None:
    """Return the value of a rope that is one short inline item, or None for every other rope."""
    # One or two bytes of length, one of count: the commonest case, spelled out.
    if len(rope) > 1 and not rope[0] & 0x83:
        return rope[2:] if rope[0] >> 2 == len(rope) - 2 and rope[1] < 0x80 else None
    if len(rope) > 2 and rope[0] & 0x83 == 0x80 and rope[1] < 0x80:
        length = rope[0] >> 2 & 0x1F | rope[1] << 5
        return rope[3:] if length == len(rope) - 3 and rope[2] < 0x80 else None
    return None


def references(rope: bytes) -> list[tuple[int, ObjectId]]:
    """Return the objects that a rope names directly, as (item kind, id)."""
    return [(item.kind, ObjectId(item.payload)) for item in decode_items(rope) if item.kind != INLINE]


def assemble(ropes: Sequence[bytes], load: Load) -> list[bytes]:
    """Return the raw bytes of each rope.

    `load` is called once per level of nesting, for all ropes together. Raises DamagedObjectError when a
    rope's pieces are not as long as it says or it stands for more than LENGTH_MAX bytes, and whatever `load` raises.
    """
    columns = [_decoded(rope) for rope in ropes]
    lengths = [_length(column) for column in columns]
    if max(lengths, default=0) > LENGTH_MAX:
        raise DamagedObjectError("a value is longer than any that can be read")
    groups: dict[bytes, tuple[list[_Decoded], int]] = {}
    blobs: dict[bytes, bytes] = {}
    below = columns
    for _ in range(_DEPTH_MAX):
        new_groups, new_blobs = _named(below, ROPE).difference(groups), _named(below, BLOB).difference(blobs)
        if not new_groups and not new_blobs:
            break
        loaded = load(new_groups | new_blobs)
        blobs |= {oid: loaded[oid] for oid in new_blobs}
        below = []
        for oid in new_groups:
            items = _decoded(loaded[oid])
            groups[oid] = items, _length(items)
            below.append(items)
    else:
        raise DamagedObjectError("a rope is nested without end")
    values = []
    left = ITEMS_MAX
    for column, length in zip(columns, lengths, strict=True):
        pieces = _pieces(column, groups, blobs, left)
        left -= len(pieces)
        # Before they are joined: a rope may say a byte where its pieces have more than there is memory.
        if (size := sum(map(len, pieces))) != length:
            raise DamagedObjectError(f"a value is {size} bytes long where its rope says {length}")
        values.append(b"".join(pieces))
    return values


def _named(columns: list[list[_Decoded]], wanted: int) -> set[ObjectId]:
    return cast("set[ObjectId]", {payload for items in columns for kind, _, _, payload in items if kind == wanted})


def _length(items: list[_Decoded]) -> int:
    return sum([length for _, length, _, _ in items])


def _pieces(
    items: list[_Decoded],
    groups: Mapping[bytes, tuple[list[_Decoded], int]],
    blobs: Mapping[bytes, bytes],
    most: int,
) -> list[bytes]:
    """Return the bytes of all that some items name, in order; not by recursion, which has no room for deep ropes."""
    pieces: list[bytes] = []
    stack = [iter(items)]
    while stack:
        for kind, length, _, payload in stack[-1]:
            if kind == INLINE:
                pieces.append(payload)
            elif kind == BLOB:
                pieces.append(blobs[payload])
            else:
                group, size = groups[payload]
                if size != length:
                    raise DamagedObjectError("a rope is not as long as the reference to it says")
                stack.append(iter(group))
                break
        else:
            stack.pop()
        if len(pieces) > most:
            raise DamagedObjectError("a rope is damaged: it has more pieces than any value could")
    return pieces

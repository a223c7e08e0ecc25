"""Cutting: from the bytes of a value to the pieces of its rope.

msgpack bytes are cut along their own structure: array elements, map keys and values, and the document nested
inside an extension value. What is small stays inline or joins its neighbours in a run; what is large is cut
again. Long text is cut behind line ends whose hash says so, long lines and all that has no structure behind bytes
of which the same is true.

The result depends on the bytes alone, never on what was cut before, so that equal values get equal ropes in
every process. `Cutter.cut` may be shown the previous version of the value: it then takes over the pieces of
the common beginning and end, and cuts only what lies between, with the same result.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import chain, islice
from zlib import crc32

import msgpack

from ckpt.objects.ids import Kind
from ckpt.values.rope import BLOB, ROPE, Emit, Item, Levels, encode_items, fold, inline, inline_rope

INLINE_MAX = 128
"""Below this many bytes a piece is not worth an object of its own."""

LEAF_MAX = 4096
"""Up to this many bytes a value that is no list is one piece; above, it is cut along its structure."""

SPINE_MAX = 2048
"""A rope encoded in more bytes than this becomes an object itself."""

CHUNK_MAX = 65536
"""What has no structure is cut at this length if not before, so that no object outgrows what a database takes well."""

_TRIES = 512
"""How many places are looked at for one end of a piece."""

_TEXT_PIECE_MIN = 1024
_TEXT_PIECE_MAX = 16384
_TEXT_WINDOW = 64
_TEXT_LINE_MIN = 16
_TEXT_MASK = 7
_BYTES_MIN = 8192
_BYTES_WINDOW = 64
_BYTES_MASK = 63
# Some two in a hundred bytes of most languages, encodings and of binary alike: the search is at the speed of C.
_BYTES_MARK = re.compile(rb"[0p\xb0\xf0]")
_RUN_MIN = 512
_RUN_MAX = 4096
_RUN_WINDOW = 64
_RUN_WINDOW_VALUES = 6
_RUN_MASK = 15
# Tiny values and lines end a piece less often: were ends much closer together than pieces are long, two cuts that
# began at different places would take long to meet.
_SMALL_MASK = 63
_NESTING_MAX = 64

_TOO_FEW = (-1,) * (_RUN_WINDOW_VALUES - 1)

MSGPACK_TYPES = frozenset({"msgpack", "ckpt"})
"""The type tags whose bytes are one msgpack document."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What is remembered of a value's last version, so that the next is cut only where it differs."""

    data: bytes
    body: int
    """Offset of the first element when the value is one array or map, else 0."""
    form: int
    """`_ARRAY` or `_MAP`, or `_OTHER` when nothing can be taken over."""
    ends: list[int]
    """For each item of `items`, the offset of its end in `data`."""
    items: list[Item]
    levels: Levels
    """The groups of the items, as `fold` made them."""


_OTHER, _ARRAY, _MAP, _EXT, _TEXT = range(5)


def _header(data: bytes) -> tuple[int, int, int]:
    """Return (form, length of the header, number of children or length of the payload)."""
    first = data[0]
    if 0x90 <= first <= 0x9F:
        return _ARRAY, 1, first & 0x0F
    if 0x80 <= first <= 0x8F:
        return _MAP, 1, first & 0x0F
    if first in (0xDC, 0xDD):
        size = 2 << (first - 0xDC)
        return _ARRAY, 1 + size, int.from_bytes(data[1 : 1 + size], "big")
    if first in (0xDE, 0xDF):
        size = 2 << (first - 0xDE)
        return _MAP, 1 + size, int.from_bytes(data[1 : 1 + size], "big")
    if 0xC7 <= first <= 0xC9:
        size = 1 << (first - 0xC7)
        return _EXT, 2 + size, int.from_bytes(data[1 : 1 + size], "big")
    if 0xD9 <= first <= 0xDB:
        size = 1 << (first - 0xD9)
        return _TEXT, 1 + size, int.from_bytes(data[1 : 1 + size], "big")
    return _OTHER, 0, 0


def _element_ends(data: bytes, start: int, count: int) -> list[int] | None:
    """Return the end offset of each of `count` values that fill data[start:] exactly, or None."""
    if count > len(data) - start:
        return None
    body = data[start:] if start else data
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(body), 1))
    unpacker.feed(body)
    ends: list[int] = []
    skip, tell, add = unpacker.skip, unpacker.tell, ends.append
    try:
        for _ in range(count):
            skip()
            add(tell() + start)
    except (msgpack.UnpackException, ValueError, RecursionError):
        return None
    if (ends[-1] if ends else start) != len(data):
        return None
    return ends


def _text_end(data: bytes, start: int) -> int:
    """Return where the piece of a text ends that begins at `start`."""
    find = data.find
    # A line that ends before the piece is long enough does not end it, whatever its hash.
    newline = find(b"\n", start + _TEXT_PIECE_MIN - 1)
    line = data.rfind(b"\n", start, newline) + 1 or start
    bound = start + _TEXT_PIECE_MAX - 1
    tries = 0
    while 0 <= newline < bound:
        if tries == _TRIES:
            # So many only fail where all are alike.
            newline = find(b"\n", bound)
            break
        tries += 1
        end = newline + 1
        mask = _TEXT_MASK if end - line >= _TEXT_LINE_MIN else _SMALL_MASK
        # A short line may be one of very few: it is told apart by what precedes it.
        if line > end - _TEXT_WINDOW:
            line = end - _TEXT_WINDOW
        if not crc32(data[line:end]) & mask:
            return end
        line, newline = end, find(b"\n", end)
    return newline + 1 or len(data)


def _bytes_end(data: bytes, start: int) -> int:
    """Return where the piece ends that begins at `start` in bytes without line ends.

    That is behind one of a few bytes where the hash of what precedes it says so, or behind the last one tried: so many
    only fail where all are alike.
    """
    end = start + CHUNK_MAX
    for mark in islice(_BYTES_MARK.finditer(data, start + _BYTES_MIN - 1, end), _TRIES):
        end = mark.end()
        if not crc32(data[end - _BYTES_WINDOW : end]) & _BYTES_MASK:
            return end
    return min(end, len(data))


class Cutter:
    """Cuts values; each object made is handed to `emit`, children before the rope that names them.

    The topmost rope of a long value, which is another in every version, goes to `emit_top` if given.
    """

    def __init__(self, emit: Emit, emit_top: Emit | None = None) -> None:
        self._emit = emit
        self._emit_top = emit_top or emit
        self._large: dict[bytes, Item] = {}

    def cut(self, type_: str, data: bytes, previous: Cut | None = None) -> tuple[bytes, Cut | None]:
        """Return the encoded rope of a value, and what to show to the next call for its next version.

        `previous` must be the cut of a version whose objects are all stored: they are not emitted again.
        Costs time in proportion to the part that differs, plus one comparison of the bytes and a pass over
        the list of pieces.
        """
        if len(data) < INLINE_MAX:
            return inline_rope(data), None
        if type_ not in MSGPACK_TYPES:
            return self._finish(len(data), self._bytes(data)), None
        form, body, count = _header(data)
        # A list is cut however short: what a task writes as a list of one message is part of a longer one later.
        if len(data) <= LEAF_MAX and form != _ARRAY:
            return encode_items([self._blob(data, 1)]), None
        if form in (_ARRAY, _MAP):
            folded, cut = self._container(data, form, body, count, previous)
            if cut is not None:
                return self._finish(len(data), [inline(data[:body], 0), *folded]), cut
        return self._finish(len(data), self._document(data, 0)), None

    def _finish(self, length: int, items: list[Item]) -> bytes:
        encoded = encode_items(items)
        if len(encoded) > SPINE_MAX:
            return encode_items([Item(ROPE, length, 1, self._emit_top(Kind.ROPE, encoded))])
        return encoded

    # -- one level -----------------------------------------------------------------------------------

    def _blob(self, data: bytes, count: int) -> Item:
        return Item(BLOB, len(data), count, self._emit(Kind.BLOB, data))

    def _value(self, data: bytes, depth: int) -> Item:
        """Return one item for one complete msgpack value."""
        if len(data) < INLINE_MAX:
            return inline(data, 1)
        if len(data) <= LEAF_MAX:
            return self._blob(data, 1)
        # The same state is sent to many workers: hashing its bytes costs a tenth of cutting them.
        item = self._large.get(data)
        if item is None:
            items = self._document(data, depth)
            if len(items) == 1:
                item = items[0]
            else:
                item = Item(ROPE, len(data), 1, self._emit(Kind.ROPE, encode_items(items)))
            self._large[data] = item
        return item

    def _document(self, data: bytes, depth: int) -> list[Item]:
        """Return the items of one complete msgpack value of more than LEAF_MAX bytes."""
        form, body, count = _header(data) if depth <= _NESTING_MAX else (_OTHER, 0, 0)
        if form in (_ARRAY, _MAP):
            ends = _element_ends(data, body, count * (1 if form == _ARRAY else 2))
            if ends is not None:
                items, _ = self._elements(data, body, ends, depth)
                return [inline(data[:body], 0), *fold(items, self._emit)[0]]
        elif form == _EXT and body + count == len(data):
            nested = data[body:]
            if _element_ends(nested, 0, 1) is not None:
                return [inline(data[:body], 0), *self._document(nested, depth + 1)]
        elif form == _TEXT and body + count == len(data):
            return [inline(data[:body], 0), *fold(self._text(data, body), self._emit)[0]]
        return self._bytes(data)

    def _elements(self, data: bytes, start: int, ends: list[int], depth: int) -> tuple[list[Item], list[int]]:
        """Return items for consecutive values, and each item's end: large values alone, small ones in runs."""
        items: list[Item] = []
        item_ends: list[int] = []
        run, run_count, position, least = start, 0, start, start + _RUN_MIN
        # A single small value may be one of very few: the last ones together say where a run ends. They all lie in
        # the run, so that nothing depends on what precedes it.
        for end, window in zip(ends, chain(_TOO_FEW, (start,), ends), strict=False):
            if end - position >= INLINE_MAX:
                if run_count:
                    items.append(self._run(data[run:position], run_count))
                    item_ends.append(position)
                items.append(self._value(data[position:end], depth + 1))
                item_ends.append(end)
                run, run_count, least = end, 0, end + _RUN_MIN
            else:
                run_count += 1
                if end >= least and window >= run:
                    short = end - _RUN_WINDOW
                    away = (
                        crc32(data[window:end]) & _RUN_MASK if window < short else crc32(data[short:end]) & _SMALL_MASK
                    )
                    if not away or end - run > _RUN_MAX:
                        items.append(self._run(data[run:end], run_count))
                        item_ends.append(end)
                        run, run_count, least = end, 0, end + _RUN_MIN
            position = end
        if run_count:
            items.append(self._run(data[run:position], run_count))
            item_ends.append(position)
        return items, item_ends

    def _run(self, data: bytes, count: int) -> Item:
        return inline(data, count) if len(data) < INLINE_MAX else self._blob(data, count)

    def _text(self, data: bytes, start: int) -> list[Item]:
        items: list[Item] = []
        while start < len(data):
            end = _text_end(data, start)
            items += self._pieces(data[start:end])
            start = end
        return items

    def _bytes(self, data: bytes) -> list[Item]:
        """Return the items of bytes without a structure: one for the whole, or pieces of it."""
        pieces = self._pieces(data)
        return fold(pieces, self._emit)[0] if len(pieces) > 1 else [pieces[0]._replace(siblings=1)]

    def _pieces(self, data: bytes) -> list[Item]:
        items: list[Item] = []
        start = 0
        while start < len(data):
            end = _bytes_end(data, start)
            items.append(self._run(data[start:end], 0))
            start = end
        return items

    # -- taking over what the previous version had ------------------------------------------------------

    def _container(
        self, data: bytes, form: int, body: int, count: int, previous: Cut | None
    ) -> tuple[list[Item], Cut | None]:
        values = count * (1 if form == _ARRAY else 2)
        pieces = None
        same, levels = 0, None
        if previous is not None and previous.form == form:
            pieces = self._continue(data, body, values, previous)
            levels = previous.levels
        if pieces is None:
            ends = _element_ends(data, body, values)
            if ends is None:
                return [], None
            items, item_ends = self._elements(data, body, ends, 0)
        else:
            items, item_ends, same = pieces
        folded, levels = fold(items, self._emit, same, levels)
        return folded, Cut(data, body, form, item_ends, items, levels)

    def _continue(self, data: bytes, body: int, values: int, old: Cut) -> tuple[list[Item], list[int], int] | None:
        """Return (items, their ends, how many leading ones are the old ones), or None when that cannot be."""
        first = _reusable_before(old, old.body + _common_prefix(old.data, old.body, data, body))
        old_start = old.ends[first - 1] if first else old.body
        start = old_start - old.body + body
        same_end = _common_suffix(old.data, data, min(len(old.data) - old_start, len(data) - start))
        last = _reusable_from(old, len(old.data) - same_end, first)
        end = len(data) - (len(old.data) - (old.ends[last - 1] if last else old.body))
        kept = sum([item[2] for item in old.items[:first]]) + sum([item[2] for item in old.items[last:]])
        if values < kept or end < start:
            return None
        middle = data[start:end]
        ends = _element_ends(middle, 0, values - kept)
        if ends is None:
            return None
        items, item_ends = self._elements(middle, 0, ends, 0)
        shift, shift_end = body - old.body, len(data) - len(old.data)
        ends_before = [e + shift for e in old.ends[:first]] if shift else old.ends[:first]
        ends_after = [e + shift_end for e in old.ends[last:]]
        return (
            old.items[:first] + items + old.items[last:],
            ends_before + [e + start for e in item_ends] + ends_after,
            first,
        )


def _reusable_before(old: Cut, limit: int) -> int:
    """Return how many leading items lie before `limit` and cannot be changed by what follows them."""
    first = bisect_right(old.ends, limit)
    # The last of them may be a run that ended only because of what came next.
    if first and not _stands_alone(old.items[first - 1]):
        first -= 1
    return first


def _reusable_from(old: Cut, limit: int, first: int) -> int:
    """Return the index of the first trailing item that lies behind `limit` and cannot join a run before it."""
    last = 0 if limit <= old.body else bisect_left(old.ends, limit) + 1
    last = max(last, first)
    while last < len(old.items) and not _stands_alone(old.items[last]):
        last += 1
    return min(last, len(old.items))


def _stands_alone(item: Item) -> bool:
    """Whether an item is one large value, never part of a run of small ones."""
    return item.kind == ROPE or (item.kind == BLOB and item.siblings == 1)


_COMPARE_SIZE = 1 << 16


def _common_prefix(a: bytes, a_start: int, b: bytes, b_start: int) -> int:
    """Return how many bytes from the two offsets on are equal."""
    length = min(len(a) - a_start, len(b) - b_start)
    same = 0
    # Slices of bytes are compared as memory, memoryviews one byte at a time; small ones stay in the cache.
    step = _COMPARE_SIZE
    while step and same < length:
        size = min(step, length - same)
        if a[a_start + same : a_start + same + size] == b[b_start + same : b_start + same + size]:
            same += size
        else:
            step = size // 2
    return same


def _common_suffix(a: bytes, b: bytes, length: int) -> int:
    """Return how many bytes at the end are equal, `length` at most."""
    a_end, b_end = len(a), len(b)
    same = 0
    step = _COMPARE_SIZE
    while step and same < length:
        size = min(step, length - same)
        if a[a_end - same - size : a_end - same] == b[b_end - same - size : b_end - same]:
            same += size
        else:
            step = size // 2
    return same

"""Cutting what has no structure: long lines, texts without any, binary, and what other serializers make."""

from __future__ import annotations

import json
import random
from base64 import b64encode
from collections.abc import Callable

import msgpack
import pytest
from cut_kit import EXAMPLES, Objects, cut_pieces, pack, pieces_of_bytes
from hypothesis import given
from hypothesis import strategies as st

from ckpt.values.cut import CHUNK_MAX, LEAF_MAX


def words(chance: random.Random, size: int) -> bytes:
    """Made-up words in one line."""
    return b" ".join(chance.randbytes(4).hex()[: chance.randrange(2, 9)].encode() for _ in range(size // 5))[:size]


def minified(chance: random.Random, size: int) -> bytes:
    rows = [{"id": n, "name": chance.randbytes(9).hex(), "tags": ["a b", "c"]} for n in range(size // 60)]
    return json.dumps(rows, separators=(",", ":")).encode()


def chinese(chance: random.Random, size: int) -> bytes:
    return "".join(chr(chance.randrange(0x4E00, 0x9FA5)) for _ in range(size // 3)).encode()


KINDS: dict[str, Callable[[random.Random, int], bytes]] = {
    "words": words,
    "minified JSON": minified,
    "Chinese": chinese,
    "base64": lambda chance, size: b64encode(chance.randbytes(size * 3 // 4)),
    "random": lambda chance, size: chance.randbytes(size),
    "numbers": lambda chance, size: b"".join(chance.randrange(10**6).to_bytes(4, "little") for _ in range(size // 4)),
    "zeros": lambda _, size: bytes(size),
    "spaces": lambda _, size: b" " * size,
    "one word": lambda _, size: b"word " * (size // 5),
    "one letter": lambda _, size: b"x" * size,
}
WRAPS: dict[str, Callable[[bytes], tuple[str, bytes]]] = {
    "bytes": lambda data: ("bytes", data),
    "binary": lambda data: ("msgpack", pack(data)),
    "extension": lambda data: ("msgpack", pack(msgpack.ExtType(7, data))),
    "text": lambda data: ("msgpack", pack(data.decode(errors="replace"))),
    "text in a list": lambda data: ("ckpt", pack(["before", {"text": data.decode(errors="replace")}])),
}


@EXAMPLES
@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from([1, 70, 5000, 10_000, 70_000])), max_size=4),
)
def test_bytes_are_cut_where_the_format_says(seed: int, parts: list[tuple[str, int]]) -> None:
    chance = random.Random(seed)
    data = b"".join(KINDS[kind](chance, size) for kind, size in parts) + bytes(200)
    assert cut_pieces(data, "bytes") == pieces_of_bytes(data)


@pytest.mark.parametrize("size", [LEAF_MAX, LEAF_MAX + 1, 8191, 8192, 8193, CHUNK_MAX, CHUNK_MAX + 1, 200_000])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_no_piece_is_longer_than_a_bound(kind: Callable[[random.Random, int], bytes], size: int) -> None:
    data = kind(random.Random(size), size)
    pieces = cut_pieces(data, "bytes")
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= CHUNK_MAX
    assert len(pieces) <= 1 + size // 8192


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("size", [6000, 100_000])
def test_no_object_is_made_twice(size: int, wrap: Callable[[bytes], tuple[str, bytes]]) -> None:
    objects = Objects()
    type_, data = wrap(random.Random(size).randbytes(size))
    objects.cut(data, type_=type_)
    assert len(objects.emitted) == len(objects.stored)


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_of_long_bytes_only_what_differs_is_stored_again(
    kind: Callable[[random.Random, int], bytes], wrap: Callable[[bytes], tuple[str, bytes]]
) -> None:
    chance = random.Random(3)
    data = kind(chance, 1_000_000)
    middle = len(data) // 2
    edits = {
        "appended": data + kind(chance, 300),
        "prepended": kind(chance, 300) + data,
        "inserted": data[:middle] + b"something else " + data[middle:],
        "removed": data[:middle] + data[middle + 7 :],
        "replaced": data[:middle] + b"\xc3\xbc" + data[middle + 2 :],
        "moved": data[middle:] + data[:middle],
    }
    objects = Objects()
    type_, whole = wrap(data)
    objects.cut(whole, type_=type_)
    old = dict(objects.stored)
    for name, edited in edits.items():
        objects = Objects()
        objects.cut(wrap(edited)[1], type_=type_)
        new = sum(len(objects.stored[oid]) for oid in objects.stored.keys() - old.keys())
        assert new < 200_000, name


def test_words_in_one_line_are_shared_in_pieces() -> None:
    chance = random.Random(5)
    text = words(chance, 200_000)
    old = Objects()
    old.cut(pack(text.decode()))
    for edited in (text + b" and so on", text[:100_000] + b"x" + text[100_001:]):
        new = Objects()
        new.cut(pack(edited.decode()))
        assert sum(len(new.stored[oid]) for oid in new.stored.keys() - old.stored.keys()) < 24_000

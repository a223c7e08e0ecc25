"""Disguise: the keys under which an encrypted store holds its records and objects.

Hashes of names and of content would let whoever has a guess confirm it, so each is replaced by its image under a
secret permutation: 16-byte hashes by one AES block, the byte of a directory bucket by a table. Lengths, the kinds
of records, numbers, and checkpoint ids stay as they are, so that records of one thread stay together and sort by
checkpoint id. Keys outside the grammar of `ckpt.history.keys` are left as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from blake3 import blake3

from ckpt.encryption.cipher import BLOCK_SIZE, Permutation, derive
from ckpt.history.keys import BUCKETS, after_prefix

_REMEMBERED = 4096
"""Names and namespaces whose disguise is kept at hand, in each direction."""

_BEHIND_SCOPES = b"t"
_BUCKET_STOPS = (2, BLOCK_SIZE + 3)
"""Where the byte of a bucket ends, without and with a graph's prefix."""

_Permute = Callable[[bytes], bytes]


def _spans(key: bytes) -> list[tuple[int, int]]:
    """Return where the hashes and buckets of a record's key stand; the beginning of a key has those it reaches.

    Swapping their contents for others changes nothing about where they stand.
    """
    spans: list[tuple[int, int]] = []
    at = 0
    if key[:1] == b"s" and len(key) > BLOCK_SIZE:
        spans.append((1, 1 + BLOCK_SIZE))
        at = 1 + BLOCK_SIZE
    letter = key[at : at + 1]
    hashed = -1
    if letter in (b"d", b"n"):
        if len(key) > at + 1:
            spans.append((at + 1, at + 2))
        hashed = at + 2 if letter == b"n" else -1
    elif letter in (b"g", b"r"):
        hashed = at + 1
    elif letter == b"t" and len(key) > at + 1:
        behind = at + 2 + key[at + 1]
        part, hashed = key[behind : behind + 1], behind + 2
        if part in (b"n", b"i"):
            # The labels of a memory's namespace, of which there may be many; then an item's own hash.
            while key[hashed - 1 : hashed] == b"\x01" and hashed <= len(key) - BLOCK_SIZE:
                spans.append((hashed, hashed + BLOCK_SIZE))
                hashed += BLOCK_SIZE + 1
            named = part == b"i" and key[hashed - 1 : hashed] == b"\x00"
        else:
            named = part in (b"c", b"l") and key[hashed - 1 : hashed] == b"\x01"
        hashed = hashed if named else -1
    if 0 <= hashed <= len(key) - BLOCK_SIZE:
        spans.append((hashed, hashed + BLOCK_SIZE))
    return spans


class Disguise:
    """The permutations of one store. They stay the same for its life, whatever keys are rotated."""

    def __init__(self, key: bytes) -> None:
        self._index = Permutation(derive(key, "index"))
        self._names = Permutation(derive(key, "names"))
        buckets = derive(key, "buckets")
        order = sorted(range(BUCKETS), key=lambda bucket: blake3(bytes((bucket,)), key=buckets).digest())
        self._buckets = bytes(order)
        self._original_buckets = bytes.maketrans(self._buckets, bytes(range(BUCKETS)))
        self._hide = lru_cache(_REMEMBERED)(self._names.apply)
        self._reveal = lru_cache(_REMEMBERED)(self._names.undo)

    def record_key(self, key: bytes) -> bytes:
        """Return the key under which the store holds a record."""
        for start, end in _spans(key):
            part = key[start:end]
            hidden = self._hide(part) if len(part) == BLOCK_SIZE else part.translate(self._buckets)
            key = key[:start] + hidden + key[end:]
        return key

    def original_key(self, key: bytes) -> bytes:
        """Undo `record_key`."""
        for start, end in _spans(key):
            part = key[start:end]
            shown = self._reveal(part) if len(part) == BLOCK_SIZE else part.translate(self._original_buckets)
            key = key[:start] + shown + key[end:]
        return key

    def bounds(self, start: bytes, end: bytes) -> tuple[bytes, bytes]:
        """Return the range in which the store holds what stands between two keys.

        Exact for the ranges of `ckpt.history.keys`, for pages of them (which begin behind, or end before, a key
        found), for what is behind a scope, and for all ranges between keys without hashes. Only the last bucket of
        names must be read in one page.
        """
        if end == _BEHIND_SCOPES and start[:1] == b"s" and 1 < len(start) <= 1 + BLOCK_SIZE:
            # Looking for the next scope begins behind all keys of the last one: `after_prefix` of its prefix.
            last = start[:-1] + bytes((start[-1] - 1,))
            return after_prefix(self.record_key(last.ljust(1 + BLOCK_SIZE, b"\xff"))), end
        for _, stop in _spans(start):
            prefix = start[:stop]
            # The last bucket ends where all buckets end; a page of all of them begins behind a whole key.
            page_of_all = prefix[-2:] in (b"d\xff", b"n\xff") and stop in _BUCKET_STOPS and len(start) > stop
            if after_prefix(prefix) == end and not page_of_all:
                return self.record_key(start), after_prefix(self.record_key(prefix))
        return self.record_key(start), self.record_key(end)

    def index_keys(self, keys: Iterable[bytes]) -> list[bytes]:
        """Return the keys under which the index of the store holds objects."""
        return _each(list(keys), self._index.apply)

    def original_index_keys(self, keys: Iterable[bytes]) -> list[bytes]:
        """Undo `index_keys`."""
        return _each(list(keys), self._index.undo)


def _each(keys: Sequence[bytes], permute: _Permute) -> list[bytes]:
    """Permute keys of the usual length all at once, and leave others as they are."""
    images = permute(b"".join(key for key in keys if len(key) == BLOCK_SIZE))
    at = 0
    found: list[bytes] = []
    for key in keys:
        if len(key) == BLOCK_SIZE:
            key = images[at : at + BLOCK_SIZE]
            at += BLOCK_SIZE
        found.append(key)
    return found

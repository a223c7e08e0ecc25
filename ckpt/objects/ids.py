"""Identity of objects: BLAKE3-256 over a kind byte and the object's bytes."""

from __future__ import annotations

from enum import IntEnum
from typing import NewType

from blake3 import blake3

ObjectId = NewType("ObjectId", bytes)
"""32 bytes: the full name of an object."""

IndexKey = NewType("IndexKey", bytes)
"""The first 16 bytes of an `ObjectId`: what the index of a store is keyed by.

A read compares the full hash of what it found, so a collision of prefixes is reported as damage
and never returns another value.
"""

INDEX_KEY_SIZE = 16


class Kind(IntEnum):
    """What an object is; the value is the first byte that goes into its hash."""

    BLOB = 0x62
    ROPE = 0x72
    COMMIT = 0x63


_CONCATENATE_BELOW = 1 << 14
_FIRST = tuple(bytes((kind,)) for kind in range(256))


def object_id(kind: int, data: bytes) -> ObjectId:
    """Return the id of an object of `kind` with these bytes."""
    if len(data) < _CONCATENATE_BELOW:
        return ObjectId(blake3(_FIRST[kind] + data).digest())
    hasher = blake3(_FIRST[kind])
    hasher.update(data)
    return ObjectId(hasher.digest())


def index_key(oid: ObjectId) -> IndexKey:
    """Return the key under which the index of a store holds the object."""
    return IndexKey(oid[:INDEX_KEY_SIZE])

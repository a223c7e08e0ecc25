"""Lists as PostgreSQL receives them, and a cursor that sends them.

psycopg's own dumping of a list asks each element for its type, which costs more than the server needs to read it.
The adapters of a connection that was passed in are the caller's, and neither used nor changed.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap, Dumper, Transformer
from psycopg.pq import Format

_HEAD = struct.Struct(">iiIii")  # dimensions, whether there are nulls, type of the elements, count, lower bound
_EMPTY = struct.Struct(">iiI")
_SIZE = struct.Struct(">i")
_NULL = _SIZE.pack(-1)
BYTEA, BIGINT = 17, 20
"""The numbers of types; those of their arrays stand with these."""


class ByteaArray(bytes):
    """A `bytea[]`."""

    oid = 1001


class BigintArray(bytes):
    """A `bigint[]`."""

    oid = 1016


_NO_BYTEA = ByteaArray(_EMPTY.pack(0, 0, BYTEA))


def bytea_array(values: Collection[bytes | None]) -> ByteaArray:
    """Return an array of byte strings and nulls."""
    if not values:
        return _NO_BYTEA
    parts = [_HEAD.pack(1, 1, BYTEA, len(values), 1)]
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            parts += (_SIZE.pack(len(value)), value)
    return ByteaArray(b"".join(parts))


def bigint_array(values: Collection[int]) -> BigintArray:
    """Return an array of numbers."""
    if not values:
        return BigintArray(_EMPTY.pack(0, 0, BIGINT))
    elements = [8] * (2 * len(values))
    elements[1::2] = values
    return BigintArray(_HEAD.pack(1, 0, BIGINT, len(values), 1) + struct.pack(f">{'iq' * len(values)}", *elements))


class AsReceived(bytes):
    """A parameter as the server receives it; of which type it is the statement says."""


class _Sent(Dumper):
    format = Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        return obj


class _SentAsReceived(_Sent):
    oid = 0


class _SentBytea(_Sent):
    oid = ByteaArray.oid


class _SentBigint(_Sent):
    oid = BigintArray.oid


ADAPTERS = AdaptersMap(psycopg.adapters)
"""psycopg's own, and the arrays of this module."""
ADAPTERS.register_dumper(AsReceived, _SentAsReceived)
ADAPTERS.register_dumper(ByteaArray, _SentBytea)
ADAPTERS.register_dumper(BigintArray, _SentBigint)


class Cursor(psycopg.RawCursor[Any]):
    """A cursor that knows the arrays of this module, and nothing that a caller taught his connection."""

    @property
    def adapters(self) -> AdaptersMap:
        return ADAPTERS


class Reading:
    """What answers are read with: nothing that a program taught psycopg since. Byte strings need no connection."""

    adapters: AdaptersMap = ADAPTERS

    def __init__(self, connection: psycopg.Connection[Any] | None = None) -> None:
        self.connection = connection


_BYTEA_ARRAY = Transformer(Reading()).get_loader(ByteaArray.oid, Format.BINARY)


def read_bytea_array(data: bytes) -> list[bytes | None]:
    """Return what is in an array of byte strings and nulls, as the server sends it."""
    found: list[bytes | None] = _BYTEA_ARRAY.load(data)
    return found

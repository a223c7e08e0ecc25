"""Lists as PostgreSQL receives them, and the cursor that sends them.

psycopg's own dumping of a list asks each element for its type, which costs more than the server needs to read it.
The adapters of a connection that was passed in are the caller's, and neither used nor changed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format

_HEAD = struct.Struct(">iiIii")  # dimensions, whether there are nulls, type of the elements, count, lower bound
_EMPTY = struct.Struct(">iiI")
_SIZE = struct.Struct(">i")
_NULL = _SIZE.pack(-1)
_BYTEA, _BIGINT = 17, 20


class ByteaArray(bytes):
    """A `bytea[]`."""


class BigintArray(bytes):
    """A `bigint[]`."""


def bytea_array(values: Sequence[bytes | None]) -> ByteaArray:
    """Return an array of byte strings and nulls."""
    if not values:
        return ByteaArray(_EMPTY.pack(0, 0, _BYTEA))
    parts = [_HEAD.pack(1, 1, _BYTEA, len(values), 1)]
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            parts += (_SIZE.pack(len(value)), value)
    return ByteaArray(b"".join(parts))


def bigint_array(values: Sequence[int]) -> BigintArray:
    """Return an array of numbers."""
    if not values:
        return BigintArray(_EMPTY.pack(0, 0, _BIGINT))
    elements = (each for value in values for each in (8, value))
    return BigintArray(_HEAD.pack(1, 0, _BIGINT, len(values), 1) + struct.pack(f">{'iq' * len(values)}", *elements))


class AsReceived(bytes):
    """A parameter as the server receives it; of which type it is the statement says."""


class _Sent(Dumper):
    format = Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        return obj


class _SentAsReceived(_Sent):
    oid = 0


class _SentBytea(_Sent):
    oid = 1001


class _SentBigint(_Sent):
    oid = 1016


_ADAPTERS = AdaptersMap(psycopg.adapters)
_ADAPTERS.register_dumper(AsReceived, _SentAsReceived)
_ADAPTERS.register_dumper(ByteaArray, _SentBytea)
_ADAPTERS.register_dumper(BigintArray, _SentBigint)


class Cursor(psycopg.Cursor[Any]):
    """A cursor that knows the arrays of this module, and nothing that a caller taught his connection."""

    @property
    def adapters(self) -> AdaptersMap:
        return _ADAPTERS


def sent(parameter: object) -> object:
    """Return a parameter as it is sent fastest: a list of one known kind as an array."""
    if isinstance(parameter, list) and parameter:
        if all(isinstance(each, bytes) for each in parameter):
            return bytea_array(parameter)
        if all(type(each) is int for each in parameter):
            return bigint_array(parameter)
    return parameter

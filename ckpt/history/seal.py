"""Seals: every record says whether it is whole, and every set of records whether one is missing.

A record ends with a checksum over its key and its body, so a changed byte in either is found on reading. A set
of records is summed up in a `Census`, a count and the XOR of a hash of each, kept in the record above it: names in
their directory bucket, lines in their thread, checkpoints in their line, tags and operations in a record beside them.
What is not found is counted before it is believed to be absent, and what was put back from before it changed, counted
with the others, does not add up.

This is evidence of damage, not of forgery: whoever can write to the store can seal again. In an encrypted store
nobody can without its key. There the salt in each hash is a secret too: without it, those who know the contents could
choose, of many old records, some whose hashes cancel out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgpack
from blake3 import blake3

from ckpt.errors import DamagedRecordError
from ckpt.history.packing import packed

_SEAL_SIZE = 8
_SALT_SIZE = 8

NUMBER_MAX = (1 << 63) - 1
"""No count, moment or thread number is greater: there is room to add to each of them."""


class Census(NamedTuple):
    """How many records there are, and what they add up to."""

    count: int = 0  # type: ignore[assignment]  # shadows tuple.count, which nobody calls
    digest: int = 0

    def changed(self, before: int | None, after: int | None) -> Census:
        """Return the census after a record that adds `before` was replaced by one that adds `after` (None: by none)."""
        count, digest = self
        if before is not None:
            count, digest = count - 1, digest ^ before
        if after is not None:
            count, digest = count + 1, digest ^ after
        return Census(count, digest)

    def replaced(self, salt: bytes, key: bytes, before: bytes | None, after: bytes | None) -> Census:
        """Return the census after a record was written over another (None: there was none), or removed (None)."""
        count, digest = self
        if before is not None:
            count, digest = count - 1, digest ^ entry(salt, key, before)
        if after is not None:
            count, digest = count + 1, digest ^ entry(salt, key, after)
        return Census(count, digest)


def census(salt: bytes, rows: Iterable[tuple[bytes, bytes]]) -> Census:
    """Count records, given with their keys."""
    count = digest = 0
    for key, record in rows:
        count += 1
        digest ^= entry(salt, key, record)
    return Census(count, digest)


def summed(entries: Iterable[int]) -> Census:
    """Count records, given what each adds."""
    count = digest = 0
    for each in entries:
        count += 1
        digest ^= each
    return Census(count, digest)


def entry(salt: bytes, key: bytes, record: bytes) -> int:
    """Return what a record adds to a census: a hash of its key and its body."""
    return int.from_bytes(blake3(salt + key + record[:-_SEAL_SIZE]).digest(_SEAL_SIZE), "big")


def new_salt() -> bytes:
    """Return a salt for new censuses."""
    return os.urandom(_SALT_SIZE)


def seal(key: bytes, fields: object) -> bytes:
    """Return a record: the fields as msgpack, and the checksum."""
    body = packed(fields)
    return body + blake3(key + body).digest(_SEAL_SIZE)


def unseal(key: bytes, record: bytes, what: str) -> Any:
    """Return the fields of a record, or raise DamagedRecordError naming `what` it was."""
    body = record[:-_SEAL_SIZE]
    if blake3(key + body).digest(_SEAL_SIZE) != record[-_SEAL_SIZE:]:
        raise damaged(what)
    try:
        return msgpack.unpackb(body, strict_map_key=False, unicode_errors="surrogatepass")
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise damaged(what) from error


def shaped(fields: Any, types: tuple[Any, ...], what: str) -> list[Any]:
    """Return the fields of a record, or raise DamagedRecordError when they are not of these types."""
    if type(fields) is not list or len(fields) != len(types) or not all(map(isinstance, fields, types)):
        raise damaged(what)
    return fields


def check_numbers(what: str, *values: object) -> None:
    """Raise DamagedRecordError unless all are numbers that count something, or that threads have."""
    if not all(type(each) is int and 0 <= each <= NUMBER_MAX for each in values):
        raise damaged(what)


def damaged(what: str) -> DamagedRecordError:
    """Return the error for a record that is not whole."""
    return DamagedRecordError(
        f"the record of {what} is damaged", hints=["see what is affected with: ckpt fsck", "restore a backup"]
    )


def missing(what: str) -> DamagedRecordError:
    """Return the error for a record that must exist and does not."""
    return DamagedRecordError(
        f"the record of {what} is missing, although the store says that it exists",
        hints=["see what is affected with: ckpt fsck", "restore a backup"],
    )


def outdated(what: str) -> DamagedRecordError:
    """Return the error for a record that is not the one that was written with others, or before them."""
    return DamagedRecordError(
        f"the record of {what} is not the one that belongs to it: it was damaged, or an earlier version was put back",
        hints=["see what is affected with: ckpt fsck", "restore a backup"],
    )


def miscounted(what: str, found: Census, expected: Census) -> DamagedRecordError:
    """Return the error for a set of records that is not what its census says: one of them is missing, or another."""
    return missing(what) if found.count < expected.count else outdated(what)

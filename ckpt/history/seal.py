"""Seals: every record says whether it is whole, and every set of records whether one is missing.

A record ends with a checksum over its key and its body, so a changed byte in either is found on reading. A set
of keys is summed up in a `Census`, a count and the XOR of a hash of each, kept in the record above it: names in
their directory bucket, lines in their thread, checkpoints in their line, tags in a record beside them. What is not
found is counted before it is believed to be absent.

This is evidence of damage, not of forgery: whoever can write to the store can seal again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgpack
from blake3 import blake3

from ckpt.errors import DamagedRecordError

_SEAL_SIZE = 8


class Census(NamedTuple):
    """How many keys there are, and what they add up to."""

    count: int = 0  # type: ignore[assignment]  # shadows tuple.count, which nobody calls
    digest: int = 0

    def toggled(self, key: bytes, by: int) -> Census:
        """Return the census with a key added (by=1) or removed (by=-1)."""
        return Census(self.count + by, self.digest ^ _key_hash(key))


def census(keys: Iterable[bytes]) -> Census:
    """Count keys."""
    count = digest = 0
    for key in keys:
        count += 1
        digest ^= _key_hash(key)
    return Census(count, digest)


def _key_hash(key: bytes) -> int:
    return int.from_bytes(blake3(key).digest(_SEAL_SIZE), "big")


def seal(key: bytes, fields: object) -> bytes:
    """Return a record: the fields as msgpack, and the checksum."""
    body: bytes = msgpack.packb(fields, unicode_errors="surrogatepass")
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
    """Return the error for a record that is older than others that were written with it or after it."""
    return DamagedRecordError(
        f"the record of {what} is older than what belongs to it: an earlier version of it was put back",
        hints=["see what is affected with: ckpt fsck", "restore a backup"],
    )

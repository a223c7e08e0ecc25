"""The records of a memory: an item is the list of its versions, a namespace counts its items.

A version is a value that was put under a key, or the absence that a deletion left. It carries its moment, the
number that the memory's thread had after the change: microseconds since 1970, and greater than any before it. So
a moment is a time and an order at once, and a fork sees exactly the versions up to the moment at which it left.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ckpt.history.clock import TIME_END
from ckpt.history.commits import StoredValue
from ckpt.history.seal import Census, damaged, entry, seal, shaped, unseal

NAMESPACE_LABELS_MAX = 50
"""Labels that a namespace may have: as many as the longest key has room for."""

TEXT_MAX = 16_384
"""Bytes that a key may have, and the labels of a namespace together."""


class Version(NamedTuple):
    """One version of an item. `value` is None when the item was deleted.

    `created` is the moment of the first version since the item was last absent, `ttl` how many microseconds
    the version lives unless it is read or put again (0: for good), `vectors` the rope of what finds it by meaning
    (empty: nothing). `until` is when its last lease ended, kept where the version was replaced before that, for the
    forks that see it (0: nothing is kept).
    """

    moment: int
    created: int
    ttl: int
    value: StoredValue | None
    vectors: bytes = b""
    until: int = 0


class Older(NamedTuple):
    """A group of earlier versions that was moved into an object; the groups of a record are in order.

    `level` 0 is a rope of versions, above it is a rope of the ropes of the level below. `last` is the moment of
    its last version, `rope` a rope of one item.
    """

    level: int
    last: int
    rope: bytes


class Lease(NamedTuple):
    """Until when the newest version, which is of this moment, lives after it was read."""

    moment: int
    until: int


class ItemRecord(NamedTuple):
    """An item of one memory: all versions that were written in this memory itself.

    In a fork its first may be a copy of one of the base's, made to be leased here.
    """

    namespace: tuple[str, ...]
    key: str
    recent: tuple[Version, ...] = ()
    older: tuple[Older, ...] = ()
    lease: Lease | None = None

    def encode(self, key: bytes) -> bytes:
        """Return the record's bytes."""
        recent = [part for version in self.recent for part in version_fields(version)]
        older = [part for group in self.older for part in group]
        lease = list(self.lease) if self.lease is not None else None
        return seal(key, [lease, list(self.namespace), self.key, recent, older])

    @staticmethod
    def decode(key: bytes, record: bytes) -> ItemRecord:
        """Undo `encode`, or raise DamagedRecordError."""
        lease, namespace, name, recent, older = shaped(unseal(key, record, _ITEM), _ITEM_SHAPE, _ITEM)
        return ItemRecord(
            tuple(_each(namespace, str, _ITEM)),
            name,
            tuple([version_of(fields) for fields in _split(recent, _VERSION)]),
            tuple([Older(*fields) for fields in _split(older, _OLDER)]) if older else (),
            Lease(*shaped(lease, (int, int), _ITEM)) if lease is not None else None,
        )

    def adding(self, version: Version) -> ItemRecord:
        """Return the record with one more version, without a lease: what is left of that stays with its version."""
        earlier = self.recent
        if self.lease is not None and earlier and self.lease.until > version.moment:
            earlier = (*earlier[:-1], earlier[-1]._replace(until=self.lease.until))
        return self._replace(recent=(*earlier, version), lease=None)

    def expiry(self, version: Version) -> int | None:
        """Return when a version of this record expires, or None."""
        if not version.ttl:
            return None
        if self.lease is not None and self.lease.moment == version.moment:
            return self.lease.until
        return version.until or version.moment + version.ttl


_ITEM = "an item of a memory"
_NO_LEASE = b"\xc0"
_NAMESPACES = 256
"""How many records of namespaces stay decoded: one is looked at with each of its items."""

_ITEM_SHAPE = (list | None, list, str, list, list)
_VERSION = (int, int, int | list, str | None, bytes, bytes)
_OLDER = (int, int, bytes)


def item_entry(salt: bytes, key: bytes, record: bytes) -> int:
    """Return what an item's record adds to the census of its namespace: the same with every lease, or none.

    Raises DamagedRecordError for what cannot be read.
    """
    if record[1:2] != _NO_LEASE:
        record = ItemRecord.decode(key, record)._replace(lease=None).encode(key)
    return entry(salt, key, record)


def version_fields(version: Version) -> list[object]:
    """Return a version as plain data."""
    type_, rope = version.value if version.value is not None else (None, b"")
    return [version.moment, version.moment - version.created, lifetime_field(version), type_, rope, version.vectors]


def version_of(fields: Sequence[Any]) -> Version:
    """Undo `version_fields`, or raise DamagedRecordError."""
    moment, age, lifetime, type_, rope, vectors = fields
    ttl, until = lifetime_of(lifetime)
    if not 0 <= age <= moment < TIME_END * 10**6:
        raise damaged(_ITEM)
    return Version(moment, moment - age, ttl, StoredValue(type_, rope) if type_ is not None else None, vectors, until)


def lifetime_field(version: Version) -> int | list[int]:
    """Return how long a version lives, and until when it did if that is kept, as plain data."""
    return [version.ttl, version.until] if version.until else version.ttl


def lifetime_of(field: object) -> tuple[int, int]:
    """Undo `lifetime_field`, or raise DamagedRecordError."""
    if type(field) is int:
        return field, 0
    ttl, until = shaped(field, (int, int), _ITEM)
    return ttl, until


def _split(fields: list[Any], shape: tuple[Any, ...]) -> list[list[Any]]:
    width = len(shape)
    if len(fields) == width:
        return [shaped(fields, shape, _ITEM)]
    if len(fields) % width:
        raise damaged(_ITEM)
    return [shaped(fields[start : start + width], shape, _ITEM) for start in range(0, len(fields), width)]


def _each(fields: list[Any], kind: type, what: str) -> list[Any]:
    if {*map(type, fields)} - {kind}:
        raise damaged(what)
    return fields


def encode_namespace(key: bytes, labels: Sequence[str], items: Census) -> bytes:
    """Return the record of a namespace."""
    return seal(key, [list(labels), *items])


@lru_cache(_NAMESPACES)
def decode_namespace(key: bytes, record: bytes) -> tuple[tuple[str, ...], Census]:
    """Return the labels of a namespace and the census of its items, or raise DamagedRecordError."""
    what = "a namespace of a memory"
    labels, count, digest = shaped(unseal(key, record, what), (list, int, int), what)
    return tuple(_each(labels, str, what)), Census(count, digest)

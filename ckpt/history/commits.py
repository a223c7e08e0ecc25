"""Commits: a checkpoint as it is stored."""

from __future__ import annotations

from typing import NamedTuple

import msgpack

from ckpt.errors import DamagedObjectError
from ckpt.history.packing import packed


class StoredValue(NamedTuple):
    """A value: the type tag that its serializer gave, and the rope of its bytes."""

    type: str
    rope: bytes


class Parent(NamedTuple):
    """A parent: the checkpoint id that was named, and its commit (empty when none was stored under it)."""

    checkpoint_id: str
    commit: bytes


class Commit(NamedTuple):
    """A checkpoint: where it belongs, its parents, and references to its values.

    `timestamp` is what the checkpoint says of its time, as given. `header` is what else it holds besides its
    id, timestamp and channel values; `channels` keeps the order in which the channels were given.
    """

    namespace: str
    checkpoint_id: str
    timestamp: str | None
    parents: tuple[Parent, ...]
    header: StoredValue
    metadata: StoredValue
    channels: dict[str, StoredValue]

    def values(self) -> list[StoredValue]:
        """Return all that it holds: header, metadata, and the channels in their order."""
        return [self.header, self.metadata, *self.channels.values()]


def encode_commit(commit: Commit) -> bytes:
    """Return the canonical bytes of a commit."""
    namespace, checkpoint_id, timestamp, parents, header, metadata, channels = commit
    flat: list[object] = []
    for name, value in channels.items():
        flat += (name, *value)
    # Tuples are packed as lists are.
    return packed([namespace, checkpoint_id, timestamp, parents, *header, *metadata, flat])


def decode_commit(data: bytes) -> Commit:
    """Undo `encode_commit`, or raise DamagedObjectError."""
    try:
        fields = msgpack.unpackb(data, unicode_errors="surrogatepass")
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise DamagedObjectError(f"a commit cannot be read: {error}") from error
    if type(fields) is not list or len(fields) != len(_FIELDS) or not all(map(isinstance, fields, _FIELDS)):
        raise DamagedObjectError("a commit cannot be read: its fields are not those of a commit")
    namespace, checkpoint_id, timestamp, parents, header_type, header, meta_type, metadata, channels = fields
    names, types, ropes = channels[::3], channels[1::3], channels[2::3]
    whole = len(names) == len(ropes) == len(types) and all(
        type(parent) is list and [*map(type, parent)] == [str, bytes] for parent in parents
    )
    if not whole or {*map(type, names), *map(type, types)} - {str} or {*map(type, ropes)} - {bytes}:
        raise DamagedObjectError("a commit cannot be read: its channels or parents are not what they should be")
    return Commit(
        namespace,
        checkpoint_id,
        timestamp,
        tuple(Parent(*parent) for parent in parents),
        StoredValue(header_type, header),
        StoredValue(meta_type, metadata),
        {name: StoredValue(type_, rope) for name, type_, rope in zip(names, types, ropes, strict=True)},
    )


_FIELDS = (str, str, str | None, list, str, bytes, str, bytes, list)

"""Commits: a checkpoint as it is stored."""

from __future__ import annotations

from typing import NamedTuple

import msgpack

from ckpt.errors import DamagedObjectError


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


def encode_commit(commit: Commit) -> bytes:
    """Return the canonical bytes of a commit."""
    data: bytes = msgpack.packb(
        [
            commit.namespace,
            commit.checkpoint_id,
            commit.timestamp,
            [list(parent) for parent in commit.parents],
            *commit.header,
            *commit.metadata,
            [part for name, value in commit.channels.items() for part in (name, *value)],
        ],
        unicode_errors="surrogatepass",
    )
    return data


def decode_commit(data: bytes) -> Commit:
    """Undo `encode_commit`, or raise DamagedObjectError."""
    try:
        fields = msgpack.unpackb(data, unicode_errors="surrogatepass")
        namespace, checkpoint_id, timestamp, parents, header_type, header, meta_type, metadata, channels = (
            fields
        )
        return Commit(
            namespace,
            checkpoint_id,
            timestamp,
            tuple(Parent(*parent) for parent in parents),
            StoredValue(header_type, header),
            StoredValue(meta_type, metadata),
            {channels[i]: StoredValue(channels[i + 1], channels[i + 2]) for i in range(0, len(channels), 3)},
        )
    except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise DamagedObjectError(f"a commit cannot be read: {error}") from error

"""What is to be stored, as a framework gives it, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from ckpt.history.commits import Commit, StoredValue
from ckpt.history.records import Line, ThreadRecord
from ckpt.objects.ids import ObjectId
from ckpt.repository.directory import Change


class Typed(NamedTuple):
    """A value as a serializer gave it."""

    type: str
    data: bytes


class Channel(NamedTuple):
    """A channel to be stored. `typed` serializes it, and is not called when the parent's value can be kept."""

    typed: Callable[[], Typed]
    unchanged: Callable[[Commit], bool] | None = None
    """Whether the parent's value can be kept; None: it cannot."""


class NewCheckpoint(NamedTuple):
    """A checkpoint to be stored."""

    thread: str
    namespace: str
    checkpoint_id: str
    parent_id: str | None
    timestamp: str | None
    header: Typed | StoredValue
    metadata: Typed | StoredValue
    channels: Mapping[str, Channel | StoredValue] = MappingProxyType({})
    """A `StoredValue` is taken over as it is; `check` must then make sure that it is still stored."""
    expect_head: bool = False
    """Refuse with HeadMovedError when the parent is not the head."""
    expected_head: str | None = None
    """With `expect_head`, the head to be expected when it is not the parent."""
    reset: tuple[int, int] | None = None
    """For a rewind: depth and moment at which other namespaces continue (see `Reset`)."""
    check: Callable[[ThreadRecord], None] | None = None
    """Called once per attempt, after the epoch was read, with the thread that is written to."""
    above: Mapping[str, str] = MappingProxyType({})
    """For a subgraph: the checkpoints, by their namespace, in whose step it runs."""
    log: Callable[[], Change] | None = None
    """What else to write in the same transaction."""


class Stored(NamedTuple):
    """What was stored: the commit's id, the commit; what thread and namespace are now."""

    oid: ObjectId
    commit: Commit
    thread: ThreadRecord
    line: Line

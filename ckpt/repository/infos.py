"""What people see of checkpoints, threads and the store: plain, immutable descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ckpt.history.readings import Reading, ThreadName, WithId
from ckpt.history.revisions import format_revision


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A checkpoint without its values.

    `id` is the commit's id in hex. `nodes` are the nodes whose run made it (none where its parent, which tells, was
    pruned), `next` those to run next. `status`: `interrupted` and `error` are told of a head by its pending writes,
    `pending` when nodes are to run next, else `done`. `stopped` are the nodes that asked or failed, if so.
    `bytes_logical` is its size written in full, `bytes_new` what storing it took, its tasks' writes included.
    `is_head`: no other checkpoint continues it; `is_current`: the next run does.
    """

    id: str
    thread: str
    namespace: str
    checkpoint_id: str
    parents: tuple[str, ...]
    parent_checkpoint_id: str | None
    step: int | None
    source: str | None
    run_id: str | None
    timestamp: str | None
    nodes: tuple[str, ...]
    next: tuple[str, ...]
    status: str
    stopped: tuple[str, ...]
    metadata: Mapping[str, Any]
    is_head: bool
    is_current: bool
    tags: tuple[str, ...]
    bytes_logical: int
    bytes_new: int
    sequence: int

    @property
    def spec(self) -> str:
        """The explicit revision of this checkpoint in this thread: a fork has it under another one."""
        return format_revision(Reading(ThreadName(self.thread), (WithId(self.id),)))


@dataclass(frozen=True, slots=True)
class ThreadInfo:
    """A thread: `status` is its head's, but `idle` where that is `done` or there is no head; `updated` its timestamp.

    So `pending` is a thread with nodes to run next: a run is under way, was paused or broke off, or it was rewound. It
    is `damaged` when something of its checkpoints cannot be read: there is no `head` and no `updated` then, and 0
    stands for `heads` and `bytes_logical`. `expires` is when it goes if nothing is written to it any more, None if
    never.
    """

    name: str
    checkpoints: int
    heads: int
    head: CheckpointInfo | None
    updated: str | None
    status: str
    bytes_logical: int
    forked_from: str | None
    expires: datetime | None


@dataclass(frozen=True, slots=True)
class ChannelInfo:
    """A channel of a checkpoint; `length` in bytes. `internal` ones are LangGraph's own."""

    name: str
    type: str
    length: int
    internal: bool


@dataclass(frozen=True, slots=True)
class WriteInfo:
    """A pending write, its value inert."""

    task_id: str
    task_path: str
    index: int
    channel: str
    value: object


def is_internal(channel: str) -> bool:
    """Return whether a channel is LangGraph's own."""
    return channel.startswith(("__", "branch:to:", "join:"))

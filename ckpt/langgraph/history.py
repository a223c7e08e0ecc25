"""The history of DeltaChannels: what LangGraph rebuilds a channel from when its checkpoint holds no value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from langgraph.checkpoint.base import DeltaChannelHistory
from langgraph.checkpoint.serde.base import SerializerProtocol

from ckpt.history.checkpoints import PendingWrite
from ckpt.history.commits import StoredValue
from ckpt.repository import Repository


def delta_history(
    repository: Repository,
    serde: SerializerProtocol,
    thread: str,
    namespace: str,
    checkpoint_id: str | None,
    channels: Sequence[str],
) -> dict[str, DeltaChannelHistory]:
    """Walk the ancestors of a checkpoint (the head when no id is given) by their parents.

    Per channel: the writes on the ancestors, oldest first, back to and including those on the nearest ancestor
    that holds a value, and that value as `seed`; no seed when none does. The target's own writes are left out.
    Values are loaded in one batch.
    """
    writes, seeds, values = repository.consistently(
        lambda: _walked(repository, thread, namespace, checkpoint_id, channels)
    )
    loaded = iter(values)
    result: dict[str, DeltaChannelHistory] = {}
    for channel, found_writes in writes.items():
        live = [(write.task_id, channel, serde.loads_typed((write.type, next(loaded)))) for write in found_writes]
        result[channel] = {"writes": live[::-1]}
    for channel, value in seeds.items():
        seed: Any = serde.loads_typed((value.type, next(loaded)))
        result[channel]["seed"] = seed
    return result


class _Walk(NamedTuple):
    """What a walk has found: the writes by channel, newest first, the seeds, and the bytes of all of these values."""

    writes: dict[str, list[PendingWrite]]
    seeds: dict[str, StoredValue]
    loaded: list[bytes]


def _walked(
    repository: Repository, thread: str, namespace: str, checkpoint_id: str | None, channels: Sequence[str]
) -> _Walk:
    writes: dict[str, list[PendingWrite]] = {channel: [] for channel in channels}
    seeds: dict[str, StoredValue] = {}
    open_channels = set(channels)
    timeline = repository.timeline(thread) if channels else None
    if timeline is not None:
        target = checkpoint_id or timeline.head(namespace)
        for depth, (found, commit) in enumerate(timeline.ancestors(namespace, target)):
            if depth == 0:
                continue
            for write in reversed(timeline.writes(found)):
                if write.channel in open_channels:
                    writes[write.channel].append(write)
            for channel in open_channels & commit.channels.keys():
                seeds[channel] = commit.channels[channel]
                open_channels.discard(channel)
            if not open_channels:
                break
    values = [StoredValue(write.type, write.rope) for channel in writes for write in writes[channel]]
    return _Walk(writes, seeds, repository.load([*values, *seeds.values()]))

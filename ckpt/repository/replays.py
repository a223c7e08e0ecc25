"""Replays: a record that is genuine but old, put back beside newer ones, contradicts what was written since.

A thread's record is written with each of its rows. So no row holds an event later than its thread's record says, no
checkpoint stands behind the greatest id of its line, a line knows the newest event of its head, and a base knows of
its forks. What contradicts itself as of one moment was put back; what was read at two moments may be read again.
"""

from __future__ import annotations

from collections.abc import Sequence

from ckpt.history import keys
from ckpt.history.checkpoints import Event, current_put, decode_events
from ckpt.history.records import Base, Line, ThreadRecord
from ckpt.history.seal import outdated
from ckpt.repository.recent import Checkpoint
from ckpt.storage.base import Range, Reading, RecordChangedError


def behind(thread: ThreadRecord, line: Line) -> Range:
    """Return the range of the checkpoints of a line with ids above the greatest that the line knows."""
    greatest = line.greatest if line.greatest is not None else thread.greatest
    _, end = keys.checkpoints_range(thread.number, line.namespace)
    return keys.checkpoint_key(thread.number, line.namespace, greatest) + b"\x00", end


def is_overtaken(rows: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether the rows found behind a line show that its record is old. Writes may come before their checkpoint."""
    return any(current_put(decode_events(key, raw)) is not None for key, raw in rows)


def is_ahead(thread: ThreadRecord, events: Sequence[Event]) -> bool:
    """Whether events, in their order, are later than the record of their thread."""
    return bool(events) and events[-1].sequence > thread.sequence


def is_before(base: ThreadRecord, fork: Base) -> bool:
    """Whether the record of a base is from before a fork of it was made."""
    return not base.forks or base.sequence < fork.moment


def is_head_as_told(line: Line, events: Sequence[Event]) -> bool:
    """Whether the events of the thread's own record of the head, in their order, end as its line says."""
    return not line.newest or (bool(events) and events[-1].sequence == line.newest)


def check_head(reading: Reading, thread: ThreadRecord, raw: bytes, key: bytes, head: Checkpoint) -> None:
    """Check the record of a thread's head against the thread's, `raw`, which may have been read at another moment.

    Raises DamagedRecordError where an earlier version was put back, and RecordChangedError where reading both again
    may tell another tale.
    """
    if is_head_as_told(thread.root, head.events):
        return
    expected = {keys.thread_key(thread.number): raw, key: head.raw}
    now = dict(zip(expected, reading.read(list(expected)), strict=True))
    if now != expected:
        raise RecordChangedError(now)
    raise outdated(f"thread {thread.name!r} or of its head")

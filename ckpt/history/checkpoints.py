"""The record of one checkpoint: an append-only list of events, read as of a moment.

An event is a commit that was put under this id, or a batch of pending writes. Events carry the sequence number
of their thread, so that a fork sees exactly those that had happened when it left. Nothing is ever taken out of
the list; which event counts is decided on reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ckpt.history.seal import damaged, seal, shaped, unseal
from ckpt.objects.ids import ObjectId


class Put(NamedTuple):
    """A commit stored under this checkpoint id; `added` is how many bytes of frames it took."""

    sequence: int
    commit: ObjectId
    added: int


class Write(NamedTuple):
    """One pending write. `index` is negative for the special channels, whose last value counts."""

    index: int  # type: ignore[assignment]  # shadows tuple.index, which nobody calls
    channel: str
    type: str
    rope: bytes


class Writes(NamedTuple):
    """What one task wrote in one call; `added` is how many bytes of frames it took."""

    sequence: int
    task_id: str
    task_path: str
    writes: tuple[Write, ...]
    added: int


class Spill(NamedTuple):
    """Earlier batches of writes, moved into an object when the record grew long."""

    sequence: int
    blob: ObjectId


class Hidden(NamedTuple):
    """The checkpoint was pruned, while its row is still needed by a fork or a DeltaChannel."""

    sequence: int


Event = Put | Writes | Spill | Hidden


class PendingWrite(NamedTuple):
    """A pending write as it counts at some moment."""

    task_path: str
    task_id: str
    index: int  # type: ignore[assignment]  # shadows tuple.index, which nobody calls
    channel: str
    type: str
    rope: bytes


_PUT, _WRITES, _SPILL, _HIDDEN = range(4)


def encode_events(key: bytes, events: Iterable[Event]) -> bytes:
    """Return the record that holds these events."""
    return seal(key, [_fields(event) for event in events])


def decode_events(key: bytes, record: bytes) -> list[Event]:
    """Undo `encode_events`, or raise DamagedRecordError."""
    events = unseal(key, record, _WHAT)
    if type(events) is not list:
        raise damaged(_WHAT)
    return [_event(fields) for fields in events]


def _fields(event: Event) -> list[object]:
    if isinstance(event, Put):
        return [_PUT, *event]
    if isinstance(event, Spill):
        return [_SPILL, *event]
    if isinstance(event, Hidden):
        return [_HIDDEN, *event]
    writes = [list(write) for write in event.writes]
    return [_WRITES, event.sequence, _pack_id(event.task_id), event.task_path, writes, event.added]


_WHAT = "a checkpoint"
_SHAPES: dict[int, tuple[Any, ...]] = {
    _PUT: (int, int, bytes, int),
    _WRITES: (int, int, str | bytes, str, list, int),
    _SPILL: (int, int, bytes),
    _HIDDEN: (int, int),
}
_WRITE = (int, str, str, bytes)


def _event(fields: Any) -> Event:
    kind = fields[0] if type(fields) is list and fields else None
    if type(kind) is not int or kind not in _SHAPES:
        raise damaged(_WHAT)
    rest = shaped(fields, _SHAPES[kind], _WHAT)[1:]
    if kind == _PUT:
        return Put(*rest)
    if kind == _SPILL:
        return Spill(*rest)
    if kind == _HIDDEN:
        return Hidden(*rest)
    sequence, task_id, task_path, writes, added = rest
    if isinstance(task_id, bytes) and len(task_id) != 16:
        raise damaged(_WHAT)
    entries = tuple(Write(*shaped(write, _WRITE, _WHAT)) for write in writes)
    return Writes(sequence, _unpack_id(task_id), task_path, entries, added)


def _pack_id(text: str) -> str | bytes:
    # Task ids are UUIDs in practice: 16 bytes instead of 36, where nothing is lost.
    if len(text) == 36:
        try:
            packed = bytes.fromhex(text.replace("-", ""))
        except ValueError:
            return text
        if len(packed) == 16 and _unpack_id(packed) == text:
            return packed
    return text


def _unpack_id(packed: str | bytes) -> str:
    if isinstance(packed, str):
        return packed
    digits = packed.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def newest(key: bytes, record: bytes | None) -> int:
    """Return the sequence number of the last event of a record; 0 when there is none."""
    events = decode_events(key, record) if record is not None else []
    # Where a prune of what a base has was undone, no event is left.
    return events[-1].sequence if events else 0


def as_of(events: Iterable[Event], moment: int | None) -> list[Event]:
    """Return the events that had happened by `moment` (None: all)."""
    return [event for event in events if moment is None or event.sequence <= moment]


def current_put(events: Sequence[Event]) -> Put | None:
    """Return the put that counts: the last one."""
    for event in reversed(events):
        if isinstance(event, Put):
            return event
    return None


def is_hidden(events: Sequence[Event]) -> bool:
    """Return whether the checkpoint was pruned and not put again since."""
    for event in reversed(events):
        if isinstance(event, Put | Hidden):
            return isinstance(event, Hidden)
    return False


def shown_put(events: Sequence[Event]) -> Put | None:
    """Return the put that counts, unless the checkpoint was pruned since."""
    return None if is_hidden(events) else current_put(events)


def as_left(events: Iterable[Event], moment: int | None, made: int) -> list[Event]:
    """Return the events that a fork sees which left at `moment`, when the thread's number was `made`: see `Base`.

    Without a moment all, as the thread itself does.
    """
    if moment is None:
        return list(events)
    return [event for event in events if event.sequence <= (made if isinstance(event, Hidden) else moment)]


def without_prunes(events: Iterable[Event], since: int) -> list[Event]:
    """Return the events as if what was pruned at this sequence number or later had been brought back."""
    return [event for event in events if not isinstance(event, Hidden) or event.sequence < since]


def pending_writes(events: Iterable[Event]) -> list[PendingWrite]:
    """Return the writes that count, in (task path, task id, index) order. Spills must have been opened.

    Decided write by write: for an index >= 0 the first value stays, below 0 the last one counts.
    """
    slots: dict[tuple[str, int], PendingWrite] = {}
    for event in events:
        if not isinstance(event, Writes):
            continue
        for write in event.writes:
            slot = (event.task_id, write.index)
            if write.index < 0 or slot not in slots:
                slots[slot] = PendingWrite(event.task_path, event.task_id, *write)
    return sorted(slots.values(), key=lambda write: (write.task_path, write.task_id, write.index))

"""Spills: keeping the record of a checkpoint short when many tasks write to it.

When the record grows beyond a bound, its batches of pending writes move into an object, where they are
compressed and no longer rewritten with each further batch. The order of events is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ckpt.history.checkpoints import Event, Put, Spill, Writes, decode_events, encode_events
from ckpt.objects.ids import Kind, ObjectId
from ckpt.objects.store import Draft
from ckpt.values.rope import Load

SPILL_ABOVE = 800
"""Bytes of a record above which its writes are moved out; a SQLite page holds records up to 1,000 in the tree."""

_KEY = b"spill"


def spill(events: Sequence[Event], draft: Draft) -> list[Event]:
    """Return the events with all batches of writes moved into one new object of the draft."""
    batches = [event for event in events if isinstance(event, Writes)]
    if not batches:
        return list(events)
    blob = draft.add(Kind.BLOB, encode_events(_KEY, batches))
    rest: list[Event] = [event for event in events if not isinstance(event, Writes)]
    # A spill stands at the moment of its first batch: a fork that left in between opens it and looks closer.
    return [*rest, Spill(batches[0].sequence, blob)]


def open_spills(events: Iterable[Event], load: Load) -> list[Event]:
    """Return the events with the batches that were moved out put back, ordered by sequence number."""
    opened: list[Event] = []
    for event in events:
        if isinstance(event, Spill):
            opened += decode_events(_KEY, load([event.blob])[event.blob])
        else:
            opened.append(event)
    return sorted(opened, key=lambda event: event.sequence)


def referenced(events: Iterable[Event]) -> list[ObjectId]:
    """Return the objects that events name directly as commits or spills; ropes of writes are not looked into."""
    found = [event.commit for event in events if isinstance(event, Put)]
    return found + [event.blob for event in events if isinstance(event, Spill)]

"""What timelines are made of: the stretches that a thread sees of itself and its bases, and the checkpoints in them."""

from __future__ import annotations

from typing import NamedTuple

from ckpt.history.checkpoints import Event, Put, current_put, is_hidden, shown_put
from ckpt.history.records import ThreadRecord


class Segment(NamedTuple):
    """A stretch of a timeline: the rows of one thread up to a moment (None: all).

    What was pruned up to `made` is hidden here too. `bare` are the root checkpoints at which forks left before
    the head: without their pending writes. `left` is the one at which this stretch was left, if before the head.
    """

    thread: ThreadRecord
    moment: int | None
    bare: frozenset[str]
    made: int = 0
    left: str | None = None


class Found(NamedTuple):
    """A checkpoint as a timeline sees it."""

    namespace: str
    checkpoint_id: str
    events: tuple[Event, ...]
    record: bytes | None = None
    """The record that the thread itself has under this id, if it was read by itself."""

    @property
    def put(self) -> Put | None:
        """The put that counts; None while only pending writes have arrived."""
        return current_put(self.events)

    @property
    def hidden(self) -> bool:
        """Whether it was pruned: it is kept for others, and not shown."""
        return is_hidden(self.events)

    @property
    def shown(self) -> Put | None:
        """The put that counts, unless it was pruned."""
        return shown_put(self.events)

"""Tales: the heads that a namespace had in one stretch of a timeline, told from its puts and rewinds in their order.

How far it was told is kept, so that asking for many moments costs one telling. What a put does to the head, and
where a rewind leads, is the timeline's to know.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from ckpt.history.records import Line, Reset
from ckpt.objects.ids import ObjectId


class Entry(NamedTuple):
    """What happened at a sequence number: a commit was put under an id, or there was a rewind."""

    sequence: int
    checkpoint_id: str
    what: ObjectId | Reset


class Tale:
    """One namespace in one stretch. Begins with the line, and the heads before it, that the stretch began with."""

    def __init__(self, entries: Iterable[Entry], line: Line, moves: list[str]) -> None:
        self._entries = sorted(entries, key=lambda entry: entry.sequence)
        self._sequences = [entry.sequence for entry in self._entries]
        self._moves = list(moves)
        self._told = [(line.head, len(moves))]
        self.line = line

    def until(self, moment: int | None) -> list[Entry]:
        """Return what is not told yet of all up to a moment (None: the end), in order."""
        return self._entries[len(self._told) - 1 : self._place(moment)]

    def tell(self, entry: Entry, line: Line) -> None:
        """Take note of the line after the next entry."""
        self.line = line
        if line.head is not None and (not self._moves or self._moves[-1] != line.head):
            self._moves.append(line.head)
        self._told.append((line.head, len(self._moves)))

    def at(self, moment: int | None) -> tuple[str | None, list[str]]:
        """Return the head at a moment that was told, and all heads up to it."""
        head, moves = self._told[self._place(moment)]
        return head, self._moves[:moves]

    def _place(self, moment: int | None) -> int:
        return len(self._sequences) if moment is None else bisect_right(self._sequences, moment)

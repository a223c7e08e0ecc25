"""Frames that were opened for the objects at some places."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property

from ckpt.errors import DamagedObjectError
from ckpt.objects.frames import Frame, StoredObject
from ckpt.storage.base import Place


class Opened:
    """What is kept of frames that were unfolded for the objects at some places.

    Whole frames up to a size, which are what a cache could hold, and of all others the objects only.
    """

    def __init__(self, places: Collection[Place], size_max: int) -> None:
        self.frames: dict[int, Frame] = {}
        self.objects: dict[tuple[int, int], StoredObject] = {}
        self.amiss: dict[int, DamagedObjectError] = {}
        """Why frames were not opened that were tried each by itself."""
        self._places = places
        self._left = self._size_max = size_max

    @property
    def size(self) -> int:
        """How many bytes the frames have that are kept as a whole."""
        return self._size_max - self._left

    def add(self, numbers: Sequence[int], frames: Sequence[Frame]) -> None:
        """Take in frames, one at least, that lie one after another, under these numbers."""
        size = frames[-1].end - frames[0].start
        if size <= self._left:
            self._left -= size
            self.frames.update(zip(numbers, frames, strict=True))
            return
        for number, frame in zip(numbers, frames, strict=True):
            for position in self._positions.get(number, ()):
                if (obj := frame.get(position)) is not None:
                    self.objects[number, position] = obj

    @cached_property
    def _positions(self) -> dict[int, list[int]]:
        positions: dict[int, list[int]] = {}
        for number, position in self._places:
            positions.setdefault(number, []).append(position)
        return positions

    def get(self, number: int, position: int) -> StoredObject | None:
        """Return the object at one of the places, or None when there is none."""
        frame = self.frames.get(number)
        if frame is None:
            return self.objects.get((number, position))
        return frame.get(position)

"""Objects that came along: what lies in frames beside what these were loaded for, and is mostly asked for next.

It is hashed before it is handed out, and not before: of many an object nobody ever asks. Where the storage says which
objects a frame holds, one is found by its key; where it does not, by hashing all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from threading import Lock

from ckpt.objects.frames import Frame
from ckpt.objects.ids import ObjectId, index_key, object_id

_Added = tuple[Mapping[int, Frame], Mapping[int, Sequence[bytes | None]], Iterable[ObjectId]]


class Beside:
    """Objects in frames that were opened for others. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._added: list[_Added] = []
        self._listed: dict[bytes, tuple[Frame, int]] = {}
        self._unlisted: list[Frame] = []
        self._size = 0

    @property
    def size(self) -> int:
        """About how many bytes the frames take that were added since all was taken out."""
        return self._size

    def add(
        self, frames: Mapping[int, Frame], keys: Mapping[int, Sequence[bytes | None]], without: Iterable[ObjectId]
    ) -> None:
        """Take in what is in some frames, by number, but for objects taken out already; `keys` is as in `Fetched`."""
        with self._lock:
            # Sorted when somebody asks: who reads nothing but a commit never does.
            self._added.append((frames, keys, without))
            self._size += sum([frame.size for frame in frames.values()])

    def _sort(self) -> None:
        listed = self._listed
        for frames, keys, without in self._added:
            for number, frame in frames.items():
                names = keys.get(number)
                if names is None:
                    self._unlisted.append(frame)
                else:
                    for position, key in enumerate(names):
                        if key is not None:
                            listed[key] = frame, position
            for oid in without:
                listed.pop(index_key(oid), None)
        self._added = []

    def take(self, ids: Collection[ObjectId]) -> dict[ObjectId, bytes]:
        """Take out those of these objects that are here, verified, and whatever else had to be hashed to find them."""
        with self._lock:
            self._sort()
            listed = self._listed
            places = [(oid, listed.pop(key)) for oid in ids if (key := index_key(oid)) in listed]
            unlisted: list[Frame] = []
            if self._unlisted and len(places) < len(ids):
                unlisted, self._unlisted = self._unlisted, []
        found: dict[ObjectId, bytes] = {}
        for oid, (frame, position) in places:
            data = frame.verified(position, oid)
            if data is not None:
                found[oid] = data
        for frame in unlisted:
            found.update(frame.hashed())
        return found

    def take_all(self) -> dict[ObjectId, bytes]:
        """Take out all that is left, by its ids."""
        with self._lock:
            self._sort()
            listed, self._listed = self._listed, {}
            unlisted, self._unlisted = self._unlisted, []
            self._size = 0
        there = [frame[position] for frame, position in listed.values() if position < len(frame)]
        found = {object_id(*obj): obj.data for obj in there}
        for frame in unlisted:
            found.update(frame.hashed())
        return found

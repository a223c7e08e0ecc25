"""Objects that came along: what lies in frames beside what these were loaded for, and is mostly asked for next.

It is hashed before it is handed out, and not before: of many an object nobody ever asks. Where the storage says what
lies in a frame, an object is found by its key; where it does not, by hashing all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from threading import Lock

from ckpt.objects.frames import Frame
from ckpt.objects.ids import ObjectId, index_key, object_id
from ckpt.storage.base import Whereabouts

_SIZE_MAX = 4 << 20
_TOLD_MAX = 16


class Beside:
    """Objects in frames that were opened for others. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._told: list[tuple[Mapping[int, Frame], Whereabouts, set[tuple[int, int]]]] = []
        self._untold: list[Frame] = []
        self._size = 0

    @property
    def full(self) -> bool:
        """Whether it is time to take all out: the frames take much memory, or there are many places to look at."""
        return self._size > _SIZE_MAX or len(self._told) > _TOLD_MAX

    def add(self, frames: Mapping[int, Frame], size: int, where: Whereabouts | None) -> None:
        """Take in what is in some frames, by number, of so many bytes; `where` is as in `Fetched`."""
        with self._lock:
            if where is not None:
                self._told.append((frames, where, set()))
            else:
                self._untold += frames.values()
            self._size += size

    def take(self, ids: Collection[ObjectId]) -> dict[ObjectId, bytes]:
        """Return those of these objects that are here, verified, and whatever else had to be hashed to find them."""
        left: dict[bytes, ObjectId] = {index_key(oid): oid for oid in ids}
        found: dict[ObjectId, bytes] = {}
        with self._lock:
            told = self._told[::-1]
        for frames, where, taken in told:
            places = where.find(left)
            taken.update(places.values())
            for key, (number, position) in places.items():
                frame = frames.get(number)
                data = frame.verified(position, left[key]) if frame is not None else None
                if data is not None:
                    found[left.pop(key)] = data
            if not left:
                return found
        with self._lock:
            untold, self._untold = self._untold, []
        return found | _hashed(untold)

    def take_all(self) -> dict[ObjectId, bytes]:
        """Take out all that is here and was not asked for yet, by its ids."""
        with self._lock:
            told, self._told = self._told, []
            untold, self._untold = self._untold, []
            self._size = 0
        found = _hashed(untold)
        for frames, _, taken in told:
            for number, frame in frames.items():
                for position, obj in enumerate(frame.objects()):
                    if (number, position) not in taken:
                        found[object_id(*obj)] = obj.data
        return found


def _hashed(frames: Iterable[Frame]) -> dict[ObjectId, bytes]:
    return dict(named for frame in frames for named in frame.hashed())

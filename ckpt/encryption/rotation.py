"""Rotating keys while others work: the user's key in one step, the data key in many small ones.

A new data key is first added to the header; from then on every writer uses it, since each batch expects the header
it was sealed by. Then all that was sealed under older keys is sealed anew, records where they are, packs as new
packs. When nothing is left, the old keys leave the header. Stopped at any point, the store is whole, and the next
call goes on from what it finds.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from ckpt.encryption.cipher import BLOCK_SIZE
from ckpt.encryption.header import Ring
from ckpt.encryption.storage import ALL_RECORDS, EncryptedStorage
from ckpt.encryption.userkeys import EncryptionKey, UserKey, user_key
from ckpt.storage.base import (
    Batch,
    Exclusive,
    Frame,
    Place,
    Reading,
    RecordChangedError,
    StoredFrame,
    incarnation_at,
    index_entries,
)
from ckpt.storage.scoped import HEADER_KEY
from ckpt.storage.turns import Turns

_RECORDS_AT_ONCE = 200
_FRAMES_AT_ONCE = 500
_STEP_SIZE = 4 << 20
_PAGE = 5000


class Resealed(NamedTuple):
    """How many records and frames were sealed anew."""

    records: int
    frames: int


def rewrap(storage: EncryptedStorage, new_key: EncryptionKey) -> None:
    """Have the store opened by another user's key from now on; atomic.

    Stores that are open stay so until the data key is rotated. Who has a copy of the header and the old key can
    still read what is sealed under the data keys in it: rotate the data key too when the old key may be known.
    """
    keys, key = storage.keys, user_key(new_key)
    while True:
        old = keys.reopen()
        new = old.rewrapped(key)
        if _swapped(storage, old, new, key):
            return


def reseal(storage: EncryptedStorage) -> Resealed:
    """Rotate the data key, and seal all that is stored under the new one; the old ones are gone afterwards.

    Goes on with a rotation that was interrupted instead of beginning another. Costs a read and a write of the whole
    store, and what `compact` costs. Readers go on; writers get their turn between steps of a few megabytes. Raises
    IntegrityError when it meets damage, and keeps the old keys then.
    """
    keys = storage.keys
    while not (ring := keys.reopen()).has_old_keys:
        if _swapped(storage, ring, ring.with_new_key(keys.user_key), keys.user_key):
            break
    records = frames = 0
    while keys.ring.has_old_keys:
        generation = keys.ring.generation
        incarnation = incarnation_at(storage.inner.epoch())
        records += _reseal_records(storage)
        frames += _reseal_frames(storage)
        # Another rotation may have begun or ended meanwhile; then the next turn looks at what that has left.
        while (ring := keys.reopen()).generation == generation:
            # What was sealed anew is under the old key again where the store went back in time meanwhile.
            new = ring.without_old_keys(keys.user_key)
            with storage.inner.exclusive() as session:
                if incarnation_at(session.epoch()) != incarnation:
                    break
                if session.read([HEADER_KEY])[0] != ring.raw:
                    continue
                session.write(Batch({}, {HEADER_KEY: new.raw}))
            keys.set(keys.user_key, new)
    # A file has all that was before until its log is written into it.
    storage.compact()
    return Resealed(records, frames)


def _swapped(storage: EncryptedStorage, old: Ring, new: Ring, key: UserKey) -> bool:
    """Replace the header if it is still the old one."""
    try:
        storage.inner.publish(Batch({HEADER_KEY: old.raw}, {HEADER_KEY: new.raw}))
    except RecordChangedError:
        return False
    storage.keys.set(key, new)
    return True


# -- records ----------------------------------------------------------------------------------------------


def _reseal_records(storage: EncryptedStorage) -> int:
    inner, keys = storage.inner, storage.keys
    turns = Turns()
    start, end = ALL_RECORDS
    count = 0
    while page := inner.scan(start, end, limit=_RECORDS_AT_ONCE):
        ring = keys.ring
        old = {key: value for key, value in page if key != HEADER_KEY and not ring.is_current(value)}
        new = {key: ring.seal_record(key, storage.opened_record(key, value)) for key, value in old.items()}
        if old:
            try:
                with turns.step():
                    inner.publish(Batch({**old, HEADER_KEY: ring.raw}, dict(new)))
            except RecordChangedError as lost:
                # What another writer has changed is sealed under the new key by now. Look at the page again.
                keys.renew(lost.current.get(HEADER_KEY))
                continue
        count += len(old)
        start = page[-1][0] + b"\x00"
    return count


# -- frames -----------------------------------------------------------------------------------------------


class _MovedError(Exception):
    """Frames were removed, joined or resealed by others since they were looked at."""


def _reseal_frames(storage: EncryptedStorage) -> int:
    count = 0
    while True:
        with storage.inner.exclusive() as session:
            # Writers who learn of it begin new packs, so that no frame joins those under old keys any more.
            session.raise_epoch()
        work = _Frames(storage)
        try:
            return count + work.reseal()
        except _MovedError:
            count += work.count
            storage.keys.reopen()


class _Frames:
    """One pass over the frames of a store. Writes each frame under an old key, and all behind it, as a new one.

    What a pass that was given up has written twice is freed by the collector.
    """

    def __init__(self, storage: EncryptedStorage) -> None:
        self._storage = storage
        self._inner = storage.inner
        self._ring = storage.keys.ring
        self._incarnation = incarnation_at(self._inner.epoch())
        self._turns = Turns()
        self._previous: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._followers: Counter[int] = Counter()
        self._moved: dict[int, int] = {}
        self._joined: set[int] = set()
        self.count = 0
        self._last = 0
        while page := self._inner.scan_frames(self._last, _PAGE):
            for number, previous, size in page:
                self._previous[number] = previous
                self._sizes[number] = size
                self._followers[previous] += 1
            self._last = page[-1][0]
        # Read after the frames were listed: a frame's entries are there when the frame is.
        self._entries: dict[int, dict[int, bytes]] = {}
        for key, place in index_entries(self._inner):
            self._entries.setdefault(place.frame, {})[place.position] = key

    def reseal(self) -> int:
        """Do it and return how many frames were written. Raises _MovedError when it has to be begun again."""
        for step in self._steps():
            stored = self._load(self._inner, step)
            old: dict[int, StoredFrame] = {}
            for number in step:
                if number not in stored:
                    raise _MovedError
                behind = self._previous[number]
                if not self._ring.is_current(stored[number].data, frame=True) or behind in self._moved or behind in old:
                    old[number] = stored[number]
            if old:
                self._move(old)
        return self.count

    def _steps(self) -> Iterator[list[int]]:
        """Yield all frames in order, which puts each behind the one it follows, in steps of bounded size."""
        step: list[int] = []
        total = 0
        for number in sorted(self._previous):
            step.append(number)
            total += self._sizes[number]
            if total >= _STEP_SIZE or len(step) == _FRAMES_AT_ONCE:
                yield step
                step, total = [], 0
        if step:
            yield step

    def _load(self, reading: Reading, numbers: Collection[int]) -> dict[int, StoredFrame]:
        """Return these frames without those before them."""
        return reading.load(numbers, {self._previous[number] for number in numbers}.difference(numbers, {0}))

    def _move(self, old: Mapping[int, StoredFrame]) -> None:
        plain = {number: self._storage.opened_frame(number, frame) for number, frame in old.items()}
        moved: dict[int, int] = {}
        free, fewer = self._free(old)
        with self._turns.step(), self._inner.exclusive() as session:
            if incarnation_at(session.epoch()) != self._incarnation:
                raise _MovedError
            if session.read([HEADER_KEY])[0] != self._ring.raw or self._load(session, old) != old:
                raise _MovedError
            if self._joined_since(session, old) or not self._still(session, old):
                raise _MovedError
            places = session.locate([key for number in old for key in self._entries.get(number, {}).values()])
            for number in old:
                behind = self._previous[number]
                previous = moved.get(behind) or self._moved.get(behind) or behind
                moved[number] = self._write(session, number, Frame(previous, plain[number], ()), places)
            session.drop(free)
        self._last = max(moved.values())
        self._moved.update(moved)
        self._followers.subtract(fewer)
        self.count += len(moved)

    def _joined_since(self, session: Exclusive, old: Collection[int]) -> bool:
        """Return whether somebody has put a frame behind one of these, or behind one written anew before."""
        while page := session.scan_frames(self._last, _PAGE):
            self._joined.update(previous for _, previous, _ in page)
            self._last = page[-1][0]
        return any(number in old or number in self._moved for number in self._joined)

    def _still(self, session: Exclusive, old: Collection[int]) -> bool:
        """Return whether all that is there yet behind which these frames are to be written: a collector may drop it."""
        behind = {self._previous[number] for number in old}.difference(old, {0})
        wanted = {self._moved.get(number, number) for number in behind}
        before = {self._moved.get(number, number) for number in map(self._previous.__getitem__, behind)}
        return wanted <= session.load(wanted, wanted | before).keys()

    def _free(self, old: Collection[int]) -> tuple[list[int], Counter[int]]:
        """Return what can be dropped when these frames have been written anew, and who loses how many followers.

        A frame is needed to read those behind it, so a pack goes as a whole.
        """
        fewer: Counter[int] = Counter()
        free = [number for number in old if not self._followers[number]]
        for number in free:
            behind = self._previous[number]
            fewer[behind] += 1
            if (behind in self._moved or behind in old) and self._followers[behind] == fewer[behind]:
                free.append(behind)
        return free, fewer

    def _write(self, session: Exclusive, number: int, frame: Frame, places: Mapping[bytes, Place]) -> int:
        """Write a frame with the objects that the index still finds in the frame it replaces."""
        here = {
            position: key
            for position, key in self._entries.get(number, {}).items()
            if places.get(key) == Place(number, position)
        }
        count = max(here, default=-1) + 1
        # The places of objects that lie elsewhere by now take keys that name nothing, for as long as this lasts.
        nobody = {position: os.urandom(BLOCK_SIZE) for position in range(count) if position not in here}
        keys = tuple(here.get(position) or nobody[position] for position in range(count))
        sealed = self._ring.seal_frame(frame.previous, frame.data)
        (new,) = session.write(Batch(frames=[Frame(frame.previous, sealed, keys)]))
        if nobody:
            session.forget(list(nobody.values()))
        return new

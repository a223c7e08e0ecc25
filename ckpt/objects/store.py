"""The object store of one repository: objects in, objects out, over the storage seam.

Reading is batched and verified: an object's hash is computed once, before its first use. Writing collects what
a transaction needs into a `Draft`, finds out what is stored already, and lays the rest down as frames. Memory
is bounded by the sizes given below.

From a store behind a network whole frames are taken in at once: what lies beside an object mostly belongs to the
same state, and would be asked for in the next round trip.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from threading import Lock
from typing import Protocol

from ckpt.errors import DamagedObjectError, ObjectMissingError
from ckpt.forking import renewed_in_child
from ckpt.objects.beside import Beside
from ckpt.objects.cache import Cache
from ckpt.objects.frames import Frame as RawFrame
from ckpt.objects.frames import StoredObject
from ckpt.objects.ids import ObjectId, index_key, object_id
from ckpt.objects.open_packs import CONTENT_SIZE, Named, OpenPacks, apart
from ckpt.objects.opened import Opened
from ckpt.objects.packs import PackReader, chain_to, pack_frame
from ckpt.storage.base import Batch, Exclusive, Fetched, Frame, Place, StoredFrame

_OBJECT_CACHE_SIZE = 32 << 20
_FRAME_CACHE_SIZE = 16 << 20
_READERS_MAX = 16
"""Packs that can be read on where they were left; each takes about as much memory as a pack is long."""

_KNOWN_MAX = 1 << 16
_TOGETHER_MAX = 4 << 10
"""Bytes of content that share a frame with their commit, where each frame is a row of a server."""

_DAMAGED_MAX = 1 << 10
"""Damaged objects that are kept in mind. Those beyond are mended all the same, as long as others are left."""

_APART_MIN = 8 << 10
"""Bytes of objects that may be stored already above which they are laid down apart, where asking takes a trip."""


class FrameReading(Protocol):
    """What finding objects needs of a store."""

    def locate(self, keys: Collection[bytes]) -> dict[bytes, Place]: ...
    def load(self, frames: Collection[int], known: Collection[int] = ()) -> dict[int, StoredFrame]: ...


class ObjectStorage(FrameReading, Protocol):
    """What reading and mending objects needs of a store."""

    @property
    def remote(self) -> bool: ...
    def fetch(self, keys: Collection[bytes], known: Collection[int] = ()) -> Fetched: ...
    def exclusive(self) -> AbstractContextManager[Exclusive]: ...


class Draft:
    """The objects that one transaction needs, each at most once, children first."""

    def __init__(self) -> None:
        self.objects: dict[ObjectId, StoredObject] = {}
        self.tops: set[ObjectId] = set()
        """Those that only this checkpoint is likely to need: its commit and the topmost ropes."""
        self.known: Cache[ObjectId, bool] | None = None
        """Where the store takes note of them once they are stored; nobody looks there after a removal."""

    def add_top(self, kind: int, data: bytes) -> ObjectId:
        """Take an object that only this checkpoint is likely to need, and return its id."""
        oid = self.add(kind, data)
        self.tops.add(oid)
        return oid

    def add(self, kind: int, data: bytes) -> ObjectId:
        """Take an object and return its id."""
        oid = object_id(kind, data)
        if oid not in self.objects:
            self.objects[oid] = StoredObject(kind, data)
        return oid

    def size(self, ids: Iterable[ObjectId]) -> int:
        """Return how many bytes some of the objects have together."""
        return sum(len(self.objects[oid].data) for oid in ids)


class ObjectStore:
    """Objects of one store. Safe for many threads; one pack is appended to by one thread at a time."""

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage
        self._objects: Cache[ObjectId, bytes] = Cache(_OBJECT_CACHE_SIZE)
        self._frames: Cache[int, RawFrame] = Cache(_FRAME_CACHE_SIZE)
        self._readers: OrderedDict[int, PackReader] = OrderedDict()
        self._spare: PackReader | None = None
        self._read_lock = Lock()
        self._known: Cache[ObjectId, bool] = Cache(_KNOWN_MAX)
        self._ahead: Cache[ObjectId, bool] = Cache(_KNOWN_MAX)
        self._beside = Beside()
        self._packs = OpenPacks()
        self._damaged: set[ObjectId] = set()
        """Some objects that were found damaged, and were not mended since: as long as there are any, nothing that is
        stored is believed to be sound before it was read."""
        self._sound: Cache[ObjectId, bool] = Cache(_KNOWN_MAX)
        """What need not be read for that any more."""
        renewed_in_child(self)

    def in_child(self) -> None:
        """Forget in a forked process which packs were read how far."""
        self._readers, self._spare, self._beside = OrderedDict(), None, Beside()
        self._read_lock = Lock()

    @property
    def found_damage(self) -> bool:
        """Whether something here was found damaged and was not mended since."""
        return bool(self._damaged)

    # -- reading ------------------------------------------------------------------------------------

    def load(self, ids: Collection[ObjectId]) -> Mapping[ObjectId, bytes]:
        """Return the bytes of every id asked for, each verified; at most two round trips, one over a network.

        Raises ObjectMissingError naming what is not stored and DamagedObjectError when bytes are not what
        their id says.
        """
        found, wanted = self._objects.get_many(ids)
        if wanted and (taken := self._keep(self._beside.take(wanted))):
            found |= {oid: taken[oid] for oid in wanted if oid in taken}
            wanted = [oid for oid in wanted if oid not in taken]
        if wanted:
            fetched = self._fetch_ahead(wanted) if self._storage.remote else self.fetch(wanted)
            self._objects.put_many([(oid, obj.data, len(obj.data) + 100) for oid, obj in fetched.items()])
            found |= {oid: fetched[oid].data for oid in wanted}
        return found

    def fetch(self, ids: Collection[ObjectId], through: FrameReading | None = None) -> dict[ObjectId, StoredObject]:
        """Return objects with their kinds straight from the store, verified.

        `through` is asked instead of the storage by who has that to himself and needs no other connection to it then.
        """
        known = self._known
        storage = self._storage if through is None else through
        places = self._places(storage, ids)
        wanted = {oid: places[index_key(oid)] for oid in ids}
        try:
            found, damaged = self._read(wanted, self._open(storage, wanted.values()))
        except DamagedObjectError:
            found, damaged = {}, list(wanted)
        while damaged:
            # Frame numbers may have been given out again since frames were cached, and a collector moves objects to
            # other frames: look at the store itself, for as long as something has moved since the look before.
            self._forget_frames()
            before, places = places, self._places(storage, damaged)
            wanted = {oid: places[index_key(oid)] for oid in damaged}
            opened = self._open_undamaged(storage, wanted.values())
            more, damaged = self._read(wanted, opened)
            found |= more
            for oid in damaged:
                if wanted[oid] == before[index_key(oid)]:
                    if len(self._damaged) < _DAMAGED_MAX:
                        self._damaged.add(oid)
                    self._sound.clear()
                    # What is laid down behind a damaged frame could not be read either.
                    self._packs.clear()
                    cause = opened.amiss.get(wanted[oid].frame)
                    why = cause.message if cause is not None else "its bytes do not match its id"
                    raise DamagedObjectError(
                        f"object {oid.hex()[:16]} is damaged: {why}", hints=["see what is affected with: ckpt fsck"]
                    ) from cause
        known.put_many((oid, True, 1) for oid in found)
        return found

    @staticmethod
    def _places(storage: FrameReading, ids: Collection[ObjectId]) -> dict[bytes, Place]:
        places = storage.locate([index_key(oid) for oid in ids])
        _require(ids, places)
        return places

    def _fetch_ahead(self, ids: Collection[ObjectId]) -> dict[ObjectId, StoredObject]:
        """Return objects, verified, in one round trip; what else lies in the frames opened for them is kept at hand."""
        known, beside = self._known, self._beside
        with self._read_lock:
            ends = set(self._readers)
        try:
            places, stored, where = self._storage.fetch([index_key(oid) for oid in ids], ends)
        except DamagedObjectError:
            # Where frames are sealed, the storage finds it, and does not know what lies in them.
            return self.fetch(ids)
        _require(ids, places)
        wanted = {oid: places[index_key(oid)] for oid in ids}
        opened = Opened(wanted.values(), _OBJECT_CACHE_SIZE)
        # What lies before damage is as good as it would be without.
        with suppress(DamagedObjectError):
            self._unfold(self._storage, stored, ends - {place.frame for place in wanted.values()}, opened)
        found, damaged = self._read(wanted, opened)
        # Into the object as it was before asking: after a `forget` meanwhile, nobody looks there.
        beside.add(opened.frames, opened.size, where)
        # What is not where it should be is looked for once more, and named if it is damaged.
        found |= self.fetch(damaged) if damaged else {}
        known.put_many([(oid, True, 1) for oid in ids])
        if beside.full:
            self._take_in()
        return found

    def _take_in(self) -> None:
        """Hash all that lay beside what was asked for, so that it is found by its id."""
        self._keep(self._beside.take_all())

    def _keep(self, taken: dict[ObjectId, bytes]) -> dict[ObjectId, bytes]:
        """Keep what lay beside what was asked for, and return it."""
        # That the index names it is likely and not certain: a collector may have let it go.
        self._ahead.put_many([(oid, True, 1) for oid in taken])
        self._objects.put_many([(oid, data, len(data) + 100) for oid, data in taken.items()])
        return taken

    @staticmethod
    def _read(wanted: Mapping[ObjectId, Place], opened: Opened) -> tuple[dict[ObjectId, StoredObject], list[ObjectId]]:
        """Return the objects that are where they should be, and the ids of those that are not."""
        found: dict[ObjectId, StoredObject] = {}
        damaged: list[ObjectId] = []
        for oid, (number, position) in wanted.items():
            obj = opened.get(number, position)
            if obj is not None and object_id(*obj) == oid:
                found[oid] = obj
            else:
                damaged.append(oid)
        return found, damaged

    def at(self, places: Collection[Place]) -> dict[ObjectId, StoredObject]:
        """Return the objects at these places by their ids."""
        self._forget_frames()
        opened = self._open(self._storage, places)
        found = [obj for number, position in places if (obj := opened.get(number, position)) is not None]
        return {object_id(*obj): obj for obj in found}

    def _open(self, storage: FrameReading, places: Collection[Place]) -> Opened:
        """Open the frames of some places, from the cache or the store; a number that is not stored is left out.

        Of a pack read before, only the frames behind those are loaded.
        """
        opened = Opened(places, _FRAME_CACHE_SIZE)
        found, wanted = self._frames.get_many({place.frame for place in places})
        if wanted:
            with self._read_lock:
                # A frame that left the cache while its pack's reader stands behind it must be read from the start.
                ends = set(self._readers).difference(wanted)
            self._unfold(storage, storage.load(wanted, ends), ends, opened)
            self._frames.put_many((n, frame, frame.size + 300) for n, frame in opened.frames.items())
        opened.frames |= found
        return opened

    def _open_undamaged(self, storage: FrameReading, places: Collection[Place]) -> Opened:
        """Open what can be opened of the frames of some places.

        Where one cannot be, each by itself, so that it does not hide the others: one round trip for each frame.
        """
        with suppress(DamagedObjectError):
            return self._open(storage, places)
        opened = Opened(places, _FRAME_CACHE_SIZE)
        for number in {place.frame for place in places}:
            try:
                self._unfold(storage, storage.load([number]), (), opened)
            except DamagedObjectError as error:
                opened.amiss[number] = error
        return opened

    def _unfold(
        self, storage: FrameReading, stored: Mapping[int, StoredFrame], ends: Collection[int], opened: Opened
    ) -> None:
        """Unfold frames as loaded, with all before them in their packs but for those that lie before one of `ends`."""
        again: list[int] = []
        with self._read_lock:
            # Of an object that two writers stored at once a storage may bring both frames: one may be read already.
            lasts = (stored.keys() - {frame.previous for frame in stored.values()}).difference(ends)
            # Those of a single frame first: their reader then serves for another.
            for last in sorted(lasts, key=lambda number: stored[number].previous > 0):
                chain = chain_to(last, stored, ends)
                before = stored[chain[0]].previous
                if before and before not in self._readers:
                    again.append(last)  # its pack's reader went on meanwhile, here or along another branch
                else:
                    self._continue(before, chain, stored, opened)
        if again:
            stored = storage.load(again)
            with self._read_lock:
                for last in again:
                    self._continue(0, chain_to(last, stored), stored, opened)

    def _continue(self, before: int, chain: list[int], stored: Mapping[int, StoredFrame], opened: Opened) -> None:
        """Read the frames of a chain, which follow `before` (0: begin a pack)."""
        reader = self._readers.pop(before, None) or self._at_a_beginning()
        at = 0
        for frames in reader.read_on([stored[n].data for n in chain]):
            opened.add(chain[at : at + len(frames)], frames)
            at += len(frames)
        if (before or len(chain) > 1) and reader.raw_size < CONTENT_SIZE:
            self._readers[chain[-1]] = reader
        else:
            # A pack that is full does not go on; of a single frame, little would be saved should it, and most never
            # do: all that is laid down apart.
            self._spare = reader
        while len(self._readers) > _READERS_MAX:
            _, self._spare = self._readers.popitem(last=False)

    def _at_a_beginning(self) -> PackReader:
        """Return a reader for another pack: the one put aside, if there is one."""
        reader, self._spare = self._spare, None
        if reader is None:
            return PackReader()
        reader.begin()
        return reader

    # -- writing ------------------------------------------------------------------------------------

    def lay_down(self, line: object, draft: Draft, new: Collection[ObjectId] = ()) -> list[Frame]:
        """Return what of a draft is not stored yet as frames behind the pack of `line`.

        Objects in `new` are taken to be new without asking. Asks the store in at most one round trip. When that is
        a trip over a network, it asks only for what it has seen beside something that was read; whatever else might
        be there already goes into a frame of its own, which the store leaves out if so. The frames are good for one
        publish: call `stored` when it succeeded and `abandon` when it did not.

        Once damage was found here, what of a draft is stored already is read, and mended where it cannot be.
        """
        if self._damaged:
            self._mend(draft)
        draft.known = self._known
        _, unknown = draft.known.get_many(draft.objects)
        asked = [oid for oid in unknown if oid not in new]
        aside: set[ObjectId] = set()
        frames: list[Frame] = []
        if asked and not self._storage.remote:
            aside = self._present(asked)
        elif asked and draft.size(asked) >= _APART_MIN:
            self._take_in()
            seen, _ = self._ahead.get_many(asked)
            if draft.size(seen) >= _APART_MIN:
                aside = self._present(seen)
            sent = [(oid, draft.objects[oid]) for oid in asked if oid not in aside]
            aside.update(asked)
            frames = apart(sent)
        content: list[Named] = []
        tops: list[Named] = []
        for oid in unknown:
            if oid not in aside:
                (tops if oid in draft.tops else content).append((oid, draft.objects[oid]))
        if content and tops and self._storage.remote and draft.size(oid for oid, _ in content) < _TOGETHER_MAX:
            content, tops = content + tops, []
        return frames + self._packs.append(line, content, tops, new)

    def _mend(self, draft: Draft) -> None:
        """Store again what of a draft is stored and cannot be read, and have the index name the new copies.

        That raises the epoch, so that whoever publishes looks again for what is stored. What was read once, or stored
        here, is not read again.
        """
        _, ids = self._sound.get_many(draft.objects)
        places = self._storage.locate([index_key(oid) for oid in ids])
        there = {oid: places[index_key(oid)] for oid in ids if index_key(oid) in places}
        _, damaged = self._read(there, self._open_undamaged(self._storage, there.values()))
        if damaged:
            with self._storage.exclusive() as session:
                now = session.locate([index_key(oid) for oid in damaged])
                # What was moved meanwhile is sound where it lies now: a collector moves nothing else.
                left = {index_key(oid): draft.objects[oid] for oid in damaged if now.get(index_key(oid)) == there[oid]}
                if left:
                    session.write(Batch(frames=[Frame(0, pack_frame(left.values()), tuple(left))]))
        self._damaged.difference_update(ids)
        self._sound.put_many((oid, True, 1) for oid in ids)

    def _present(self, ids: Collection[ObjectId]) -> set[ObjectId]:
        known = self._known
        places = self._storage.locate([index_key(oid) for oid in ids])
        present = {oid for oid in ids if index_key(oid) in places}
        # Into the cache as it was before asking: after a `forget` meanwhile, the answer is remembered nowhere.
        known.put_many((oid, True, 1) for oid in present)
        return present

    def remember(self, draft: Draft) -> None:
        """Spare the next reader loading the objects of a draft, stored or not: they are asked for by what they are."""
        self._objects.put_many([(oid, obj.data, len(obj.data) + 100) for oid, obj in draft.objects.items()])

    def stored(self, line: object, draft: Draft, numbers: list[int]) -> None:
        """Say that the frames of a draft are in the store under these numbers."""
        if draft.known is not None:
            draft.known.put_many([(oid, True, 1) for oid in draft.objects])
        if numbers:
            self._packs.stored(line, numbers)

    def abandon(self, line: object) -> None:
        """Say that the frames made last for `line` were not stored: its pack is not continued."""
        self._packs.abandon(line)

    def forget(self) -> None:
        """Drop all that is believed about the store: something was removed from it."""
        self._packs.clear()
        self._known, self._ahead, self._beside = Cache(_KNOWN_MAX), Cache(_KNOWN_MAX), Beside()
        self._forget_frames()

    def _forget_frames(self) -> None:
        with self._read_lock:
            self._readers.clear()
            self._frames.clear()


def _require(ids: Collection[ObjectId], places: Mapping[bytes, Place]) -> None:
    """Raise ObjectMissingError, naming those that have no place, unless all objects have one."""
    names = [oid.hex() for oid in ids if index_key(oid) not in places]
    if names:
        raise ObjectMissingError(
            f"{len(names)} object(s) are missing from the store: {', '.join(name[:16] for name in names[:5])}",
            ids=names,
            hints=["see what is affected with: ckpt fsck", "restore a backup"],
        )

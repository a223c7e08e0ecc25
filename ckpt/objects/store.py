"""The object store of one repository: objects in, objects out, over the storage seam.

Reading is batched and verified: an object's hash is computed once, before its first use. Writing collects what
a transaction needs into a `Draft`, finds out what is stored already, and lays the rest down as frames. Memory
is bounded by the sizes given below.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from threading import Lock
from typing import Generic, Protocol, TypeVar

from ckpt.errors import DamagedObjectError, ObjectMissingError
from ckpt.objects.frames import Frame as RawFrame
from ckpt.objects.frames import StoredObject, encode_frame
from ckpt.objects.ids import ObjectId, index_key, object_id
from ckpt.objects.packs import Beginning, PackReader, PackStream, chain_to
from ckpt.storage.base import CHAINED, FRAME_OBJECTS_MAX, Frame, Place, StoredFrame

PACK_SIZE = 256 << 10
"""Raw bytes after which a pack is closed."""

SEED_SIZE_MIN, SEED_SIZE_MAX = 512, 32 << 10
"""Raw bytes of a pack's beginning that is worth branching off: what the threads of one process have in common."""

FRAME_SIZE_MAX = 16 << 20
_OBJECT_CACHE_SIZE = 32 << 20
_FRAME_CACHE_SIZE = 16 << 20
_READERS_MAX = 16
"""Packs that can be read on where they were left; each takes about as much memory as a pack is long."""

_KNOWN_MAX = 1 << 16
_APART_MIN = 8 << 10
"""Bytes of objects that may be stored already above which they are laid down apart, where asking takes a trip."""

_OPEN_PACKS_MAX = 16
"""Packs that can be appended to; each takes a few megabytes."""

_K = TypeVar("_K")
_V = TypeVar("_V")


class Cache(Generic[_K, _V]):
    """Keeps what was used last, up to a total size. Safe for many threads."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._size = 0
        self._entries: OrderedDict[_K, tuple[_V, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: _K) -> _V | None:
        """Return what is kept under a key, or None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def get_many(self, keys: Iterable[_K]) -> tuple[dict[_K, _V], list[_K]]:
        """Return what is kept under some keys, and the keys under which nothing is."""
        found: dict[_K, _V] = {}
        absent: list[_K] = []
        with self._lock:
            entries = self._entries
            for key in keys:
                entry = entries.get(key)
                if entry is None:
                    absent.append(key)
                else:
                    found[key] = entry[0]
                    entries.move_to_end(key)
        return found, absent

    def put(self, key: _K, value: _V, size: int) -> None:
        """Keep a value that takes about `size` bytes."""
        self.put_many(((key, value, size),))

    def put_many(self, entries: Iterable[tuple[_K, _V, int]]) -> None:
        """Keep values, each with its size in bytes."""
        with self._lock:
            for key, value, size in entries:
                old = self._entries.pop(key, None)
                self._size += size - (old[1] if old else 0)
                self._entries[key] = (value, size)
            while self._size > self._size_max and self._entries:
                _, (_, freed) = self._entries.popitem(last=False)
                self._size -= freed

    def drop(self, key: _K) -> None:
        """Forget one key."""
        with self._lock:
            if (old := self._entries.pop(key, None)) is not None:
                self._size -= old[1]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._size = 0


class ObjectReading(Protocol):
    """What reading objects needs of a store."""

    @property
    def remote(self) -> bool: ...
    def locate(self, keys: Collection[bytes]) -> dict[bytes, Place]: ...
    def load(self, frames: Collection[int], known: Collection[int] = ()) -> dict[int, StoredFrame]: ...


class Draft:
    """The objects that one transaction needs, each at most once, children first."""

    def __init__(self) -> None:
        self.objects: dict[ObjectId, StoredObject] = {}

    def add(self, kind: int, data: bytes) -> ObjectId:
        """Take an object and return its id."""
        oid = object_id(kind, data)
        if oid not in self.objects:
            self.objects[oid] = StoredObject(kind, data)
        return oid


class _OpenPack:
    """The pack of one thread that this process appends to."""

    def __init__(self, seed: Beginning | None) -> None:
        stream = seed.branch() if seed is not None else None
        self.stream = stream or PackStream()
        self.last_frame = seed.last_frame if seed is not None and stream is not None else 0
        self.beginning = Beginning() if stream is None else None
        self.laid: list[tuple[bytes, bytes]] = []
        """The raw and the compressed frames of the transaction under way."""


class ObjectStore:
    """Objects of one store. Safe for many threads; one pack is appended to by one thread at a time."""

    def __init__(self, storage: ObjectReading) -> None:
        self._storage = storage
        self._objects: Cache[ObjectId, bytes] = Cache(_OBJECT_CACHE_SIZE)
        self._frames: Cache[int, RawFrame] = Cache(_FRAME_CACHE_SIZE)
        self._readers: OrderedDict[int, PackReader] = OrderedDict()
        self._read_lock = Lock()
        self._known: Cache[ObjectId, bool] = Cache(_KNOWN_MAX)
        self._packs: OrderedDict[object, _OpenPack] = OrderedDict()
        self._seed: Beginning | None = None
        self._lock = Lock()

    # -- reading ------------------------------------------------------------------------------------

    def load(self, ids: Collection[ObjectId]) -> Mapping[ObjectId, bytes]:
        """Return the bytes of every id asked for, each verified; at most two round trips.

        Raises ObjectMissingError naming what is not stored and DamagedObjectError when bytes are not what
        their id says.
        """
        found, wanted = self._objects.get_many(ids)
        if wanted:
            fetched = self.fetch(wanted)
            self._objects.put_many((oid, obj.data, len(obj.data) + 100) for oid, obj in fetched.items())
            found.update((oid, obj.data) for oid, obj in fetched.items())
        return found

    def fetch(self, ids: Collection[ObjectId]) -> dict[ObjectId, StoredObject]:
        """Return objects with their kinds straight from the store, verified."""
        known = self._known
        places = self._storage.locate([index_key(oid) for oid in ids])
        absent = [oid for oid in ids if index_key(oid) not in places]
        if absent:
            raise _missing(absent)
        wanted = {oid: places[index_key(oid)] for oid in ids}
        frames = {place.frame for place in wanted.values()}
        try:
            found, damaged = self._read(wanted, self._open(frames))
        except DamagedObjectError:
            found, damaged = {}, list(wanted)
        if damaged:
            # Frame numbers may have been given out again since frames were cached: look at the store itself.
            self._forget_frames()
            more, damaged = self._read({oid: wanted[oid] for oid in damaged}, self._open(frames))
            found |= more
        if damaged:
            raise DamagedObjectError(
                f"object {damaged[0].hex()[:16]} is damaged: its bytes do not match its id",
                hints=["see what is affected with: ckpt fsck"],
            )
        known.put_many((oid, True, 1) for oid in found)
        return found

    @staticmethod
    def _read(
        wanted: Mapping[ObjectId, Place], frames: Mapping[int, RawFrame]
    ) -> tuple[dict[ObjectId, StoredObject], list[ObjectId]]:
        """Return the objects that are where they should be, and the ids of those that are not."""
        found: dict[ObjectId, StoredObject] = {}
        damaged: list[ObjectId] = []
        for oid, (number, position) in wanted.items():
            frame = frames.get(number)
            obj = frame[position] if frame is not None and position < len(frame) else None
            if obj is not None and object_id(*obj) == oid:
                found[oid] = obj
            else:
                damaged.append(oid)
        return found, damaged

    def at(self, places: Collection[Place]) -> dict[ObjectId, StoredObject]:
        """Return the objects at these places by their ids."""
        self._forget_frames()
        opened = self._open({place.frame for place in places})
        found: dict[ObjectId, StoredObject] = {}
        for number, position in places:
            if number in opened:
                obj = opened[number][position]
                found[object_id(*obj)] = obj
        return found

    def _open(self, numbers: Collection[int]) -> dict[int, RawFrame]:
        """Return frames, from the cache or the store; a number that is not stored is left out.

        Of a pack read before, only the frames behind those are loaded.
        """
        found, wanted = self._frames.get_many(numbers)
        if not wanted:
            return found
        with self._read_lock:
            for number in wanted:
                # A frame that left the cache while its pack's reader stands behind it must be read from the start.
                self._readers.pop(number, None)
            known = set(self._readers)
            stored = self._storage.load(wanted, known)
            again: list[int] = []
            for last in stored.keys() - {frame.previous for frame in stored.values()}:
                chain = chain_to(last, stored, known)
                before = stored[chain[0]].previous
                if before and before not in self._readers:
                    again.append(last)  # its pack's reader went on along another branch just now
                else:
                    self._continue(before, chain, stored, found)
            if again:
                stored = self._storage.load(again)
                for last in again:
                    self._continue(0, chain_to(last, stored), stored, found)
        return found

    def _continue(
        self, before: int, chain: list[int], stored: Mapping[int, StoredFrame], found: dict[int, RawFrame]
    ) -> None:
        """Read the frames of a chain, which follow `before` (0: begin a pack), into `found` and the cache."""
        reader = self._readers.pop(before, None) or PackReader()
        opened = dict(zip(chain, reader.read([stored[n].data for n in chain]), strict=True))
        self._frames.put_many((n, frame, frame.size + 300) for n, frame in opened.items())
        found.update(opened)
        self._readers[chain[-1]] = reader
        while len(self._readers) > _READERS_MAX:
            self._readers.popitem(last=False)

    # -- writing ------------------------------------------------------------------------------------

    def lay_down(self, line: object, draft: Draft, new: Collection[ObjectId] = ()) -> list[Frame]:
        """Return what of a draft is not stored yet as frames behind the pack of `line`.

        Objects in `new` are taken to be new without asking. Asks the store in at most one round trip, or not at
        all when that is a trip over a network: then what might be there already goes into a frame of its own,
        which the store leaves out if so. The frames are good for one publish: call `stored` when it succeeded
        and `abandon` when it did not.
        """
        _, unknown = self._known.get_many(draft.objects)
        asked = [oid for oid in unknown if oid not in new]
        apart: set[ObjectId] = set()
        if asked and self._storage.remote:
            if sum(len(draft.objects[oid].data) for oid in asked) >= _APART_MIN:
                apart = set(asked)
        elif asked:
            present = self._present(asked)
            unknown = [oid for oid in unknown if oid not in present]
        frames = [
            Frame(0, PackStream().append(encode_frame(obj for _, obj in part)), _keys(part), optional=True)
            for part in _split([(oid, draft.objects[oid]) for oid in unknown if oid in apart])
        ]
        rest = [(oid, draft.objects[oid]) for oid in unknown if oid not in apart]
        if rest:
            pack = self._pack(line)
            pack.laid = []
            for part in _split(rest):
                raw = encode_frame(obj for _, obj in part)
                block = pack.stream.append(raw)
                frames.append(Frame(CHAINED if pack.laid else pack.last_frame, block, _keys(part)))
                pack.laid.append((raw, block))
        return frames

    def _present(self, ids: Collection[ObjectId]) -> set[ObjectId]:
        known = self._known
        places = self._storage.locate([index_key(oid) for oid in ids])
        present = {oid for oid in ids if index_key(oid) in places}
        # Into the cache as it was before asking: after a `forget` meanwhile, the answer is remembered nowhere.
        known.put_many((oid, True, 1) for oid in present)
        return present

    def stored(self, line: object, draft: Draft, numbers: list[int]) -> None:
        """Say that the frames of a draft are in the store under these numbers."""
        self._known.put_many((oid, True, 1) for oid in draft.objects)
        self._objects.put_many((oid, obj.data, len(obj.data) + 100) for oid, obj in draft.objects.items())
        if numbers:
            with self._lock:
                pack = self._packs.get(line)
                if pack is not None and pack.laid:
                    self._extended(pack, numbers[-len(pack.laid) :])
                    if pack.stream.raw_size >= PACK_SIZE:
                        del self._packs[line]

    def _extended(self, pack: _OpenPack, numbers: list[int]) -> None:
        pack.last_frame = numbers[-1]
        laid, pack.laid = pack.laid, []
        if pack.beginning is None:
            return
        if pack.stream.raw_size > SEED_SIZE_MAX:
            pack.beginning = None
            return
        for (raw, block), number in zip(laid, numbers, strict=True):
            pack.beginning.add(raw, block, number)
        if self._seed is None and pack.beginning.raw_size >= SEED_SIZE_MIN:
            self._seed = pack.beginning

    def abandon(self, line: object) -> None:
        """Say that the frames made last for `line` were not stored: its pack is not continued."""
        with self._lock:
            self._packs.pop(line, None)

    def forget(self) -> None:
        """Drop all that is believed about the store: something was removed from it."""
        with self._lock:
            self._packs.clear()
            self._seed = None
        self._known = Cache(_KNOWN_MAX)
        self._forget_frames()

    def _forget_frames(self) -> None:
        with self._read_lock:
            self._readers.clear()
            self._frames.clear()

    def _pack(self, line: object) -> _OpenPack:
        with self._lock:
            pack = self._packs.get(line)
            if pack is None:
                pack = self._packs[line] = _OpenPack(self._seed)
                while len(self._packs) > _OPEN_PACKS_MAX:
                    self._packs.popitem(last=False)
            else:
                self._packs.move_to_end(line)
            return pack


def _split(objects: list[tuple[ObjectId, StoredObject]]) -> Iterable[list[tuple[ObjectId, StoredObject]]]:
    part: list[tuple[ObjectId, StoredObject]] = []
    size = 0
    for pair in objects:
        part.append(pair)
        size += len(pair[1].data)
        if size >= FRAME_SIZE_MAX or len(part) >= FRAME_OBJECTS_MAX:
            yield part
            part, size = [], 0
    if part:
        yield part


def _keys(part: list[tuple[ObjectId, StoredObject]]) -> tuple[bytes, ...]:
    return tuple(index_key(oid) for oid, _ in part)


def _missing(ids: Collection[ObjectId]) -> ObjectMissingError:
    names = [oid.hex() for oid in ids]
    return ObjectMissingError(
        f"{len(names)} object(s) are missing from the store: {', '.join(name[:16] for name in names[:5])}",
        ids=names,
        hints=["see what is affected with: ckpt fsck", "restore a backup"],
    )

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
from ckpt.objects.frames import PackStream, StoredObject, decode_frame, decompress_pack, encode_frame
from ckpt.objects.ids import ObjectId, index_key, object_id
from ckpt.storage.base import CHAINED, FRAME_OBJECTS_MAX, Frame, Place, StoredFrame

PACK_SIZE = 256 << 10
"""Raw bytes after which a pack is closed."""

FRAME_SIZE_MAX = 16 << 20
_OBJECT_CACHE_SIZE = 64 << 20
_KNOWN_MAX = 100_000
_OPEN_PACKS_MAX = 32

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

    def put(self, key: _K, value: _V, size: int) -> None:
        """Keep a value that takes about `size` bytes."""
        with self._lock:
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

    def locate(self, keys: Collection[bytes]) -> dict[bytes, Place]: ...
    def load(self, frames: Collection[int]) -> dict[int, StoredFrame]: ...


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

    def __init__(self) -> None:
        self.stream = PackStream()
        self.last_frame = 0


class ObjectStore:
    """Objects of one store. Safe for many threads; one pack is appended to by one thread at a time."""

    def __init__(self, storage: ObjectReading) -> None:
        self._storage = storage
        self._objects: Cache[ObjectId, bytes] = Cache(_OBJECT_CACHE_SIZE)
        self._known: Cache[ObjectId, bool] = Cache(_KNOWN_MAX)
        self._packs: OrderedDict[object, _OpenPack] = OrderedDict()
        self._lock = Lock()

    # -- reading ------------------------------------------------------------------------------------

    def load(self, ids: Collection[ObjectId]) -> Mapping[ObjectId, bytes]:
        """Return the bytes of every id asked for, each verified; at most two round trips.

        Raises ObjectMissingError naming what is not stored and DamagedObjectError when bytes are not what
        their id says.
        """
        found: dict[ObjectId, bytes] = {}
        wanted: list[ObjectId] = []
        for oid in ids:
            data = self._objects.get(oid)
            if data is None:
                wanted.append(oid)
            else:
                found[oid] = data
        if wanted:
            for oid, obj in self.fetch(wanted).items():
                found[oid] = obj.data
                self._objects.put(oid, obj.data, len(obj.data) + 100)
        return found

    def fetch(self, ids: Collection[ObjectId]) -> dict[ObjectId, StoredObject]:
        """Return objects with their kinds straight from the store, verified and without caching."""
        places = self._storage.locate([index_key(oid) for oid in ids])
        absent = [oid for oid in ids if index_key(oid) not in places]
        if absent:
            raise _missing(absent)
        frames = self._raw_frames({place.frame for place in places.values()})
        found: dict[ObjectId, StoredObject] = {}
        decoded: dict[int, list[StoredObject]] = {}
        for oid in ids:
            frame, position = places[index_key(oid)]
            if frame not in decoded:
                if frame not in frames:
                    raise _missing([oid])
                decoded[frame] = decode_frame(frames[frame])
            objects = decoded[frame]
            if position >= len(objects) or object_id(*objects[position]) != oid:
                raise DamagedObjectError(
                    f"object {oid.hex()[:16]} is damaged: its bytes do not match its id",
                    hints=["see what is affected with: ckpt fsck"],
                )
            found[oid] = objects[position]
        return found

    def at(self, places: Collection[Place]) -> dict[ObjectId, StoredObject]:
        """Return the objects at these places by their ids."""
        frames = self._raw_frames({place.frame for place in places})
        found: dict[ObjectId, StoredObject] = {}
        for frame, position in places:
            if frame in frames:
                obj = decode_frame(frames[frame])[position]
                found[object_id(*obj)] = obj
        return found

    def _raw_frames(self, numbers: Collection[int]) -> dict[int, bytes]:
        stored = self._storage.load(numbers)
        followed = {frame.previous for frame in stored.values()}
        raw: dict[int, bytes] = {}
        for last in stored.keys() - followed:
            chain: list[int] = []
            number = last
            while number:
                if number not in stored or len(chain) > len(stored):
                    raise DamagedObjectError("a pack is damaged: one of its frames is missing")
                chain.append(number)
                number = stored[number].previous
            chain.reverse()
            raw.update(zip(chain, decompress_pack([stored[n].data for n in chain]), strict=True))
        return raw

    # -- writing ------------------------------------------------------------------------------------

    def unstored(self, ids: Iterable[ObjectId]) -> set[ObjectId]:
        """Return which of these objects are not in the store; at most one round trip."""
        unknown = [oid for oid in ids if not self._known.get(oid)]
        if not unknown:
            return set()
        places = self._storage.locate([index_key(oid) for oid in unknown])
        absent = set()
        for oid in unknown:
            if index_key(oid) in places:
                self._known.put(oid, True, 1)
            else:
                absent.add(oid)
        return absent

    def frames(self, line: object, draft: Draft, ids: Collection[ObjectId]) -> list[Frame]:
        """Lay down the objects of a draft that are named in `ids`, in draft order, behind the pack of `line`.

        The frames are good for one publish: call `stored` when it succeeded and `abandon` when it did not.
        """
        objects = [(oid, obj) for oid, obj in draft.objects.items() if oid in ids]
        if not objects:
            return []
        pack = self._pack(line)
        frames: list[Frame] = []
        for part in _split(objects):
            previous = CHAINED if frames else pack.last_frame
            block = pack.stream.append(encode_frame(obj for _, obj in part))
            frames.append(Frame(previous, block, tuple(index_key(oid) for oid, _ in part)))
        return frames

    def stored(self, line: object, draft: Draft, numbers: list[int]) -> None:
        """Say that the frames of a draft are in the store under these numbers."""
        for oid, obj in draft.objects.items():
            self._known.put(oid, True, 1)
            self._objects.put(oid, obj.data, len(obj.data) + 100)
        if numbers:
            with self._lock:
                pack = self._packs.get(line)
                if pack is not None:
                    pack.last_frame = numbers[-1]
                    if pack.stream.raw_size >= PACK_SIZE:
                        del self._packs[line]

    def abandon(self, line: object) -> None:
        """Say that the frames made last for `line` were not stored: its pack is not continued."""
        with self._lock:
            self._packs.pop(line, None)

    def forget(self) -> None:
        """Drop all that is believed about the store: something was removed from it."""
        with self._lock:
            self._packs.clear()
        self._known.clear()

    def _pack(self, line: object) -> _OpenPack:
        with self._lock:
            pack = self._packs.get(line)
            if pack is None:
                pack = self._packs[line] = _OpenPack()
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


def _missing(ids: Collection[ObjectId]) -> ObjectMissingError:
    names = [oid.hex() for oid in ids]
    return ObjectMissingError(
        f"{len(names)} object(s) are missing from the store: {', '.join(name[:16] for name in names[:5])}",
        ids=names,
        hints=["see what is affected with: ckpt fsck", "restore a backup"],
    )

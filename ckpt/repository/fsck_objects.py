"""The objects of a store that is checked: which can be read, and what needs those that cannot.

Others may write, collect and rotate keys meanwhile. So no object is bad because it is not where it was seen: it is
looked up again, and is damaged if it stays in one place and cannot be read there. An object that is not there at all
is in doubt until who checks a record that needs it has seen that this record still stands.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice

from ckpt.errors import IntegrityError
from ckpt.history.commits import decode_commit
from ckpt.objects.frames import StoredObject
from ckpt.objects.ids import Kind, ObjectId, index_key, object_id
from ckpt.objects.packs import PackReader, chain_to
from ckpt.repository.core import Core
from ckpt.repository.mark import Packs
from ckpt.storage.base import Place, index_entries
from ckpt.values.rope import ROPE, references

_PAGE = 5000

_PACKS = 32
"""Packs that are read at once."""

_ABSENT = "it is not in the store"
_NO_FRAME = "the frame that holds it is missing"
_OTHER_BYTES = "its bytes do not match its id"

_Unfolded = dict[int, list[bytes]]
"""By frame, the index keys of the objects that can be read in it, in order."""


class Objects:
    """All objects of a store, looked at once, and those that are asked for again if they have changed since."""

    def __init__(self, core: Core, read_data: bool) -> None:
        self._core = core
        self._bad: dict[bytes, str] = {}
        self._doubts: set[bytes] = set()
        self._stored: dict[bytes, Place] = {}
        self._needs: dict[bytes, frozenset[bytes]] = {}
        self._doubtful: list[bytes] = []
        """The objects whose needs are in doubt."""
        self._needed: dict[bytes, list[str]] = {}
        self._prepared: dict[ObjectId, StoredObject] = {}
        self.references = 0
        self._look(read_data)

    @property
    def count(self) -> int:
        """How many objects are stored."""
        return len(self._stored)

    @property
    def in_doubt(self) -> bool:
        """Whether something asked for since the last `settle` or `forget` cannot be read, and needs a second look."""
        return bool(self._doubts)

    def settle(self) -> None:
        """Take what is in doubt for damaged: the record that needs it has not changed since it was read."""
        self._doubts.clear()
        self._doubtful.clear()

    def forget(self) -> None:
        """Know nothing of what is in doubt: the record that needed it has changed, or is gone."""
        for key in self._doubts:
            del self._bad[key]
        for key in self._doubtful:
            self._needs.pop(key, None)
        self.settle()

    def problems(self) -> list[tuple[bytes, str, list[str]]]:
        """Return the objects that are damaged or missing, by index key, why, and what was noted to need them."""
        return [(key, why, self._needed.get(key, [])) for key, why in self._bad.items()]

    def note(self, owner: str, missing: frozenset[bytes]) -> None:
        """Take note that a checkpoint needs objects that are damaged or missing."""
        for key in missing:
            self._needed.setdefault(key, []).append(owner)

    # -- what is stored -------------------------------------------------------------------------------

    def _look(self, read_data: bool) -> None:
        self._stored.update(index_entries(self._core.storage))
        packs = Packs().look(self._core.storage)
        suspects = {key: _NO_FRAME for key, place in self._stored.items() if place.frame not in packs.of}
        if read_data:
            unfolded: _Unfolded = {}
            queue = iter(packs.all)
            while page := [pack.frames[-1] for pack in islice(queue, _PACKS)]:
                self._unfold(page, unfolded)
            for key, place in self._stored.items():
                if _key_at(unfolded, place) != key:
                    suspects.setdefault(key, _OTHER_BYTES)
        self._look_again(suspects)

    def _look_again(self, suspects: Mapping[bytes, str]) -> None:
        """Look for objects where they are now, and note those that cannot be read there, with the reasons given.

        Whoever moves an object gives it another place, for which it is looked for once more. One that is in no place
        any more was let go, or was never there: that is for who needs it.
        """
        left = list(suspects)
        while left:
            places = self._locate(left)
            unfolded: _Unfolded = {}
            for number in sorted({place.frame for place in places.values()}, reverse=True):
                if number not in unfolded:
                    self._unfold([number], unfolded)
            wrong = [key for key in left if key in places and _key_at(unfolded, places[key]) != key]
            now = self._locate(wrong)
            self._bad.update((key, suspects[key]) for key in wrong if now.get(key) == places[key])
            for key in left:
                self._stored.pop(key, None)
            self._stored.update(places)
            self._take_in(unfolded)
            left = [key for key in wrong if key not in self._bad]

    def _take_in(self, unfolded: _Unfolded) -> None:
        """Take note of what was stored since the first look, beside what is looked for: mostly by the same writer."""
        new = {key for found in unfolded.values() for key in found if key not in self._stored}
        self._stored.update((key, place) for key, place in self._locate(new).items() if _key_at(unfolded, place) == key)

    def _locate(self, keys: Iterable[bytes]) -> dict[bytes, Place]:
        found: dict[bytes, Place] = {}
        queue = iter(keys)
        while page := list(islice(queue, _PAGE)):
            found |= self._core.storage.locate(page)
        return found

    def _unfold(self, lasts: Sequence[int], unfolded: _Unfolded) -> None:
        """Note which objects can be read in some frames, and in those before them in their packs."""
        try:
            stored = self._core.storage.load(lasts)
        except IntegrityError:
            # An encrypted store refuses to load a frame that was changed, and with it the others.
            for last in lasts if len(lasts) > 1 else ():
                self._unfold([last], unfolded)
            return
        for last in lasts:
            # Frame by frame, so that a damaged frame is not blamed on those before it.
            with suppress(IntegrityError):
                reader = PackReader()
                chain = chain_to(last, stored)
                for number in chain:
                    unfolded.setdefault(number, [])  # if one is damaged, those behind it need not be tried
                for number in chain:
                    (frame,) = reader.read([stored[number].data])
                    unfolded[number] = [index_key(object_id(*obj)) for obj in frame.objects()]

    # -- what is needed -------------------------------------------------------------------------------

    def prepare(self, ids: Iterable[ObjectId]) -> None:
        """Read commits and ropes that are asked for next, and the ropes below them, in as many calls as they are deep.

        What cannot be read so is left for when it is asked for.
        """
        self._prepared = {}
        level = list(ids)
        with suppress(IntegrityError):
            while new := {oid for oid in level if index_key(oid) not in self._needs and oid not in self._prepared}:
                found = self._core.objects.fetch(new)
                self._prepared |= found
                named = (references(rope) for obj in found.values() for rope in _ropes(*obj))
                level = [oid for kind, oid in chain.from_iterable(named) if kind == ROPE]

    def below(self, oid: ObjectId) -> frozenset[bytes]:
        """Return the damaged or missing objects that an object needs, itself included."""
        stack = [oid]
        children: dict[bytes, list[ObjectId]] = {}
        while stack:
            top = stack[-1]
            key = index_key(top)
            if key in self._needs:
                stack.pop()
            elif key not in children:
                children[key] = self._children(top)
                stack += [child for child in children[key] if index_key(child) not in self._needs]
            else:
                stack.pop()
                needs = (self._needs.get(index_key(child), frozenset()) for child in children[key])
                self._needs[key] = self._itself(key).union(*needs)
                if not self._doubts.isdisjoint(self._needs[key]):
                    self._doubtful.append(key)
        return self._needs[index_key(oid)]

    def _children(self, oid: ObjectId) -> list[ObjectId]:
        key = index_key(oid)
        self._find([key])
        if key in self._bad:
            return []
        try:
            kind, data = self._prepared.get(oid) or self._core.objects.fetch([oid])[oid]
            return [child for rope in _ropes(kind, data) for child in self.named(rope)]
        except IntegrityError as error:
            self._doubt(key, str(error))
            return []

    def named(self, rope: bytes) -> list[ObjectId]:
        """Return the objects that a rope names, and count them."""
        named = list(references(rope))
        self.references += len(named)
        self._find([index_key(oid) for kind, oid in named if kind != ROPE])
        for kind, oid in named:
            key = index_key(oid)
            if kind != ROPE and key not in self._needs:
                self._needs[key] = self._itself(key)
                if key in self._doubts:
                    self._doubtful.append(key)
        return [oid for _, oid in named]

    def _itself(self, key: bytes) -> frozenset[bytes]:
        return frozenset([key]) if key in self._bad else frozenset()

    def _find(self, keys: Collection[bytes]) -> None:
        """Look for objects that were not there at the first look: mostly they were stored since."""
        unknown = [key for key in keys if key not in self._stored and key not in self._bad]
        self._look_again(dict.fromkeys(unknown, _OTHER_BYTES))
        for key in unknown:
            if key not in self._stored:
                self._doubt(key, _ABSENT)

    def _doubt(self, key: bytes, why: str) -> None:
        self._bad[key] = why
        self._doubts.add(key)


def _key_at(unfolded: _Unfolded, place: Place) -> bytes | None:
    found = unfolded.get(place.frame, ())
    return found[place.position] if place.position < len(found) else None


def _ropes(kind: int, data: bytes) -> list[bytes]:
    if kind == Kind.ROPE:
        return [data]
    if kind == Kind.COMMIT:
        return [value.rope for value in decode_commit(data).values()]
    return []

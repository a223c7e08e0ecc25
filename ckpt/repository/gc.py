"""Collecting: frees what nothing needs any more in a whole store, and lays what is left down in full packs.

Works in bounded steps while others write, and can be stopped between any two. Collector and writers agree
through the store: a step that removes objects runs while nobody publishes, first catches up with what was
published since the marking, and raises the epoch, so that a writer who still believes in a removed object is
refused and looks again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from ckpt.errors import ConflictError, DamagedObjectError, IntegrityError, InvalidInputError, ObjectMissingError
from ckpt.objects.frames import Frame as RawFrame
from ckpt.objects.frames import StoredObject
from ckpt.objects.ids import Kind, index_key, object_id
from ckpt.objects.packs import pack_frame, unpack
from ckpt.repository.core import Core
from ckpt.repository.gc_damage import refusal
from ckpt.repository.mark import Marker, Pack, Packs
from ckpt.repository.memory_vectors import forget_unused
from ckpt.repository.remove import Remover
from ckpt.repository.scopes import at, prefixes, root_of
from ckpt.storage.base import Batch, Exclusive, Frame, Place, StoredFrame, incarnation_at, index_entries
from ckpt.storage.turns import Turns

PACKED_SIZE = 512 << 10
"""Raw bytes of a pack that the collector lays down, in one frame."""

_STEP_SIZE = 1 << 20
"""Bytes of packs, as they are stored, that are rewritten in one step."""

_PACK_SIZE_MIN = 8 << 10
"""Bytes that a pack counts at least: it may hold many times as many."""


@dataclass(frozen=True, slots=True)
class GcReport:
    """What a collection did. Sizes are bytes of the whole store before and after.

    `data` is what is stored, `bytes` what the store occupies. A database may keep the room that is free in it.
    """

    threads_removed: int
    objects_removed: int
    packs_rewritten: int
    bytes_before: int
    bytes_after: int
    data_before: int
    data_after: int


class Collector:
    """Runs collections on the store of one repository, whichever of its graphs that is."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._store = root_of(core.storage)
        self._turns = Turns()

    def collect(self, *, grace: timedelta, dry_run: bool = False) -> GcReport:
        """Remove what was let go longer ago than `grace`, then rewrite loose and half-dead packs.

        Goes through every graph: objects are shared by all. Operations older than `grace` can no longer be undone.
        With `dry_run` only counts, of objects those that nothing needs already: what only the removed threads and
        pruned checkpoints need is not among them. Costs time in proportion to the store's records and ropes, plus what
        is rewritten. Raises IntegrityError, with nothing collected, where what is needed may be hidden by damage, and
        ConflictError, with the rest not collected, where a server may have lost what it was told last.
        """
        if grace < timedelta(0):
            raise InvalidInputError("grace cannot be negative")
        self._require_sound()
        before = self._store.usage()
        until = time.time() - grace.total_seconds()
        threads = 0
        for prefix in list(prefixes(self._store)):
            threads += Remover(self._core.beside(at(self._store, prefix))).remove(until, dry_run)
        try:
            marker = self._core.consistently(self._marked)
        except (DamagedObjectError, ObjectMissingError) as error:
            raise refusal(self._core, error) from error
        packs = self._settled_packs(dry_run)
        removed = rewritten = 0
        for step in list(_steps(self._to_rewrite(packs, marker))):
            dead, count = self._rewrite(step, packs, marker, dry_run)
            removed += dead
            rewritten += count
        if not dry_run:
            forget_unused(self._core)
            self._store.compact()
        after = self._store.usage()
        sizes = before.disk, after.disk, before.frames + before.records, after.frames + after.records
        return GcReport(threads, removed, rewritten, *sizes)

    def _require_sound(self) -> None:
        """Raise IntegrityError where the database itself hides what is stored: that would be taken for let go."""
        if found := self._store.verify():
            raise IntegrityError(
                f"nothing was collected, as the database is damaged: {found[0]}",
                hints=["see what is affected with: ckpt fsck", "restore a backup"],
            )

    def _marked(self) -> Marker:
        # A new one for each attempt: what one has marked that stumbled is marked without all that is below it.
        marker = Marker(self._core)
        marker.mark_all()
        # Once more what has changed meanwhile: the steps, for which others wait, find little left to catch up with.
        marker.catch_up(self._store)
        return marker

    def _settled_packs(self, dry_run: bool) -> Packs:
        """Return packs that no writer can append to or branch off from any more."""
        packs = Packs().look(self._store)
        if not dry_run:
            with self._store.exclusive() as session:
                session.raise_epoch()
            # Whoever publishes from here on begins new packs; what was added before is part of the old ones.
            packs.look(self._store, joining=True, again=True)
        return packs

    def _to_rewrite(self, packs: Packs, marker: Marker) -> Iterator[Pack]:
        """Yield the packs that have dead objects, more than one frame, or another pack below them; branches first."""
        selected = {id(pack) for pack in packs.all if len(pack.frames) > 1 or pack.base}
        referenced: set[int] = set()
        for key, place in index_entries(self._store):
            pack = packs.of.get(place.frame)
            referenced.add(id(pack))
            if pack is not None:
                pack.listed += 1
            if key not in marker.live:
                selected.add(id(pack))
        for pack in reversed(packs.all):
            if id(pack) in selected or id(pack) not in referenced:
                yield pack

    def _rewrite(self, step: list[Pack], packs: Packs, marker: Marker, dry_run: bool) -> tuple[int, int]:
        """Rewrite some packs; return how many dead objects went, and how many packs.

        A pack with an object that is not what its id says is left as it is: to somebody who can mend it, those bytes
        are the only copy.
        """
        stored = self._loaded(step)
        # What another collector has rewritten meanwhile is not there any more.
        step = [pack for pack in step if pack.frames[-1] in stored]
        laid: list[tuple[bytes, Place, StoredObject]] = []
        for pack in step:
            # Where it cannot be unfolded, none of what it lists is found below.
            with suppress(DamagedObjectError):
                laid += _laid(pack, unpack(stored, pack.frames[-1]))
        places = self._store.locate({key for key, _, _ in laid})
        # Two writers may have stored the same object; the copy that the index names is the one that counts.
        here = {key: (place, obj) for key, place, obj in laid if places.get(key) == place}
        found = Counter(id(packs.of[place.frame]) for place, _ in here.values())
        step = [pack for pack in step if found[id(pack)] >= pack.listed]
        whole = {number for pack in step for number in pack.frames}
        here = {key: (place, obj) for key, (place, obj) in here.items() if place.frame in whole}
        kept = {key: obj for key, (_, obj) in here.items() if key in marker.live}
        dead = here.keys() - kept.keys()
        if dry_run or not step:
            return len(dead), len(step)
        frames = list(_packed(kept))
        seen = _shape(step)
        with self._turns.step(), self._store.exclusive() as session:
            if incarnation_at(session.epoch()) != marker.incarnation:
                raise ConflictError(
                    "the server was started again, or is another one, while its store was collected",
                    hints=["nothing that is needed was removed: collect again"],
                )
            marker.catch_up(session)
            # Who rotates keys lays frames down behind others that he has laid down, whatever the epoch is.
            packs.look(session, joining=True)
            if not dead.isdisjoint(marker.live) or not _still(session, here) or _shape(step) != seen:
                return 0, 0
            session.write(Batch(frames=frames))
            session.forget(dead)
            session.drop(packs.release(step))
        return len(dead), len(step)

    def _loaded(self, packs: list[Pack]) -> dict[int, StoredFrame]:
        """Return the frames of packs, but for those that an encrypted store refuses to load, as they were changed."""
        try:
            return self._store.load([pack.frames[-1] for pack in packs])
        except DamagedObjectError:
            found: dict[int, StoredFrame] = {}
            for pack in packs:
                with suppress(DamagedObjectError):
                    found |= self._store.load([pack.frames[-1]])
            return found


def _laid(pack: Pack, opened: Mapping[int, RawFrame]) -> Iterator[tuple[bytes, Place, StoredObject]]:
    """Yield the objects of a pack, each with its key in the index and its place."""
    for number in pack.frames:
        for position, obj in enumerate(opened[number].objects()):
            yield index_key(object_id(*obj)), Place(number, position), obj


def _shape(packs: Iterable[Pack]) -> list[tuple[int, int]]:
    """Return what changes when a frame joins one of these packs."""
    return [(len(pack.frames), pack.branches) for pack in packs]


def _still(session: Exclusive, here: dict[bytes, tuple[Place, StoredObject]]) -> bool:
    places = session.locate(here)
    return all(places.get(key) == place for key, (place, _) in here.items())


def _packed(objects: dict[bytes, StoredObject]) -> Iterator[Frame]:
    """Lay objects down in full packs of one frame each, those of one kind together, in the order they came."""
    order = sorted(objects.items(), key=lambda entry: (entry[1].kind != Kind.BLOB, entry[1].kind))
    queue = iter(order)
    while True:
        part: list[tuple[bytes, StoredObject]] = []
        size = 0
        while size < PACKED_SIZE and (taken := list(islice(queue, 1))):
            part += taken
            size += len(taken[0][1].data)
        if not part:
            return
        yield Frame(0, pack_frame(obj for _, obj in part), tuple(key for key, _ in part))


def _steps(packs: Iterable[Pack]) -> Iterator[list[Pack]]:
    """Group packs into steps of bounded work."""
    step: list[Pack] = []
    size = 0
    for pack in packs:
        step.append(pack)
        size += max(pack.size, _PACK_SIZE_MIN)
        if size >= _STEP_SIZE:
            yield step
            step, size = [], 0
    if step:
        yield step

"""Collecting: frees what nothing needs any more in a whole store, and lays what is left down in full packs.

Works in bounded steps while others write, and can be stopped between any two. Collector and writers agree
through the store: a step that removes objects runs while nobody publishes, first catches up with what was
published since the marking, and raises the epoch, so that a writer who still believes in a removed object is
refused and looks again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from ckpt.errors import ConflictError, DamagedObjectError, IntegrityError, InvalidInputError
from ckpt.objects.frames import Frame as RawFrame
from ckpt.objects.frames import StoredObject
from ckpt.objects.ids import Kind, index_key, object_id
from ckpt.objects.packs import pack_frame, unpack
from ckpt.repository.core import Core
from ckpt.repository.gc_damage import refusal
from ckpt.repository.mark import Marker, Pack, Packs
from ckpt.repository.memory_vectors import forget_unused
from ckpt.repository.remains import LeftMarker, Remains, dead, sizes_of_frames
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
    `threads_restorable` are those of which `undo` can still bring back what was deleted or pruned. `packs_left` stay as
    they were: something in them is damaged, or was moved by another collection meanwhile.
    """

    threads_removed: int
    threads_restorable: int
    objects_removed: int
    packs_rewritten: int
    packs_left: int
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
        With `dry_run` nothing is changed, and the report tells what would be, sizes about. Costs time in proportion to
        the store's records and ropes, plus what is rewritten. Raises IntegrityError, with nothing collected, where what
        is needed may be hidden by damage, and ConflictError, with the rest not collected, where a server may have lost
        what it was told last.
        """
        if grace < timedelta(0):
            raise InvalidInputError("grace cannot be negative")
        self._require_sound()
        until = time.time() - grace.total_seconds()
        if dry_run:
            return self._core.consistently(lambda: self._foretold(until))
        before = self._store.usage()
        removers = [Remover(self._core.beside(at(self._store, prefix))) for prefix in prefixes(self._store)]
        threads = sum(remover.remove(until) for remover in removers)
        marker = self._marked(lambda: Marker(self._core))
        packs = self._settled_packs()
        removed = rewritten = left = 0
        for step in list(_steps(self._to_rewrite(packs, marker))):
            dead, done, passed_over = self._rewrite(step, packs, marker)
            removed += dead
            rewritten += done
            left += passed_over
        forget_unused(self._core)
        self._store.compact()
        after = self._store.usage()
        return GcReport(
            threads_removed=threads,
            threads_restorable=sum(remover.restorable for remover in removers),
            objects_removed=removed,
            packs_rewritten=rewritten,
            packs_left=left,
            bytes_before=before.disk,
            bytes_after=after.disk,
            data_before=before.frames + before.records,
            data_after=after.frames + after.records,
        )

    def _foretold(self, until: float) -> GcReport:
        """Return what a collection would report; of packs that would be left it does not know, as it opens none."""
        before, frames = self._store.usage(), dict(sizes_of_frames(self._store))
        scopes = {prefix: self._core.beside(at(self._store, prefix)) for prefix in prefixes(self._store)}
        remains = {prefix: Remains(core, until) for prefix, core in scopes.items()}
        left = {prefix: each.next for prefix, each in remains.items()}
        marker = self._marked(lambda: LeftMarker(self._core, left))
        rewritten = sum(1 for _ in self._to_rewrite(Packs().look(self._store), marker))
        objects, freed = dead(self._store, frames, marker.live)
        data = before.frames + before.records
        return GcReport(
            threads_removed=sum(each.next.removed for each in remains.values()),
            threads_restorable=sum(len(each.restorable) for each in remains.values()),
            objects_removed=objects,
            packs_rewritten=rewritten,
            packs_left=0,
            bytes_before=before.disk,
            bytes_after=max(before.disk - before.free - freed, 0),
            data_before=data,
            data_after=max(data - freed, 0),
        )

    def _require_sound(self) -> None:
        """Raise IntegrityError where the database itself hides what is stored: that would be taken for let go."""
        if found := self._store.verify():
            raise IntegrityError(
                f"nothing was collected, as the database is damaged: {found[0]}",
                hints=["see what is affected with: ckpt fsck", "restore a backup"],
            )

    def _marked(self, begin: Callable[[], Marker]) -> Marker:
        """Have all marked that is needed, and raise IntegrityError where that cannot be told."""

        def mark() -> Marker:
            # A new one for each attempt: what one has marked that stumbled is marked without all that is below it.
            marker = begin()
            marker.mark_all()
            # Once more what has changed meanwhile: the steps, for which others wait, find little left to catch up with.
            marker.catch_up(self._store)
            return marker

        try:
            return self._core.consistently(mark)
        except IntegrityError as error:
            raise refusal(self._core, error) from error

    def _settled_packs(self) -> Packs:
        """Return packs that no writer can append to or branch off from any more."""
        packs = Packs().look(self._store)
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

    def _rewrite(self, step: list[Pack], packs: Packs, marker: Marker) -> tuple[int, int, int]:
        """Rewrite some packs; return how many dead objects went, how many packs, and how many were left alone.

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
        there = len(step)
        step = [pack for pack in step if found[id(pack)] >= pack.listed]
        left = there - len(step)
        whole = {number for pack in step for number in pack.frames}
        here = {key: (place, obj) for key, (place, obj) in here.items() if place.frame in whole}
        kept = {key: obj for key, (_, obj) in here.items() if key in marker.live}
        dead = here.keys() - kept.keys()
        if not step:
            return 0, 0, left
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
                return 0, 0, left
            session.write(Batch(frames=frames))
            session.forget(dead)
            session.drop(packs.release(step))
        return len(dead), len(step), left

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

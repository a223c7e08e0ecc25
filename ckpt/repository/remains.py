"""What is there of one graph, and what a collection would leave of it: told beforehand, with nothing changed.

Three kinds of rows: those that a thread shows; those of what was deleted or pruned while `undo` can bring it back; and
those that the next collection takes, because nothing needs them. `ckpt.repository.remove` is what takes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from typing import NamedTuple

from ckpt.history import clock, keys
from ckpt.history.checkpoints import Event, Put, as_left, decode_events, is_hidden, shown_put
from ckpt.history.records import ThreadRecord
from ckpt.objects.ids import ObjectId
from ckpt.repository.begun import Begun
from ckpt.repository.core import Core
from ckpt.repository.mark import Marker, Row, rows, thread_records
from ckpt.repository.operations import OperationLog
from ckpt.repository.plan import Plan
from ckpt.repository.proofs import Proofs
from ckpt.repository.prune import keep_visible
from ckpt.repository.remove_shared import removals
from ckpt.repository.scopes import root_of
from ckpt.storage.base import Reading, Storage, index_entries

_FRAMES_PAGE = 5000


class Left:
    """What a collection would leave of the threads of one graph, if it left `staying` to be restored."""

    def __init__(
        self,
        core: Core,
        threads: dict[int, ThreadRecord],
        gone: Iterable[int],
        staying: Mapping[int, int],
        now: int,
    ) -> None:
        self._core = core
        self._threads = threads
        self._staying = staying
        self._now = now
        self.going = set(gone) - staying.keys()
        left = _with_bases(threads, threads.keys() - self.going)
        self.moments: dict[int, int] = {}
        """The last moments at which threads that are left, were left by others that are."""
        for number in left:
            if (base := threads[number].base) is not None:
                self.moments[base.thread] = max(self.moments.get(base.thread, 0), base.moment)
        self._droppable: dict[int, set[bytes]] = {}

    @property
    def removed(self) -> int:
        """How many threads go: not those of which a fork that is left sees something."""
        return len(self.going - self.moments.keys())

    def row(self, row: Row) -> Row | None:
        """Return what is left of a row; None for nothing."""
        number, moment = row.thread, self.moments.get(row.thread)
        if number in self.going and moment is None:
            return None
        pruned = row.part == "c" and (number in self.going or is_hidden(decode_events(row.key, row.value)))
        if pruned and row.key in self._dropped(number):
            return None
        return row.as_of(moment) if number in self.going and moment is not None else row

    def _dropped(self, number: int) -> Set[bytes]:
        """Return the rows of a thread's checkpoints that go because nothing that is left shows or needs them."""
        thread = self._threads.get(number)
        if number in self.moments:
            return self._unseen
        if thread is None or thread.deleted:
            return frozenset()
        if number not in self._droppable:
            plan = Plan(
                self._core, thread, keep_visible, (), hide=False, namespace=None, exactly=True, undone=self._staying
            )
            self._droppable[number] = {keys.checkpoint_key(number, *slot) for slot in plan.droppable}
        return self._droppable[number]

    @cached_property
    def _unseen(self) -> Set[bytes]:
        """What goes of threads that have forks."""
        found = removals(self._core, self._threads, lambda numbers: self._staying, now=self._now)
        return {key for change, _ in found for key, left in change.records.items() if left is None}


class Remains:
    """What there is of one graph. Costs a read of its threads' records and of its log of operations."""

    def __init__(self, core: Core, until: float) -> None:
        """See what `undo` can bring back after a collection that goes back to `until`, in seconds since 1970."""
        now = clock.now_ms()
        # Before the log: of what is listed here, the log then tells what can be restored.
        threads = {number: ThreadRecord.decode(number, raw) for number, raw in thread_records(core.storage)}
        over = {number for number, thread in threads.items() if thread.lapsed(now)}
        gone = {number for number, thread in threads.items() if thread.deleted} | over
        restorable: dict[int, int] = {}
        for operation in OperationLog(core, "").newest_first():
            if operation.time > until:
                operation.note_restorable(restorable)
        restorable = {number: since for number, since in restorable.items() if number not in over}
        self.threads = [thread for number, thread in threads.items() if number not in gone]
        """Those that are there."""
        self.core = core
        self.restorable = restorable
        """The numbers of the threads of which it can bring something back."""
        self.next = Left(core, threads, gone, restorable, now)
        """What the next collection leaves."""
        self.last = Left(core, threads, gone, {}, now) if restorable else self.next
        """What one leaves once nothing of what was deleted and pruned can be brought back."""
        families = {_first(threads, number) for number in restorable if number in threads}
        self.differing = [number for number in threads if _first(threads, number) in families]
        """The threads of which the last one may leave less."""
        self._gone = gone
        self._threads = threads
        self._begun = Begun(core, core.storage, Proofs(core, core.storage))
        self._over = self._rows_over_bases(threads)
        self._views: dict[int, set[_View]] = {}
        for thread in self.threads:
            above: list[_Stretch] = []
            stretch = _Stretch(thread.number)
            while (base := threads[stretch.thread].base) is not None and base.thread in threads:
                above += [stretch] if stretch.thread in self._over else []
                stretch = _Stretch(base.thread, base.moment, base.made, base.bare)
                self._views.setdefault(base.thread, set()).add(_View(stretch, tuple(reversed(above))))

    def shows(self, number: int) -> bool:
        """Whether anything of a thread is to be seen: in itself or in a fork."""
        return number not in self._gone or number in self._views

    def shown(self, row: Row) -> tuple[ObjectId | None, list[ObjectId]]:
        """Return the commit that a checkpoint's row is for its own thread, and all that threads show of it."""
        events = decode_events(row.key, row.value)
        own = shown_put(events) if row.thread not in self._gone else None
        puts = [own, *(self._as_seen(view, row, events) for view in self._views.get(row.thread, ()))]
        shown = dict.fromkeys(put.commit for put in puts if put is not None)
        return own.commit if own is not None else None, list(shown)

    def _as_seen(self, view: _View, row: Row, events: list[Event]) -> Put | None:
        """Return what a fork shows of a checkpoint's row further down."""
        seen = self._seen(view.stretch, row, events)
        suffix = keys.within_thread(row.key, row.thread)
        above = [(each, self._over[each.thread].get(suffix, ())) for each in view.above]
        over = [event for stretch, raw in above for event in self._seen(stretch, row, raw)]
        put = shown_put([*seen, *over])
        return put if put in seen else None

    def _seen(self, stretch: _Stretch, row: Row, events: Sequence[Event]) -> list[Event]:
        """Return what a timeline has, in one stretch, of a checkpoint with the id and namespace of a row."""
        seen = as_left(events, stretch.moment, stretch.made)
        if seen and stretch.moment is not None and stretch.left is not None:
            id_ = keys.checkpoint_id_of(row.key, row.thread)
            if id_ > stretch.left and row.key != keys.checkpoint_key(row.thread, "", id_):
                return self._begun.before(self._threads[stretch.thread], seen, stretch.moment)
        return seen

    def _rows_over_bases(self, threads: Mapping[int, ThreadRecord]) -> dict[int, dict[bytes, list[Event]]]:
        """Return the events of forks under ids that a base may have as well: prunes for the most part."""
        found: dict[int, dict[bytes, list[Event]]] = {}
        for row in rows(self.core.storage):
            thread = threads.get(row.thread)
            if row.part != "c" or thread is None or thread.base is None:
                continue
            if thread.may_be_in_base(keys.checkpoint_id_of(row.key, row.thread)):
                suffix = keys.within_thread(row.key, row.thread)
                found.setdefault(row.thread, {})[suffix] = decode_events(row.key, row.value)
        return found


class _Stretch(NamedTuple):
    """What a timeline has of a thread: all, or what a fork sees of it that left at `moment` (see `Base`)."""

    thread: int
    moment: int | None = None
    made: int = 0
    left: str | None = None
    """The root checkpoint at which the fork left, if before the head."""


class _View(NamedTuple):
    """How a fork sees a thread further down: what of it, and under what, the lowest first."""

    stretch: _Stretch
    above: tuple[_Stretch, ...]


class LeftMarker(Marker):
    """Marks what is needed by the rows that a collection would leave of each graph, by the prefix of its scope."""

    def __init__(self, core: Core, left: Mapping[bytes, Left]) -> None:
        super().__init__(core)
        self._left = left
        self._prefix = b""

    def mark_rows(self, storage: Storage, numbers: Iterable[int], left: Left) -> None:
        """Mark as well what is needed by what another collection would leave of some threads of one graph."""
        for number in numbers:
            found = map(left.row, rows(storage, keys.thread_range(number)))
            super()._mark(root_of(storage), (row for row in found if row is not None))

    def _changed(self, prefix: bytes, reading: Reading) -> Iterator[tuple[int, bytes, Iterable[Row]]]:
        for each in super()._changed(prefix, reading):
            self._prefix = prefix  # of the rows that are marked next
            yield each

    def _mark(self, store: Reading, records: Iterable[Row]) -> None:
        super()._mark(store, (row for each in records if (row := self._row(each)) is not None))

    def _row(self, row: Row) -> Row | None:
        left = self._left.get(self._prefix)
        return left.row(row) if left is not None else row


def sizes_of_frames(reading: Reading) -> Iterator[tuple[int, int]]:
    """Yield the numbers of all frames and their sizes in bytes."""
    after = 0
    while page := reading.scan_frames(after, _FRAMES_PAGE):
        yield from ((number, size) for number, _, size in page)
        after = page[-1][0]


def dead(reading: Reading, frames: Mapping[int, int], live: Set[bytes]) -> tuple[int, int]:
    """Return how many objects nothing needs, and about how many bytes of some frames.

    Each object of a frame counts alike.
    """
    there: Counter[int] = Counter()
    needed: Counter[int] = Counter()
    for key, place in index_entries(reading):
        there[place.frame] += 1
        needed[place.frame] += key in live
    return there.total() - needed.total(), sum(
        size - size * needed[each] // max(there[each], 1) for each, size in frames.items()
    )


def _first(threads: Mapping[int, ThreadRecord], number: int) -> int:
    """Return the thread that began what a thread was forked from."""
    while (base := threads[number].base) is not None and base.thread in threads:
        number = base.thread
    return number


def _with_bases(threads: dict[int, ThreadRecord], numbers: Iterable[int]) -> set[int]:
    """Return threads and those that they were forked from, directly or not."""
    found: set[int] = set()
    for number in numbers:
        each: int | None = number
        while each is not None and each in threads and each not in found:
            found.add(each)
            base = threads[each].base
            each = base.thread if base is not None else None
    return found

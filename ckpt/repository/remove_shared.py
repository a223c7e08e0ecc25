"""Removing what threads share and none of them shows: pruned from a thread and from all that were forked from it.

As long as one of them shows a checkpoint, its row stays for all, hidden in the others. Which rows nobody needs is told
from what each thread sees, as `ckpt.repository.plan` does of a thread without forks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property

from ckpt.history import keys
from ckpt.history.checkpoints import Event, Hidden, as_left, decode_events, is_hidden
from ckpt.history.records import ThreadRecord
from ckpt.repository.ahead import Ahead
from ckpt.repository.core import Core
from ckpt.repository.directory import Change
from ckpt.repository.gathered import ranges_of
from ckpt.repository.lineage import is_of_a_task
from ckpt.repository.plan import Plan
from ckpt.repository.prune import count_checkpoints, keep_visible
from ckpt.repository.timeline import Segment, Timeline
from ckpt.storage.base import Reading

_Rows = Mapping[bytes, bytes]

_ROWS_MAX = 8192
"""Rows that are read at once, about."""


class Shared:
    """Looks for what is shown no more, among threads as they were read.

    `gone` are the numbers of those that show nothing, and `staying` of those of which an operation can bring back what
    was pruned: all that these see stays.
    """

    def __init__(
        self, core: Core, threads: Mapping[int, ThreadRecord], gone: Collection[int], staying: Collection[int]
    ) -> None:
        self._core = core
        self.threads = threads
        self._gone = gone
        self._staying = staying
        self._forks: dict[int, list[int]] = {}
        for thread in threads.values():
            if thread.base is not None:
                self._forks.setdefault(thread.base.thread, []).append(thread.number)

    def groups(self, hiding: Collection[int] | None = None) -> Iterator[tuple[list[int], Reading]]:
        """Yield the numbers of threads that have forks, and what to read them from; what was forked before its forks.

        Given the threads that have pruned rows (`hiding`), those are left out of which neither they nor a fork is among
        them. Costs a round trip for some thousand rows, but for threads with more, each of which is read on its own.
        """
        for group in self._trees():
            forked = [each for each in group if each in self._forks]
            if hiding is not None:
                forked = [each for each in forked if not {each, *self.family(each)}.isdisjoint(hiding)]
            if forked:
                small = sum(self.threads[each].sequence for each in group) <= _ROWS_MAX
                storage = self._core.storage
                yield forked, Ahead.of(storage, ranges_of(group)) if small else storage

    def _trees(self) -> Iterator[list[int]]:
        """Yield the numbers of threads, in order, those with forks together with all of these; several small trees."""
        group: list[int] = []
        rows = 0
        for thread in self.threads.values():
            if thread.number in self._forks and (thread.base is None or thread.base.thread not in self.threads):
                tree = [thread.number, *self.family(thread.number)]
                size = sum(self.threads[each].sequence for each in tree)
                if group and rows + size > _ROWS_MAX:
                    yield sorted(group)
                    group, rows = [], 0
                group += tree
                rows += size
        if group:
            yield sorted(group)

    def without_unseen(self, number: int, reading: Reading) -> Change:
        """Return the change that removes the rows of a thread that neither it nor any of its forks needs, if any.

        Each of these threads shows what it showed then, tags included, and stands where it stood; the change compares
        the records of all. Costs a look at the rows of the thread, and at those of its forks under the same ids as long
        as there are some that none has shown; only then what a prune of each costs, twice. Raises DamagedRecordError,
        DamagedObjectError or ObjectMissingError where what stays cannot be read.
        """
        nothing, thread, there = Change({}, {}), self.threads[number], number not in self._gone
        forks = [self.threads[each] for each in self.family(number)]
        if number in self._staying or not forks:
            return nothing
        rows: _Rows = dict(reading.scan(*keys.checkpoints_range(number, None)))
        if there:
            rows = {key: raw for key, raw in rows.items() if is_hidden(decode_events(key, raw))}
        viewers = [_Viewer(self._core, fork, number, reading) for fork in forks if fork.number not in self._gone]
        for viewer in viewers:
            rows = viewer.not_shown(rows, pruned=viewer.thread.number not in self._staying) if rows else rows
        own = _Viewer(self._core, thread, number, reading)
        viewers += [own] if there else []
        for viewer in viewers:
            rows = viewer.not_needed(rows) if rows else rows
        if not there:
            rows = own.not_in_bases(rows) if rows else rows
        if not rows:
            return nothing
        change = own.without(rows) if there else _trimmed(reading, thread, rows)
        told_by: dict[bytes, bytes | None] = {keys.thread_key(each.thread.number): each.raw for each in viewers}
        if all(viewer.stays({**told_by, **change.records}) for viewer in viewers):
            return Change({**told_by, **change.expected}, change.records)
        return nothing

    def family(self, number: int) -> list[int]:
        """Return the numbers of all threads that were forked from one, directly or not."""
        found = [*self._forks.get(number, ())]
        for fork in found:  # which grows meanwhile
            found += self._forks.get(fork, ())
        return found


def _trimmed(reading: Reading, thread: ThreadRecord, rows: _Rows) -> Change:
    """Return the change that removes rows of a thread that is gone itself."""
    key = keys.thread_key(thread.number)
    expected: dict[bytes, bytes | None] = {key: thread.encode(), **rows}
    records: dict[bytes, bytes | None] = dict.fromkeys(rows)
    records[key] = count_checkpoints(reading, thread, expected, records).encode()
    return Change(expected, records)


class _Viewer:
    """A thread that sees rows of a thread of this number: its own, or what it was forked from."""

    def __init__(self, core: Core, thread: ThreadRecord, number: int, reading: Reading) -> None:
        self._core = core
        self._reading = reading
        self.thread = thread
        self.raw = thread.encode()
        self._number = number

    @cached_property
    def _stretches(self) -> tuple[list[Segment], Segment]:
        """The stretches of its timeline above the one whose rows may go, newest first, and that one."""
        segments = Timeline(self._core, self.thread, self._reading).segments
        depth = next(depth for depth, each in enumerate(segments) if each.thread.number == self._number)
        return segments[:depth], segments[depth]

    def not_shown(self, rows: _Rows, *, pruned: bool) -> _Rows:
        """Return those rows that this thread does not see, and those that it hides if `pruned` ones may go."""
        above, below = self._stretches
        # Where a fork left before the head, when that checkpoint was put tells what came later.
        left_at = {keys.checkpoint_key(self._number, "", each) for each in below.bare}
        rows = {key: raw for key, raw in rows.items() if key not in left_at}
        seen = {key: events for key, raw in rows.items() if (events := _seen(below, key, raw))}
        if not pruned:
            return {key: raw for key, raw in rows.items() if key not in seen}
        prefix = len(keys.thread_key(self._number))
        wanted = [
            (key, segment, keys.thread_key(segment.thread.number) + key[prefix:])
            for segment in reversed(above)
            for key in seen
        ]
        found = self._reading.read([each for _, _, each in wanted]) if wanted else []
        for (key, segment, each), raw in zip(wanted, found, strict=True):
            if raw is not None:
                seen[key] = [*seen[key], *_seen(segment, each, raw, with_hidden=True)]
        return {key: raw for key, raw in rows.items() if key not in seen or is_hidden(seen[key])}

    def not_needed(self, rows: _Rows) -> _Rows:
        """Return those rows that nothing this thread shows is rebuilt by."""
        plan = self._plan()
        if self.thread.number == self._number:
            free = {keys.checkpoint_key(self._number, *slot) for slot in plan.droppable}
            return {key: raw for key, raw in rows.items() if key in free}
        idle = {keys.checkpoint_key(self._number, *slot) for slot in plan.idle}
        _, below = self._stretches
        return {key: raw for key, raw in rows.items() if key in idle or not _seen(below, key, raw)}

    def not_in_bases(self, rows: _Rows) -> _Rows:
        """Return those rows under whose ids there is none in what this thread was forked from: they may hide that."""
        prefix = len(keys.thread_key(self._number))
        bases = Timeline(self._core, self.thread, self._reading).segments[1:]
        wanted = [(key, keys.thread_key(base.thread.number) + key[prefix:]) for key in rows for base in bases]
        found = self._reading.read([each for _, each in wanted]) if wanted else []
        there = {key for (key, _), raw in zip(wanted, found, strict=True) if raw is not None}
        return {key: raw for key, raw in rows.items() if key not in there}

    def without(self, rows: _Rows) -> Change:
        """Return the change that removes rows of its own."""
        plan = self._plan()
        plan.drop_only({slot for slot in plan.droppable if keys.checkpoint_key(self._number, *slot) in rows})
        return Change(*plan.records(self.raw))

    def stays(self, records: Mapping[bytes, bytes | None]) -> bool:
        """Whether this thread shows what it showed, and stands where it stood, once `records` are written."""
        reading = self._ahead()
        raw = records[keys.thread_key(self.thread.number)]
        assert raw is not None
        before = _Standing(Timeline(self._core, self.thread, reading))
        after = _Standing(Timeline(self._core, ThreadRecord.decode(self.thread.number, raw), reading.after(records)))
        return before.shown == after.shown and before.is_kept_by(after)

    def _plan(self) -> Plan:
        thread, reading = self.thread, self._ahead()
        return Plan(self._core, thread, keep_visible, (), hide=False, namespace=None, exactly=True, reading=reading)

    def _ahead(self) -> Ahead:
        """Read all of the thread and of what it was forked from, as of one moment."""
        numbers = [segment.thread.number for segment in Timeline(self._core, self.thread, self._reading).segments]
        return Ahead.of(self._reading, ranges_of(numbers))


class _Standing:
    """What a thread shows, and where its namespaces stand."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._names = timeline.namespaces()
        self.shown = {
            (namespace, found.checkpoint_id): found.put
            for namespace in self._names
            for found in timeline.newest_first(namespace)
        }

    def is_kept_by(self, after: _Standing) -> bool:
        """Whether they stand there too in another view, now and as time travel to a root checkpoint finds them.

        Those that stand at what is not shown may be without a head. As in a prune, those of tasks do not count.
        """
        now, then = self._timeline, after._timeline
        moments = [at for namespace, each in self.shown if not namespace and (at := now.moment(each)) is not None]
        for namespace in self._names:
            head, left = now.head(namespace), then.head(namespace)
            shown = (namespace, head) in self.shown
            if left != head and (shown or left is not None):
                return False
            if not namespace or is_of_a_task(namespace):
                continue
            # What later moments are told from.
            if shown and now.told_head(namespace) == head != then.told_head(namespace):
                return False
            for moment in moments:
                stood, stands = (
                    now.head_at(moment[0], namespace, moment[1]),
                    then.head_at(moment[0], namespace, moment[1]),
                )
                if stands != stood and (stood is None or (namespace, stood) in self.shown):
                    return False
        return True


def _seen(segment: Segment, key: bytes, raw: bytes, *, with_hidden: bool = False) -> list[Event]:
    """Return the events of a row that a stretch has; none if it has no others than that it was pruned."""
    events = decode_events(key, raw)
    if segment.moment is not None:
        events = as_left(events, segment.moment, segment.made)
    return events if with_hidden or not all(isinstance(event, Hidden) for event in events) else []

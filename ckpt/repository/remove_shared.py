"""Removing what threads share and none of them shows: pruned from a thread and from all that were forked from it.

As long as one of them shows a checkpoint, its row stays for all, hidden in the others. A thread and its forks, theirs
included, are looked at together, as they were at one moment.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping

from ckpt.errors import IntegrityError
from ckpt.history import keys
from ckpt.history.checkpoints import Hidden, Put, as_left, decode_events, is_hidden, without_prunes
from ckpt.history.records import ThreadRecord, decode_line
from ckpt.repository.ahead import Ahead
from ckpt.repository.core import Core
from ckpt.repository.directory import Change
from ckpt.repository.gathered import ranges_of
from ckpt.repository.lineage import is_of_a_task
from ckpt.repository.plan import Plan
from ckpt.repository.prune import count_checkpoints, keep_visible
from ckpt.repository.stretches import Segment
from ckpt.repository.timeline import Timeline

_TOGETHER = 8192
"""Rows of several trees that are read at once, about."""

ROWS_MAX = 100_000
"""Rows of a tree that is looked at: all are in memory then, of one moment."""

Since = Callable[[Collection[int]], Mapping[int, int]]
"""Given the numbers of threads, from which of its sequence numbers on what was pruned of one may be brought back."""


def removals(
    core: Core,
    threads: Mapping[int, ThreadRecord],
    since: Since,
    *,
    pruned: Collection[int] | None = None,
    now: int | None = None,
) -> Iterator[tuple[Change, list[ThreadRecord]]]:
    """Yield for each thread with forks, with all of these, what removes the rows that nobody needs, if any.

    Needed is what a thread shows, or will once something is brought back, as `since` tells after the records were read;
    given `now`, those that have expired by then show nothing. What each shows stays as it is. The change compares the
    records of all. With it come the threads that are gone themselves, of which it removes rows. Given the threads that
    have `pruned` rows, others are not read, unless they share with one of these.

    Where a subgraph remembers from run to run nothing goes, as rows tell where it stood at earlier moments; nor where
    something cannot be read, nor of threads that have more than `ROWS_MAX` rows together. Costs a round trip for some
    thousand rows, and a look at all that each thread sees; only where some of it is shown by none, a prune of each.
    """
    for group in _groups(threads, pruned):
        numbers = [number for tree in group for number in tree]
        reading = Ahead.of(core.storage, ranges_of(numbers))
        restorable = since(numbers)
        for tree in group:
            try:
                found = _Tree(core, reading, tree, restorable, now)
                change = found.change()
            except IntegrityError:
                continue
            if change.records:
                yield change, [found.threads[number] for number in found.gone if number in found.forked]


def _groups(threads: Mapping[int, ThreadRecord], pruned: Collection[int] | None) -> Iterator[list[list[int]]]:
    """Yield the numbers of threads that have forks and of these, tree by tree, several small trees together."""
    forks: dict[int, list[int]] = {}
    for thread in threads.values():
        if thread.base is not None:
            forks.setdefault(thread.base.thread, []).append(thread.number)
    group: list[list[int]] = []
    rows = 0
    for number in forks:
        first = threads.get(number)
        if first is None or first.base is not None:
            continue
        tree = [number]
        for each in tree:  # which grows meanwhile
            tree += forks.get(each, ())
        size = sum(threads[each].sequence for each in tree)
        if size > ROWS_MAX or (pruned is not None and not any(each in pruned for each in tree)):
            continue
        if group and rows + size > _TOGETHER:
            yield group
            group, rows = [], 0
        group.append(sorted(tree))
        rows += size
    if group:
        yield group


class _Tree:
    """A thread and all that were forked from it, directly or not, as of one moment."""

    def __init__(
        self, core: Core, reading: Ahead, numbers: list[int], restorable: Mapping[int, int], now: int | None
    ) -> None:
        self._core = core
        self._reading = reading
        self._restorable = restorable
        raws = zip(numbers, reading.read([keys.thread_key(number) for number in numbers]), strict=True)
        self.threads = {number: ThreadRecord.decode(number, raw) for number, raw in raws if raw is not None}
        self.forked = {thread.base.thread for thread in self.threads.values() if thread.base is not None}
        self.gone = {
            number
            for number, thread in self.threads.items()
            if (thread.deleted or (now is not None and thread.lapsed(now))) and number not in restorable
        }
        self._viewers = [thread for number, thread in self.threads.items() if number not in self.gone]
        self._rows: dict[int, dict[bytes, bytes]] = {}
        """Those that may go, by the number of their thread."""
        self._again: set[int] = set()
        """The threads that see a checkpoint that was put more than once."""
        self._plans: dict[int, Plan] = {}

    def change(self) -> Change:
        """Return the change that removes what nobody needs."""
        nothing = Change({}, {})
        if self._remembers():
            return nothing
        self._rows = {number: self._candidates(number) for number in sorted(self.forked & self.threads.keys())}
        self._hiding_nothing()
        for look in (self._not_shown, self._not_needed):
            for thread in self._viewers:
                if any(self._rows.values()):
                    look(thread)
        self._hiding_nothing()
        if not any(self._rows.values()):
            return nothing
        expected: dict[bytes, bytes | None] = {keys.thread_key(n): each.encode() for n, each in self.threads.items()}
        records: dict[bytes, bytes | None] = {}
        for number, own in self._rows.items():
            change = self._trimmed(number, own) if number in self.gone else self._pruned(number, own)
            expected |= change.expected
            records |= change.records
        return Change(expected, records) if self._all_show_the_same(records) else nothing

    def _remembers(self) -> bool:
        """Whether any thread has a namespace of a subgraph that remembers from run to run."""
        lines = (row for number in self.threads for row in self._reading.scan(*keys.lines_range(number)))
        return any(not is_of_a_task(decode_line(*row).namespace) for row in lines)

    def _candidates(self, number: int) -> dict[bytes, bytes]:
        """Return the rows of a thread that it does not show itself."""
        since = self._restorable.get(number, sys.maxsize)
        rows = dict(self._reading.scan(*keys.checkpoints_range(number, None)))
        if number in self.gone:
            return rows
        return {key: raw for key, raw in rows.items() if is_hidden(without_prunes(decode_events(key, raw), since))}

    def _timeline(self, thread: ThreadRecord, reading: Ahead | None = None) -> Timeline:
        return Timeline(self._core, thread, reading or self._reading, self._restorable)

    def _not_shown(self, thread: ThreadRecord) -> None:
        """Leave out what a thread shows, and at which root checkpoints it was forked: they tell what came later."""
        timeline = self._timeline(thread)
        for segment in timeline.segments:
            for bare in segment.bare:
                self._stay(timeline, "", bare)
        for namespace in timeline.namespaces():
            for found in timeline.newest_first(namespace, hidden=True):
                if sum(isinstance(event, Put) for event in found.events) > 1:
                    self._again.add(thread.number)
                if not found.hidden:
                    self._stay(timeline, namespace, found.checkpoint_id)

    def _stay(self, timeline: Timeline, namespace: str, checkpoint_id: str) -> None:
        for segment in timeline.segments:
            if rows := self._rows.get(segment.thread.number):
                rows.pop(keys.checkpoint_key(segment.thread.number, namespace, checkpoint_id), None)

    def _not_needed(self, thread: ThreadRecord) -> None:
        """Leave out what is not shown, and what a thread shows is rebuilt by, or may be in a fork to come."""
        plan = self._plans[thread.number] = Plan(
            self._core, thread, keep_visible, (), hide=False, namespace=None, exactly=True,
            reading=self._reading, undone=self._restorable,
        )  # fmt: skip
        for segment in self._timeline(thread).segments:
            if not (rows := self._rows.get(segment.thread.number)):
                continue
            # Of an id that was put again a fork at an earlier moment sees what it was before.
            free = set() if thread.number in self._again else plan.idle
            idle = {keys.checkpoint_key(segment.thread.number, *slot) for slot in free}
            for key in [key for key, raw in rows.items() if key not in idle and _is_seen(segment, key, raw)]:
                del rows[key]

    def _hiding_nothing(self) -> None:
        """Leave out the rows that may say that what stays further down was pruned."""
        for number, rows in self._rows.items():
            below = self.threads[number].base
            while rows and below is not None and below.thread in self.threads:
                base, going = keys.thread_key(below.thread), self._rows.get(below.thread, {})
                same = {key: base + keys.within_thread(key, number) for key in rows}
                there = self._reading.read([*same.values()])
                for key, raw in zip(same, there, strict=True):
                    if raw is not None and same[key] not in going:
                        del rows[key]
                below = self.threads[below.thread].base

    def _pruned(self, number: int, own: Mapping[bytes, bytes]) -> Change:
        """Return the change that removes rows of a thread that is there."""
        plan = self._plans[number]
        slots = {slot for slot in plan.idle.union(plan.droppable) if keys.checkpoint_key(number, *slot) in own}
        plan.drop_only(slots)
        return Change(*plan.records(self.threads[number].encode())) if slots else Change({}, {})

    def _trimmed(self, number: int, own: Mapping[bytes, bytes]) -> Change:
        """Return the change that removes rows of a thread that is gone itself."""
        if not own:
            return Change({}, {})
        thread, expected = self.threads[number], dict[bytes, bytes | None](own)
        records: dict[bytes, bytes | None] = dict.fromkeys(own)
        records[keys.thread_key(number)] = count_checkpoints(self._reading, thread, expected, records).encode()
        return Change(expected, records)

    def _all_show_the_same(self, records: Mapping[bytes, bytes | None]) -> bool:
        """Whether all show what they showed and stand where they stood, which rows that nobody shows may tell too."""
        after = self._reading.after(records)
        for thread in self._viewers:
            raw = after.read([keys.thread_key(thread.number)])[0]
            assert raw is not None
            then = self._timeline(ThreadRecord.decode(thread.number, raw), after)
            if not _shows_the_same(self._timeline(thread), then):
                return False
        return True


def _shows_the_same(before: Timeline, after: Timeline) -> bool:
    """Whether a thread shows the same in two views; a namespace that stood at nothing shown may have no head then."""
    for namespace in before.namespaces():
        shown, then = _shown(before, namespace), _shown(after, namespace)
        head, left = before.head(namespace), after.head(namespace)
        if shown != then or (head != left and (left is not None or any(each == head for each, _ in shown))):
            return False
    return True


def _shown(timeline: Timeline, namespace: str) -> list[tuple[str, Put | None]]:
    return [(found.checkpoint_id, found.put) for found in timeline.newest_first(namespace)]


def _is_seen(segment: Segment, key: bytes, raw: bytes) -> bool:
    """Whether a stretch has anything of a row but that it was pruned."""
    events = as_left(decode_events(key, raw), segment.moment, segment.made)
    return not all(isinstance(event, Hidden) for event in events)

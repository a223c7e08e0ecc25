"""Many threads at once, for what concerns all threads of a store: their rows are read together, group by group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby, islice
from typing import TypeVar

from ckpt.errors import IntegrityError
from ckpt.history import clock, keys
from ckpt.history.checkpoints import current_put, decode_events
from ckpt.history.records import ThreadRecord
from ckpt.objects.ids import ObjectId
from ckpt.repository.ahead import Ahead
from ckpt.repository.core import Core
from ckpt.repository.directory import Directory
from ckpt.repository.mark import rows
from ckpt.repository.timeline import Timeline
from ckpt.storage.base import Range

_THREADS_MAX = 100
_ROWS_MAX = 2000
"""Rows of the threads that are read at once, about: of one that has more all are read at once in any case."""

_T = TypeVar("_T")


def timelines(core: Core, threads: Iterable[ThreadRecord], *, newest: int | None = None) -> Iterator[Timeline]:
    """Yield the views of threads, in the order given, each as it is when its turn comes.

    A thread that was deleted, removed or has expired meanwhile is left out. All that a view shows is of one moment, at
    which the rows of a group of threads were read, in a number of round trips that does not depend on how many they
    are. The commits of their checkpoints are loaded as well: with `newest` of so many in each namespace.
    """
    for group in groups(threads, _ROWS_MAX):
        ranges = ranges_of([*group, *_bases(core, group)])
        reading = Ahead.of(core.storage, ranges)
        # What is amiss is told by who looks at it. Whoever looks at more takes it page by page.
        with suppress(IntegrityError):
            core.commits(islice(_commits(reading, ranges, newest), _ROWS_MAX))
        now = clock.now_ms()
        for listed in group:
            raw = reading.read([keys.thread_key(listed.number)])[0]
            thread = ThreadRecord.decode(listed.number, raw) if raw is not None else None
            if thread is not None and not thread.deleted and not thread.lapsed(now):
                yield Timeline(core, thread, reading)


def look_at_all(
    core: Core, threads: Iterable[ThreadRecord], look: Callable[[Timeline], _T], *, newest: int | None = None
) -> Iterator[_T]:
    """Yield what `look` makes of each of the `timelines`; it is asked again where it stumbles over what was removed."""
    for timeline in timelines(core, by_number(threads), newest=newest):
        try:
            found = look(timeline)
        except IntegrityError:
            yield from core.consistently(partial(_looked_at, core, timeline.thread.name, look))
        else:
            yield found


def _looked_at(core: Core, name: str, look: Callable[[Timeline], _T]) -> list[_T]:
    """Return what is found of a thread, if it is still there."""
    known = Directory(core).find(name)
    return [look(Timeline(core, known[0]))] if known is not None else []


def by_number(threads: Iterable[ThreadRecord]) -> list[ThreadRecord]:
    """Return threads in the order in which their rows stand in a store."""
    return sorted(threads, key=lambda thread: thread.number)


def groups(threads: Iterable[ThreadRecord], rows_max: int) -> Iterator[list[ThreadRecord]]:
    """Yield threads in order, as many together as are worth one round trip: with so many rows, about."""
    group: list[ThreadRecord] = []
    size = 0
    for thread in threads:
        if group and (len(group) == _THREADS_MAX or size + thread.sequence > rows_max):
            yield group
            group, size = [], 0
        group.append(thread)
        size += thread.sequence
    if group:
        yield group


def _bases(core: Core, group: Sequence[ThreadRecord]) -> list[ThreadRecord]:
    """Return the threads that those of a group were forked from, as far back as it goes; one round trip for each step.

    What is not there is left out.
    """
    seen = {thread.number for thread in group}
    found: list[ThreadRecord] = []
    latest = group
    while wanted := sorted({each.base.thread for each in latest if each.base is not None} - seen):
        raws = core.storage.read([keys.thread_key(number) for number in wanted])
        latest = [ThreadRecord.decode(number, raw) for number, raw in zip(wanted, raws, strict=True) if raw is not None]
        seen.update(wanted)
        found += latest
    return found


def ranges_of(threads: Sequence[ThreadRecord]) -> list[Range]:
    """Return the ranges of all records of threads; threads that follow one another have one."""
    ranges: list[Range] = []
    for start, end in sorted(keys.thread_range(thread.number) for thread in threads):
        if ranges and ranges[-1][1] == start:
            start = ranges.pop()[0]
        ranges.append((start, end))
    return ranges


def _commits(reading: Ahead, ranges: Iterable[Range], newest: int | None) -> Iterator[ObjectId]:
    """Yield the commits of the checkpoints that are shown, or of the `newest` of each namespace."""
    for bounds in ranges:
        checkpoints = (row for row in rows(reading, bounds) if row.part == "c")
        for _, group in groupby(checkpoints, key=lambda row: (row.thread, keys.checkpoints_of(row.key, row.thread))):
            for row in list(group)[-newest if newest else None :]:
                put = current_put(decode_events(row.key, row.value))
                if put is not None:
                    yield put.commit

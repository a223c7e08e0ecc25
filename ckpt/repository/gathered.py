"""Many threads at once, for what concerns all threads of a store: their rows are read together, group by group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TypeVar

from ckpt.errors import IntegrityError
from ckpt.history import clock, keys
from ckpt.history.records import ThreadRecord
from ckpt.objects.ids import ObjectId
from ckpt.repository.ahead import Ahead
from ckpt.repository.core import Core
from ckpt.repository.directory import Directory
from ckpt.repository.timeline import Timeline
from ckpt.storage.base import Range, Reading

_THREADS_MAX = 100
_ROWS_MAX = 2000
"""Rows of threads that are read at once, about, and of those that they were forked from; of one that has more, all."""

_COMMITS_MAX = 128
"""Commits that are loaded at once: whoever looks at more of a thread loads them page by page."""

_T = TypeVar("_T")


def timelines(
    core: Core, threads: Iterable[ThreadRecord], *, namespace: str | None = None, newest: int | None = None
) -> Iterator[Timeline]:
    """Yield the views of threads, in the order given, each as it is when its turn comes.

    A thread that was deleted, removed or has expired meanwhile is left out. What a view shows is of one moment, at
    which the rows of a group of threads were read, those of one `namespace` or of all: in a number of round trips that
    does not depend on how many threads there are. What else it is asked it reads by itself, as it does of long bases.
    Over a network the commits of the `newest` checkpoints of each namespace are loaded as well.
    """
    for group in groups(threads, _ROWS_MAX):
        numbers = [thread.number for thread in (*group, *_bases(core, group))]
        reading = Ahead.of(core.storage, *_wanted(numbers, namespace))
        found = [each for listed in group if (each := _timeline(core, listed.number, reading)) is not None]
        yield from _with_commits(core, found, namespace, newest) if core.storage.remote else found


def _timeline(core: Core, number: int, reading: Reading) -> Timeline | None:
    (raw,) = reading.read([keys.thread_key(number)])
    if raw is None:
        return None
    thread = ThreadRecord.decode(number, raw)
    return None if thread.deleted or thread.lapsed(clock.now_ms()) else Timeline(core, thread, reading)


def _with_commits(
    core: Core, found: Iterable[Timeline], namespace: str | None, newest: int | None
) -> Iterator[Timeline]:
    """Yield views after their commits were loaded, many together. What is amiss is told by who looks at it."""
    for part, commits in _parts(found, namespace, newest):
        with suppress(IntegrityError):
            core.commits(commits)
        yield from part


def _parts(
    found: Iterable[Timeline], namespace: str | None, newest: int | None
) -> Iterator[tuple[list[Timeline], set[ObjectId]]]:
    part: list[Timeline] = []
    commits: set[ObjectId] = set()
    for timeline in found:
        part.append(timeline)
        with suppress(IntegrityError):
            commits.update(islice(_commits(timeline, namespace, newest), _COMMITS_MAX))
        if len(commits) >= _COMMITS_MAX:
            yield part, commits
            part, commits = [], set()
    yield part, commits


def _commits(timeline: Timeline, namespace: str | None, newest: int | None) -> Iterator[ObjectId]:
    """Yield the commits of the newest checkpoints of a namespace, or of each (None)."""
    for each in timeline.namespaces() if namespace is None else [namespace]:
        found = timeline.newest_first(each, prove=False, around=False)
        yield from (row.put.commit for row in islice(found, newest) if row.put is not None)


def look_at_all(
    core: Core,
    threads: Iterable[ThreadRecord],
    look: Callable[[Timeline], _T],
    *,
    damaged: Callable[[IntegrityError, Timeline], _T] | None = None,
    namespace: str | None = None,
    newest: int | None = None,
) -> Iterator[_T]:
    """Yield what `look` makes of each of the `timelines`; it is asked again where it stumbles over what was removed.

    Of a thread of which something is damaged or missing, yield what `damaged` makes; without it the error is raised.
    """
    for timeline in timelines(core, by_number(threads), namespace=namespace, newest=newest):
        try:
            found = look(timeline)
        except IntegrityError:
            yield from _looked_again(core, timeline.thread.name, look, damaged)
        else:
            yield found


def _looked_again(
    core: Core,
    name: str,
    look: Callable[[Timeline], _T],
    damaged: Callable[[IntegrityError, Timeline], _T] | None,
) -> list[_T]:
    try:
        return core.consistently(partial(_looked_at, core, name, look))
    except IntegrityError as error:
        if damaged is None:
            raise
        return _looked_at(core, name, partial(damaged, error))


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
    """Return threads that those of a group were forked from, as far back as there is room for their rows.

    One round trip for each step back. What is not there is left out.
    """
    seen = {thread.number for thread in group}
    found: list[ThreadRecord] = []
    latest = [*group]
    size = 0
    while wanted := sorted({each.base.thread for each in latest if each.base is not None} - seen):
        seen.update(wanted)
        raws = core.storage.read([keys.thread_key(number) for number in wanted])
        latest = []
        for number, raw in zip(wanted, raws, strict=True):
            base = ThreadRecord.decode(number, raw) if raw is not None else None
            # Its own record is a row, too.
            if base is not None and size + 1 + base.sequence <= _ROWS_MAX:
                size += 1 + base.sequence
                latest.append(base)
        found += latest
    return found


def _wanted(numbers: Sequence[int], namespace: str | None) -> tuple[list[Range], list[bytes]]:
    """Return the ranges and the single keys of what is read of threads."""
    if namespace is None:
        return ranges_of(numbers), []
    single = [keys.thread_key(number) for number in numbers]
    if namespace:
        single += [keys.line_key(number, namespace) for number in numbers]
    return [keys.checkpoints_range(number, namespace) for number in numbers], single


def ranges_of(numbers: Iterable[int]) -> list[Range]:
    """Return the ranges of all records of threads; threads that follow one another have one."""
    ranges: list[Range] = []
    for start, end in sorted(map(keys.thread_range, numbers)):
        if ranges and ranges[-1][1] == start:
            start = ranges.pop()[0]
        ranges.append((start, end))
    return ranges

"""Listing checkpoints while others write, prune and collect: of a thread page by page, of many as their turn comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush, heapreplace, merge
from itertools import dropwhile, islice
from typing import Generic, NamedTuple, Protocol, TypeVar

from ckpt.errors import IntegrityError
from ckpt.history.commits import Commit
from ckpt.objects.ids import ObjectId
from ckpt.repository.core import Core
from ckpt.repository.stretches import Found
from ckpt.repository.timeline import Timeline

Row = tuple[Found, ObjectId, Commit]
"""A checkpoint, and the commit that counts."""


class Listing:
    """Where a walk over the checkpoints of a thread stands: greatest id first, of one namespace or of all (None).

    `find` returns the thread's present view. It is asked for again only when a page stumbles over something that
    was removed meanwhile; the walk then goes on behind what it returned. Not for two threads at once.
    """

    def __init__(
        self, core: Core, find: Callable[[], Timeline | None], namespace: str | None, before: str | None
    ) -> None:
        self._core = core
        self._find = find
        self._namespace = namespace
        self._before = before
        self._thread: int | None = None
        self._rows: Iterator[Found] | None = None
        self._passed: dict[str, str] = {}
        self._last: str | None = None

    def page(self, size: int) -> list[Row]:
        """Return the next checkpoints, `size` of them unless the end is near; none at the end.

        All or nothing: a page that could not be read does not move the walk.
        """
        return self._core.consistently(lambda: self._attempt(size))

    def _attempt(self, size: int) -> list[Row]:
        try:
            if self._rows is None:
                self._rows = self._start()
            page = [(found, found.put) for found in islice(self._rows, size)]
            commits = self._core.commits(put.commit for _, put in page if put is not None)
        except IntegrityError:
            self._rows = None  # its rows may be older than what was removed
            raise
        for found, _ in page:
            self._last = self._passed[found.namespace] = found.checkpoint_id
        return [(found, put.commit, commits[put.commit]) for found, put in page if put is not None]

    def _start(self) -> Iterator[Found]:
        timeline = self._find()
        if timeline is None or self._thread not in (None, timeline.thread.number):
            return iter(())  # deleted; what has its name now is another thread
        self._thread = timeline.thread.number
        names = timeline.namespaces() if self._namespace is None else [self._namespace]
        sources = [timeline.newest_first(name, before=self._passed.get(name, self._before)) for name in names]
        rows = sources[0] if len(sources) == 1 else merge(*sources, key=lambda found: found.checkpoint_id, reverse=True)
        last = self._last
        # Of a namespace that had no turn yet, greater ids may have come since.
        return rows if last is None else (found for found in rows if found.checkpoint_id <= last)


class _Named(Protocol):
    @property
    def checkpoint_id(self) -> str: ...
    @property
    def thread(self) -> str: ...


_T = TypeVar("_T", bound=_Named)


class Walk(NamedTuple, Generic[_T]):
    """The checkpoints of a thread, greatest id first, none of which has a greater id than `bound`."""

    bound: str
    rows: Iterator[_T]


class _Begun(Generic[_T]):
    """A walk whose next row is at hand. It comes before others whose next row has a smaller id, or a greater name."""

    def __init__(self, row: _T, rest: Iterator[_T]) -> None:
        self.row = row
        self.rest = rest

    def __lt__(self, other: _Begun[_T]) -> bool:
        mine, others = self.row.checkpoint_id, other.row.checkpoint_id
        return mine > others or (mine == others and self.row.thread < other.row.thread)


def newest_first(walks: Iterable[Walk[_T]]) -> Iterator[_T]:
    """Yield the rows of all walks, greatest id first and then by thread, given those with the greatest bounds first.

    Each is begun only when rows of it may be next. A row beyond its walk's bound came too late, and is left out.
    """
    begun: list[_Begun[_T]] = []
    for bound, rows in walks:
        while begun and begun[0].row.checkpoint_id > bound:
            yield _next(begun)
        rest = dropwhile(lambda row, bound=bound: row.checkpoint_id > bound, rows)  # type: ignore[misc]
        if (first := next(rest, None)) is not None:
            heappush(begun, _Begun(first, rest))
    while begun:
        yield _next(begun)


def _next(begun: list[_Begun[_T]]) -> _T:
    row, rest = begun[0].row, begun[0].rest
    if (after := next(rest, None)) is None:
        heappop(begun)
    else:
        heapreplace(begun, _Begun(after, rest))
    return row

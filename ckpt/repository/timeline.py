"""Timelines: reading what hangs on a thread, its bases included, as of the moments at which forks left.

A thread sees its own rows and, for each base, the rows up to the moment it left there. All questions about a
thread are answered through this view, so that no reader can see what is not in its own line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from heapq import merge
from itertools import chain, groupby, islice
from operator import itemgetter
from types import MappingProxyType

from ckpt.history import keys
from ckpt.history.checkpoints import (
    Event,
    PendingWrite,
    Put,
    Spill,
    as_left,
    as_of,
    current_put,
    decode_events,
    pending_writes,
    without_prunes,
)
from ckpt.history.commits import Commit
from ckpt.history.records import Line, Reset, ThreadRecord, decode_line
from ckpt.history.seal import outdated
from ckpt.objects.ids import ObjectId
from ckpt.repository.begun import Begun
from ckpt.repository.core import Core
from ckpt.repository.directory import Directory
from ckpt.repository.lineage import resets_of
from ckpt.repository.proofs import Proofs
from ckpt.repository.replays import behind, is_ahead, is_before, is_overtaken
from ckpt.repository.spill import open_spills
from ckpt.repository.stretches import Found, Segment
from ckpt.repository.tales import Entry, Tale
from ckpt.storage.base import Reading

_PAGE = 256
_PAGE_FIRST = 32  # who looks from the newest on often needs a few


class Timeline:
    """The view of one thread as it was when this object was made; rows added since may or may not appear."""

    def __init__(
        self,
        core: Core,
        thread: ThreadRecord,
        reading: Reading | None = None,
        undone: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        """See a thread; with `undone` as if what was pruned of the threads of these numbers were back.

        That is, what was pruned at these sequence numbers of theirs or later.
        """
        self._core = core
        self._undone = undone
        self.reading = reading or core.storage
        """What its rows are read from."""
        self.thread = thread
        self._segments: list[Segment] | None = None
        self._proofs = Proofs(core, self.reading)
        self._tales: dict[tuple[int, str, int | None], Tale] = {}
        self._begun = Begun(core, self.reading, self._proofs)

    @property
    def segments(self) -> list[Segment]:
        """The stretches of this timeline, newest first."""
        if self._segments is None:
            segments = [Segment(self.thread, None, frozenset())]
            directory = Directory(self._core)
            while (base := segments[-1].thread.base) is not None:
                bare = segments[-1].bare | {base.bare} if base.bare is not None else segments[-1].bare
                below = directory.by_number(base.thread, self.reading)[0]
                if is_before(below, base):
                    raise outdated(f"thread number {below.number}, which others were forked from,")
                segments.append(Segment(below, base.moment, bare, base.made, base.bare))
            for depth, segment in enumerate(segments):
                if segment.thread.resets:
                    segment.thread.check_resets([below.moment for below in segments[depth:]])
            self._segments = segments
        return self._segments

    # -- lines and heads ----------------------------------------------------------------------------

    def own_line(self, namespace: str) -> Line | None:
        """Return the thread's own line, or None when this thread itself has no row in the namespace."""
        return self._proofs.line(self.thread, namespace)

    def saw_own_line(self, namespace: str, raw: bytes | None) -> Line | None:
        """Return the thread's own line from its record, which was read just now, and do not read it again."""
        return self._proofs.take_line(self.thread, namespace, raw)

    def head(self, namespace: str = "") -> str | None:
        """Return the id of the checkpoint that the next run continues from, or None."""
        return self._head(0, namespace, None) if namespace else self.thread.root.head

    def _check_record(self) -> None:
        """Raise DamagedRecordError if the root's head shows that the thread's record is an earlier version."""
        if self.thread.root.head is not None:
            self.find("", self.thread.root.head)
        else:
            self.prove("")

    def _head(self, depth: int, namespace: str, moment: int | None) -> str | None:
        thread = self.segments[depth].thread
        line = self._proofs.line(thread, namespace)
        if line is not None and moment is not None and line.moved > moment:
            return self._replay(depth, namespace, moment)[0]
        reset = self._last_reset(depth, namespace, moment)
        if reset is not None:
            if not depth:
                self._check_record()  # no row of this namespace says that there was a rewind
            # Not one within the other: a thread may be rewound a thousand times.
            while not reset.depth and (earlier := self._last_reset(depth, namespace, reset.moment)) is not None:
                reset = earlier
            return self.head_at(depth + reset.depth, namespace, reset.moment)
        if line is not None and line.moved:
            return line.head
        base = thread.base
        if base is None:
            return None
        below = self._head if base.bare is None else self.head_at
        return below(depth + 1, namespace, base.moment)

    def _last_reset(self, depth: int, namespace: str, moment: int | None) -> Reset | None:
        """Return the rewind since which a namespace has not moved; None where what was put in it tells its head."""
        thread = self.segments[depth].thread
        line = self._proofs.line(thread, namespace)
        moved = line.moved if line is not None else 0
        if moment is not None and moved > moment:
            return None
        known = (each for each in reversed(resets_of(thread, namespace)) if moment is None or each.at <= moment)
        last = next(known, None)
        return last if last is not None and last.at > moved else None

    def moment(self, checkpoint_id: str) -> tuple[int, int] | None:
        """Return when a root checkpoint was put, as `head_at` takes it: how far down, and the sequence number there."""
        for depth, segment in enumerate(self.segments):
            put = self.put_in(segment, "", checkpoint_id)
            if put is not None:
                return depth, put.sequence
        return None

    def head_at(self, depth: int, namespace: str, moment: int) -> str | None:
        """Return the head of a namespace as of the put of a root checkpoint: of what had begun before it.

        A subgraph may store its first checkpoint before the root's, under which it runs, has reached the store.
        """
        head = self._head(depth, namespace, moment)
        # There is none when its row lies further down.
        put = self.put_in(self.segments[depth], namespace, head) if head is not None else None
        if head is not None and put is None:
            self._proofs.around(self.segments[depth].thread, namespace, head)
        if put is None or not namespace or not self._begun.since(self.segments[depth].thread, put, moment):
            return head
        return self._replay(depth, namespace, moment, bare=True)[0]

    def head_moves(self, namespace: str = "") -> list[str]:
        """Return the heads that a namespace had one after another, the present one last."""
        _, moves = self._replay(0, namespace, self.thread.sequence)
        head = self.head(namespace)
        return moves if head is None or (moves and moves[-1] == head) else [*moves, head]

    def told_head(self, namespace: str) -> str | None:
        """Return the head of a namespace as its puts tell it now, which is what later moments are told from."""
        return self._replay(0, namespace, None)[0]

    def _replay(
        self, depth: int, namespace: str, moment: int | None, *, bare: bool = False
    ) -> tuple[str | None, list[str]]:
        """Return the head of a namespace at a moment, and all heads up to it, by telling its puts again.

        With `bare` those are left out that a run of the root checkpoint of that moment made, or a later one.
        """
        slot = depth, namespace, moment if bare else None
        if (tale := self._tales.get(slot)) is None:
            tale = self._tales[slot] = self._begin_tale(*slot)
        entries = tale.until(moment)
        commits = self._core.commits({entry.what for entry in entries if not isinstance(entry.what, Reset)})
        for entry in entries:
            if isinstance(what := entry.what, Reset):
                line = tale.line._replace(head=self.head_at(depth + what.depth, namespace, what.moment))
            else:
                parents = commits[what].parents
                line = tale.line.moved_to(entry.checkpoint_id, parents[0].checkpoint_id if parents else None, 0)
            tale.tell(entry, line)
        return tale.at(moment)

    def _begin_tale(self, depth: int, namespace: str, bare: int | None) -> Tale:
        """Return what is to be told of a namespace in one stretch, nothing of it told; see `_replay` for `bare`."""
        self._core.storage.check()
        thread, until = self.segments[depth].thread, bare or self.segments[depth].moment
        head: str | None = None
        moves: list[str] = []
        if (base := thread.base) is not None:
            head, moves = self._replay(depth + 1, namespace, base.moment, bare=base.bare is not None)
            if base.bare is not None and not namespace:
                head = base.bare
                moves.append(head)
        told: list[Entry] = []
        rows = self.reading.scan(*keys.checkpoints_range(thread.number, namespace))
        self._proofs.rows(thread, namespace, rows)
        for key, raw in rows:
            puts = [event for event in as_of(decode_events(key, raw), until) if isinstance(event, Put)]
            checkpoint_id = keys.checkpoint_id_of(key, thread.number)
            if bare is not None and namespace:
                puts = [put for put in puts if not self._begun.since(thread, put, bare)]
            told += [Entry(put.sequence, checkpoint_id, put.commit) for put in puts]
        told += [Entry(reset.at, "", reset) for reset in resets_of(thread, namespace)]
        return Tale(told, Line(namespace, head=head, greatest=max(moves, default="")), moves)

    def greatest(self, namespace: str) -> str:
        """Return the greatest id that this timeline sees in a namespace, or the empty string."""
        first = next(self.newest_first(namespace, hidden=True, prove=False), None)
        return first.checkpoint_id if first is not None else ""

    # -- checkpoints --------------------------------------------------------------------------------

    def find(self, namespace: str, checkpoint_id: str) -> Found | None:
        """Return one checkpoint, hidden ones included, or None when this timeline has nothing under that id."""
        return self.find_many(namespace, [checkpoint_id])[0]

    def find_many(self, namespace: str, checkpoint_ids: list[str]) -> list[Found | None]:
        """Return checkpoints in the order asked for, in one round trip for all that are there.

        Where an id may stand in several stretches, those without it are counted, unless there is nothing to count.
        """
        depths = [self._depth(checkpoint_id) for checkpoint_id in checkpoint_ids]
        wanted = [
            keys.checkpoint_key(segment.thread.number, namespace, checkpoint_id)
            for checkpoint_id, depth in zip(checkpoint_ids, depths, strict=True)
            for segment in self.segments[:depth]
        ]
        if len(self.segments) > 1:
            # A row found in one stretch says nothing of the rows under the same id in another.
            self._core.storage.check()
        rows = zip(wanted, self._read_rows(namespace, checkpoint_ids, wanted), strict=True)
        found: list[Found | None] = []
        absent: set[bytes] = set()
        for checkpoint_id, depth in zip(checkpoint_ids, depths, strict=True):
            own = list(islice(rows, depth))
            for segment, row in zip(self.segments, own, strict=False):
                self._proofs.head(segment.thread, namespace, checkpoint_id, *row)
            parts = [self._events(segment, namespace, *row) for segment, row in zip(self.segments, own, strict=False)]
            joined = self._joined(namespace, checkpoint_id, parts)
            found.append(joined._replace(record=own[0][1]) if joined is not None else None)
            absent.update(key for key, raw in own if raw is None)
            for segment, (key, raw) in zip(self.segments, own, strict=False):
                if joined is None or raw is not None:
                    continue
                if key in self._proofs.around(segment.thread, namespace, checkpoint_id):
                    self.prove(namespace, absent)
        if any(each is None for each in found):
            self.prove(namespace, absent)
        return found

    def _depth(self, checkpoint_id: str) -> int:
        """Return how many of the stretches, from the newest on, can have rows under an id that this timeline sees."""
        depth = 1
        while self.segments[depth - 1].thread.may_be_in_base(checkpoint_id):
            depth += 1
        return depth

    def _read_rows(self, namespace: str, checkpoint_ids: list[str], wanted: list[bytes]) -> list[bytes | None]:
        """Read rows; where the head may be among them, see whether another one was put since the thread's record."""
        root = self.thread.root
        if not namespace and root.head not in checkpoint_ids:
            return self.reading.read(wanted)
        line = self._proofs.known_line(self.thread, namespace) if namespace else None
        lines = [root, line] if line is not None else [root]
        asked = [keys.line_key(self.thread.number, namespace)] if namespace and line is None else []
        values, newer = self.reading.view([*wanted, *asked], [behind(self.thread, each) for each in lines])
        if asked and (raw := values.pop()) is not None:
            self._proofs.take_line(self.thread, namespace, raw)
        if any(map(is_overtaken, newer)) and self._proofs.is_current(self.thread):
            raise outdated(f"thread {self.thread.name!r}")
        return values

    def put_in(self, segment: Segment, namespace: str, checkpoint_id: str) -> Put | None:
        """Return the put of a checkpoint in one stretch of this timeline, or None."""
        key = keys.checkpoint_key(segment.thread.number, namespace, checkpoint_id)
        raw = self.reading.read([key])[0]
        return current_put(as_of(decode_events(key, raw), segment.moment)) if raw is not None else None

    def _events(self, segment: Segment, namespace: str, key: bytes, raw: bytes | None) -> list[Event]:
        if raw is None:
            return []
        events = decode_events(key, raw)
        if any(isinstance(event, Spill) for event in events):
            events = open_spills(events, self._core.objects.load)
        if is_ahead(segment.thread, events) and self._proofs.is_current(segment.thread):
            raise outdated(f"thread {segment.thread.name!r}")
        if (moment := segment.moment) is not None:
            events = as_left(events, moment, segment.made)
            # What came of the run of the checkpoint that was left has a greater id.
            left = segment.left if namespace and events else None
            if left is not None and keys.checkpoint_id_of(key, segment.thread.number) > left:
                events = self._begun.before(segment.thread, events, moment)
        if (undone := self._undone.get(segment.thread.number)) is not None:
            events = without_prunes(events, undone)
        if any(key == keys.checkpoint_key(segment.thread.number, "", bare) for bare in segment.bare):
            events = [event for event in events if isinstance(event, Put)]
        return events

    @staticmethod
    def _joined(namespace: str, checkpoint_id: str, parts: list[list[Event]]) -> Found | None:
        events = [event for part in reversed(parts) for event in part]
        return Found(namespace, checkpoint_id, tuple(events)) if events else None

    def prove(self, namespace: str, absent: Collection[bytes] = ()) -> None:
        """Raise DamagedRecordError unless every checkpoint ever put in this namespace is there.

        `absent` are keys that were not found one by one, and must not turn up in a scan either.
        """
        self._core.storage.check()
        for segment in self.segments:
            rows = self.reading.scan(*keys.checkpoints_range(segment.thread.number, namespace))
            self._proofs.rows(segment.thread, namespace, rows, absent)

    def namespaces(self) -> list[str]:
        """Return every namespace that has a row, sorted, and so the root first."""
        names = {""}
        for segment in self.segments:
            self._proofs.lines(segment.thread)
            for key, raw in self.reading.scan(*keys.lines_range(segment.thread.number)):
                names.add(decode_line(key, raw).namespace)
        return sorted(names)

    def newest_first(
        self,
        namespace: str,
        *,
        before: str | None = None,
        hidden: bool = False,
        prove: bool = True,
        around: bool = True,
    ) -> Iterator[Found]:
        """Yield the checkpoints of a namespace by id, greatest first, with ids less than `before`.

        Before the first, all rows of the namespace are read and counted, unless `prove` is off because the caller asks
        for single ones by id and would notice; then only where an id may stand in several stretches, and with `around`
        off not even there. Rows are read in pages then, so that those added meanwhile with smaller ids may appear.
        Hidden ones only if asked for. Those that only have pending writes so far are left out.
        """
        if prove:
            self._core.storage.check()
        sources = [
            self._rows(segment, namespace, before, depth, prove=prove) for depth, segment in enumerate(self.segments)
        ]
        # Of equal ids the newest stretch comes first, as it does among the sources.
        rows = merge(*sources, key=itemgetter(0), reverse=True)
        for checkpoint_id, group in groupby(rows, itemgetter(0)):
            parts = {depth: events for _, depth, events in group}
            if around and not prove:
                for depth, segment in enumerate(self.segments[: self._depth(checkpoint_id)]):
                    if depth not in parts:
                        self._proofs.around(segment.thread, namespace, checkpoint_id)
            found = self._joined(namespace, checkpoint_id, [*parts.values()])
            if found is not None and (found.put if hidden else found.shown) is not None:
                yield found

    def ancestors(self, namespace: str, checkpoint_id: str | None) -> Iterator[tuple[Found, Commit]]:
        """Yield a checkpoint and its ancestors by first parent, hidden ones included.

        Ends where a parent was never stored or where the line runs in a circle. Rows are read in pages, since
        a parent mostly has the next smaller id.
        """
        page: dict[str, Found] = {}
        commits: dict[ObjectId, Commit] = {}
        seen: set[str] = set()
        size = 1
        while checkpoint_id is not None and checkpoint_id not in seen:
            seen.add(checkpoint_id)
            if checkpoint_id not in page:
                first = self.find(namespace, checkpoint_id)
                if first is None:
                    return
                page = {checkpoint_id: first}
                if size > 1:
                    older = self.newest_first(namespace, before=checkpoint_id, hidden=True, prove=False)
                    page.update((found.checkpoint_id, found) for found in islice(older, size))
                size = min(4 * size, _PAGE)
                commits = self._core.commits(found.put.commit for found in page.values() if found.put is not None)
            found = page[checkpoint_id]
            if found.put is None:
                return
            commit = commits[found.put.commit]
            yield found, commit
            checkpoint_id = commit.parents[0].checkpoint_id if commit.parents else None

    def _rows(
        self, segment: Segment, namespace: str, before: str | None, depth: int, *, prove: bool
    ) -> Iterator[tuple[str, int, list[Event]]]:
        """Yield what a stretch has: an id, how far below the stretch is, and the events under the id."""
        number = segment.thread.number
        start, end = keys.checkpoints_range(number, namespace)
        below = end if before is None else min(end, keys.checkpoint_key(number, namespace, before))
        pages = self._pages(start, below, _PAGE_FIRST if before is None else _PAGE)
        if prove:
            rows = self.reading.scan(start, end)
            self._proofs.rows(segment.thread, namespace, rows)
            pages = iter([[row for row in reversed(rows) if row[0] < below]])
        for key, raw in chain.from_iterable(pages):
            events = self._events(segment, namespace, key, raw)
            if events:
                yield keys.checkpoint_id_of(key, number), depth, events

    def _pages(self, start: bytes, end: bytes, limit: int) -> Iterator[list[tuple[bytes, bytes]]]:
        """Yield the rows of a range in pages, the last of all first; `limit` is for the first page."""
        while start < end:
            page = self.reading.scan(start, end, limit=limit, reverse=True)
            yield page
            if len(page) < limit:
                return
            end, limit = page[-1][0], _PAGE

    def writes(self, found: Found) -> list[PendingWrite]:
        """Return the pending writes of a checkpoint that count, in (task path, task id, index) order."""
        return pending_writes(found.events)

"""What a prune removes of one thread and what stays, and the records that follow.

Namespaces hang together: from a root checkpoint that stays one can travel in time, and finds the subgraphs where
they stood then; and what a task's subgraph made is of use only as long as the checkpoint in whose step it ran.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from types import MappingProxyType
from typing import Final, Literal, get_args

from ckpt.history import keys
from ckpt.history.checkpoints import Hidden, decode_events, encode_events, newest
from ckpt.history.commits import Commit
from ckpt.history.records import Line, ThreadRecord, decode_line, encode_line
from ckpt.repository.ahead import Ahead
from ckpt.repository.core import Core
from ckpt.repository.lineage import above, is_of_a_task
from ckpt.repository.progress import lasts_a_step, rebuilt_channels
from ckpt.repository.stretches import Found
from ckpt.repository.timeline import Timeline
from ckpt.storage.base import Range, Reading

Reason = Literal["last", "within", "tag", "head", "needed"]
"""Why a checkpoint stays: by what a policy asks for, for its tag, as the end of a line, or for another that stays."""

Keep = Callable[[str, list[tuple[Found, Commit]], str | None], Mapping[str, Collection[Reason]]]
"""Given a namespace, its visible checkpoints newest first and its head, returns the ids to keep, each with why."""

_REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
_AHEAD_MAX = 8192
"""Up to how many checkpoints of a thread its tasks are looked at with the root's namespace: all are read at once."""


class Plan:
    """What goes and what stays of one thread; see `Pruner.prune`. With `hide` nothing is dropped.

    For `undone` see `Timeline`: what may be brought back counts as shown.
    """

    def __init__(
        self,
        core: Core,
        thread: ThreadRecord,
        keep: Keep,
        protected: Collection[tuple[str, str]],
        *,
        hide: bool,
        namespace: str | None,
        exactly: bool,
        reading: Reading | None = None,
        undone: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        self._core = core
        self._undone = undone
        self._thread = thread
        self._keep = keep
        self._protected = protected
        self._hide_all = hide
        self._exactly = exactly
        source = reading or core.storage
        self._reading = Ahead.of(source, self._ranges(source, namespace))
        self._timeline = Timeline(core, thread, self._reading, undone)
        self.kept: dict[tuple[str, str], tuple[Reason, ...]] = {}
        """What stays, each with why, newest first in each namespace."""
        self.removed: list[tuple[str, str]] = []
        self.droppable: list[tuple[str, str]] = []
        self.idle: set[tuple[str, str]] = set()
        """What does not stay, or did not, and is not needed to rebuild what does."""
        self._hide: list[tuple[str, str]] = []
        self._heads: dict[str, str | None] = {}
        self._as_they_are: dict[str, str | None] = {}
        """The heads of the namespaces of which nothing goes, where a rewind may have led to what does."""
        self._staying: dict[str, set[str]] = {}
        """The visible checkpoints that stay, of each namespace looked at so far."""
        self._moments: list[tuple[int, int]] = []
        """When the root checkpoints that stay were put, as `Timeline.head_at` takes it."""
        self._stood: dict[tuple[int, str, int], str | None] = {}
        """The heads that namespaces had at those moments."""
        if namespace:
            self._staying[""] = {found.checkpoint_id for found in self._timeline.newest_first("")}
            self._moments = self._moments_of_roots()
            self._prune(namespace)
        else:
            self._prune("", unclaimed=namespace is None)
            self._prune_below(everything=namespace is None)

    def _ranges(self, reading: Reading, namespace: str | None) -> list[Range]:
        """Return the ranges of the thread's records that the plan goes by."""
        number = self._thread.number
        lines, root, rows = keys.lines_range(number), *(keys.checkpoints_range(number, each) for each in ("", None))
        if namespace is None:
            return [lines, rows]
        few = self._thread.lines.count <= _AHEAD_MAX
        if namespace:
            return [root, keys.checkpoints_range(number, namespace), *([lines] if few else [])]
        known = reading.scan(*lines) if few and self._thread.lines.count else []
        counts = [decode_line(*row).census.count for row in known]
        few = few and self._thread.root.census.count + sum(counts) <= _AHEAD_MAX
        return [lines, rows] if few else [root]

    def _moments_of_roots(self) -> list[tuple[int, int]]:
        moments = (self._timeline.moment(each) for each in self._staying[""])
        return [moment for moment in moments if moment is not None]

    def _prune_below(self, *, everything: bool) -> None:
        """Let go of the tasks that are over, and prune all other namespaces if asked for."""
        self._moments = self._moments_of_roots()
        rewound = any(segment.thread.resets for segment in self._timeline.segments)
        if everything:
            names = self._timeline.namespaces()[1:]
        else:
            # A checkpoint may be the one that says that a subgraph's was made later than at an earlier moment, which is
            # also where a rewind may lead.
            if not rewound:
                gone = max((self._timeline.moment(each) or (0, 0) for _, each in self.droppable), default=(0, 0))
                self._moments = [moment for moment in self._moments if (0, 0) < moment < gone]
            lines = self._reading.rows(keys.lines_range(self._thread.number))
            names = sorted(decode_line(*row).namespace for row in lines)
        tasks = [] if self._exactly else [each for each in names if is_of_a_task(each)]
        parents = self._parents(tasks)
        for each in names:
            if each in parents and self._is_over(each, parents[each]):
                self._let_go(each)
            elif everything:
                self._prune(each, unclaimed=True)
            else:
                self._heads_then(each)
                if rewound:
                    self._as_they_are[each] = self._timeline.head(each)

    def _parents(self, tasks: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the checkpoints above those of tasks, by namespace, in a number of round trips that stays the same."""
        # Of a task all say the same, and it may have no head after a rewind.
        found = {each: next(self._timeline.newest_first(each, hidden=True), None) for each in tasks}
        puts = {each: row.put.commit for each, row in found.items() if row is not None and row.put is not None}
        commits = self._core.commits(puts.values())
        return dict(zip(puts, above(self._core, [commits[oid] for oid in puts.values()]), strict=True))

    def _is_over(self, task: str, parents: Mapping[str, str]) -> bool:
        """Whether the checkpoint above a task's is gone, and not just on its way: the line there went on since.

        Of those further up only what a task's own checkpoint hangs on counts: a subgraph that remembers goes on from
        where it stands, whatever became of the root checkpoint in whose step it ran.
        """
        if any(namespace == task for namespace, _ in self._protected):
            return False
        line = self._timeline.own_line(task) or Line(task)
        for namespace in sorted(parents, key=len, reverse=True):
            checkpoint_id = parents[namespace]
            if checkpoint_id not in self._staying.get(namespace, (checkpoint_id,)):
                stood = self._timeline.own_line(namespace) or Line(namespace)
                if max(line.moved, line.newest) < stood.moved and checkpoint_id <= self._greatest(stood):
                    return True
            if not is_of_a_task(namespace):
                return False
        return False

    def _greatest(self, line: Line) -> str:
        return line.greatest if line.greatest is not None else self._timeline.greatest(line.namespace)

    def _let_go(self, namespace: str) -> None:
        """Have a whole namespace go. As long as its rows stay its head is left: undoing a prune brings back both."""
        rows = list(self._timeline.newest_first(namespace, hidden=True))
        self._divide(namespace, rows, {}, self._in_bases(namespace, [found.checkpoint_id for found in rows]))
        self._drop_unclaimed(namespace, rows, None)
        self._heads[namespace] = self._timeline.head(namespace) if self._hide_all else None

    def _prune(self, namespace: str, *, unclaimed: bool = False) -> None:
        rows = list(self._timeline.newest_first(namespace, hidden=True))
        commits = self._core.commits(found.put.commit for found in rows if found.put is not None)
        pairs = {found.checkpoint_id: (found, commits[found.put.commit]) for found in rows if found.put is not None}
        visible = [(found, commit) for found, commit in pairs.values() if not found.hidden]
        head = self._timeline.head(namespace)
        why: defaultdict[str, set[Reason]] = defaultdict(set)
        for each, reasons in self._keep(namespace, visible, head).items():
            why[each].update(reasons)
        for ns, each in self._protected:
            if ns == namespace:
                why[each].add("tag")
        stood = self._heads_then(namespace)
        for each in stood if not self._exactly else ():
            why[each].add("needed")
        kept = why.keys() & {found.checkpoint_id for found, _ in visible}
        going = [each for each in pairs if each not in kept]
        needed = _needed_by_deltas(self._timeline, pairs, kept, self._rebuilt(pairs, kept)) if going else set[str]()
        self.idle.update((namespace, each) for each in going if each not in needed)
        self._divide(namespace, rows, {each: why[each] for each in kept}, needed | self._in_bases(namespace, going))
        if unclaimed:
            self._drop_unclaimed(namespace, rows, self._timeline.own_line(namespace))
        self._heads[namespace] = _new_head(namespace, head, kept, {each: commit for each, (_, commit) in pairs.items()})

    def _rebuilt(self, rows: Mapping[str, tuple[Found, Commit]], kept: Collection[str]) -> dict[str, set[str]]:
        """Return for each checkpoint that stays the channels that it may have a value of in an earlier one alone."""
        metadata = {each: rows[each][1].metadata for each in rows.keys() & set(kept)}
        data = self._core.value_bytes([*metadata.values()])
        found = {each: rebuilt_channels(metadata[each], read) for each, read in zip(metadata, data, strict=True)}
        # Where a serializer of its own hides what is said: all but what lives for a step by its nature.
        every = {name for _, commit in rows.values() for name in commit.channels if not lasts_a_step(name)}
        return {each: every if names is None else names for each, names in found.items()}

    def _heads_then(self, namespace: str) -> set[str]:
        """Return where a namespace stood at the moments of the root checkpoints that stay."""
        if not namespace or is_of_a_task(namespace):
            return set()  # after time travel there are other tasks
        heads = {(depth, namespace, at): self._timeline.head_at(depth, namespace, at) for depth, at in self._moments}
        self._stood |= heads
        return {head for head in heads.values() if head is not None}

    def _divide(
        self, namespace: str, rows: Iterable[Found], kept: Mapping[str, Set[Reason]], needed: Collection[str]
    ) -> None:
        self._staying[namespace] = set(kept)
        for found in rows:
            slot = (namespace, found.checkpoint_id)
            if found.checkpoint_id in kept:
                self.kept[slot] = tuple(reason for reason in _REASONS if reason in kept[found.checkpoint_id])
                continue
            if self._hide_all or found.checkpoint_id in needed:
                if not found.hidden:
                    self._hide.append(slot)
            else:
                self.droppable.append(slot)
            if not found.hidden:
                self.removed.append(slot)

    def _drop_unclaimed(self, namespace: str, rows: Iterable[Found], line: Line | None) -> None:
        """Have the rows go that have pending writes alone, of a line only those that its checkpoints have passed.

        A greater one may still be on its way: writes may come before their checkpoint.
        """
        number, known = self._thread.number, {found.checkpoint_id for found in rows}
        for key, raw in () if self._hide_all else self._reading.scan(*keys.checkpoints_range(number, namespace)):
            checkpoint_id = keys.checkpoint_id_of(key, number)
            if checkpoint_id not in known and (
                line is None
                or checkpoint_id <= self._greatest(line)
                # What it hid in a base is gone.
                or all(isinstance(event, Hidden) for event in decode_events(key, raw))
            ):
                self.droppable.append((namespace, checkpoint_id))

    def _in_bases(self, namespace: str, checkpoint_ids: list[str]) -> set[str]:
        """Return those of some checkpoints that have a row in a thread which this one was forked from."""
        below = [segment.thread.number for segment in self._timeline.segments[1:]]
        wanted = [(each, keys.checkpoint_key(number, namespace, each)) for each in checkpoint_ids for number in below]
        values = self._reading.read([key for _, key in wanted]) if wanted else []
        return {each for (each, _), raw in zip(wanted, values, strict=True) if raw is not None}

    def drop_only(self, slots: Collection[tuple[str, str]]) -> None:
        """Have nothing change but that the rows of these go, which were pruned before."""
        self.droppable = sorted(slots)
        self._hide = []
        self._heads = {namespace: self._heads[namespace] for namespace, _ in self.droppable}

    # -- what follows ---------------------------------------------------------------------------------

    def records(self, raw: bytes) -> tuple[dict[bytes, bytes | None], dict[bytes, bytes | None]]:
        """Return what must be and what becomes of the thread's records."""
        thread = self._thread
        expected: dict[bytes, bytes | None] = {keys.thread_key(thread.number): raw}
        records: dict[bytes, bytes | None] = {}
        sequence = thread.sequence + 1
        lines = {ns: self._timeline.own_line(ns) or Line(ns) for ns in self._heads}
        slots, hidden = [*self._hide, *self.droppable], set(self._hide)
        changing = [keys.checkpoint_key(thread.number, *slot) for slot in slots]
        for slot, key, old in zip(slots, changing, self._reading.read(changing), strict=True):
            namespace, _ = slot
            expected[key], records[key] = old, None
            if slot in hidden:
                events = decode_events(key, old) if old is not None else []
                records[key] = encode_events(key, [*events, Hidden(sequence)])
            lines[namespace] = thread.counted(lines[namespace], key, old, records[key])
        for namespace, line in lines.items():
            stood = self._timeline.own_line(namespace) or Line(namespace)
            head = self._heads[namespace]
            # A head that stays is left as it is told: a fork that left before a rewind reads this line too.
            if head != self._timeline.head(namespace):
                line = line._replace(head=head, moved=sequence, newest=self._newest(namespace, head))
            elif (namespace, line.head) in hidden:  # which a rewind may have left behind
                line = line._replace(newest=sequence)
            if line == stood:
                continue
            if not namespace:
                thread = thread._replace(root=line)
                continue
            key = keys.line_key(thread.number, namespace)
            expected[key] = self._reading.read([key])[0]
            # Without a base below it a line of nothing says no more than none.
            gone = not line.census.count and thread.base is None
            records[key] = encode_line(thread.number, line) if not gone else None
            thread = thread.recounted(key, expected[key], records[key])
        records[keys.thread_key(thread.number)] = thread._replace(sequence=sequence).encode()
        return expected, records

    def _newest(self, namespace: str, head: str | None) -> int:
        """Return the sequence number of the last event in the thread's own record of a new head; 0 without one."""
        if head is None:
            return 0
        key = keys.checkpoint_key(self._thread.number, namespace, head)
        return newest(key, self._reading.read([key])[0])

    def stands_as_before(self, records: Mapping[bytes, bytes | None]) -> bool:
        """Whether time travel finds every namespace where it stood, if that stays, once `records` are written.

        So it is for the roots to come, which begin from the heads of now.
        """
        raw = records[keys.thread_key(self._thread.number)]
        present = {
            each: head for each, head in (self._heads | self._as_they_are).items() if each and not is_of_a_task(each)
        }
        if raw is None or not (self._stood or present):
            return True
        told = [each for each, head in present.items() if head is not None and head == self._timeline.told_head(each)]
        thread = ThreadRecord.decode(self._thread.number, raw)
        timeline = Timeline(self._core, thread, self._reading.after(records), self._undone)
        return (
            all(timeline.head(each) == head for each, head in present.items())
            and all(timeline.told_head(each) == present[each] for each in told)
            and all(
                timeline.head_at(*moment) == head
                for moment, head in self._stood.items()
                if head is None or head in self._staying.get(moment[1], (head,))
            )
        )


def _new_head(namespace: str, head: str | None, kept: Collection[str], commits: Mapping[str, Commit]) -> str | None:
    """Return what a namespace continues from: the head or its nearest ancestor that stays, else what is before it."""
    if head is None:
        return None  # rewound to before its first checkpoint
    seen: set[str] = set()
    cursor: str | None = head
    while cursor is not None and cursor not in kept and cursor not in seen:
        seen.add(cursor)
        parents = commits[cursor].parents if cursor in commits else ()
        cursor = parents[0].checkpoint_id if parents else None
    if cursor in kept:
        return cursor
    # A subgraph must not go on from what it did later, as before a rewind; a thread without a head would seem empty.
    return max((each for each in kept if each < head), default=None if namespace else max(kept, default=None))


def _needed_by_deltas(
    timeline: Timeline,
    rows: Mapping[str, tuple[Found, Commit]],
    kept: Collection[str],
    named: Mapping[str, Collection[str]],
) -> set[str]:
    """Return the checkpoints by which a channel of a kept checkpoint is rebuilt, and those that lead to them.

    Such a channel has no value in the checkpoint; its value is that of the nearest ancestor with one, plus all
    writes on the ancestors since. It is one that the checkpoint itself names (see `rebuilt_channels`), or one with a
    write on the way before any value.
    """
    written = {
        each: {write.channel for write in timeline.writes(found) if not write.channel.startswith("__")}
        for each, (found, _) in rows.items()
    }
    # Other channels have a value right after each write, so that most walks end before their first step; but for what
    # lasts a step by its nature, where a rewind put a checkpoint that does not follow from the writes before it.
    rebuilt = {
        channel
        for _, commit in rows.values()
        for parent in commit.parents[:1]
        for channel in written.get(parent.checkpoint_id, set()) - commit.channels.keys()
        if not lasts_a_step(channel)
    }.union(*named.values())
    needed: set[str] = set()
    # Whether a walk that stood at a checkpoint, with the same to look for, needed any above it.
    known: dict[tuple[str, frozenset[str], frozenset[str]], bool] = {}
    for start in rows.keys() & set(kept):
        commit = rows[start][1]
        missing = rebuilt - commit.channels.keys()
        wanted = missing.intersection(named[start])
        path, stood, seen, above = list[str](), list[tuple[str, frozenset[str], frozenset[str]]](), {start}, False
        while missing and commit.parents and (cursor := commit.parents[0].checkpoint_id) in rows:
            if cursor in seen:
                break
            seen.add(cursor)
            path.append(cursor)
            commit = rows[cursor][1]
            wanted |= missing & written[cursor]
            if missing & written[cursor] or wanted & commit.channels.keys():
                needed.update(path)
                known.update(dict.fromkeys(stood, True))
                path, stood = [], []
            missing -= commit.channels.keys()
            wanted -= commit.channels.keys()
            place = cursor, frozenset(missing), frozenset(wanted)
            if place in known:
                above = known[place]
                break
            stood.append(place)
        if above:
            needed.update(path)
        known.update(dict.fromkeys(stood, above))
    return needed - set(kept)

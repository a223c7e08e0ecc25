"""Removing checkpoints from a thread without breaking what stays.

A checkpoint that goes is hidden instead of removed as long as a fork still sees its row, or a DeltaChannel of
a checkpoint that stays is rebuilt from the writes on it. Hidden rows are not listed and cannot be loaded; a
later prune removes those that nothing needs any more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ckpt.history import keys
from ckpt.history.checkpoints import Hidden, decode_events, encode_events, newest
from ckpt.history.commits import Commit
from ckpt.history.records import Line, ThreadRecord, decode_line, encode_line
from ckpt.repository.core import Core
from ckpt.repository.directory import Change, Directory
from ckpt.repository.mark import rows
from ckpt.repository.threads import Log, ThreadAdmin, silent
from ckpt.repository.timeline import Found, Timeline
from ckpt.storage.base import Batch, Reading


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a prune did, or would do: (namespace, checkpoint id) pairs, newest first in each namespace."""

    thread: str
    kept: tuple[tuple[str, str], ...]
    removed: tuple[tuple[str, str], ...]


Keep = Callable[[str, list[tuple[Found, Commit]], str | None], Collection[str]]
"""Given a namespace, its visible checkpoints newest first and its head, returns the ids to keep."""


def keep_last(count: int) -> Keep:
    """Keep the head and the newest checkpoints of every namespace, `count` together at least."""

    def keep(namespace: str, rows: list[tuple[Found, Commit]], head: str | None) -> Collection[str]:
        ids = [found.checkpoint_id for found, _ in rows]
        kept = [head] if head in ids else []
        kept += [each for each in ids if each != head][: max(count - len(kept), 0)]
        return kept

    return keep


def keep_heads_and(more: Keep) -> Keep:
    """Keep what `more` keeps, and every checkpoint that no other continues."""

    def keep(namespace: str, rows: list[tuple[Found, Commit]], head: str | None) -> Collection[str]:
        continued = {parent.checkpoint_id for _, commit in rows for parent in commit.parents}
        heads = [found.checkpoint_id for found, _ in rows if found.checkpoint_id not in continued]
        return [*more(namespace, rows, head), *heads]

    return keep


class Pruner:
    """Removes checkpoints of one thread at a time, each in one transaction."""

    def __init__(self, core: Core, directory: Directory, admin: ThreadAdmin) -> None:
        self._core = core
        self._directory = directory
        self._admin = admin

    def prune(
        self,
        name: str,
        keep: Keep,
        *,
        protected: Callable[[ThreadRecord], Collection[tuple[str, str]]] = lambda thread: (),
        log: Log = silent,
        dry_run: bool = False,
        undoable: bool = False,
        namespace: str | None = None,
    ) -> PruneReport:
        """Remove every checkpoint of a thread, or of one namespace, that `keep` and `protected` do not name.

        With `undoable` they are all hidden, to be removed by the collector. `log` is given the thread's number
        and the sequence number by which `unhide` brings them back.

        A namespace whose head goes continues from the head's nearest ancestor that stays, else from the greatest
        id that stays. A thread that does not exist has nothing to remove. Costs time in proportion to the
        thread's checkpoints.
        """

        def act() -> tuple[Batch, PruneReport]:
            found = self._directory.find(name)
            if found is None:
                return Batch(), PruneReport(name, (), ())
            thread, raw = found
            plan = _Plan(self._core, thread, keep, set(protected(thread)), undoable, namespace)
            report = PruneReport(name, tuple(plan.kept), tuple(plan.removed))
            if dry_run or not (plan.removed or plan.droppable):
                return Batch(), report
            expected, records = plan.records(raw)
            entry = log([thread.number, thread.sequence + 1])
            return Batch({**expected, **entry.expected}, {**records, **entry.records}), report

        return self._admin.atomically((name,), act)

    def unhide(self, number: int, sequence: int) -> tuple[Change, int]:
        """Return the change that brings back what the prune with this sequence number hid, and how many those are."""
        thread, raw = self._directory.by_number(number)
        expected: dict[bytes, bytes | None] = {}
        records: dict[bytes, bytes | None] = {}
        for row in rows(self._core.storage, keys.checkpoints_range(number, None)):
            events = decode_events(row.key, row.value)
            kept = [event for event in events if event != Hidden(sequence)]
            if len(kept) != len(events):
                expected[row.key] = row.value
                records[row.key] = encode_events(row.key, kept)
        count, key = len(records), keys.thread_key(number)
        thread = count_checkpoints(self._core.storage, thread, expected, records)
        expected[key], records[key] = raw, thread._replace(sequence=thread.sequence + 1).encode()
        return Change(expected, records), count


def count_checkpoints(
    reading: Reading, thread: ThreadRecord, expected: dict[bytes, bytes | None], records: dict[bytes, bytes | None]
) -> ThreadRecord:
    """Return a thread's record that counts its checkpoints as `records` changes them from what is `expected`.

    What becomes of its lines is added to both.
    """
    changed: dict[bytes, list[bytes]] = {}
    start, end = keys.checkpoints_range(thread.number, None)
    for key in records:
        if start <= key < end:
            changed.setdefault(keys.checkpoints_of(key, thread.number), []).append(key)

    def counted(line: Line) -> Line:
        head = keys.checkpoint_key(thread.number, line.namespace, line.head) if line.head is not None else None
        for key in changed.get(keys.checkpoints_range(thread.number, line.namespace)[0], ()):
            last = newest(key, records[key]) if key == head else None
            line = thread.counted(line, key, expected[key], records[key], last)
        return line

    thread = thread._replace(root=counted(thread.root))
    for key, raw in reading.scan(*keys.lines_range(thread.number)):
        before = decode_line(key, raw)
        after = counted(before)
        if after != before:
            expected[key], records[key] = raw, encode_line(thread.number, after)
            thread = thread.recounted(key, raw, records[key])
    return thread


class _Plan:
    """What goes and what stays of one thread, and the records that follow."""

    def __init__(
        self,
        core: Core,
        thread: ThreadRecord,
        keep: Keep,
        protected: set[tuple[str, str]],
        undoable: bool,
        namespace: str | None,
    ) -> None:
        self._core = core
        self._thread = thread
        self._hide_all = undoable or thread.forks > 0
        self._timeline = Timeline(core, thread)
        self.kept: list[tuple[str, str]] = []
        self.removed: list[tuple[str, str]] = []
        self.droppable: list[tuple[str, str]] = []
        self._hide: list[tuple[str, str]] = []
        self._heads: dict[str, str | None] = {}
        for each in self._timeline.namespaces() if namespace is None else [namespace]:
            self._namespace(each, keep, {cid for ns, cid in protected if ns == each})

    def _namespace(self, namespace: str, keep: Keep, protected: set[str]) -> None:
        rows = list(self._timeline.newest_first(namespace, hidden=True))
        commits = self._core.commits(found.put.commit for found in rows if found.put is not None)
        pairs = [(found, commits[found.put.commit]) for found in rows if found.put is not None]
        visible = [(found, commit) for found, commit in pairs if not found.hidden]
        head = self._timeline.head(namespace)
        kept = set(keep(namespace, visible, head)) | protected
        needed = _needed_by_deltas(
            self._timeline, {found.checkpoint_id: (found, commit) for found, commit in pairs}, kept
        )
        going = [found for found, _ in pairs if found.hidden or found.checkpoint_id not in kept]
        needed |= self._in_bases(namespace, [found.checkpoint_id for found in going])
        for found, _ in pairs:
            slot = (namespace, found.checkpoint_id)
            if found.checkpoint_id in kept and not found.hidden:
                self.kept.append(slot)
                continue
            if self._hide_all or found.checkpoint_id in needed:
                if not found.hidden:
                    self._hide.append(slot)
            else:
                self.droppable.append(slot)
            if not found.hidden:
                self.removed.append(slot)
        self._heads[namespace] = self._new_head(
            head, kept, dict(zip((f.checkpoint_id for f, _ in pairs), (c for _, c in pairs), strict=True))
        )

    def _in_bases(self, namespace: str, checkpoint_ids: list[str]) -> set[str]:
        """Return those of some checkpoints that have a row in a thread which this one was forked from."""
        below = [segment.thread.number for segment in self._timeline.segments[1:]]
        wanted = [(each, keys.checkpoint_key(number, namespace, each)) for each in checkpoint_ids for number in below]
        values = self._core.storage.read([key for _, key in wanted]) if wanted else []
        return {each for (each, _), raw in zip(wanted, values, strict=True) if raw is not None}

    @staticmethod
    def _new_head(head: str | None, kept: set[str], commits: Mapping[str, Commit]) -> str | None:
        if head is None:
            return None  # rewound to before its first checkpoint
        seen: set[str] = set()
        cursor: str | None = head
        while cursor is not None and cursor not in kept and cursor not in seen:
            seen.add(cursor)
            parents = commits[cursor].parents if cursor in commits else ()
            cursor = parents[0].checkpoint_id if parents else None
        return cursor if cursor in kept else max(kept, default=None)

    def records(self, raw: bytes) -> tuple[dict[bytes, bytes | None], dict[bytes, bytes | None]]:
        """Return what must be and what becomes of the thread's records."""
        thread, storage = self._thread, self._core.storage
        expected: dict[bytes, bytes | None] = {keys.thread_key(thread.number): raw}
        records: dict[bytes, bytes | None] = {}
        sequence = thread.sequence + 1
        lines = {ns: self._timeline.own_line(ns) or Line(ns) for ns in self._heads}
        hide = [keys.checkpoint_key(thread.number, *slot) for slot in self._hide]
        drop = [keys.checkpoint_key(thread.number, *slot) for slot in self.droppable]
        hiding = set(hide)
        before = storage.read([*hide, *drop])
        for (namespace, _), key, old in zip([*self._hide, *self.droppable], [*hide, *drop], before, strict=True):
            expected[key], records[key] = old, None
            if key in hiding:
                events = decode_events(key, old) if old is not None else []
                records[key] = encode_events(key, [*events, Hidden(sequence)])
            lines[namespace] = thread.counted(lines[namespace], key, old, records[key])
        for namespace, line in lines.items():
            stood = self._timeline.own_line(namespace) or Line(namespace)
            head = self._heads[namespace]
            # A head that stays is left as it is told: a fork that left before a rewind reads this line too.
            if head != self._timeline.head(namespace):
                line = line._replace(head=head, moved=sequence, newest=self._newest(namespace, head))
            if line == stood:
                continue
            if not namespace:
                thread = thread._replace(root=line)
                continue
            key = keys.line_key(thread.number, namespace)
            expected[key] = storage.read([key])[0]
            records[key] = encode_line(thread.number, line)
            thread = thread.recounted(key, expected[key], records[key])
        records[keys.thread_key(thread.number)] = thread._replace(sequence=sequence).encode()
        return expected, records

    def _newest(self, namespace: str, head: str | None) -> int:
        """Return the sequence number of the last event in the thread's own record of a new head; 0 without one."""
        if head is None:
            return 0
        key = keys.checkpoint_key(self._thread.number, namespace, head)
        return newest(key, self._core.storage.read([key])[0])


def _needed_by_deltas(timeline: Timeline, rows: Mapping[str, tuple[Found, Commit]], kept: Collection[str]) -> set[str]:
    """Return the checkpoints by which a channel of a kept checkpoint is rebuilt, and those that lead to them.

    Such a channel has no value in the checkpoint; its value is that of the nearest ancestor with one, plus all
    writes on the ancestors since. A channel with a value on the way before any write to it needs nothing.
    """
    written = {
        each: {write.channel for write in timeline.writes(found) if not write.channel.startswith("__")}
        for each, (found, _) in rows.items()
    }
    # Other channels have a value right after each write, so that most walks end before their first step.
    rebuilt = {
        channel
        for _, commit in rows.values()
        for parent in commit.parents[:1]
        for channel in written.get(parent.checkpoint_id, set()) - commit.channels.keys()
    }
    needed: set[str] = set()
    # Whether a walk that stood at a checkpoint, with the same to look for, needed any above it.
    known: dict[tuple[str, frozenset[str], frozenset[str]], bool] = {}
    for start in rows.keys() & set(kept):
        commit = rows[start][1]
        missing, wanted = rebuilt - commit.channels.keys(), set[str]()
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

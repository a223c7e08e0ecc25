"""Removing checkpoints from a thread without breaking what stays: what goes, and in which transaction.

A checkpoint that goes is hidden instead of removed as long as a fork still sees its row, or a DeltaChannel of
a checkpoint that stays is rebuilt from the writes on it. Hidden rows are not listed and cannot be loaded; a
later prune removes those that nothing needs any more. Which rows those are is worked out in `ckpt.repository.plan`,
and for threads with forks in `ckpt.repository.remove_shared`, for the collector.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

from ckpt.history import keys
from ckpt.history.checkpoints import Hidden, decode_events, encode_events, newest
from ckpt.history.commits import Commit
from ckpt.history.records import Line, ThreadRecord, decode_line, encode_line
from ckpt.repository.core import Core
from ckpt.repository.directory import Change, Directory
from ckpt.repository.mark import rows
from ckpt.repository.plan import Keep, Plan, Reason
from ckpt.repository.stretches import Found
from ckpt.repository.tags import Guard
from ckpt.repository.threads import Log, ThreadAdmin, silent
from ckpt.repository.timeline import Timeline
from ckpt.storage.base import Batch, Reading


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a prune did, or would do: (namespace, checkpoint id) pairs, newest first in each namespace.

    `reasons` say of each of `kept` why it stays, in the same order: it is among the "last" ones or "within" the time to
    keep, it has a "tag" here or in a fork, it is the "head" of a namespace or of a branch, or it is "needed" by a root
    checkpoint that stays, whose subgraph stood there. Each suffices. Where nobody asks why, there are none.
    """

    thread: str
    kept: tuple[tuple[str, str], ...]
    removed: tuple[tuple[str, str], ...]
    reasons: tuple[tuple[Reason, ...], ...]


def keep_last(count: int) -> Keep:
    """Keep the head and the newest checkpoints of every namespace, `count` together at least."""
    last: tuple[Reason, ...] = ("last",)

    def keep(namespace: str, rows: list[tuple[Found, Commit]], head: str | None) -> Mapping[str, Collection[Reason]]:
        ids = [found.checkpoint_id for found, _ in rows]
        kept = [head] if head in ids else []
        kept += [each for each in ids if each != head][: max(count - len(kept), 0)]
        return dict.fromkeys(kept, last)

    return keep


def keep_visible(
    namespace: str, visible: list[tuple[Found, Commit]], head: str | None
) -> Mapping[str, Collection[Reason]]:
    """Keep all that was not pruned before."""
    return {found.checkpoint_id: () for found, _ in visible}


def keep_heads_and(more: Keep) -> Keep:
    """Keep what `more` keeps, the head, and every checkpoint that no other continues."""

    def keep(namespace: str, rows: list[tuple[Found, Commit]], head: str | None) -> Mapping[str, Collection[Reason]]:
        continued = {parent.checkpoint_id for _, commit in rows for parent in commit.parents} - {head}
        heads = [found.checkpoint_id for found, _ in rows if found.checkpoint_id not in continued]
        kept = more(namespace, rows, head)
        return {**kept, **{each: (*kept.get(each, ()), "head") for each in heads}}

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
        guard: Callable[[ThreadRecord], Guard] = lambda thread: Guard(),
        undone: Callable[[], Mapping[int, int]] = dict,
        log: Log = silent,
        dry_run: bool = False,
        undoable: bool = False,
        namespace: str | None = None,
        exactly: bool = False,
    ) -> PruneReport:
        """Remove every checkpoint of a thread, or of one namespace, that `keep` and `guard` do not name.

        For time travel to the root checkpoints that stay, those stay too at which the subgraphs stood that
        remember from run to run. What the subgraph of a task made goes with the checkpoint in whose step the task
        ran, wholly; this is done along with the root's namespace. With `exactly` neither is so, and what is named
        decides alone.

        What `undone` says may be brought back, asked after the thread was read, counts as shown (see `Timeline`). With
        `undoable` they are all hidden, to be removed by the collector. `log` is given the thread's number
        and the sequence number by which `unhide` brings them back.

        A namespace whose head goes continues from the head's nearest ancestor that stays, else from the greatest
        id that stays and is less; the root's else from the greatest. Pending writes whose checkpoint is not there,
        though a greater one is, go with a prune of all namespaces. A thread that does not exist has nothing to
        remove. Costs time in proportion to the thread's checkpoints.
        """

        def act() -> tuple[Batch, PruneReport]:
            found = self._directory.find(name)
            if found is None:
                return Batch(), PruneReport(name, (), (), ())
            thread, raw = found
            kept, guarding = guard(thread)
            hide = undoable or thread.forks > 0
            planned = partial(
                Plan, self._core, thread, keep, set(kept), namespace=namespace, exactly=exactly, undone=undone()
            )
            plan = planned(hide=hide)
            report = PruneReport(name, tuple(plan.kept), tuple(plan.removed), tuple(plan.kept.values()))
            if dry_run or not (plan.removed or plan.droppable):
                return Batch(), report
            expected, records = plan.records(raw)
            if plan.droppable and not plan.stands_as_before(records):
                # Where ids do not come in their order, the rows that stay may tell of other heads than all did.
                plan = planned(hide=True)
                if not plan.removed:
                    return Batch(), report
                expected, records = plan.records(raw)
            entry = log([thread.number, thread.sequence + 1])
            return Batch({**guarding, **expected, **entry.expected}, {**records, **entry.records}), report

        return self._admin.atomically((name,), act)

    def has_work(self, timeline: Timeline, keep: Keep, protected: Collection[tuple[str, str]]) -> bool:
        """Whether `prune` would change anything about a thread, all of its namespaces taken, as this view shows it."""
        thread, reading = timeline.thread, timeline.reading
        hide = thread.forks > 0
        plan = Plan(self._core, thread, keep, protected, hide=hide, namespace=None, exactly=False, reading=reading)
        return bool(plan.removed or plan.droppable)

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

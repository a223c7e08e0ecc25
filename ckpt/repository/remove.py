"""Removing: takes the records out of one graph of what was let go, so that the collector can free their objects.

Every step is one transaction that compares what it relies on; what an operation can still restore stays, and so
does what a fork still sees. Two may be at it at once, and one that is stopped has removed nothing by halves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain, islice, takewhile

from ckpt.errors import IntegrityError
from ckpt.history import clock, keys
from ckpt.history.checkpoints import Hidden, as_of, current_put, decode_events, encode_events, shown_put
from ckpt.history.items import ItemRecord
from ckpt.history.records import ThreadRecord, decode_line
from ckpt.repository.core import Core
from ckpt.repository.directory import GHOSTS_MAX, Change, Directory, ghost_hash, with_ghosts
from ckpt.repository.mark import collected, rows, thread_records
from ckpt.repository.memory_writer import count_items
from ckpt.repository.operations import OperationLog
from ckpt.repository.prune import Pruner, count_checkpoints, keep_visible
from ckpt.repository.remove_shared import removals
from ckpt.repository.remove_short import ShortThreads, without
from ckpt.repository.tags import Tag, Tags
from ckpt.repository.threads import ThreadAdmin, silent
from ckpt.repository.timeline import Timeline
from ckpt.repository.versions import until
from ckpt.storage.base import Batch, RecordChangedError
from ckpt.storage.turns import Turns

_ON_NUMBERS = frozenset({"fork", "delete", "prune", "expire"})
"""Operations whose first fact is the number of the thread that undoing them takes."""

_ROWS = 500
_ATTEMPTS = 3


class Remover:
    """Removes from one graph the records of what was let go."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._directory = Directory(core)
        self._admin = ThreadAdmin(core, self._directory)
        self._pruner = Pruner(core, self._directory, self._admin)
        self._operations = OperationLog(core, "")
        self._tags = Tags(core)
        self._turns = Turns()
        # Of the threads that an operation numbered up to the end of the log can restore: from which of its sequence
        # numbers on what was pruned can be brought back, 0 for all of a thread.
        self._kept: dict[int, int] = {}
        self._log_end = 0

    @property
    def restorable(self) -> int:
        """Of how many threads operations can bring something back, as the log was when it was read last."""
        return len(self._kept)

    def remove(self, until: float) -> int:
        """Remove what was let go before a time in seconds since 1970; return how many threads are.

        What has expired goes at once, even if it was deleted lately: nobody can bring it back. What has forks that stay
        is not counted: it stays for them.
        """
        now = clock.now_ms()
        # Before the log: of what is listed here, the log then tells who can restore it.
        gone = [thread for thread in self._threads() if thread.deleted or thread.lapsed(now)]
        over = {thread.number for thread in gone if thread.lapsed(now)}
        self._read_log(until, over)
        doomed = [thread for thread in gone if thread.number not in self._kept]
        short = ShortThreads(self._core, self._restorable_of).remove(doomed)
        doomed = [thread for thread in doomed if thread.number not in short]
        for thread in doomed:
            if not thread.deleted:
                self._admin.release_expired([thread.name])
        removed = len(short) + self._remove_threads(doomed)
        self._remove_hidden()
        return removed

    def _threads(self) -> Iterator[ThreadRecord]:
        for number, raw in thread_records(self._core.storage):
            yield ThreadRecord.decode(number, raw)

    def _settle(self, numbers: Sequence[int]) -> tuple[Batch, None]:
        return self._operations.settled(numbers), None

    def _read_log(self, until: float, over: Collection[int]) -> None:
        """Forget what undoing operations takes if they are older than `until`, or on threads that are over.

        Learns which threads one of the others can restore, wholly or in part.
        """
        old: list[int] = []
        for operation in self._operations.newest_first():
            self._log_end = max(self._log_end, operation.number)
            number = operation.facts[0] if operation.facts else None
            if operation.time <= until or (operation.kind in _ON_NUMBERS and number in over):
                old += [operation.number] if operation.facts else []
            else:
                operation.note_restorable(self._kept)
        for start in range(0, len(old), _ROWS):
            self._admin.atomically((), partial(self._settle, old[start : start + _ROWS]))

    def _restorable(self, number: int) -> bool:
        return number in self._restorable_of([number])

    def _restorable_of(self, numbers: Collection[int]) -> dict[int, int]:
        """Return which threads an operation can restore, wholly or in part, as the log is now, and from where on.

        To be asked after the threads' records were read, by a change that compares them.
        """
        end = self._log_end
        for operation in takewhile(lambda each: each.number > end, self._operations.newest_first()):
            self._log_end = max(self._log_end, operation.number)
            operation.note_restorable(self._kept)
        return {number: self._kept[number] for number in numbers if number in self._kept}

    def _remove_threads(self, doomed: list[ThreadRecord]) -> int:
        """Remove deleted threads without forks, and return how many; of the others keep what a fork still sees."""
        waiting = {thread.number: thread for thread in doomed}
        progress = True
        while waiting and progress:
            progress = False
            for number, thread in list(waiting.items()):
                if self._unless_collected(thread, partial(self._remove_thread, thread)):
                    del waiting[number]
                    progress = True
        moments: dict[int, int] = {}
        for thread in self._threads():
            if thread.base is not None:
                moments[thread.base.thread] = max(moments.get(thread.base.thread, 0), thread.base.moment)
        for number, thread in waiting.items():
            if number in moments:
                self._unless_collected(thread, partial(self._trim, number, moments[number]))
        return len(doomed) - len(waiting)

    def _unless_collected(self, thread: ThreadRecord, act: Callable[[], bool]) -> bool:
        """Run an act on a doomed thread; return True too when it stumbles because another collector removed it."""
        try:
            return act()
        except IntegrityError:
            if not collected(self._core.storage, thread.name, thread.number):
                raise
            return True

    def _remove_thread(self, listed: ThreadRecord) -> bool:
        """Remove a deleted thread; False while it has forks, True also when it is to stay after all."""
        thread = self._directory.by_number(listed.number)[0]
        if thread.forks:
            return False
        ghosts = self._ghosts(thread)
        if not self._admin.atomically((thread.name,), partial(self._condemned, thread, ghosts)):
            return True
        for tag, owner in self._going_with(thread, Timeline(self._core, thread)):
            self._admin.atomically((), partial(self._untagged, thread, tag, owner))
        below = (row.key for row in rows(self._core.storage, keys.thread_range(thread.number)) if row.part)
        while page := list(islice(below, _ROWS)):
            with self._turns.step():
                if not self._admin.atomically((), partial(self._without_rows, thread, page)):
                    return True
        self._admin.atomically((thread.name,), partial(self._without_record, thread))
        return True

    def _without_rows(self, thread: ThreadRecord, page: list[bytes]) -> tuple[Batch, bool]:
        key = keys.thread_key(thread.number)
        raw = self._core.storage.read([key])[0]
        # A server that has lost what it was told last may have the thread alive again.
        if not _doomed(thread.number, raw):
            return Batch(), False
        return Batch({key: raw}, dict.fromkeys(page)), True

    def _ghosts(self, thread: ThreadRecord) -> list[bytes]:
        """Return the hashes of the checkpoint ids that a thread sees, its own last, where most are remembered.

        Nothing is proved: a collector that was stopped may have removed some rows already. Where what a thread sees of
        others cannot be read, its own are all.
        """
        storage, timeline = self._core.storage, Timeline(self._core, thread)
        names, hashes = {""}, list[bytes]()
        with suppress(IntegrityError):
            for segment in timeline.segments:
                for key, raw in storage.scan(*keys.lines_range(segment.thread.number)):
                    names.add(decode_line(key, raw).namespace)
            walks = (timeline.newest_first(name, hidden=True, prove=False, around=False) for name in sorted(names))
            for found in islice(chain.from_iterable(walks), GHOSTS_MAX):
                hashes.append(ghost_hash(found.checkpoint_id))
        for row in rows(storage, keys.thread_range(thread.number)):
            if row.part == "c":
                hashes.append(ghost_hash(keys.checkpoint_id_of(row.key, thread.number)))
        return hashes

    def _condemned(self, thread: ThreadRecord, ghosts: list[bytes]) -> tuple[Batch, bool]:
        """Return what is to be written before anything of a thread is removed, and whether it may be.

        From here on nothing restores the thread. Its ghosts are remembered now, while all of its rows are there.
        """
        key = keys.thread_key(thread.number)
        raw = self._core.storage.read([key])[0]
        if not _doomed(thread.number, raw) or self._restorable(thread.number):
            return Batch(), False
        named, named_raw = self._directory.name_record(thread.name)
        if named is None or named.thread == thread.number:
            # Restored just now, or an earlier version of a record was put back: its rows are not ours to remove.
            return Batch(), False
        # Of a thread that has expired nothing stays, its name included.
        name = named if thread.lapsed(clock.now_ms()) else with_ghosts(named, ghosts)
        if name == named:
            return Batch(), True
        change = self._directory.renamed(thread.name, named_raw, name)
        return Batch({**change.expected, key: raw}, change.records), True

    def _without_record(self, thread: ThreadRecord) -> tuple[Batch, None]:
        """Return the change that removes the record of a thread whose rows are gone, unless it was removed already."""
        raw = self._core.storage.read([keys.thread_key(thread.number)])[0]
        named, named_raw = self._directory.name_record(thread.name)
        if raw is None or named is None or not _doomed(thread.number, raw):
            return Batch(), None
        return Batch(*without(self._directory, thread, raw, named, named_raw)), None

    def _going_with(self, thread: ThreadRecord, timeline: Timeline) -> Iterator[tuple[Tag, int | None]]:
        """Yield the tags that name nothing any more once a thread is gone, and those that name what is below it.

        The latter with the number of the thread whose they are then: the first below that still shows what they name,
        or else a fork of those that does.
        Of its own those go of which the row is there, or nowhere below; of threads that are gone those of which it is.
        A thread that is there may have the same checkpoint under the same id: its tag stays.
        """
        tags = self._tags.all()
        own = [keys.checkpoint_key(thread.number, tag.namespace, tag.checkpoint_id) for tag in tags]
        owners = [keys.thread_key(tag.thread) for tag in tags]
        found = self._core.storage.read([*own, *owners])
        for tag, raw, owner in zip(tags, found, found[len(tags) :], strict=False):
            if tag.thread != thread.number and (raw is None or owner is not None):
                continue
            own_put = None
            with suppress(IntegrityError):
                own_put = timeline.put_in(timeline.segments[0], tag.namespace, tag.checkpoint_id)
            if own_put is not None and own_put.commit == tag.commit:
                yield tag, None
            elif tag.thread == thread.number:
                yield tag, self._heir(tag, [segment.thread.number for segment in timeline.segments[1:]])

    def _heir(self, tag: Tag, below: Collection[int]) -> int | None:
        for number in below:
            if self._shows(number, tag):
                return number
        now = clock.now_ms()
        for fork in self._threads() if below else ():
            if fork.base is None or fork.number == tag.thread or fork.deleted or fork.lapsed(now):
                continue
            timeline = Timeline(self._core, fork)
            if any(segment.thread.number in below for segment in timeline.segments):
                found = timeline.find(tag.namespace, tag.checkpoint_id)
                if found is not None and found.shown is not None and found.shown.commit == tag.commit:
                    return fork.number
        return None

    def _shows(self, number: int, tag: Tag) -> bool:
        """Whether a thread has a row of what a tag names, which was not pruned."""
        key = keys.checkpoint_key(number, tag.namespace, tag.checkpoint_id)
        raw = self._core.storage.read([key])[0]
        put = shown_put(decode_events(key, raw)) if raw is not None else None
        return put is not None and put.commit == tag.commit

    def _untagged(self, thread: ThreadRecord, tag: Tag, owner: int | None) -> tuple[Batch, None]:
        key = keys.thread_key(thread.number)
        doomed = self._core.storage.read([key])[0]
        _, raw = self._tags.get(tag.name)
        # It may be alive again, as above.
        if raw != tag.encode() or not _doomed(thread.number, doomed):
            return Batch(), None
        after = replace(tag, thread=owner).encode() if owner is not None else None
        change = self._tags.changed(tag.name, raw, after)
        return Batch({**change.expected, key: doomed}, change.records), None

    def _trim(self, number: int, moment: int) -> bool:
        """Remove from a deleted thread what happened after the last moment that a fork sees."""

        def act() -> tuple[Batch, bool]:
            thread, raw = self._directory.by_number(number)
            if not thread.deleted or self._restorable(number):
                return Batch(), True
            expected: dict[bytes, bytes | None] = {keys.thread_key(number): raw}
            records: dict[bytes, bytes | None] = {}
            namespaces: set[bytes] = set()
            late: list[bytes] = []
            for row in rows(self._core.storage, keys.thread_range(number)):
                if row.part == "i":
                    trimmed = until(ItemRecord.decode(row.key, row.value), moment)
                    if trimmed is not None:
                        expected[row.key], records[row.key] = row.value, trimmed.encode(row.key)
                        namespaces.add(keys.namespace_key(number, keys.path_of(row.key, number)))
                # Namespaces come behind all items.
                if row.part == "n" and row.key in namespaces:
                    expected[row.key] = row.value
                if row.part != "c":
                    continue
                events = decode_events(row.key, row.value)
                kept = [event for event in events if event.sequence <= moment or isinstance(event, Hidden)]
                # A row of nothing else may hide what is further down from forks that left since.
                needed = current_put(kept) is not None or as_of(events, moment) or thread.base is not None
                kept = kept if needed else []
                if len(kept) != len(events):
                    expected[row.key] = row.value
                    records[row.key] = encode_events(row.key, kept) if kept else None
                    late.append(ghost_hash(keys.checkpoint_id_of(row.key, number)))
            if not records:
                return Batch(), True
            counted = count_items(count_checkpoints(self._core.storage, thread, expected, records), expected, records)
            records[keys.thread_key(number)] = counted.encode()
            ghosts = self._with_ghosts(thread, late) if late else silent([])
            return Batch({**expected, **ghosts.expected}, {**records, **ghosts.records}), True

        return self._admin.atomically((), act)

    def _remove_hidden(self) -> None:
        """Remove pruned rows that no fork, no DeltaChannel and no operation needs any more."""
        hidden: dict[int, int] = {}
        """Of the threads that have pruned rows, the sequence number of the first prune of any."""
        # Of what cannot be read, here and below, the collector tells next, and who needs it.
        for row in rows(self._core.storage):
            with suppress(IntegrityError):
                for event in decode_events(row.key, row.value) if row.part == "c" else ():
                    if isinstance(event, Hidden):
                        hidden[row.thread] = min(hidden.get(row.thread, event.sequence), event.sequence)
        if hidden:
            self._remove_shared(hidden)
        for thread in self._threads() if hidden else ():
            if thread.number not in hidden or thread.deleted or thread.forks:
                continue
            restorable = partial(self._restorable_of, [thread.number])
            if restorable().get(thread.number, thread.sequence + 1) <= hidden[thread.number]:
                continue  # all can be brought back
            with suppress(IntegrityError):
                self._pruner.prune(thread.name, keep_visible, undone=restorable, exactly=True)

    def _remove_shared(self, pruned: Collection[int]) -> None:
        """Remove what neither threads nor their forks show; where these are written to all the time, another time."""
        for _ in range(_ATTEMPTS):
            threads = {thread.number: thread for thread in self._threads()}
            met = False
            for change, gone in removals(self._core, threads, self._restorable_of, pruned=pruned):
                expected, records = change
                for thread in gone:
                    start, end = keys.checkpoints_range(thread.number, None)
                    ids = [keys.checkpoint_id_of(key, thread.number) for key in records if start <= key < end]
                    ghosts = self._with_ghosts(thread, map(ghost_hash, ids)) if ids else silent([])
                    expected, records = {**expected, **ghosts.expected}, {**records, **ghosts.records}
                try:
                    with self._turns.step():
                        self._core.storage.publish(Batch(expected, records))
                except RecordChangedError:
                    met = True
            if not met:
                return

    def _with_ghosts(self, thread: ThreadRecord, hashes: Iterable[bytes]) -> Change:
        """Return what remembers checkpoints of a deleted thread whose rows go: so far these told whose they were."""
        named, named_raw = self._directory.name_record(thread.name)
        if named is None or thread.lapsed(clock.now_ms()):
            return silent([])
        return self._directory.renamed(thread.name, named_raw, with_ghosts(named, hashes))


def _doomed(number: int, raw: bytes | None) -> bool:
    """Whether the record of a thread, as it is now, still says that all of it can go."""
    if raw is None:
        return False
    thread = ThreadRecord.decode(number, raw)
    return thread.deleted and not thread.forks

"""Checking a store: every record's seal, every census, every object's hash, and what needs what is damaged.

All graphs of the store are checked. Where it is not the default graph, its name stands before what is reported.

Nothing is repaired or guessed. A damaged part is reported with the threads and checkpoints that need it, and
the check goes on.

Others may do anything to the store meanwhile. What is compared is read as of one moment, or it is read again before
it is reported; what was added since the check began may be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import TypeVar

from ckpt.errors import DamagedRecordError, IntegrityError
from ckpt.history import keys
from ckpt.history.checkpoints import Event, Put, Spill, Writes, decode_events
from ckpt.history.items import ItemRecord
from ckpt.history.records import NameRecord, Tally, ThreadRecord
from ckpt.objects.ids import ObjectId
from ckpt.repository.ahead import Ahead
from ckpt.repository.core import Core
from ckpt.repository.directory import Directory
from ckpt.repository.fsck_objects import Objects
from ckpt.repository.mark import Row, next_thread, rows
from ckpt.repository.memory_reader import MemoryReader
from ckpt.repository.operations import OperationLog
from ckpt.repository.replays import is_ahead
from ckpt.repository.scopes import GRAPH, MEMORY, Scope, at, prefixes, registered, root_of
from ckpt.repository.spill import open_spills
from ckpt.repository.tags import Tags
from ckpt.repository.timeline import Timeline
from ckpt.repository.versions import ropes
from ckpt.storage.base import Range
from ckpt.values.rope import ROPE, references

_PAGE = 200
"""Records whose commits and ropes are read at once."""

_Decoded = TypeVar("_Decoded")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was stored. `needed_by` names threads and checkpoints, at most 20."""

    kind: str
    id: str
    message: str
    needed_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FsckReport:
    """How much was checked, and what was found. `items` are those of memories, deleted ones included."""

    checkpoints: int
    items: int
    objects: int
    references: int
    problems: list[Problem]


class Checker:
    """One check of the store of one repository, whichever of its graphs that is."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._store = root_of(core.storage)

    def run(self, *, read_data: bool) -> FsckReport:
        """Check everything, whoever works on it; without `read_data` blobs are only looked up, not read and hashed."""
        problems = [Problem("database", "", text) for text in self._store.verify()]
        try:
            objects = Objects(self._core, read_data)
        except IntegrityError as error:
            # What lists them is damaged, so that nothing could be said of any record either.
            return FsckReport(0, 0, 0, 0, [*problems, Problem("database", "", f"nothing could be checked: {error}")])
        checkpoints = items = 0
        try:
            # Before the registry is read: a scope is registered with its first record.
            there = list(prefixes(self._store))
            scopes = self._registered(problems)
            for prefix in there:
                scope = scopes.get(prefix)
                if prefix and scope is None:
                    problems.append(Problem("graph", prefix.hex(), "the record that names it is missing"))
                core = self._core.beside(at(self._store, prefix))
                memory = scope.kind == MEMORY if scope is not None else _has_items(core)
                records = _Records(core, objects, _label(prefix, scope), memory)
                records.check()
                checkpoints += records.checkpoints
                items += records.items
                problems += records.problems
        except IntegrityError as error:
            # An encrypted store refuses to scan over a record that was changed; `verify` has named each of them.
            problems.append(Problem("records", "", f"not all records could be checked: {error}"))
        problems += [Problem("object", key.hex(), why, tuple(owners[:20])) for key, why, owners in objects.problems()]
        return FsckReport(checkpoints, items, objects.count, objects.references, problems)

    def _registered(self, problems: list[Problem]) -> dict[bytes, Scope]:
        try:
            return registered(self._store)
        except IntegrityError as error:
            problems.append(Problem("graph", "", str(error)))
            return {}


def _label(prefix: bytes, scope: Scope | None) -> str:
    """Return what stands before everything that is reported of a scope."""
    if not prefix:
        return ""
    if scope is None:
        return f"{prefix.hex()[:8]}: "
    kind = "" if scope.kind == GRAPH else " memory"
    return f"{scope.graph or 'default'}{kind}: "


def _has_items(core: Core) -> bool:
    return any(row.part == "i" for row in rows(core.storage))


class _Records:
    """The records of one graph, or of its memories."""

    def __init__(self, core: Core, objects: Objects, label: str, memory: bool) -> None:
        self._core = core
        self._directory = Directory(core)
        self._objects = objects
        self._label = label
        self._memory = memory
        self.problems: list[Problem] = []
        self.checkpoints = self.items = 0
        self._threads: dict[int, ThreadRecord] = {}

    def check(self) -> None:
        """Check names, threads, tags, checkpoints and items, and count the last two."""
        self._names()
        self._rows()

    def _problem(self, kind: str, id_: str, message: str, *needed_by: str) -> None:
        self.problems.append(Problem(kind, id_, message, tuple(self._label + each for each in needed_by)))

    def _names(self) -> None:
        buckets = range(keys.BUCKETS)
        # As of one moment: a thread begun between two looks is no problem.
        counted, names = self._core.storage.view(
            [keys.directory_key(bucket) for bucket in buckets], [keys.bucket_range(bucket) for bucket in buckets]
        )
        for bucket, raw_census, with_names in zip(buckets, counted, names, strict=True):
            key = keys.directory_key(bucket)
            try:
                tally = Tally.decode(key, raw_census)
                if tally.of(with_names) != tally.census:
                    self._problem("directory", key.hex(), "a thread's name is missing, new, or an earlier one")
            except IntegrityError as error:
                self._problem("directory", key.hex(), str(error))
            for found, raw in with_names:
                try:
                    self._thread(NameRecord.decode(found, raw).name)
                except IntegrityError as error:
                    self._problem("name", found.hex(), str(error))
        try:
            Tags(self._core).all()
        except IntegrityError as error:
            self._problem("tag", "", str(error))
        try:
            list(OperationLog(self._core, "").newest_first())
        except IntegrityError as error:
            self._problem("operation", "", str(error))

    def _thread(self, name: str) -> None:
        try:
            self._core.consistently(partial(self._check_thread, name))
        except IntegrityError as error:
            self._problem("thread", name, str(error), name)

    def _check_thread(self, name: str) -> None:
        """Check the thread that has a name now; raise IntegrityError for what may be gone because it was removed."""
        self._directory.find(name)  # raises when a name and its threads disagree
        named, _ = self._directory.name_record(name)
        if named is None or named.thread is None:
            return
        if self._memory:
            MemoryReader(self._core, self._directory).read(name, [], [()])
            return
        read, _ = self._directory.by_number(named.thread)
        # All that it sees, its bases included, as of one moment: rows are counted while others are added.
        segments = Timeline(self._core, read).segments
        moment = Ahead.of(self._core.storage, [keys.thread_range(segment.thread.number) for segment in segments])
        thread, _ = self._directory.by_number(named.thread, moment)
        if thread.deleted:
            return
        timeline = Timeline(self._core, thread, moment)
        try:
            for namespace in timeline.namespaces():
                timeline.head(namespace)
                timeline.prove(namespace)
            head = thread.root.head
            if head is not None and timeline.find("", head) is None:
                self._problem("thread", name, "its head is missing", name)
        except DamagedRecordError as error:
            self._problem("thread", name, str(error), name)

    def _rows(self) -> None:
        queue = rows(self._core.storage, self._present())
        while page := list(islice(queue, _PAGE)):
            self._objects.prepare(chain.from_iterable(map(_tops, page)))
            for row in page:
                try:
                    self._row(row)
                except IntegrityError as error:
                    kind = "item" if row.part == "i" else "checkpoint"
                    self._problem(kind, row.key.hex(), str(error), self._owner(row))
        self._counter(max(self._threads, default=0))

    def _present(self) -> Range:
        """Return the range of what is there now: who begins threads faster than they are checked is not followed."""
        start, end = keys.ALL_THREADS
        last = self._core.storage.scan(start, end, limit=1, reverse=True)
        return start, last[0][0] + b"\x00" if last else start

    def _row(self, row: Row) -> None:
        if not row.part:
            self._threads[row.thread] = ThreadRecord.decode(row.thread, row.value)
            self._named(self._threads[row.thread])
        elif row.part == "i":
            self.items += 1
            item = ItemRecord.decode(row.key, row.value)
            owner = f"{self._name(row.thread, '')} {'/'.join(item.namespace)} {item.key}"
            self._note_needs(row, item, ItemRecord.decode, self._named_by_item, owner)
        elif row.part == "c":
            events = decode_events(row.key, row.value)
            if not self._is_added_since(row, events):
                self.checkpoints += any(isinstance(event, Put) for event in events)
                self._note_needs(row, events, decode_events, self._roots, self._owner(row))

    def _is_added_since(self, row: Row, events: list[Event]) -> bool:
        """Whether the row of a checkpoint was added after its thread was looked at; reports a thread that is older."""
        thread = self._threads.get(row.thread)
        if thread is None or not is_ahead(thread, events):
            return False
        raw = self._core.storage.read([keys.thread_key(row.thread)])[0]
        if raw is not None and is_ahead(ThreadRecord.decode(row.thread, raw), events):
            self._problem("thread", thread.name, "its record is older than its checkpoints")
            return False
        return raw is None or all(event.sequence > thread.sequence for event in events)

    def _note_needs(
        self,
        row: Row,
        found: _Decoded,
        decode: Callable[[bytes, bytes], _Decoded],
        roots: Callable[[_Decoded], Iterable[ObjectId]],
        owner: str,
    ) -> None:
        """Note which damaged or missing objects a row needs, unless it was changed or removed since it was read.

        Where only this row tells that an object must be there, it is read again.
        """
        raw = row.value
        while True:
            failed: IntegrityError | None = None
            missing: frozenset[bytes] = frozenset()
            try:
                missing = missing.union(*map(self._objects.below, roots(found)))
            except IntegrityError as error:
                failed = error
            if failed is None and not self._objects.in_doubt:
                break
            now = self._core.storage.read([row.key])[0]
            if now == raw:
                self._objects.settle()
                break
            self._objects.forget()
            if now is None:
                return
            raw, found = now, decode(row.key, now)
        if failed is not None:
            raise failed
        self._objects.note(self._label + owner, missing)

    def _counter(self, greatest: int) -> None:
        try:
            if greatest >= next_thread(self._core.storage):
                self._problem("thread", "", "the thread counter is missing, or older than the last thread")
        except IntegrityError as error:
            self._problem("thread", "", str(error))

    def _named(self, thread: ThreadRecord) -> None:
        key, name_key = keys.thread_key(thread.number), keys.name_key(thread.name)
        raw, named = self._core.storage.read([key, name_key])
        if raw != thread.encode() or thread.deleted:
            return
        if named is None or NameRecord.decode(name_key, named).thread != thread.number:
            self._problem("name", thread.name, "its record does not name the thread that has it", thread.name)

    def _named_by_item(self, record: ItemRecord) -> Iterator[ObjectId]:
        for rope in ropes(record):
            yield from self._objects.named(rope)

    def _roots(self, events: list[Event]) -> Iterator[ObjectId]:
        for event in events:
            if isinstance(event, Put):
                yield event.commit
            elif isinstance(event, Spill):
                yield event.blob
                if not self._objects.below(event.blob):
                    yield from self._roots(open_spills([event], self._core.objects.load))
            elif isinstance(event, Writes):
                for write in event.writes:
                    yield from self._objects.named(write.rope)

    def _name(self, number: int, unknown: str) -> str:
        thread = self._threads.get(number)
        return thread.name if thread is not None else unknown

    def _owner(self, row: Row) -> str:
        number = row.thread
        id_ = ""
        if row.part == "c":
            try:
                id_ = keys.checkpoint_id_of(row.key, number)
            except (IndexError, UnicodeDecodeError):  # a damaged key
                id_ = row.key.hex()
        return f"{self._name(number, f'thread number {number}')} {id_}".rstrip()


def _tops(row: Row) -> list[ObjectId]:
    """Return the commits and ropes that a row names, as far as it can be read."""
    with suppress(IntegrityError):
        if row.part == "c":
            return [event.commit for event in decode_events(row.key, row.value) if isinstance(event, Put)]
        if row.part == "i":
            named = (references(rope) for rope in ropes(ItemRecord.decode(row.key, row.value)))
            return [oid for kind, oid in chain.from_iterable(named) if kind == ROPE]
    return []

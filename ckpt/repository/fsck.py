"""Checking a store: every record's seal, every census, every object's hash, and what needs what is damaged.

All graphs of the store are checked. Where it is not the default graph, its name stands before what is reported.

Nothing is repaired or guessed. A damaged part is reported with the threads and checkpoints that need it, and
the check goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from ckpt.errors import IntegrityError
from ckpt.history import keys
from ckpt.history.checkpoints import Event, Put, Spill, Writes, decode_events
from ckpt.history.commits import decode_commit
from ckpt.history.items import ItemRecord
from ckpt.history.records import NameRecord, Tally, ThreadRecord
from ckpt.history.seal import unseal
from ckpt.objects.ids import Kind, ObjectId, index_key, object_id
from ckpt.objects.packs import PackReader, chain_to
from ckpt.repository.core import Core
from ckpt.repository.directory import Directory
from ckpt.repository.mark import Pack, Packs, Row, rows
from ckpt.repository.memory_reader import MemoryReader
from ckpt.repository.operations import OperationLog
from ckpt.repository.replays import is_ahead
from ckpt.repository.scopes import GRAPH, MEMORY, Scope, at, prefixes, registered, root_of
from ckpt.repository.spill import open_spills
from ckpt.repository.tags import Tags
from ckpt.repository.timeline import Timeline
from ckpt.repository.versions import ropes
from ckpt.storage.base import Place
from ckpt.values.rope import ROPE, references

_PAGE = 5000


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
        """Check everything; without `read_data` blobs are only looked up, not read and hashed."""
        problems = [Problem("database", "", text) for text in self._store.verify()]
        objects = _Objects(self._core, read_data)
        scopes = self._registered(problems)
        checkpoints = items = 0
        try:
            for prefix in prefixes(self._store):
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
        return FsckReport(checkpoints, items, objects.count, objects.references, problems + objects.problems())

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


class _Objects:
    """The objects of a store: which can be read, and what is needed by what."""

    def __init__(self, core: Core, read_data: bool) -> None:
        self._core = core
        self._bad: dict[bytes, str] = {}
        self._stored: dict[bytes, Place] = {}
        self._needs: dict[bytes, frozenset[bytes]] = {}
        self._needed: dict[bytes, list[str]] = {}
        self.references = 0
        self._look(read_data)

    @property
    def count(self) -> int:
        """How many objects are stored."""
        return len(self._stored)

    def problems(self) -> list[Problem]:
        """Return the objects that are damaged or missing, with what was noted to need them."""
        return [
            Problem("object", key.hex(), why, tuple(self._needed.get(key, [])[:20])) for key, why in self._bad.items()
        ]

    def note(self, owner: str, missing: frozenset[bytes]) -> None:
        """Take note that a checkpoint needs objects that are damaged or missing."""
        for key in missing:
            self._needed.setdefault(key, []).append(owner)

    def _look(self, read_data: bool) -> None:
        cursor = b""
        while entries := self._core.storage.scan_index(cursor, _PAGE):
            self._stored.update(entries)
            cursor = entries[-1][0]
        packs = Packs().look(self._core.storage)
        for key, place in self._stored.items():
            if place.frame not in packs.of:
                self._bad[key] = "the frame that holds it is missing"
        if read_data:
            there: dict[Place, bytes] = {}
            for pack in packs.all:
                self._pack(pack, there)
            for key, place in self._stored.items():
                if key not in self._bad and there.get(place) != key:
                    self._bad[key] = "its bytes do not match its id"

    def _pack(self, pack: Pack, there: dict[Place, bytes]) -> None:
        """Note which objects can be read, and where."""
        reader = PackReader()
        # Frame by frame, so that a damaged frame is not blamed on those before it.
        with suppress(IntegrityError):
            # An encrypted store refuses to load a frame that was changed.
            stored = self._core.storage.load(pack.frames[-1:])
            for number in chain_to(pack.frames[-1], stored):
                (frame,) = reader.read([stored[number].data])
                for position, obj in enumerate(frame.objects()):
                    there[Place(number, position)] = index_key(object_id(*obj))

    def below(self, oid: ObjectId) -> frozenset[bytes]:
        """Return the damaged or missing objects that an object needs, itself included."""
        stack = [oid]
        children: dict[bytes, list[ObjectId]] = {}
        while stack:
            top = stack[-1]
            key = index_key(top)
            if key in self._needs:
                stack.pop()
            elif key not in children:
                children[key] = self._children(top)
                stack += [child for child in children[key] if index_key(child) not in self._needs]
            else:
                stack.pop()
                own = frozenset([key]) if key in self._bad else frozenset()
                self._needs[key] = own.union(*(self._needs.get(index_key(c), frozenset()) for c in children[key]))
        return self._needs[index_key(oid)]

    def _children(self, oid: ObjectId) -> list[ObjectId]:
        key = index_key(oid)
        if key not in self._stored:
            self._bad.setdefault(key, "it is not in the store")
        if key in self._bad:
            return []
        try:
            kind, data = self._core.objects.fetch([oid])[oid]
            return [child for rope in _ropes(kind, data) for child in self.named(rope)]
        except IntegrityError as error:
            self._bad[key] = str(error)
            return []

    def named(self, rope: bytes) -> list[ObjectId]:
        """Return the objects that a rope names, and count them."""
        found = []
        for kind, oid in references(rope):
            self.references += 1
            key = index_key(oid)
            if kind == ROPE:
                found.append(oid)
            else:
                if key not in self._stored:
                    self._bad.setdefault(key, "it is not in the store")
                self._needs.setdefault(key, frozenset([key]) if key in self._bad else frozenset())
                found.append(oid)
        return found


class _Records:
    """The records of one graph, or of its memories."""

    def __init__(self, core: Core, objects: _Objects, label: str, memory: bool) -> None:
        self._core = core
        self._directory = Directory(core)
        self._objects = objects
        self._label = label
        self._memory = memory
        self.problems: list[Problem] = []
        self.checkpoints = self.items = 0

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
                    self._thread(NameRecord.decode(found, raw))
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

    def _thread(self, name: NameRecord) -> None:
        try:
            self._directory.find(name.name)  # raises when a name and its threads disagree
            if name.thread is None:
                return
            if self._memory:
                MemoryReader(self._core, self._directory).read(name.name, [], [()])
                return
            thread, _ = self._directory.by_number(name.thread)
            timeline = Timeline(self._core, thread)
            for namespace in timeline.namespaces():
                timeline.head(namespace)
                timeline.prove(namespace)
            head = thread.root.head
            if head is not None and timeline.find("", head) is None:
                self._problem("thread", name.name, "its head is missing", name.name)
        except IntegrityError as error:
            self._problem("thread", name.name, str(error), name.name)

    def _rows(self) -> None:
        threads: dict[int, ThreadRecord] = {}
        names: dict[int, str] = {}
        for row in rows(self._core.storage):
            try:
                if not row.part:
                    threads[row.thread] = ThreadRecord.decode(row.thread, row.value)
                    names[row.thread] = threads[row.thread].name
                    self._named(threads[row.thread])
                if row.part == "i":
                    self.items += 1
                    self._item(ItemRecord.decode(row.key, row.value), names.get(row.thread, ""))
                if row.part != "c":
                    continue
                events = decode_events(row.key, row.value)
            except IntegrityError as error:
                kind = "item" if row.part == "i" else "checkpoint"
                self._problem(kind, row.key.hex(), str(error), self._owner(row, names))
                continue
            self.checkpoints += any(isinstance(event, Put) for event in events)
            if row.thread in threads and is_ahead(threads[row.thread], events):
                # Read again: it may have been written to since.
                threads[row.thread], _ = self._directory.by_number(row.thread)
                if is_ahead(threads[row.thread], events):
                    self._problem("thread", names[row.thread], "its record is older than its checkpoints")
            missing: frozenset[bytes] = frozenset()
            for oid in self._roots(events):
                missing |= self._objects.below(oid)
            self._objects.note(self._label + self._owner(row, names), missing)
        self._counter(max(threads, default=0))

    def _counter(self, greatest: int) -> None:
        raw = self._core.storage.read([keys.COUNTERS])[0]
        try:
            if greatest >= (unseal(keys.COUNTERS, raw, "the thread counter") if raw is not None else 1):
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

    def _item(self, record: ItemRecord, memory: str) -> None:
        missing: frozenset[bytes] = frozenset()
        for rope in ropes(record):
            for oid in self._objects.named(rope):
                missing |= self._objects.below(oid)
        self._objects.note(f"{self._label}{memory} {'/'.join(record.namespace)} {record.key}", missing)

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

    @staticmethod
    def _owner(row: Row, names: dict[int, str]) -> str:
        number = row.thread
        id_ = ""
        if row.part == "c":
            try:
                id_ = keys.checkpoint_id_of(row.key, number)
            except (IndexError, UnicodeDecodeError):  # a damaged key
                id_ = row.key.hex()
        return f"{names.get(number, f'thread number {number}')} {id_}".rstrip()


def _ropes(kind: int, data: bytes) -> list[bytes]:
    if kind == Kind.ROPE:
        return [data]
    if kind == Kind.COMMIT:
        commit = decode_commit(data)
        return [value.rope for value in (commit.header, commit.metadata, *commit.channels.values())]
    return []

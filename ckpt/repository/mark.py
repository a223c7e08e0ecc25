"""Marking: which objects the records of a store still need, those of every graph.

One pass over all records, then level by level down the ropes; blobs are named by their ropes and need not be
loaded. What is remembered is one index key per live object. What is marked is counted: a row that was lost must not
take with it what it needs, as long as it can be repaired.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from operator import attrgetter
from typing import NamedTuple

from ckpt.history import keys
from ckpt.history.checkpoints import Event, Spill, Writes, as_of, decode_events, encode_events
from ckpt.history.commits import decode_commit
from ckpt.history.items import ItemRecord, decode_namespace, item_entry
from ckpt.history.records import NameRecord, Tally, ThreadRecord, decode_counter, decode_line
from ckpt.history.seal import Census, entry, miscounted, missing
from ckpt.objects.ids import Kind, ObjectId, index_key
from ckpt.repository.core import Core
from ckpt.repository.scopes import prefixes, root_of, seen_by
from ckpt.repository.spill import open_spills, referenced
from ckpt.repository.versions import ropes
from ckpt.storage.base import Reading, incarnation_at
from ckpt.values.rope import ROPE, references

_PAGE = 1000
_LOAD = 2000


class Row(NamedTuple):
    """One record of a thread: the thread's number, and what it is.

    `""` is the thread itself, `l` a line, `c` a checkpoint; in a memory `n` a namespace and `i` an item.
    """

    thread: int
    part: str
    key: bytes
    value: bytes

    def as_of(self, moment: int) -> Row:
        """Return a checkpoint's record as it was at a moment, perhaps with nothing in it, or another as it is."""
        if self.part != "c":
            return self
        return self._replace(value=encode_events(self.key, as_of(decode_events(self.key, self.value), moment)))


def rows(reading: Reading, bounds: tuple[bytes, bytes] = keys.ALL_THREADS) -> Iterator[Row]:
    """Yield the records of all threads, or of those within `bounds`, in key order.

    A key that is none of a thread's is one of thread 0, which there is never, and its part is `?`.
    """
    start, end = bounds
    while page := reading.scan(start, end, limit=_PAGE):
        for key, value in page:
            behind = 2 + key[1] if len(key) > 1 else len(key)
            part = chr(key[behind]) if behind < len(key) else "" if behind == len(key) > 2 else "?"
            yield Row(int.from_bytes(key[2:behind], "big"), part, key, value)
        start = page[-1][0] + b"\x00"


@dataclass(slots=True)
class Pack:
    """The frames of one pack in order, and the frame of another pack that it branches off from (0: none)."""

    base: int
    frames: list[int]
    branches: int = 0
    """How many packs branch off from this one."""
    rewritten: bool = False
    size: int = 0
    """Bytes of its frames."""
    listed: int = 0
    """How many entries of the index led to it when the collector looked."""


class Packs:
    """All packs of a store. A frame belongs to one of them: where packs begin alike, to the one that was first."""

    def __init__(self) -> None:
        self.of: dict[int, Pack] = {}
        """The pack of each frame."""
        self.all: list[Pack] = []
        """A pack comes behind the one it branches off from."""
        self._after = 0

    def look(self, reading: Reading, *, joining: bool = False, again: bool = False) -> Packs:
        """Take the frames that were added since the last look; only those `joining` a pack seen before if asked for.

        With `again`, look from the beginning: where writers are many, one that was first numbered may be seen last.
        """
        if again:
            self._after = 0
        while page := reading.scan_frames(self._after, _PAGE):
            for number, previous, size in page:
                self._add(number, previous, size, joining)
            self._after = page[-1][0]
        return self

    def release(self, rewritten: Iterable[Pack]) -> list[int]:
        """Take note that packs were rewritten, and return the frames that no other pack builds on any more.

        The frames of a pack that others branch off from are returned with the last of those.
        """
        freed: list[int] = []
        for pack in rewritten:
            pack.rewritten = True
            free: Pack | None = pack
            while free is not None and free.rewritten and not free.branches:
                freed += free.frames
                free = self.of.get(free.base)
                if free is not None:
                    free.branches -= 1
        return freed

    def _add(self, number: int, previous: int, size: int, joining: bool) -> None:
        pack = self.of.get(previous)
        if number in self.of or (joining and pack is None):
            return
        if pack is not None and pack.frames[-1] == previous:
            pack.frames.append(number)
            pack.rewritten = False
        else:
            if pack is not None:
                pack.branches += 1
            pack = Pack(previous, [number])
            self.all.append(pack)
        pack.size += size
        self.of[number] = pack


class Marker:
    """Collects the index keys of all live objects, and can catch up with what was written since."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.incarnation = incarnation_at(root_of(core.storage).epoch())
        """Of the store that is marked: where it goes back in time, what was marked is not what is there."""
        self.live: set[bytes] = set()
        self._threads: dict[bytes, dict[int, bytes]] = {}
        """By scope, the records of the threads that are marked."""
        self._next: dict[bytes, int] = {}
        """By scope, a number that no marked thread has, nor has one above it."""

    def mark_all(self) -> None:
        """Mark what the records of all threads of all graphs need."""
        self.catch_up(root_of(self._core.storage))

    def mark_thread(self, reading: Reading, number: int, moment: int | None = None) -> None:
        """Mark what the rows of one thread need that `reading` sees.

        With a moment what its checkpoints needed then, which is what a fork sees that left at that moment. Raises
        DamagedRecordError where one of its rows is missing or not as it was written.
        """
        (raw,) = reading.read([keys.thread_key(number)])
        if raw is None:
            return
        counted = _RowCount(ThreadRecord.decode(number, raw))
        found = counted.passing(rows(reading, keys.thread_range(number)))
        self._mark(reading, found if moment is None else (row.as_of(moment) for row in found))
        counted.prove(reading, raw)

    def catch_up(self, store: Reading) -> int:
        """Mark what threads changed since the last call need, in the whole store; return how many did.

        Reads by nothing but `store`: while it is one that somebody has to himself, all other connections to a server
        may be taken by those who wait for him.

        A thread's record changes with every row, so unchanged records mean unchanged rows. Raises DamagedRecordError
        when a thread, or a row of one, is missing. From the second call on it reads the records of threads alone, as
        whoever calls keeps others waiting: one that is lost meanwhile has been marked.
        """
        changed: list[int] = []
        self._mark(store, self._changed_rows(store, changed))
        return len(changed)

    def _changed_rows(self, store: Reading, changed: list[int]) -> Iterator[Row]:
        """Yield the rows of all threads that have changed, and take note of each thread whose rows have passed."""
        for prefix in prefixes(store):
            reading = seen_by(store, prefix)
            marked = self._threads.setdefault(prefix, {})
            for number, raw, records in self._changed(prefix, reading):
                counted = _RowCount(ThreadRecord.decode(number, raw))
                yield from counted.passing(records)
                counted.prove(reading, raw)
                marked[number] = raw
                changed.append(number)

    def _changed(self, prefix: bytes, reading: Reading) -> Iterator[tuple[int, bytes, Iterable[Row]]]:
        """Yield the number, record and rows of each thread that has changed; of all in one pass the first time."""
        marked, first = self._threads[prefix], prefix not in self._next
        records = {number: raw for number, raw in self._records(prefix, reading) if marked.get(number) != raw}
        if not first:
            yield from ((number, raw, rows(reading, keys.thread_range(number))) for number, raw in records.items())
            return
        for number, passing in groupby(rows(reading), attrgetter("thread")):
            # One that was made, or collected, since its record was read is looked at the next time, if at all.
            if (raw := records.pop(number, None)) is not None:
                yield number, raw, passing
            else:
                _require_named(reading, number)
        yield from ((number, raw, ()) for number, raw in records.items())

    def _records(self, prefix: bytes, reading: Reading) -> Iterator[tuple[int, bytes]]:
        """Yield the number and record of each thread, of those marked before and of those that may be new."""
        first = self._next.get(prefix)
        # Read before the threads are: one that is made meanwhile is looked for the next time.
        following = next_thread(reading)
        if first is None:
            yield from thread_records(reading)
        else:
            numbers = iter([*self._threads[prefix], *range(first, following)])
            while page := list(islice(numbers, _PAGE)):
                values = reading.read([keys.thread_key(number) for number in page])
                yield from ((number, raw) for number, raw in zip(page, values, strict=True) if raw is not None)
        self._next[prefix] = following

    def _mark(self, store: Reading, records: Iterable[Row]) -> None:
        pending: set[ObjectId] = set()
        for row in records:
            if row.part == "c":
                for event in decode_events(row.key, row.value):
                    self._event(store, event, pending)
            elif row.part == "i":
                for rope in ropes(ItemRecord.decode(row.key, row.value)):
                    self._rope(rope, pending)
            if len(pending) >= _LOAD:
                self._descend(store, pending)
                pending = set()
        self._descend(store, pending)

    def _event(self, store: Reading, event: Event, pending: set[ObjectId]) -> None:
        if isinstance(event, Writes):
            for write in event.writes:
                self._rope(write.rope, pending)
        else:
            for oid in referenced([event]):
                self._add(oid, True, pending)
            if isinstance(event, Spill):
                for batch in open_spills([event], partial(self._load, store)):
                    self._event(store, batch, pending)

    def _load(self, store: Reading, ids: Collection[ObjectId]) -> Mapping[ObjectId, bytes]:
        return {oid: found.data for oid, found in self._core.objects.fetch(ids, store).items()}

    def _rope(self, rope: bytes, pending: set[ObjectId]) -> None:
        for kind, oid in references(rope):
            self._add(oid, kind == ROPE, pending)

    def _add(self, oid: ObjectId, descend: bool, pending: set[ObjectId]) -> None:
        key = index_key(oid)
        if key not in self.live:
            self.live.add(key)
            if descend:
                pending.add(oid)

    def _descend(self, store: Reading, pending: set[ObjectId]) -> None:
        while pending:
            below: set[ObjectId] = set()
            queue = iter(pending)
            while part := list(islice(queue, _LOAD)):
                for kind, data in self._core.objects.fetch(part, store).values():
                    if kind == Kind.ROPE:
                        self._rope(data, below)
                    elif kind == Kind.COMMIT:
                        for value in decode_commit(data).values():
                            self._rope(value.rope, below)
            pending = below


class _RowCount:
    """Counts the rows of one thread as they pass, to compare them with what its records say that there are."""

    def __init__(self, thread: ThreadRecord) -> None:
        self.thread = thread
        self._lines = keys.lines_range(thread.number)[0]
        self._root = keys.checkpoints_range(thread.number, "")[0]
        self._found: dict[bytes, Census] = {}
        self._expected = {self._lines: thread.lines, self._root: thread.root.census}

    def passing(self, records: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows given, counting them."""
        for row in records:
            if row.part:
                group, hashed = self._group(row), item_entry if row.part == "i" else entry
                added = hashed(self.thread.salt, row.key, row.value)
                self._found[group] = self._found.get(group, Census()).changed(None, added)
            yield row

    def _group(self, row: Row) -> bytes:
        """Return what a row is counted with, after noting what it counts itself."""
        number = self.thread.number
        if row.part == "c":
            return keys.checkpoints_of(row.key, number)
        if row.part == "l":
            line = decode_line(row.key, row.value)
            self._expected[keys.checkpoints_range(number, line.namespace)[0]] = line.census
            return self._lines
        if row.part in ("n", "i"):
            items = keys.items_range(number, keys.path_of(row.key, number))[0]
            if row.part == "i":
                return items
            self._expected[items] = decode_namespace(row.key, row.value)[1]
            return self._root  # a memory has no checkpoints: its namespaces are counted in their place
        return row.key

    def prove(self, reading: Reading, raw: bytes) -> None:
        """Raise DamagedRecordError where rows do not fit, unless the thread's record is another than `raw` by now.

        A thread that can go may be gone by half.
        """
        if self.thread.deleted and not self.thread.forks:
            return
        for each in {*self._found, *self._expected}:
            found, expected = self._found.get(each, Census()), self._expected.get(each, Census())
            if found != expected and reading.read([keys.thread_key(self.thread.number)])[0] == raw:
                raise miscounted(f"a row of thread {self.thread.name!r}", found, expected)


def next_thread(reading: Reading) -> int:
    """Return the number that the next new thread will have."""
    return decode_counter(reading.read([keys.COUNTERS])[0])


def thread_records(reading: Reading) -> Iterator[tuple[int, bytes]]:
    """Yield the number and record of every thread, deleted ones that have not been collected included.

    One that a collector removes meanwhile is left out. Raises DamagedRecordError when the record of one, or of its
    name, is missing; of a name after the others.
    """
    start, end = keys.ALL_NAMES
    buckets = [keys.directory_key(bucket) for bucket in range(keys.BUCKETS)]
    tallies = [Tally.decode(key, raw) for key, raw in zip(buckets, reading.read(buckets), strict=True)]
    found = [Census()] * keys.BUCKETS
    while page := reading.scan(start, end, limit=_PAGE):
        named: list[tuple[int, str]] = []
        for key, raw in page:
            bucket = key[1]
            found[bucket] = found[bucket].changed(None, entry(tallies[bucket].salt, key, raw))
            name = NameRecord.decode(key, raw)
            named += [(number, name.name) for number in _numbers(name)]
        values = reading.read([keys.thread_key(number) for number, _ in named])
        for (number, text), value in zip(named, values, strict=True):
            if value is not None:
                yield number, value
            elif not collected(reading, text, number):
                raise missing(f"thread number {number}")
        if len(page) < _PAGE:
            break
        start = page[-1][0] + b"\x00"
    _prove_names(reading, tallies, found)


def forks_of(reading: Reading, number: int) -> Iterator[tuple[ThreadRecord, list[int]]]:
    """Yield the threads that see another one, through the forks between them, deleted ones included.

    With the moments at which each of these left the one below it: the last is in the numbers of the thread seen.
    """
    threads = {each: ThreadRecord.decode(each, raw) for each, raw in thread_records(reading)}
    for fork in threads.values():
        below: ThreadRecord | None = fork
        moments: list[int] = []
        while below is not None and below.base is not None:
            moments.append(below.base.moment)
            if below.base.thread == number:
                yield fork, moments
                break
            below = threads.get(below.base.thread)


def _prove_names(reading: Reading, tallies: Sequence[Tally], found: Sequence[Census]) -> None:
    """Raise DamagedRecordError unless the names found in each bucket are all, or were when they are looked at again."""
    for bucket, (tally, counted) in enumerate(zip(tallies, found, strict=True)):
        if tally.census == counted:
            continue
        key = keys.directory_key(bucket)
        (raw,), (rows,) = reading.view([key], [keys.bucket_range(bucket)])
        Tally.decode(key, raw).prove("a thread in the directory", rows)


def collected(reading: Reading, name: str, number: int) -> bool:
    """Whether a thread of this name is gone as a collector leaves it: no record, and its name names it no more."""
    key = keys.name_key(name)
    thread, raw = reading.read([keys.thread_key(number), key])
    return thread is None and (raw is None or number not in _numbers(NameRecord.decode(key, raw)))


def _require_named(reading: Reading, number: int) -> None:
    """Raise DamagedRecordError for rows of a thread that no name leads to, unless it was made or collected just now.

    Its name was lost, and would take with it what the thread needs.
    """
    key = keys.thread_key(number)
    raw = reading.read([key])[0]
    if raw is None:
        if reading.scan(*keys.thread_range(number), limit=1):
            raise missing(f"thread number {number}")
        return
    name = ThreadRecord.decode(number, raw).name
    name_key = keys.name_key(name)
    now, named = reading.read([key, name_key])
    if now is not None and (named is None or number not in _numbers(NameRecord.decode(name_key, named))):
        raise missing(f"the name of thread {name!r}")


def _numbers(name: NameRecord) -> list[int]:
    return [*name.former, *([name.thread] if name.thread is not None else [])]

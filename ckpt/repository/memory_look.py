"""One look at a memory: the rows that a read or a write depends on, as of one moment, and whether they add up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ckpt.history import keys
from ckpt.history.items import ItemRecord, decode_namespace, item_entry
from ckpt.history.records import ThreadRecord
from ckpt.history.seal import Census, census, damaged, miscounted, missing, summed
from ckpt.objects.cache import Cache
from ckpt.repository.core import Core
from ckpt.repository.memory_recent import MemoryRecent

ENTRY_SIZE = 1000
"""About how many bytes an item takes that is kept decoded."""

_COUNTED_MAX = 256
"""Items of a namespace up to which the absence of one is proved by counting all of them."""


class Segment(NamedTuple):
    """A stretch of a memory's past: the rows of one thread, with its salt, up to a moment (None: all).

    `made` is when the fork was made that sees it as a base.
    """

    number: int
    moment: int | None
    salt: bytes
    made: int = 0


class Known(NamedTuple):
    """Where a memory lies: its name's record as it was read, and its stretches, newest first."""

    named: bytes
    segments: tuple[Segment, ...]


class Address(NamedTuple):
    """Where an item stands in a memory."""

    namespace: tuple[str, ...]
    key: str


class Row(NamedTuple):
    """An item's record in one thread."""

    key: bytes
    raw: bytes
    record: ItemRecord


class Counted(NamedTuple):
    """A row, and what it adds to the census of its namespace."""

    row: Row
    entry: int


class Look:
    """One look at the store: what is wanted of it, and what it said."""

    def __init__(
        self,
        known: Known,
        name: str,
        addresses: Sequence[Address],
        prefixes: Sequence[tuple[str, ...]],
        decoded: Cache[bytes, Counted],
    ) -> None:
        self._decoded = decoded
        self._named, self._name_key = known.named, keys.name_key(name)
        self.state: tuple[bytes | None, ...] = ()
        """The records of the memory's thread and its bases, one of which changes whenever an item does."""
        self._segments = known.segments
        self.salts = {segment.number: segment.salt for segment in known.segments}
        """Of each thread, the newest first."""
        self._addresses = [(address, keys.namespace_path(address.namespace)) for address in addresses]
        self._paths = {prefix: keys.namespace_path(prefix) for prefix in prefixes}
        self._ranges: dict[tuple[bytes, bytes], list[tuple[bytes, bytes]]] = {}
        self.number = known.segments[0].number
        self.values: dict[bytes, bytes | None] = {}
        """The records that were looked at one by one, by key: thread, items and their namespaces."""
        self.items: list[list[tuple[Segment, Row]]] = []
        """The rows of each item asked for, the newest thread's first."""

    def _wanted(self) -> dict[bytes, None]:
        wanted: dict[bytes, None] = {}
        for number in self.salts:
            wanted[keys.thread_key(number)] = None
            for address, path in self._addresses:
                wanted[keys.item_key(number, path, address.key)] = None
                wanted[keys.namespace_key(number, path)] = None
        return wanted

    def guess(self, recent: MemoryRecent) -> bool:
        """Suppose that what is wanted is as it was written last, and that what was not written is absent.

        False where the memory's own record is not remembered, and for a fork. Nothing is counted: it may not fit.
        """
        wanted = self._wanted()
        found = recent.rows(wanted)
        if len(self._segments) > 1 or keys.thread_key(self.number) not in found:
            return False
        self.values = {key: found.get(key) for key in wanted}
        self.items = [list(self._item(address, path, counted=False)) for address, path in self._addresses]
        return True

    def agrees(self, other: Look) -> bool:
        """Whether the records that this look guessed are those that another one of the same found."""
        return all(other.values.get(key) == raw for key, raw in self.values.items())

    def read(self, core: Core) -> bool:
        """Look; False when the memory's name no longer stands for the same thread."""
        wanted = {self._name_key: None, **self._wanted()}
        ranges: dict[tuple[bytes, bytes], None] = {}
        for number in self.salts:
            for path in self._paths.values():
                ranges[keys.items_range(number, path)] = None
                ranges[keys.namespaces_range(number, path)] = None
        values, rows = core.storage.view(list(wanted), list(ranges))
        self.values = dict(zip(wanted, values, strict=True))
        self._ranges = dict(zip(ranges, rows, strict=True))
        self.state = tuple([self.values[keys.thread_key(number)] for number in self.salts])
        if self.values[self._name_key] != self._named:
            return False
        self.items = [list(self._item(address, path)) for address, path in self._addresses]
        return True

    def _item(self, address: Address, path: bytes, *, counted: bool = True) -> Iterator[tuple[Segment, Row]]:
        for segment in self._segments:
            key = keys.item_key(segment.number, path, address.key)
            raw = self.values[key]
            if raw is not None:
                row = Row(key, raw, ItemRecord.decode(key, raw))
                if Address(row.record.namespace, row.record.key) != address:
                    raise damaged("an item of a memory")
                if counted:
                    self._check_alone(segment, path, row)
                yield segment, row

    def _check_alone(self, segment: Segment, path: bytes, row: Row) -> None:
        """Raise DamagedRecordError when an item is all that its namespace has, and not as that was counted."""
        key = keys.namespace_key(segment.number, path)
        raw = self.values[key]
        expected = decode_namespace(key, raw)[1] if raw is not None else Census()
        if expected.count <= 1:
            found = summed([item_entry(segment.salt, row.key, row.raw)])
            if found != expected:
                raise miscounted("an item of a memory", found, expected)

    def doubtful(self, past: bool) -> Iterator[tuple[int, bytes]]:
        """Yield (thread, path) of small namespaces that have items, and not the one asked for.

        Above the first row that was found, or with `past` wherever there is none.
        """
        absent: dict[tuple[int, bytes], None] = {}
        for (_, path), rows in zip(self._addresses, self.items, strict=True):
            found = {segment.number for segment, _ in rows}
            for number in self.salts:
                if number not in found:
                    absent[number, path] = None
                elif not past:
                    break
        for number, path in absent:
            key = keys.namespace_key(number, path)
            raw = self.values[key]
            if raw is not None and 0 < decode_namespace(key, raw)[1].count <= _COUNTED_MAX:
                yield number, path

    def all(self, prefix: tuple[str, ...]) -> list[list[tuple[Segment, Row]]]:
        """Return the rows of each item below a prefix, the newest thread's first, after counting them."""
        path = self._paths[prefix]
        found: dict[bytes, list[tuple[Segment, Row]]] = {}
        for segment in self._segments:
            number = segment.number
            rows = list(self._rows(segment.salt, self._ranges[keys.items_range(number, path)]))
            self._count(number, path, rows)
            skipped = len(keys.thread_key(number))
            for row, _ in rows:
                found.setdefault(row.key[skipped:], []).append((segment, row))
        return list(found.values())

    def _rows(self, salt: bytes, rows: Sequence[tuple[bytes, bytes]]) -> Iterator[Counted]:
        """Decode rows, but for those that are as they were last seen."""
        seen, _ = self._decoded.get_many(key for key, _ in rows)
        new: list[Counted] = []
        for key, raw in rows:
            counted = seen.get(key)
            if counted is None or counted.row.raw != raw:
                counted = Counted(Row(key, raw, ItemRecord.decode(key, raw)), item_entry(salt, key, raw))
                new.append(counted)
            yield counted
        self._decoded.put_many((each.row.key, each, 3 * len(each.row.raw) + ENTRY_SIZE) for each in new)

    def _count(self, number: int, path: bytes, rows: Iterable[Counted]) -> None:
        """Raise DamagedRecordError unless the rows below a path are those that their namespaces count."""
        there: dict[bytes, list[int]] = {}
        for row, entry in rows:
            there.setdefault(keys.path_of(row.key, number), []).append(entry)
        namespaces = self._ranges[keys.namespaces_range(number, path)]
        told = {keys.path_of(key, number): decode_namespace(key, raw)[1] for key, raw in namespaces}
        for each in {**there, **told}:
            found, expected = summed(there.get(each, ())), told.get(each, Census())
            if found != expected:
                raise miscounted("an item of a memory", found, expected)
        if not path:
            raw = self.values[keys.thread_key(number)]
            if raw is None:
                raise missing(f"thread number {number}")
            thread = ThreadRecord.decode(number, raw)
            found = census(self.salts[number], namespaces)
            if found != thread.root.census:
                raise miscounted("a namespace of a memory", found, thread.root.census)

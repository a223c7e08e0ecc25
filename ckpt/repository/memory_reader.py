"""Reading a memory: items by their keys and by the beginning of their namespace, now or as of a moment.

One view of the store answers for any number of keys and ranges, its bases included. Rows are counted against
the census of their namespace whenever a range is read, or all that a namespace has; an item that is not found alone is
counted too, in each memory whose row would count, unless its namespace is large.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ckpt.history import keys
from ckpt.history.items import ItemRecord, Version, decode_namespace, item_entry
from ckpt.history.records import ThreadRecord
from ckpt.history.seal import Census, census, damaged, miscounted, missing, summed
from ckpt.objects.cache import Cache
from ckpt.repository.core import Core
from ckpt.repository.directory import Directory
from ckpt.repository.versions import all_versions, at_moments

_NAMES_MAX = 1024
_WHOLE_SIZE = 64 << 20
_ENTRY_SIZE = 1000
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


class _Counted(NamedTuple):
    """A row, and what it adds to the census of its namespace."""

    row: Row
    entry: int


class Entry(NamedTuple):
    """An item that is there: the version that counts, when it expires, and the row that version stands in.

    The row is a base's if the version is `inherited`.
    """

    namespace: tuple[str, ...]
    key: str
    version: Version
    expires: int | None
    row: Row
    inherited: bool


class _Snapshot(NamedTuple):
    """All items below a prefix, in order, and the records of the threads they were read from."""

    state: tuple[bytes | None, ...]
    entries: list[Entry]


class MemoryReader:
    """Reads the memories of one graph."""

    def __init__(self, core: Core, directory: Directory) -> None:
        self._core = core
        self._directory = directory
        self._known: Cache[str, Known] = Cache(_NAMES_MAX)
        self._whole: Cache[tuple[str, tuple[str, ...]], _Snapshot] = Cache(_WHOLE_SIZE)
        self._rows: Cache[bytes, _Counted] = Cache(_WHOLE_SIZE)

    def forget(self) -> None:
        """Drop what is remembered of memories: something was removed from the store."""
        self._known.clear()
        self._whole.clear()
        self._rows.clear()

    def known(self, name: str) -> Known | None:
        """Return where a memory lies as it was last seen, or look; None when there is none."""
        found = self._known.get(name)
        if found is None:
            record, named = self._directory.name_record(name)
            if record is None or named is None or record.thread is None:
                return None
            found = Known(named, tuple(self._segments(record.thread)))
            self._known.put(name, found, 1)
        return found

    def _segments(self, number: int) -> Iterable[Segment]:
        moment: int | None = None
        made = 0
        while True:
            thread, _ = self._directory.by_number(number)
            yield Segment(number, moment, thread.salt, made)
            base = thread.base
            if base is None:
                return
            # What a fork of a fork sees of the first one was there when both forks left.
            moment = base.moment if moment is None else min(moment, base.moment)
            number, made = base.thread, base.made

    def read(
        self,
        name: str,
        addresses: Sequence[Address],
        prefixes: Sequence[tuple[str, ...]],
        *,
        as_of: int | None = None,
        now: int | None = None,
    ) -> tuple[list[Entry | None], list[list[Entry]]]:
        """Return the item at each address, and per prefix all items whose namespace begins with it.

        Those changed last come first. All as of one moment of the store, and with `as_of` of the memory. Expired ones
        are left out if `now` is given, the microseconds since 1970 to compare with. One round trip when the memory
        was read before. What lies below a prefix is remembered, and read again only when the memory has changed.
        """

        def attempt() -> tuple[list[Entry | None], list[list[Entry]]]:
            remembered = self._remembering(name, addresses, prefixes) if as_of is None else None
            return remembered or self._looking(name, addresses, prefixes, as_of)

        found, whole = self._core.consistently(attempt)
        return _living(found, now), [[each for each in _living(entries, now) if each] for entries in whole]

    def _remembering(
        self, name: str, addresses: Sequence[Address], prefixes: Sequence[tuple[str, ...]]
    ) -> tuple[list[Entry | None], list[list[Entry]]] | None:
        """Read when all that lies below the prefixes is remembered and the memory has not changed since, else None."""
        known = [self._whole.get((name, prefix)) for prefix in prefixes]
        if not prefixes or not all(known):
            return None
        looked = self.look(name, addresses)
        if looked is None or any(each is None or each.state != looked.state for each in known):
            return None
        return self._entries(looked.items, looked, None), [each.entries for each in known if each is not None]

    def _looking(
        self, name: str, addresses: Sequence[Address], prefixes: Sequence[tuple[str, ...]], as_of: int | None
    ) -> tuple[list[Entry | None], list[list[Entry]]]:
        looked = self.look(name, addresses, prefixes, past=as_of is not None)
        if looked is None:
            return [None] * len(addresses), [[] for _ in prefixes]
        whole = [self._below(looked, prefix, as_of) for prefix in prefixes]
        for prefix, entries in zip(prefixes, whole, strict=True):
            # A lifetime changes without its memory: it is looked up every time.
            if as_of is None and not any(entry.version.ttl for entry in entries):
                self._whole.put((name, prefix), _Snapshot(looked.state, entries), _ENTRY_SIZE * (1 + len(entries)))
        return self._entries(looked.items, looked, as_of), whole

    def _below(self, looked: Look, prefix: tuple[str, ...], as_of: int | None) -> list[Entry]:
        found = [entry for entry in self._entries(looked.all(prefix), looked, as_of) if entry is not None]
        return sorted(found, key=lambda entry: (-entry.version.moment, entry.namespace, entry.key))

    def look(
        self,
        name: str,
        addresses: Sequence[Address],
        prefixes: Sequence[tuple[str, ...]] = (),
        *,
        prove: bool = True,
        past: bool = False,
    ) -> Look | None:
        """Return the rows that a read or a write depends on, as of one moment; None when there is no such memory.

        Without `prove` a row that is not found is taken to be absent; with `past` those below a newer row count too.
        """
        while (known := self.known(name)) is not None:
            looked = Look(known, name, addresses, prefixes, self._rows)
            if looked.read(self._core):
                if prove:
                    self._prove(looked, past)
                return looked
            self._known.drop(name)
        return None

    def entries(self, looked: Look) -> list[Entry | None]:
        """Return what stands at the addresses of a look, expired items included."""
        return self._entries(looked.items, looked, None)

    def _prove(self, looked: Look, past: bool) -> None:
        """Raise DamagedRecordError when an item was not found that its small namespace counts."""
        wanted = list(looked.doubtful(past))
        if not wanted:
            return
        self._core.storage.check()
        records, ranges = self._core.storage.view(
            [keys.namespace_key(*each) for each in wanted], [keys.own_items_range(*each) for each in wanted]
        )
        for each, raw, rows in zip(wanted, records, ranges, strict=True):
            expected = decode_namespace(keys.namespace_key(*each), raw)[1] if raw is not None else Census()
            found = summed(item_entry(looked.salts[each[0]], key, row) for key, row in rows)
            if found != expected:
                raise miscounted("an item of a memory", found, expected)

    def _entries(
        self, items: Sequence[list[tuple[Segment, Row]]], looked: Look, as_of: int | None
    ) -> list[Entry | None]:
        """Return what counts of each item, given its rows, the newest thread's first; expired ones too."""
        entries: list[Entry | None] = [None] * len(items)
        left: list[tuple[int, int]] = []
        for at, rows in enumerate(items):
            if rows and as_of is None and rows[0][0].moment is None and rows[0][1].record.recent:
                entries[at] = _entry(*rows[0], rows[0][1].record.recent[-1])
            elif rows:
                left.append((at, 0))
        while left:
            pairs = [(items[at][depth][1].record, _until(items[at][depth][0], as_of)) for at, depth in left]
            deeper: list[tuple[int, int]] = []
            for (at, depth), version in zip(left, at_moments(pairs, self._core.objects.load), strict=True):
                if version is not None:
                    entries[at] = _entry(*items[at][depth], version)
                elif depth + 1 < len(items[at]):
                    deeper.append((at, depth + 1))
            left = deeper
        return entries

    def versions(self, name: str, address: Address) -> list[Version]:
        """Return all versions of an item that this memory sees, oldest first."""

        def attempt() -> list[Version]:
            looked = self.look(name, [address], past=True)
            rows = looked.items[0][::-1] if looked is not None else []
            told = all_versions([row.record for _, row in rows], self._core.objects.load)
            # A fork may have a copy of what counted when it left.
            found = {
                version.moment: version
                for (segment, _), versions in zip(rows, told, strict=True)
                for version in versions
                if segment.moment is None or version.moment <= segment.moment
            }
            return list(found.values())

        return self._core.consistently(attempt)


def _entry(segment: Segment, row: Row, version: Version) -> Entry | None:
    record = row.record
    if version.value is None:
        return None
    inherited = segment.moment is not None
    expires = record.expiry(version) if version.ttl else None
    if expires is not None and inherited:
        # However long it is read in the base. What had expired when the fork was made stays so.
        expires = min(expires, segment.made + version.ttl)
    return Entry(record.namespace, record.key, version, expires, row, inherited)


def _living(entries: Sequence[Entry | None], now: int | None) -> list[Entry | None]:
    """Return entries with None for those that have expired."""
    return [
        None if now is not None and entry is not None and entry.expires is not None and entry.expires <= now else entry
        for entry in entries
    ]


def _until(segment: Segment, as_of: int | None) -> int | None:
    if as_of is None or segment.moment is None:
        return segment.moment if as_of is None else as_of
    return min(segment.moment, as_of)


class Look:
    """One look at the store: what is wanted of it, and what it said."""

    def __init__(
        self,
        known: Known,
        name: str,
        addresses: Sequence[Address],
        prefixes: Sequence[tuple[str, ...]],
        decoded: Cache[bytes, _Counted],
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

    def read(self, core: Core) -> bool:
        """Look; False when the memory's name no longer stands for the same thread."""
        wanted = {self._name_key: None}
        ranges: dict[tuple[bytes, bytes], None] = {}
        for number in self.salts:
            wanted[keys.thread_key(number)] = None
            for address, path in self._addresses:
                wanted[keys.item_key(number, path, address.key)] = None
                wanted[keys.namespace_key(number, path)] = None
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

    def _item(self, address: Address, path: bytes) -> Iterator[tuple[Segment, Row]]:
        for segment in self._segments:
            key = keys.item_key(segment.number, path, address.key)
            raw = self.values[key]
            if raw is not None:
                row = Row(key, raw, ItemRecord.decode(key, raw))
                if Address(row.record.namespace, row.record.key) != address:
                    raise damaged("an item of a memory")
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

    def _rows(self, salt: bytes, rows: Sequence[tuple[bytes, bytes]]) -> Iterator[_Counted]:
        """Decode rows, but for those that are as they were last seen."""
        seen, _ = self._decoded.get_many(key for key, _ in rows)
        new: list[_Counted] = []
        for key, raw in rows:
            counted = seen.get(key)
            if counted is None or counted.row.raw != raw:
                counted = _Counted(Row(key, raw, ItemRecord.decode(key, raw)), item_entry(salt, key, raw))
                new.append(counted)
            yield counted
        self._decoded.put_many((each.row.key, each, 3 * len(each.row.raw) + _ENTRY_SIZE) for each in new)

    def _count(self, number: int, path: bytes, rows: Iterable[_Counted]) -> None:
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

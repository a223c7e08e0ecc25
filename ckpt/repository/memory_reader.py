"""Reading a memory: items by their keys and by the beginning of their namespace, now or as of a moment.

One view of the store answers for any number of keys and ranges, its bases included. Rows are counted against
the census of their namespace whenever a range is read; an item that is not found alone is counted too, unless its
namespace is large.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ckpt.history import keys
from ckpt.history.items import ItemRecord, Version, decode_namespace
from ckpt.history.records import ThreadRecord
from ckpt.history.seal import Census, census, damaged, missing
from ckpt.objects.cache import Cache
from ckpt.repository.core import Core
from ckpt.repository.directory import Directory
from ckpt.repository.versions import all_versions, at_moments

_NAMES_MAX = 1024
_COUNTED_MAX = 256
"""Items of a namespace up to which the absence of one is proved by counting all of them."""


class Segment(NamedTuple):
    """A stretch of a memory's past: the rows of one thread up to a moment (None: all)."""

    number: int
    moment: int | None


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


class Entry(NamedTuple):
    """An item that is there: the version that counts, when it expires, and the row that version stands in."""

    namespace: tuple[str, ...]
    key: str
    version: Version
    expires: int | None
    row: Row


class MemoryReader:
    """Reads the memories of one graph."""

    def __init__(self, core: Core, directory: Directory) -> None:
        self._core = core
        self._directory = directory
        self._known: Cache[str, Known] = Cache(_NAMES_MAX)
        core.on_removal(self._known.clear)

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
        while True:
            yield Segment(number, moment)
            base = self._directory.by_number(number)[0].base
            if base is None:
                return
            # What a fork of a fork sees of the first one was there when both forks left.
            moment = base.moment if moment is None else min(moment, base.moment)
            number = base.thread

    def read(
        self,
        name: str,
        addresses: Sequence[Address],
        prefixes: Sequence[tuple[str, ...]],
        *,
        as_of: int | None = None,
        now: int | None = None,
    ) -> tuple[list[Entry | None], list[list[Entry]]]:
        """Return the item at each address, and per prefix all items whose namespace begins with it, in no order.

        All as of one moment of the store, and with `as_of` of the memory. Expired ones are left out if `now` is
        given, the microseconds since 1970 to compare with. One round trip when the memory was read before.
        """
        return self._core.consistently(lambda: self._read(name, addresses, prefixes, as_of, now))

    def _read(
        self,
        name: str,
        addresses: Sequence[Address],
        prefixes: Sequence[tuple[str, ...]],
        as_of: int | None,
        now: int | None,
    ) -> tuple[list[Entry | None], list[list[Entry]]]:
        looked = self.look(name, addresses, prefixes)
        if looked is None:
            return [None] * len(addresses), [[] for _ in prefixes]
        several = [looked.all(prefix) for prefix in prefixes]
        found = self._entries([*looked.items, *(rows for group in several for rows in group)], looked, as_of, now)
        entries = iter(found[len(addresses) :])
        return found[: len(addresses)], [
            [entry for _ in group if (entry := next(entries)) is not None] for group in several
        ]

    def look(self, name: str, addresses: Sequence[Address], prefixes: Sequence[tuple[str, ...]] = ()) -> Look | None:
        """Return the rows that a read or a write depends on, as of one moment; None when there is no such memory."""
        while (known := self.known(name)) is not None:
            looked = Look(known, name, addresses, prefixes)
            if looked.read(self._core):
                self._prove(looked)
                return looked
            self._known.drop(name)
        return None

    def entries(self, looked: Look) -> list[Entry | None]:
        """Return what stands at the addresses of a look, expired items included."""
        return self._entries(looked.items, looked, None, None)

    def _prove(self, looked: Look) -> None:
        """Raise DamagedRecordError when an item was not found that its small namespace counts."""
        wanted = list(looked.doubtful())
        if not wanted:
            return
        self._core.storage.check()
        records, ranges = self._core.storage.view(
            [keys.namespace_key(*each) for each in wanted], [keys.own_items_range(*each) for each in wanted]
        )
        for each, raw, rows in zip(wanted, records, ranges, strict=True):
            expected = decode_namespace(keys.namespace_key(*each), raw)[1] if raw is not None else Census()
            if census(key for key, _ in rows) != expected:
                raise missing("an item of a memory")

    def _entries(
        self, items: Sequence[list[tuple[Segment, Row]]], looked: Look, as_of: int | None, now: int | None
    ) -> list[Entry | None]:
        """Return what counts of each item, given its rows, the newest thread's first."""
        entries: list[Entry | None] = [None] * len(items)
        left = [(at, 0) for at, rows in enumerate(items) if rows]
        while left:
            pairs = [(items[at][depth][1].record, _until(items[at][depth][0], as_of)) for at, depth in left]
            deeper: list[tuple[int, int]] = []
            for (at, depth), version in zip(left, at_moments(pairs, self._core.objects.load), strict=True):
                row = items[at][depth][1]
                if version is None:
                    deeper += [(at, depth + 1)] if depth + 1 < len(items[at]) else []
                elif version.value is not None:
                    expires = row.record.expiry(version)
                    if now is None or expires is None or expires > now:
                        entries[at] = Entry(row.record.namespace, row.record.key, version, expires, row)
            left = deeper
        return entries

    def versions(self, name: str, address: Address) -> list[Version]:
        """Return all versions of an item that this memory sees, oldest first."""

        def attempt() -> list[Version]:
            looked = self.look(name, [address])
            rows = looked.items[0][::-1] if looked is not None else []
            told = all_versions([row.record for _, row in rows], self._core.objects.load)
            return [
                version
                for (segment, _), versions in zip(rows, told, strict=True)
                for version in versions
                if segment.moment is None or version.moment <= segment.moment
            ]

        return self._core.consistently(attempt)


def _until(segment: Segment, as_of: int | None) -> int | None:
    if as_of is None or segment.moment is None:
        return segment.moment if as_of is None else as_of
    return min(segment.moment, as_of)


class Look:
    """One look at the store: what is wanted of it, and what it said."""

    def __init__(
        self, known: Known, name: str, addresses: Sequence[Address], prefixes: Sequence[tuple[str, ...]]
    ) -> None:
        self._named, self._name_key = known.named, keys.name_key(name)
        self._segments = known.segments
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
        for number, _ in self._segments:
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
                yield segment, row

    def doubtful(self) -> Iterator[tuple[int, bytes]]:
        """Yield (thread, path) of small namespaces that have items, and not the one asked for."""
        absent = {path for (_, path), rows in zip(self._addresses, self.items, strict=True) if not rows}
        for path in absent:
            for number, _ in self._segments:
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
            rows = self._ranges[keys.items_range(number, path)]
            self._count(number, path, rows)
            skipped = len(keys.thread_key(number))
            for key, raw in rows:
                found.setdefault(key[skipped:], []).append((segment, Row(key, raw, ItemRecord.decode(key, raw))))
        return list(found.values())

    def _count(self, number: int, path: bytes, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise DamagedRecordError unless the rows below a path are those that their namespaces count."""
        there: dict[bytes, list[bytes]] = {}
        for key, _ in rows:
            there.setdefault(keys.path_of(key, number), []).append(key)
        namespaces = self._ranges[keys.namespaces_range(number, path)]
        expected = {keys.path_of(key, number): decode_namespace(key, raw)[1] for key, raw in namespaces}
        counted = {each: census(there.get(each, ())) for each in {**there, **expected}}
        if counted != {each: expected.get(each, Census()) for each in counted}:
            raise missing("an item of a memory")
        key = keys.thread_key(number)
        thread = self.values[key]
        if thread is None:
            raise missing(f"thread number {number}")
        if not path and ThreadRecord.decode(number, thread).root.census != census(key for key, _ in namespaces):
            raise missing("a namespace of a memory")

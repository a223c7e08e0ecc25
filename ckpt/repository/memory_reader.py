"""Reading a memory: items by their keys and by the beginning of their namespace, now or as of a moment.

One view of the store answers for any number of keys and ranges, its bases included. Rows are counted against
the census of their namespace whenever a range is read, or all that a namespace has; an item that is not found alone is
counted too, in each memory whose row would count, unless its namespace is large.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ckpt.history import keys
from ckpt.history.items import Version, decode_namespace, item_entry
from ckpt.history.seal import Census, miscounted, summed
from ckpt.objects.cache import Cache
from ckpt.repository.core import Core
from ckpt.repository.directory import Directory
from ckpt.repository.memory_look import ENTRY_SIZE, Address, Counted, Known, Look, Row, Segment
from ckpt.repository.memory_recent import MemoryRecent
from ckpt.repository.versions import all_versions, at_moments

_NAMES_MAX = 1024
_WHOLE_SIZE = 64 << 20


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
        self._rows: Cache[bytes, Counted] = Cache(_WHOLE_SIZE)

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
                self._whole.put((name, prefix), _Snapshot(looked.state, entries), ENTRY_SIZE * (1 + len(entries)))
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

    def guess(self, name: str, addresses: Sequence[Address], recent: MemoryRecent) -> Look | None:
        """Return what a look would find should all be as this process wrote it last; None when that is not known.

        Asks the store for nothing.
        """
        known = self._known.get(name)
        if known is None:
            return None
        looked = Look(known, name, addresses, (), self._rows)
        return looked if looked.guess(recent) else None

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

"""Writing to a memory: any number of puts and deletions are one transaction.

The rows that a change builds on are read first, or are those that this process wrote last, and compared inside the
transaction; a lost race is read again and retried. Every change of a memory moves its thread to a new moment, so
changes of one memory follow each other, also those of several processes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from ckpt.errors import ConflictError, StoreError
from ckpt.history import keys
from ckpt.history.commits import StoredValue
from ckpt.history.items import ItemRecord, Lease, Version, decode_namespace, encode_namespace, item_entry
from ckpt.history.records import ThreadRecord
from ckpt.history.seal import Census, missing
from ckpt.objects.store import Draft
from ckpt.repository.core import Core
from ckpt.repository.directory import Directory
from ckpt.repository.incoming import Typed
from ckpt.repository.memory_look import Address, Look
from ckpt.repository.memory_reader import Entry, MemoryReader
from ckpt.repository.memory_recent import MemoryRecent
from ckpt.repository.versions import put_away
from ckpt.storage.base import Batch, EpochChangedError, RecordChangedError
from ckpt.values.cut import Cutter

_ATTEMPTS = 1000
_VECTORS = "vectors"

_T = TypeVar("_T")


class NewVersion(NamedTuple):
    """What an item becomes: a value, or None for its absence. `ttl` is microseconds, 0 for good."""

    address: Address
    value: Typed | None
    ttl: int = 0
    vectors: bytes = b""

    @property
    def size(self) -> int:
        """How many bytes it is, serialized."""
        return len(self.vectors) + (len(self.value.data) if self.value is not None else 0)


@dataclass(slots=True)
class _Attempt:
    """What one try to write collects."""

    thread: ThreadRecord
    expected: dict[bytes, bytes | None]
    records: dict[bytes, bytes | None]
    draft: Draft = field(default_factory=Draft)
    labels: dict[bytes, Sequence[str]] = field(default_factory=dict)
    """What the namespaces of the items are called, by the keys of their records."""


class MemoryWriter:
    """Writes to the memories of one graph."""

    def __init__(self, core: Core, directory: Directory, reader: MemoryReader) -> None:
        self._core = core
        self._directory = directory
        self._reader = reader
        self._recent = MemoryRecent(core)

    def apply(self, name: str, changes: Sequence[NewVersion], *, expired_at: int | None = None) -> int:
        """Apply all changes or none, durably on return, and return how many versions were added.

        Deleting what is not there adds nothing. With `expired_at` a change counts only for an item that has
        expired by then. Creates the memory with its first item.
        """
        return self.atomically(name, lambda epoch: self._batch(name, changes, expired_at, epoch))

    def atomically(self, name: str, act: Callable[[int], tuple[Batch, Draft, _T]]) -> _T:
        """Run `act` to make a batch and publish it, again from the start when somebody else was faster."""
        line = _line(name)
        with self._core.locked(line):
            for attempts in range(_ATTEMPTS):
                try:
                    batch, draft, result = act(self._core.epoch)
                    if not batch.records:
                        return result
                    batch.frames = self._core.objects.lay_down(line, draft)
                    numbers = self._core.storage.publish(batch)
                except RecordChangedError:
                    self._core.objects.abandon(line)
                    self._recent.looked(name, right=False)
                    time.sleep(random.random() * 0.001 * min(attempts, 20))
                except EpochChangedError:
                    self._core.removed()
                except BaseException:
                    self._core.objects.abandon(line)
                    raise
                else:
                    self._core.objects.stored(line, draft, numbers)
                    self._core.objects.remember(draft)
                    self._recent.wrote(batch.records)
                    return result
        raise ConflictError(f"memory {name!r} is changed by other writers all the time", hints=["try again later"])

    def _batch(
        self, name: str, changes: Sequence[NewVersion], expired_at: int | None, epoch: int
    ) -> tuple[Batch, Draft, int]:
        looked = self._looked(name, changes, expired_at)
        if looked is None and all(change.value is None for change in changes):
            return Batch(), Draft(), 0
        attempt = self._building_on(looked) if looked is not None else self._new(name)
        present = self._reader.entries(looked) if looked is not None else [None] * len(changes)
        moment = max(now(), attempt.thread.sequence + 1)
        added = 0
        for change, entry in zip(changes, present, strict=True):
            if expired_at is not None and (entry is None or entry.expires is None or entry.expires > expired_at):
                continue
            if entry is not None or change.value is not None:
                self._add(attempt, change.address, self._version(attempt, change, entry, moment))
                added += 1
        attempt.thread = attempt.thread._replace(sequence=moment)
        return self._finished(attempt, epoch) if added else Batch(), attempt.draft, added

    def _looked(self, name: str, changes: Sequence[NewVersion], expired_at: int | None) -> Look | None:
        """Return the rows that changes build on: as they are, or as they should be, which is not asked for then.

        What adds nothing, as deleting may, is compared with nothing: for that, only what is there counts.
        """
        addresses = [change.address for change in changes]
        writes = expired_at is None and all(change.value is not None for change in changes)
        guessed = self._reader.guess(name, addresses, self._recent) if writes else None
        if guessed is not None and self._recent.is_calm(name):
            return guessed
        looked = self._reader.look(name, addresses, prove=False)
        if writes:
            self._recent.looked(name, right=guessed is not None and looked is not None and guessed.agrees(looked))
        return looked

    def _building_on(self, looked: Look) -> _Attempt:
        key = keys.thread_key(looked.number)
        raw = looked.values[key]
        if raw is None:
            raise missing(f"thread number {looked.number}")
        own = {each: value for each, value in looked.values.items() if each.startswith(key)}
        return _Attempt(ThreadRecord.decode(looked.number, raw), own, {})

    def _new(self, name: str) -> _Attempt:
        place = self._directory.place(name)
        if place.name is not None and place.name.thread is not None:
            raise RecordChangedError({})  # made by somebody else just now
        thread, change = self._directory.create(name, place=place)
        expected: dict[bytes, bytes | None] = {**change.expected, keys.thread_key(thread.number): None}
        return _Attempt(thread, expected, dict(change.records))

    def _version(self, attempt: _Attempt, change: NewVersion, entry: Entry | None, moment: int) -> Version:
        if change.value is None:
            return Version(moment, moment, 0, None)
        lives = entry is not None and (entry.expires is None or entry.expires > moment)
        cutter = Cutter(attempt.draft.add, attempt.draft.add_top)
        rope, _ = cutter.cut(*change.value)
        self._core.remember_value(rope, change.value.data)
        return Version(
            moment,
            entry.version.created if entry is not None and lives else moment,
            change.ttl,
            StoredValue(change.value.type, rope),
            cutter.cut(_VECTORS, change.vectors)[0] if change.vectors else b"",
        )

    def _add(self, attempt: _Attempt, address: Address, version: Version, lease: Lease | None = None) -> None:
        number, path = attempt.thread.number, keys.namespace_path(address.namespace)
        key = keys.item_key(number, path, address.key)
        raw = attempt.expected.get(key)
        record = ItemRecord.decode(key, raw) if raw is not None else ItemRecord(*address)
        record = put_away(record.adding(version), attempt.draft.add)
        attempt.records[key] = record._replace(lease=lease).encode(key)
        attempt.labels[keys.namespace_key(number, path)] = address.namespace

    def _finished(self, attempt: _Attempt, epoch: int) -> Batch:
        thread = count_items(attempt.thread, attempt.expected, attempt.records, attempt.labels)
        attempt.records[keys.thread_key(thread.number)] = thread.encode()
        return Batch(attempt.expected, attempt.records, epoch=epoch)

    # -- lifetimes ------------------------------------------------------------------------------------

    def renew(self, name: str, entries: Iterable[Entry], moment: int) -> None:
        """Have versions with a lifetime live on from now, given as microseconds since 1970.

        Best effort: what somebody else has changed meanwhile is left as it is now. What a fork has from its base is
        renewed in the fork alone.
        """
        # Not for every read of an item that is read all the time.
        due = [
            entry
            for entry in entries
            if entry.expires is not None and moment + entry.version.ttl - entry.expires > entry.version.ttl // 100
        ]
        inherited = [entry for entry in due if entry.inherited]
        # A lifetime that cannot be renewed, as in a store open for reading only, fails no reader.
        with suppress(StoreError, ConflictError):
            self._renew_own([entry for entry in due if not entry.inherited], moment)
            if inherited:
                self.atomically(name, lambda epoch: self._renewed_here(name, inherited, moment, epoch))

    def _renew_own(self, entries: Iterable[Entry], moment: int) -> None:
        expected: dict[bytes, bytes | None] = {}
        records: dict[bytes, bytes | None] = {}
        for entry in entries:
            key, raw, record = entry.row
            if record.recent and record.recent[-1].moment == entry.version.moment:
                expected[key] = raw
                records[key] = record._replace(lease=_lease(entry.version, moment)).encode(key)
        while records:
            try:
                self._core.storage.publish(Batch(expected, records))
            except RecordChangedError as lost:
                changed = {key for key, raw in lost.current.items() if raw != expected[key]}
                expected = {key: raw for key, raw in expected.items() if key not in changed}
                records = {key: raw for key, raw in records.items() if key not in changed}
            else:
                self._recent.wrote(records)
                return

    def _renewed_here(self, name: str, entries: Sequence[Entry], moment: int, epoch: int) -> tuple[Batch, Draft, None]:
        """Return the change that gives a fork rows of its own for what it has from its base, each with a lease."""
        addresses = [Address(entry.namespace, entry.key) for entry in entries]
        looked = self._reader.look(name, addresses, prove=False)
        if looked is None:
            return Batch(), Draft(), None
        attempt = self._building_on(looked)
        for address, entry, present in zip(addresses, entries, self._reader.entries(looked), strict=True):
            if present is not None and present.inherited and present.version.moment == entry.version.moment:
                copy = present.version._replace(until=0)
                self._add(attempt, address, copy, _lease(copy, moment))
        return self._finished(attempt, epoch) if attempt.records else Batch(), attempt.draft, None


def count_items(
    thread: ThreadRecord,
    expected: Mapping[bytes, bytes | None],
    records: dict[bytes, bytes | None],
    labels: Mapping[bytes, Sequence[str]] = MappingProxyType({}),
) -> ThreadRecord:
    """Return a memory's record that counts its items as `records` changes them from what is `expected`.

    What becomes of their namespaces, whose records are `expected` as well, is added to `records`; one without items
    goes. `labels` are those of namespaces that may have no record yet, by their keys.
    """
    found: dict[bytes, tuple[Sequence[str], Census]] = {}
    start, end = keys.items_range(thread.number, b"")
    for key in [each for each in records if start <= each < end]:
        at = keys.namespace_key(thread.number, keys.path_of(key, thread.number))
        if at not in found:
            raw = expected.get(at)
            if raw is None and at not in labels:
                raise missing("a namespace of a memory")
            found[at] = decode_namespace(at, raw) if raw is not None else (labels[at], Census())
        before, after = (
            item_entry(thread.salt, key, record) if record is not None else None
            for record in (expected.get(key), records[key])
        )
        found[at] = found[at][0], found[at][1].changed(before, after)
    counted = thread.root.census
    for at, (names, census) in found.items():
        records[at] = encode_namespace(at, names, census) if census.count else None
        counted = counted.replaced(thread.salt, at, expected.get(at), records[at])
    return thread._replace(root=thread.root._replace(census=counted))


def _lease(version: Version, moment: int) -> Lease:
    return Lease(version.moment, moment + version.ttl)


def _line(name: str) -> str:
    """Return the name of the lock and of the packs of a memory, which no thread's name is likely to be."""
    return f"\0memory {name}"


def now() -> int:
    """Return the microseconds since 1970."""
    return time.time_ns() // 1000

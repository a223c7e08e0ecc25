"""The directory of threads: from a name to a thread, with proof when there is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from blake3 import blake3

from ckpt.history import clock, keys
from ckpt.history.records import (
    Base,
    Lifetime,
    Line,
    NameRecord,
    ThreadRecord,
    decode_census,
    encode_census,
)
from ckpt.history.seal import census, missing, seal, unseal
from ckpt.repository.core import Core
from ckpt.storage.base import Reading

GHOSTS_MAX = 4096
_PAGE = 1000
_GHOST_SIZE = 8


class Change(NamedTuple):
    """Part of a batch: what records must be, and what they become."""

    expected: dict[bytes, bytes | None]
    records: dict[bytes, bytes | None]


class Place(NamedTuple):
    """What the directory says about one name, as of one moment; `name` is None when it was never used."""

    name: NameRecord | None
    raw: dict[bytes, bytes | None]
    """The records of the name, of its bucket, and the thread counter, by key."""


class Directory:
    """Finds, lists, and prepares to create or remove threads."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def name_record(self, name: str, reading: Reading | None = None) -> tuple[NameRecord | None, bytes | None]:
        """Return the record of a thread name and its bytes; (None, None) when it was never used.

        Raises DamagedRecordError when the directory says that a record of this name must exist.
        """
        reading = reading or self._core.storage
        key = keys.name_key(name)
        raw = reading.read([key])[0]
        if raw is None:
            place = self.place(name, reading)
            return place.name, place.raw[key]
        return NameRecord.decode(key, raw), raw

    def place(self, name: str, reading: Reading | None = None) -> Place:
        """Return all that creating a thread of this name depends on, in one round trip.

        Raises DamagedRecordError when the directory says that a record of this name must exist.
        """
        self._core.storage.check()
        bucket = keys.name_bucket(name)
        name_key, bucket_key = keys.name_key(name), keys.directory_key(bucket)
        wanted = [name_key, bucket_key, keys.COUNTERS]
        values, (rows,) = (reading or self._core.storage).view(wanted, [keys.bucket_range(bucket)])
        raw = dict(zip(wanted, values, strict=True))
        if (record := raw[name_key]) is not None:
            return Place(NameRecord.decode(name_key, record), raw)
        there = [key for key, _ in rows]
        if name_key in there or census(there) != decode_census(bucket_key, raw[bucket_key]):
            raise missing(f"a thread in the same part of the directory as {name!r}")
        return Place(None, raw)

    def find(self, name: str, reading: Reading | None = None) -> tuple[ThreadRecord, bytes] | None:
        """Return the thread that has this name now, and its record's bytes; None when there is none, or it expired."""
        reading = reading or self._core.storage
        record, _ = self.name_record(name, reading)
        if record is None or record.thread is None:
            return None
        found = self.by_number(record.thread, reading)
        return found if not found[0].lapsed(clock.now_ms()) else None

    def by_number(self, number: int, reading: Reading | None = None) -> tuple[ThreadRecord, bytes]:
        """Return a thread that must exist, deleted ones with forks included."""
        raw = (reading or self._core.storage).read([keys.thread_key(number)])[0]
        if raw is None:
            raise missing(f"thread number {number}")
        return ThreadRecord.decode(number, raw), raw

    def names(self) -> Iterator[NameRecord]:
        """Yield the record of every name, deleted ones included, in no useful order."""
        self._core.storage.check()
        _, (rows, buckets) = self._core.storage.view([], [keys.ALL_NAMES, keys.ALL_BUCKETS])
        found: dict[int, list[bytes]] = {}
        for key, _ in rows:
            found.setdefault(key[1], []).append(key)
        counted = dict(buckets)
        for bucket in range(keys.BUCKETS):
            key = keys.directory_key(bucket)
            if census(found.get(bucket, ())) != decode_census(key, counted.get(key)):
                raise missing("a thread in the directory")
        for key, record in rows:
            yield NameRecord.decode(key, record)

    def threads(self) -> Iterator[ThreadRecord]:
        """Yield every thread that has a name and has not expired."""
        named = [(record.name, record.thread) for record in self.names() if record.thread is not None]
        now = clock.now_ms()
        for start in range(0, len(named), _PAGE):
            page = named[start : start + _PAGE]
            raws = self._core.storage.read([keys.thread_key(number) for _, number in page])
            for (name, number), raw in zip(page, raws, strict=True):
                if raw is None:
                    self.find(name)  # raises, unless it was collected between the two looks and its name with it
                    continue
                thread = ThreadRecord.decode(number, raw)
                if not thread.deleted and not thread.lapsed(now):
                    yield thread

    def create(
        self,
        name: str,
        *,
        place: Place | None = None,
        base: Base | None = None,
        root: Line | None = None,
        greatest: str = "",
        lifetime: Lifetime | None = None,
    ) -> tuple[ThreadRecord, Change]:
        """Return a new thread of this name, and the change that creates it (its own record left out).

        It lives as long as the policy says, and without one as long as `lifetime`.
        """
        record, raw = place or self.place(name)
        former = record.former if record is not None else ()
        expected: dict[bytes, bytes | None] = {}
        records: dict[bytes, bytes | None] = {}
        if record is not None and record.thread is not None:
            # Only a thread that has expired is replaced. To one that lives on since, this change must lose.
            old, old_raw = self.by_number(record.thread)
            old_key = keys.thread_key(old.number)
            expected[old_key] = old_raw if old.lapsed(clock.now_ms()) else None
            records[old_key] = old._replace(deleted=True).encode()
            former = (*former, old.number)
        name_key, bucket_key = keys.name_key(name), keys.directory_key(keys.name_bucket(name))
        counter = raw[keys.COUNTERS]
        number = unseal(keys.COUNTERS, counter, "the thread counter") if counter else 1
        lifetime = self._core.lifetimes.renewed(lifetime, clock.now_ms())
        thread = ThreadRecord(number, name, greatest=greatest, root=root or Line(""), base=base, lifetime=lifetime)
        named = record._replace(thread=number, former=former) if record else NameRecord(name, number)
        expected |= {keys.COUNTERS: counter, name_key: raw[name_key]}
        records |= {keys.COUNTERS: seal(keys.COUNTERS, number + 1), name_key: named.encode()}
        if record is None:
            expected[bucket_key] = raw[bucket_key]
            counted = decode_census(bucket_key, raw[bucket_key]).toggled(name_key, 1)
            records[bucket_key] = encode_census(bucket_key, counted)
        return thread, Change(expected, records)

    def release(self, thread: ThreadRecord) -> Change:
        """Return the change that frees a thread's name and marks the thread as deleted."""
        record, raw = self.name_record(thread.name)
        if record is None or record.thread != thread.number:
            raise missing(f"the name of thread {thread.name!r}")
        freed = record._replace(thread=None, former=(*record.former, thread.number))
        key = keys.name_key(thread.name)
        return Change({key: raw}, {key: freed.encode()})

    def forgotten(self, name: str) -> Change:
        """Return the change that removes the record of a name (which the caller compares)."""
        name_key, bucket_key = keys.name_key(name), keys.directory_key(keys.name_bucket(name))
        raw = self._core.storage.read([bucket_key])[0]
        counted = decode_census(bucket_key, raw).toggled(name_key, -1)
        return Change({bucket_key: raw}, {bucket_key: encode_census(bucket_key, counted), name_key: None})

    def is_ghost(self, record: NameRecord, checkpoint_id: str) -> bool:
        """Return whether this checkpoint belonged to a thread of that name that has been collected."""
        return ghost_hash(checkpoint_id) in ghost_hashes(record.ghosts)


def ghost_hash(checkpoint_id: str) -> bytes:
    """Return the hash by which a collected checkpoint id is remembered."""
    return blake3(keys.encode_text(checkpoint_id)).digest(_GHOST_SIZE)


def ghost_hashes(packed: bytes) -> set[bytes]:
    """Return the hashes that a name record remembers."""
    return {packed[i : i + _GHOST_SIZE] for i in range(0, len(packed), _GHOST_SIZE)}

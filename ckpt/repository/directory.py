"""The directory of threads: from a name to a thread, with proof when there is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from blake3 import blake3

from ckpt.encryption import no_key
from ckpt.errors import ThreadNotFoundError
from ckpt.history import clock, keys
from ckpt.history.records import (
    Base,
    Lifetime,
    Line,
    NameRecord,
    Tally,
    ThreadRecord,
    decode_counter,
    encode_counter,
)
from ckpt.history.seal import missing, new_salt, outdated
from ckpt.repository.ahead import Ahead
from ckpt.repository.core import Core
from ckpt.storage.base import Reading
from ckpt.storage.scoped import HEADER_KEY

GHOSTS_MAX = 4096
_PAGE = 1000
_VACANT_MAX = 256
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
        self._tried_first = False
        self._vacant: dict[str, Place] = {}
        """What was seen of names that were asked for and are not in use: mostly a run begins on one next."""

    def name_record(self, name: str, reading: Reading | None = None) -> tuple[NameRecord | None, bytes | None]:
        """Return the record of a thread name and its bytes; (None, None) when it was never used.

        Raises DamagedRecordError when the directory says that a record of this name must exist.
        """
        reading = reading or self._core.storage
        key = keys.name_key(name)
        raw = reading.read([key])[0]
        if raw is None:
            place = self.place(name, reading)
            if len(self._vacant) >= _VACANT_MAX:
                self._vacant.clear()
            self._vacant[name] = place
            return place.name, place.raw[key]
        return NameRecord.decode(key, raw), raw

    def vacant(self, name: str) -> Place | None:
        """Return what `place` did when a name was looked for that was not in use; once, as others may have it since."""
        return self._vacant.pop(name, None)

    def place(self, name: str, reading: Reading | None = None) -> Place:
        """Return all that creating a thread of this name depends on, in one round trip.

        Raises DamagedRecordError when the directory says that a record of this name must exist, and WrongKeyError
        when a store that was opened without a key has become encrypted since.
        """
        self._core.storage.check()
        bucket = keys.name_bucket(name)
        name_key, bucket_key = keys.name_key(name), keys.directory_key(bucket)
        wanted = [name_key, bucket_key, keys.COUNTERS]
        (header, *values), (rows,) = (reading or self._core.storage).view(
            [HEADER_KEY, *wanted], [keys.bucket_range(bucket)]
        )
        self._expect_no(header)
        raw = dict(zip(wanted, values, strict=True))
        if (record := raw[name_key]) is not None:
            return Place(NameRecord.decode(name_key, record), raw)
        self._prove_bucket(name, raw[bucket_key], rows)
        if any(key == name_key for key, _ in rows):
            raise missing(f"the thread {name!r}")
        return Place(None, raw)

    def _expect_no(self, header: bytes | None) -> None:
        """Raise WrongKeyError for the header of an encryption; who opened the store with its key sees none."""
        if header is not None:
            raise no_key(self._core.storage)

    def _prove_bucket(self, name: str, raw: bytes | None, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Raise DamagedRecordError unless the names in the bucket of a name are as its directory counts them."""
        tally = Tally.decode(keys.directory_key(keys.name_bucket(name)), raw)
        tally.prove(f"a thread in the same part of the directory as {name!r}", rows)

    def find(self, name: str, reading: Reading | None = None) -> tuple[ThreadRecord, bytes] | None:
        """Return the thread that has this name now, and its record's bytes; None when there is none, or it expired."""
        reading = reading or self._core.storage
        record, _ = self.name_record(name, reading)
        found = self.by_number(record.thread, reading) if record is not None and record.thread is not None else None
        return self._in_use(record, found, reading)

    def find_with_newest(self, name: str) -> tuple[ThreadRecord, bytes, Reading] | None:
        """Return what `find` does, and a reading that has the greatest of the thread's root checkpoints at hand.

        It was read in the same trip, as of the same moment: mostly it is the head.
        """
        storage = self._core.storage
        record, _ = self.name_record(name)
        if record is None or record.thread is None:
            self._in_use(record, None, storage)
            return None
        number = record.thread
        start, end = keys.checkpoints_range(number, "")
        (raw,), (rows,) = storage.view([keys.thread_key(number)], [(start, end)], last=1)
        found = self._in_use(record, self._decoded(number, raw), storage)
        if found is None:
            return None
        # Nothing stands behind the last one. The thread's record is not at hand: who doubts it reads it again.
        return *found, Ahead(storage, [(rows[0][0] if rows else start, end)], dict(rows))

    def _in_use(
        self, record: NameRecord | None, found: tuple[ThreadRecord, bytes] | None, reading: Reading
    ) -> tuple[ThreadRecord, bytes] | None:
        """Return the thread that a name stands for unless it has expired; None for a name that is not in use."""
        if record is None:
            return None
        if found is None or found[0].deleted:
            self._prove_deleted(record, reading)
            return None
        return found if not found[0].lapsed(clock.now_ms()) else None

    def require(self, name: str) -> tuple[ThreadRecord, bytes]:
        """Return what `find` does, or raise ThreadNotFoundError."""
        found = self.find(name)
        if found is None:
            raise ThreadNotFoundError(f"there is no thread {name!r}", hints=["ckpt threads lists all"])
        return found

    def _prove_deleted(self, record: NameRecord, reading: Reading) -> None:
        """Raise DamagedRecordError when a name and its threads disagree, as of one moment, about which one has it."""
        bucket = keys.name_bucket(record.name)
        wanted = [keys.name_key(record.name), keys.directory_key(bucket)]
        numbers = record.former if record.thread is None else (record.thread,)
        values, (rows,) = reading.view([*wanted, *map(keys.thread_key, numbers)], [keys.bucket_range(bucket)])
        now, counted, *threads = values
        if now != record.encode():
            return
        self._prove_bucket(record.name, counted, rows)
        for number, raw in zip(numbers, threads, strict=True):
            if raw is not None and ThreadRecord.decode(number, raw).deleted != (record.thread is None):
                raise outdated(f"the name {record.name!r} or of its thread")

    def by_number(self, number: int, reading: Reading | None = None) -> tuple[ThreadRecord, bytes]:
        """Return a thread that must exist, deleted ones with forks included."""
        return self._decoded(number, (reading or self._core.storage).read([keys.thread_key(number)])[0])

    @staticmethod
    def _decoded(number: int, raw: bytes | None) -> tuple[ThreadRecord, bytes]:
        if raw is None:
            raise missing(f"thread number {number}")
        return ThreadRecord.decode(number, raw), raw

    def names(self) -> Iterator[NameRecord]:
        """Yield the record of every name, deleted ones included, in no useful order."""
        self._core.storage.check()
        (header,), (rows, buckets) = self._core.storage.view([HEADER_KEY], [keys.ALL_NAMES, keys.ALL_BUCKETS])
        self._expect_no(header)
        found: dict[bytes, list[tuple[bytes, bytes]]] = {}
        for row in rows:
            found.setdefault(row[0][1:2], []).append(row)
        raw = dict(buckets)
        for bucket in range(keys.BUCKETS):
            key = keys.directory_key(bucket)
            Tally.decode(key, raw.get(key)).prove("a thread in the directory", found.get(bytes((bucket,)), ()))
        for key, record in rows:
            yield NameRecord.decode(key, record)

    def threads(self) -> Iterator[ThreadRecord]:
        """Yield every thread that has a name and has not expired."""
        named = [
            (record.name, number, record.thread is None)
            for record in self.names()
            for number in (record.former if record.thread is None else (record.thread,))
        ]
        now = clock.now_ms()
        for start in range(0, len(named), _PAGE):
            page = named[start : start + _PAGE]
            raws = self._core.storage.read([keys.thread_key(number) for _, number, _ in page])
            for (name, number, free), raw in zip(page, raws, strict=True):
                thread = ThreadRecord.decode(number, raw) if raw is not None else None
                if thread is not None and thread.deleted == free:
                    if not free and not thread.lapsed(now):
                        yield thread
                elif thread is not None or not free:
                    self.find(name)  # raises, unless it was deleted, restored or collected between the two looks

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
        self._vacant.pop(name, None)
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
        if counter is None:
            expected |= self._as_first(raw[bucket_key])
        number = decode_counter(counter)
        lifetime = self._core.lifetimes.renewed(lifetime, clock.now_ms())
        thread = ThreadRecord(
            number, name, greatest=greatest, root=root or Line(""), base=base, lifetime=lifetime, salt=new_salt()
        )
        named = record._replace(thread=number, former=former) if record else NameRecord(name, number)
        expected |= {keys.COUNTERS: counter, name_key: raw[name_key], bucket_key: raw[bucket_key]}
        records |= {keys.COUNTERS: encode_counter(number + 1), name_key: named.encode()}
        tally = Tally.decode(bucket_key, raw[bucket_key]).replaced(name_key, raw[name_key], records[name_key])
        records[bucket_key] = tally.encode(bucket_key)
        return thread, Change(expected, records)

    def _as_first(self, directory: bytes | None) -> dict[bytes, bytes | None]:
        """Return what must be if there never was a thread: a lost counter must not give numbers out again.

        Nor has the store become encrypted since it was opened without a key, which only an empty one can. Raises
        DamagedRecordError when there is the directory of a bucket, or when one was in the way the last time.
        """
        buckets = [keys.directory_key(bucket) for bucket in range(keys.BUCKETS)]
        counter: bytes | None = None
        directories = [directory]
        if self._tried_first:
            counter, *directories = self._core.storage.read([keys.COUNTERS, *buckets])
        if counter is None and any(directories):
            raise missing("the thread counter")
        self._tried_first = True
        return dict.fromkeys([HEADER_KEY, *buckets])

    def release(self, thread: ThreadRecord, reading: Reading | None = None) -> Change:
        """Return the change that frees a thread's name."""
        record, raw = self.name_record(thread.name, reading)
        if record is None or record.thread != thread.number:
            raise missing(f"the name of thread {thread.name!r}")
        freed = record._replace(thread=None, former=(*record.former, thread.number))
        return self.renamed(thread.name, raw, freed, reading)

    def renamed(
        self, name: str, before: bytes | None, after: NameRecord | None, reading: Reading | None = None
    ) -> Change:
        """Return the change that replaces the record of a name, which is `before` now, or removes it (None)."""
        name_key, bucket_key = keys.name_key(name), keys.directory_key(keys.name_bucket(name))
        raw = (reading or self._core.storage).read([bucket_key])[0]
        record = after.encode() if after is not None else None
        tally = Tally.decode(bucket_key, raw).replaced(name_key, before, record)
        return Change({name_key: before, bucket_key: raw}, {name_key: record, bucket_key: tally.encode(bucket_key)})

    def is_ghost(self, record: NameRecord, checkpoint_id: str) -> bool:
        """Return whether this checkpoint belonged to a thread of that name that has been collected."""
        return ghost_hash(checkpoint_id) in ghost_hashes(record.ghosts)


def ghost_hash(checkpoint_id: str) -> bytes:
    """Return the hash by which a collected checkpoint id is remembered."""
    return blake3(keys.encode_text(checkpoint_id)).digest(_GHOST_SIZE)


def ghost_hashes(packed: bytes) -> set[bytes]:
    """Return the hashes that a name record remembers."""
    return {packed[i : i + _GHOST_SIZE] for i in range(0, len(packed), _GHOST_SIZE)}


def with_ghosts(record: NameRecord, hashes: Iterable[bytes]) -> NameRecord:
    """Return a name record that remembers collected checkpoints as well: the last, where most are remembered."""
    known = ghost_hashes(record.ghosts)
    # Of two that are alike the last counts.
    added = reversed(dict.fromkeys(each for each in reversed([*hashes]) if each not in known))
    return record._replace(ghosts=(record.ghosts + b"".join(added))[-_GHOST_SIZE * GHOSTS_MAX :])

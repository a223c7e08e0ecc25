"""Administration of threads: fork, copy, delete, their lifetimes, and what undoing these takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from ckpt.errors import AlreadyExistsError, ConflictError, RevisionNotFoundError
from ckpt.history import clock, keys
from ckpt.history.records import Base, Lifetime, Line, NameRecord, ThreadRecord
from ckpt.repository.ahead import Ahead, Joined
from ckpt.repository.core import Core
from ckpt.repository.directory import Change, Directory
from ckpt.repository.timeline import Timeline
from ckpt.storage.base import Batch, EpochChangedError, Reading, RecordChangedError

_ATTEMPTS = 1000
_T = TypeVar("_T")

Log = Callable[[list[object]], Change]
"""Given the facts needed to undo an act, returns what writes it down; called once per attempt."""


def silent(facts: list[object]) -> Change:
    """Write nothing down."""
    return Change({}, {})


class ThreadAdmin:
    """Forks and removes threads, and says how long they live.

    Every act is one transaction, whatever the length of the history.
    """

    def __init__(self, core: Core, directory: Directory) -> None:
        self._core = core
        self._directory = directory

    def require(self, name: str) -> tuple[ThreadRecord, bytes]:
        """Return a thread, or raise ThreadNotFoundError."""
        return self._directory.require(name)

    def atomically(self, names: Collection[str], act: Callable[[], tuple[Batch, _T]]) -> _T:
        """Run `act` to make a batch and publish it, again from the start when somebody else was faster."""
        with self._core.locked(*names):
            for attempts in range(_ATTEMPTS):
                batch, result = self._core.consistently(act)
                if batch == Batch():
                    return result  # a dry run, which a read-only store allows too
                try:
                    self._core.storage.publish(batch)
                except RecordChangedError:
                    time.sleep(0.0005 * min(attempts, 20))
                except EpochChangedError:
                    self._core.removed()
                else:
                    return result
        raise ConflictError("the store is changed by other writers all the time", hints=["try again later"])

    def fork(self, source: str, target: str, checkpoint_id: str | None, *, log: Log = silent) -> ThreadRecord:
        """Create the thread `target` as a fork of `source`; no rows are copied.

        At the head (checkpoint_id None or the head's id) it takes everything along, pending writes included. At
        an older checkpoint of the root namespace it leaves out what was written after it. Raises
        ThreadNotFoundError, RevisionNotFoundError, or AlreadyExistsError when `target` is taken.
        """

        def act() -> tuple[Batch, ThreadRecord]:
            thread, raw = self.require(source)
            if self._directory.find(target) is not None:
                raise AlreadyExistsError(
                    f"there is a thread {target!r} already", hints=["choose another name, or delete it first"]
                )
            timeline = Timeline(self._core, thread)
            base = Base(thread.number, thread.sequence, None, thread.sequence, thread.greatest)
            left, left_raw = thread, raw
            head = timeline.head()
            if checkpoint_id is not None and checkpoint_id != head:
                left, base = self._moment(timeline, checkpoint_id)
                left_raw, head = left.encode(), checkpoint_id
            root = Line("", head=head, greatest=thread.root.greatest if base.bare is None else None)
            # A lifetime that a thread was given for itself is not the fork's.
            inherited = thread.lifetime if thread.lifetime is not None and not thread.lifetime.own else None
            created, change = self._directory.create(
                target, base=base, root=root, greatest=thread.greatest, lifetime=inherited
            )
            source_key, target_key = keys.thread_key(left.number), keys.thread_key(created.number)
            entry = log([created.number])
            expected = {**change.expected, **entry.expected, source_key: left_raw, target_key: None}
            # What the fork leaves may be the expired thread whose name it takes.
            if (released := change.records.get(source_key)) is not None:
                left = ThreadRecord.decode(left.number, released)
            records = {
                **change.records,
                source_key: left._replace(forks=left.forks + 1).encode(),
                target_key: created.encode(),
                **entry.records,
            }
            return Batch(expected, records, epoch=self._core.epoch), created

        return self.atomically((source, target), act)

    def _moment(self, timeline: Timeline, checkpoint_id: str) -> tuple[ThreadRecord, Base]:
        """Return the thread whose row a root checkpoint is, and the base of a fork that leaves there."""
        timeline.find("", checkpoint_id)  # raises when a row is missing above the one that is found
        for segment in timeline.segments:
            put = timeline.put_in(segment, "", checkpoint_id)
            if put is not None:
                left = segment.thread
                # Of a base, what was pruned after this thread left it is still to be seen.
                made = left.sequence if segment.moment is None else segment.made
                return left, Base(left.number, put.sequence, checkpoint_id, made, timeline.thread.greatest)
        raise RevisionNotFoundError(
            f"thread {timeline.thread.name!r} has no checkpoint {checkpoint_id}",
            hints=["ckpt log lists them"],
        )

    def delete(self, name: str, *, log: Log = silent) -> bool:
        """Free a thread's name and hide its rows; `gc` frees the space. False when there is no such thread.

        One that has expired is let go of as well, so that no run under way can continue it.
        """

        def act() -> tuple[Batch, bool]:
            found = self._named(name)
            if found is None:
                return Batch(), False
            thread, raw = found
            released = self.released(thread, raw)
            if thread.lapsed(clock.now_ms()):
                return Batch(released.expected, released.records), False
            entry = log([thread.number])
            return Batch({**released.expected, **entry.expected}, {**released.records, **entry.records}), True

        return self.atomically((name,), act)

    def release_expired(self, names: Sequence[str]) -> int:
        """Do what `delete` does to those of some threads that have expired, in one transaction; return how many."""

        def act() -> tuple[Batch, int]:
            storage = self._core.storage
            name_keys = [keys.name_key(name) for name in names]
            found = dict(zip(name_keys, storage.read(name_keys), strict=True))
            records = [NameRecord.decode(key, raw) for key, raw in found.items() if raw is not None]
            numbers = [record.thread for record in records if record.thread is not None]
            buckets = {keys.directory_key(keys.name_bucket(name)) for name in names}
            wanted = [*map(keys.thread_key, numbers), *buckets]
            joined = Joined(Ahead(storage, [], {**found, **dict(zip(wanted, storage.read(wanted), strict=True))}))
            for number in numbers:
                (raw,) = joined.reading.read([keys.thread_key(number)])
                # One that is not there was removed between the two looks.
                if raw is not None and (thread := ThreadRecord.decode(number, raw)).lapsed(clock.now_ms()):
                    joined.add(*self.released(thread, raw, joined.reading))
            released = sum(key in joined.records for key in map(keys.thread_key, numbers))
            return Batch(joined.expected, joined.records), released

        return self.atomically((), act)

    def _named(self, name: str) -> tuple[ThreadRecord, bytes] | None:
        """Return the thread that has a name, expired or not."""
        record, _ = self._directory.name_record(name)
        return self._directory.by_number(record.thread) if record is not None and record.thread is not None else None

    def released(self, thread: ThreadRecord, raw: bytes, reading: Reading | None = None) -> Change:
        """Return the change that frees a thread's name and marks it, whose record is `raw` now, as deleted."""
        change, key = self._directory.release(thread, reading), keys.thread_key(thread.number)
        deleted = thread._replace(deleted=True).encode()
        return Change({**change.expected, key: raw}, {**change.records, key: deleted})

    def set_lifetime(self, name: str, ttl: int, *, log: Log = silent) -> ThreadRecord:
        """Give a thread a lifetime of its own, in milliseconds from its last write (0: for ever), beginning now.

        `log` is given the thread's number, and the ttl and whether it is its own, before and after.
        """

        def act() -> tuple[Batch, ThreadRecord]:
            thread, raw = self.require(name)
            changed, key = thread._replace(lifetime=_from_now(ttl, own=True)), keys.thread_key(thread.number)
            entry = log([thread.number, _terms(thread), _terms(changed)])
            return Batch({key: raw, **entry.expected}, {key: changed.encode(), **entry.records}), changed

        return self.atomically((name,), act)

    def lifetime_restored(self, number: int, before: list[object], after: list[object]) -> Change | None:
        """Return the change that undoes `set_lifetime`, counted from now; None when the lifetime is another since."""
        thread, raw = self._directory.by_number(number)
        if _terms(thread) != after:
            return None
        lifetime = _from_now(int(str(before[0])), own=bool(before[1])) if before else None
        key = keys.thread_key(number)
        return Change({key: raw}, {key: thread._replace(lifetime=lifetime).encode()})

    def restored(self, number: int) -> tuple[Change, ThreadRecord]:
        """Return the change that undoes `delete`; AlreadyExistsError when the name was given away meanwhile."""
        thread, raw = self._directory.by_number(number)
        named, named_raw = self._directory.name_record(thread.name)
        if named is None or named.thread is not None:
            raise AlreadyExistsError(
                f"there is another thread {thread.name!r} now",
                hints=[
                    "free the name: ckpt delete it, after a ckpt fork to another name if it is to stay",
                    "then undo this operation by its number: ckpt op log",
                ],
            )
        back = thread._replace(deleted=False)
        former = tuple(other for other in named.former if other != number)
        names = NameRecord(thread.name, number, former, named.ghosts)
        key, change = keys.thread_key(number), self._directory.renamed(thread.name, named_raw, names)
        return Change({**change.expected, key: raw}, {**change.records, key: back.encode()}), back


def _terms(thread: ThreadRecord) -> list[object]:
    return [thread.lifetime.ttl, thread.lifetime.own] if thread.lifetime is not None else []


def _from_now(ttl: int, *, own: bool) -> Lifetime:
    return Lifetime(ttl, clock.now_ms() + ttl if ttl else 0, own)

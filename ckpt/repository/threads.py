"""Administration of threads: fork, copy, checkout, delete, and what undoing them takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TypeVar

from ckpt.errors import AlreadyExistsError, ConflictError, RevisionNotFoundError, ThreadNotFoundError
from ckpt.history import clock, keys
from ckpt.history.records import Base, Lifetime, Line, NameRecord, ThreadRecord
from ckpt.repository.core import Core
from ckpt.repository.directory import Change, Directory
from ckpt.repository.timeline import Timeline
from ckpt.storage.base import Batch, EpochChangedError, RecordChangedError

_ATTEMPTS = 1000
_T = TypeVar("_T")

Log = Callable[[list[object]], Change]
"""Given the facts needed to undo an act, returns what writes it down; called once per attempt."""


def silent(facts: list[object]) -> Change:
    """Write nothing down."""
    return Change({}, {})


class ThreadAdmin:
    """Creates, rewinds and removes threads. Every act is one transaction, whatever the length of the history."""

    def __init__(self, core: Core, directory: Directory) -> None:
        self._core = core
        self._directory = directory

    def require(self, name: str) -> tuple[ThreadRecord, bytes]:
        """Return a thread, or raise ThreadNotFoundError."""
        found = self._directory.find(name)
        if found is None:
            raise ThreadNotFoundError(f"there is no thread {name!r}", hints=["ckpt threads lists all"])
        return found

    def atomically(self, names: Collection[str], act: Callable[[], tuple[Batch, _T]]) -> _T:
        """Run `act` to make a batch and publish it, again from the start when somebody else was faster."""
        with self._core.locked(*names):
            for attempts in range(_ATTEMPTS):
                batch, result = act()
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
            base, left, left_raw = Base(thread.number, thread.sequence, None, thread.sequence), thread, raw
            head = timeline.head()
            if checkpoint_id is not None and checkpoint_id != head:
                left, base = self._moment(timeline, checkpoint_id)
                left_raw, head = left.encode(), checkpoint_id
            root = Line("", head=head, greatest=thread.root.greatest if base.bare is None else None)
            created, change = self._directory.create(target, base=base, root=root, greatest=thread.greatest)
            source_key, target_key = keys.thread_key(left.number), keys.thread_key(created.number)
            entry = log([created.number])
            expected = {**change.expected, **entry.expected, source_key: left_raw, target_key: None}
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
        for segment in timeline.segments:
            put = timeline.put_in(segment, "", checkpoint_id)
            if put is not None:
                left = segment.thread
                return left, Base(left.number, put.sequence, checkpoint_id, left.sequence)
        raise RevisionNotFoundError(
            f"thread {timeline.thread.name!r} has no checkpoint {checkpoint_id}",
            hints=["ckpt log lists them"],
        )

    def delete(self, name: str, *, log: Log = silent) -> bool:
        """Free a thread's name and hide its rows; `gc` frees the space. False when there is no such thread."""

        def act() -> tuple[Batch, bool]:
            found = self._directory.find(name)
            if found is None:
                return Batch(), False
            thread, raw = found
            change, entry = self._directory.release(thread), log([thread.number])
            key = keys.thread_key(thread.number)
            expected = {**change.expected, **entry.expected, key: raw}
            records = {**change.records, key: thread._replace(deleted=True).encode(), **entry.records}
            return Batch(expected, records), True

        return self.atomically((name,), act)

    def release_expired(self, name: str) -> bool:
        """Do what `delete` does to a thread that has expired; False when there is none of that name."""

        def act() -> tuple[Batch, bool]:
            record, _ = self._directory.name_record(name)
            if record is None or record.thread is None:
                return Batch(), False
            thread, raw = self._directory.by_number(record.thread)
            if not thread.lapsed(clock.now_ms()):
                return Batch(), False
            change, key = self._directory.release(thread), keys.thread_key(thread.number)
            deleted = thread._replace(deleted=True).encode()
            return Batch({**change.expected, key: raw}, {**change.records, key: deleted}), True

        return self.atomically((name,), act)

    def set_lifetime(self, name: str, ttl: int) -> ThreadRecord:
        """Give a thread a lifetime of its own, in milliseconds from its last write (0: for ever), beginning now."""

        def act() -> tuple[Batch, ThreadRecord]:
            thread, raw = self.require(name)
            lifetime = Lifetime(ttl, clock.now_ms() + ttl if ttl else 0, True)
            changed, key = thread._replace(lifetime=lifetime), keys.thread_key(thread.number)
            return Batch({key: raw}, {key: changed.encode()}), changed

        return self.atomically((name,), act)

    def restored(self, number: int) -> tuple[Change, ThreadRecord]:
        """Return the change that undoes `delete`; AlreadyExistsError when the name was given away meanwhile."""
        thread, raw = self._directory.by_number(number)
        named, named_raw = self._directory.name_record(thread.name)
        if named is None or named.thread is not None:
            raise AlreadyExistsError(
                f"there is another thread {thread.name!r} now", hints=["delete it first, then undo again"]
            )
        back = thread._replace(deleted=False)
        former = tuple(other for other in named.former if other != number)
        names = NameRecord(thread.name, number, former, named.ghosts)
        key, name_key = keys.thread_key(number), keys.name_key(thread.name)
        return Change({key: raw, name_key: named_raw}, {key: back.encode(), name_key: names.encode()}), back

"""Writing: one put, or one batch of pending writes, is one transaction.

The writer remembers the records it wrote last, so that a put in a running thread reads nothing; every record it
relied on is compared inside the transaction, and a lost race is read again and retried. Nothing here takes the
time: order is the thread's sequence number, given out in the transaction.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from ckpt.errors import ConflictError, HeadMovedError, IntegrityError, StateTooLargeError, ThreadDeletedError
from ckpt.history import clock, keys
from ckpt.history.checkpoints import Event, Put, Write, Writes, current_put, encode_events
from ckpt.history.commits import Commit, Parent, StoredValue, encode_commit
from ckpt.history.records import Line, NameRecord, Reset, ThreadRecord, encode_line
from ckpt.objects.cache import Cache
from ckpt.objects.ids import Kind, ObjectId
from ckpt.objects.store import Draft
from ckpt.repository.core import Core
from ckpt.repository.directory import Directory, Place
from ckpt.repository.incoming import NewCheckpoint, Stored, Typed
from ckpt.repository.recent import Checkpoint, Recent, Seen
from ckpt.repository.replays import check_head
from ckpt.repository.spill import SPILL_ABOVE, spill
from ckpt.repository.timeline import Timeline
from ckpt.storage.base import Batch, EpochChangedError, RecordChangedError
from ckpt.values.cut import INLINE_MAX, MSGPACK_TYPES, Cut, Cutter
from ckpt.values.rope import inline_rope, rope_length

_MEMO_SIZE = 32 << 20
_HEADER_INLINE_MAX = 4096
_ATTEMPTS = 1000


@dataclass(slots=True)
class _Attempt:
    """What one try to write collects."""

    key: bytes
    """The key of the checkpoint's record."""
    thread: ThreadRecord
    timeline: Timeline
    """The thread as it was before this attempt."""
    line: Line
    events: list[Event]
    batch: Batch
    draft: Draft
    memos: dict[tuple[int, str, str], Cut]
    record: bytes = b""
    line_record: bytes = b""
    thread_record: bytes = b""
    """What the records of checkpoint, line and thread become."""
    made: tuple[ObjectId, Commit, int] | None = None
    """The commit that is put, and how long it is."""
    remembered: bool = False


class Writer:
    """Puts checkpoints and pending writes into threads."""

    def __init__(self, core: Core, directory: Directory, recent: Recent) -> None:
        self._core = core
        self._directory = directory
        self._recent = recent
        self._memos: Cache[tuple[int, str, str], Cut] = Cache(_MEMO_SIZE)
        core.on_removal(self._forget)

    def _forget(self) -> None:
        """Drop all that is believed to be stored: something was removed."""
        self._memos = Cache(_MEMO_SIZE)

    # -- the two ways to write ----------------------------------------------------------------------

    def put(self, new: NewCheckpoint) -> Stored:
        """Store a checkpoint, durably on return.

        Putting an id again replaces what it holds and keeps its pending writes. Raises StateTooLargeError,
        ThreadDeletedError, HeadMovedError if asked for; nothing is written then.
        """

        def prepare(attempt: _Attempt) -> None:
            if new.check is not None:
                new.check(attempt.thread)
            parents = self._parents(attempt, new.namespace, new.parent_id)
            head = attempt.timeline.head(new.namespace)
            if new.expect_head and head != (expected := new.expected_head or new.parent_id):
                raise HeadMovedError(
                    f"the head of thread {new.thread!r} is {head}, not {expected}",
                    hints=["another run is active on this thread: load the state again, then retry"],
                )
            commit = self._commit(attempt, new, parents)
            data = encode_commit(commit)
            oid = attempt.draft.add_top(Kind.COMMIT, data)
            added = self._lay_down(attempt, [oid])
            attempt.events.append(Put(attempt.thread.sequence + 1, oid, added))
            line = attempt.line
            if line.greatest is None and new.parent_id != head:
                line = line._replace(greatest=attempt.timeline.greatest(new.namespace))
            told = line if head == line.head else line._replace(head=head, newest=0)
            moved = told.moved_to(new.checkpoint_id, new.parent_id, attempt.thread.sequence + 1)
            # A line that stays where a rewind put it keeps the head it had before, for moments before that.
            stays = moved.moved == told.moved
            attempt.line = line._replace(greatest=moved.greatest) if stays else moved
            # Where no other namespace has begun, none has to be told where it stands, and the record does not grow.
            if new.reset is not None and (attempt.thread.lines.count or attempt.thread.base is not None):
                reset = Reset(attempt.thread.sequence + 1, new.reset[1], new.reset[0])
                attempt.thread = attempt.thread._replace(resets=(*attempt.thread.resets, reset))
            if new.log is not None:
                entry = new.log()
                attempt.batch.expected = {**attempt.batch.expected, **entry.expected}
                attempt.batch.records = {**attempt.batch.records, **entry.records}
            attempt.made = oid, commit, len(data)

        attempt = self._write(new.thread, new.namespace, new.checkpoint_id, new.parent_id, prepare, new.above)
        assert attempt.made is not None
        oid, commit, _ = attempt.made
        return Stored(oid, commit, attempt.thread, attempt.line)

    def put_writes(
        self,
        thread: str,
        namespace: str,
        checkpoint_id: str,
        task_id: str,
        task_path: str,
        writes: Sequence[tuple[int, str, Typed]],
        above: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Attach what a task wrote to a checkpoint, which may come later. Durable on return.

        Decided write by write: an index >= 0 keeps the value it has, below 0 the new one replaces it.
        """
        sizes: dict[str, int] = {}
        for _, channel, typed in writes:
            sizes[channel] = sizes.get(channel, 0) + len(typed.data)
        if (total := sum(sizes.values())) > (limit := self._core.max_checkpoint_size):
            raise _too_large(sizes, total, limit)

        def prepare(attempt: _Attempt) -> None:
            cutter = Cutter(attempt.draft.add, attempt.draft.add_top)
            stored = []
            for index, channel, (type_, data) in writes:
                rope, _ = cutter.cut(type_, data)
                stored.append(Write(index, channel, type_, rope))
                self._core.remember_value(rope, data)
            added = self._lay_down(attempt)
            sequence = attempt.thread.sequence + 1
            attempt.events.append(Writes(sequence, task_id, task_path, tuple(stored), added))

        self._write(thread, namespace, checkpoint_id, checkpoint_id, prepare, above)

    # -- one transaction ----------------------------------------------------------------------------

    def _write(
        self,
        name: str,
        namespace: str,
        checkpoint_id: str,
        named: str | None,
        prepare: Callable[[_Attempt], None],
        above: Mapping[str, str] = MappingProxyType({}),
    ) -> _Attempt:
        afresh = False
        with self._core.locked(name):
            for attempts in range(_ATTEMPTS):
                epoch = self._core.epoch
                memos = self._memos
                try:
                    attempt = self._begin(name, namespace, checkpoint_id, named, above, epoch)
                    prepare(attempt)
                    self._finish(attempt, checkpoint_id)
                    attempt.batch.meanwhile = partial(self._remember, name, attempt)
                    numbers = self._core.storage.publish(attempt.batch)
                except RecordChangedError as lost:
                    self._core.objects.abandon(name)
                    self._recent.drop(name)
                    self._recent.forget(lost.current)
                    time.sleep(random.random() * 0.001 * min(attempts, 20))
                except EpochChangedError:
                    self._core.removed()
                except (HeadMovedError, ThreadDeletedError, IntegrityError) as error:
                    # What is remembered may be old, and lead to what is gone or not fit what was read just now: only
                    # the store says where the head is, what was deleted, and what is damaged.
                    self._core.objects.abandon(name)
                    if isinstance(error, IntegrityError) and self._core.storage.epoch() != epoch:
                        self._core.removed()
                    elif afresh:
                        raise
                    afresh = True
                    self._recent.clear()
                    self._directory.vacant(name)
                except BaseException:
                    self._core.objects.abandon(name)
                    self._recent.drop(name)
                    raise
                else:
                    self._core.objects.stored(name, attempt.draft, numbers)
                    if not attempt.remembered:
                        self._remember(name, attempt)
                    # Not before it is stored: a child relies on it without naming it.
                    self._recent.saw_checkpoint(attempt.key, attempt.record, attempt.events, epoch)
                    # Into the cache as it was before: after a removal meanwhile, nobody looks there.
                    for slot, memo in attempt.memos.items():
                        memos.put(slot, memo, len(memo.data) + 100 * len(memo.items))
                    return attempt
        raise ConflictError(f"thread {name!r} is changed by other writers all the time", hints=["try again later"])

    def _begin(
        self, name: str, namespace: str, checkpoint_id: str, named: str | None, above: Mapping[str, str], epoch: int
    ) -> _Attempt:
        expected: dict[bytes, bytes | None] = {}
        records: dict[bytes, bytes | None] = {}
        raw: bytes | None
        known = self._recent.thread(name)
        if known is not None and not known.thread.lapsed(clock.now_ms()):
            thread, raw = known
        else:
            place = self._directory.vacant(name) or self._directory.place(name)
            behind = {**above, namespace: named} if named is not None else above
            found = self._to_continue(place, behind)
            if found is not None:
                thread, raw = found
            else:
                for each, known_id in behind.items():
                    self._refuse_ghost(name, each, known_id, place.name)
                thread, change = self._directory.create(name, place=place)
                expected, records, raw = dict(change.expected), dict(change.records), None
        expected[keys.thread_key(thread.number)] = raw
        key = keys.checkpoint_key(thread.number, namespace, checkpoint_id)
        seen = self._recent.checkpoint(key)
        # An id above all others of the thread has no record yet, so there is nothing to ask for.
        if seen is None and raw is not None and checkpoint_id <= thread.greatest:
            record = self._core.storage.read([key])[0]
            seen = Checkpoint(record, self._recent.decoded(key, record, epoch), epoch) if record is not None else None
        expected[key] = seen.raw if seen is not None else None
        if seen is not None and raw is not None and not namespace and checkpoint_id == thread.root.head:
            check_head(self._core.storage, thread, raw, key, seen)
        if raw is not None and seen is None and named == checkpoint_id:
            self._refuse_unless_known(thread, namespace, checkpoint_id)
        timeline = Timeline(self._core, thread)
        line = thread.root if not namespace else self._line(timeline, namespace, expected)
        events = list(seen.events) if seen is not None else []
        return _Attempt(key, thread, timeline, line, events, Batch(expected, records, epoch=epoch), Draft(), {})

    def _to_continue(self, place: Place, behind: Mapping[str, str]) -> tuple[ThreadRecord, bytes] | None:
        """Return the thread that a name stands for; an expired one only to a run that began before it expired.

        Such a run names one of its checkpoints: `behind` are those that it names, by namespace.
        """
        if place.name is None or place.name.thread is None:
            return None
        thread, raw = self._directory.by_number(place.name.thread)
        if thread.lapsed(clock.now_ms()):
            timeline = Timeline(self._core, thread)
            if all(timeline.find(namespace, named) is None for namespace, named in behind.items()):
                return None
        return thread, raw

    def _line(self, timeline: Timeline, namespace: str, expected: dict[bytes, bytes | None]) -> Line:
        key = keys.line_key(timeline.thread.number, namespace)
        raw = self._recent.line(key)
        if raw is None:
            raw = self._core.storage.read([key])[0]
        expected[key] = raw
        line = timeline.saw_own_line(namespace, raw)
        if line is not None:
            return line
        greatest = timeline.greatest(namespace) if timeline.thread.base is not None else ""
        return Line(namespace, head=timeline.head(namespace), greatest=greatest)

    def _finish(self, attempt: _Attempt, checkpoint_id: str) -> None:
        """Add the records that follow from the events: checkpoint, line and thread."""
        key, thread, line, batch = attempt.key, attempt.thread, attempt.line, attempt.batch
        records = dict(batch.records)
        records[key] = attempt.record = encode_events(key, attempt.events)
        newest = attempt.events[-1].sequence if line.head == checkpoint_id else None
        line = thread.counted(line, key, batch.expected[key], attempt.record, newest)
        if line.namespace:
            line_key = keys.line_key(thread.number, line.namespace)
            records[line_key] = attempt.line_record = encode_line(thread.number, line)
            thread = thread.recounted(line_key, batch.expected[line_key], attempt.line_record)
        attempt.line = line
        lifetime = self._core.lifetimes.renewed(thread.lifetime, clock.now_ms())
        attempt.thread = thread = thread.advanced(line, checkpoint_id, lifetime)
        records[keys.thread_key(thread.number)] = attempt.thread_record = thread.encode()
        batch.records = records

    def _lay_down(self, attempt: _Attempt, new: Collection[ObjectId] = ()) -> int:
        """Turn what is not stored yet into frames, and return their size in bytes; `new` cannot be stored yet."""
        if len(attempt.events) > 2 and len(encode_events(b"", attempt.events)) > SPILL_ABOVE:
            attempt.events = spill(attempt.events, attempt.draft)
        draft = attempt.draft
        # Packs go by name: it is what the lock is held on, while the number of a new thread is not ours yet.
        attempt.batch.frames = self._core.objects.lay_down(attempt.thread.name, draft, new)
        return sum([len(frame.data) for frame in attempt.batch.frames])

    def _remember(self, name: str, attempt: _Attempt) -> None:
        """Spare the next call asking for what this one writes; nothing of it is believed, should it not be applied."""
        attempt.remembered = True
        self._core.objects.remember(attempt.draft)
        if attempt.made is not None:
            self._core.remember_commit(*attempt.made)
        thread, namespace = attempt.thread, attempt.line.namespace
        self._recent.saw(name, Seen(thread, attempt.thread_record))
        if namespace:
            self._recent.saw_line(keys.line_key(thread.number, namespace), attempt.line_record)

    def _refuse_unless_known(self, thread: ThreadRecord, namespace: str, checkpoint_id: str) -> None:
        """Refuse writes to a checkpoint of a deleted thread whose name is in use again."""
        if thread.base is None or Timeline(self._core, thread).find(namespace, checkpoint_id) is None:
            self._refuse_ghost(thread.name, namespace, checkpoint_id, self._directory.name_record(thread.name)[0])

    def _refuse_ghost(self, name: str, namespace: str, checkpoint_id: str, record: NameRecord | None) -> None:
        """Refuse a late write to a thread that was deleted, or expired and was swept, while its run went on."""
        end = self._end(record, namespace, checkpoint_id) if record is not None else None
        if end is not None:
            raise ThreadDeletedError(
                f"thread {name!r} {end}, and checkpoint {checkpoint_id} with it",
                hints=["start a new run on this name without a checkpoint_id"],
            )

    def _end(self, record: NameRecord, namespace: str, checkpoint_id: str) -> str | None:
        """Return what became of the former thread of a name that had this checkpoint; None when none had it."""
        if self._directory.is_ghost(record, checkpoint_id):
            return "was deleted"
        for number in record.former:
            thread, _ = self._directory.by_number(number)
            timeline, own = Timeline(self._core, thread), keys.checkpoint_key(number, namespace, checkpoint_id)
            # Nothing is proved: a collector may be half-way through these rows, and has made ghosts of them before.
            bases = (timeline.put_in(each, namespace, checkpoint_id) for each in timeline.segments[1:])
            if self._core.storage.read([own])[0] is not None or any(put is not None for put in bases):
                return "has expired" if thread.lapsed(clock.now_ms()) else "was deleted"
        return None

    # -- building a commit ----------------------------------------------------------------------------

    def _parents(self, attempt: _Attempt, namespace: str, parent_id: str | None) -> tuple[Parent, ...]:
        if parent_id is None:
            return ()
        key = keys.checkpoint_key(attempt.thread.number, namespace, parent_id)
        seen = self._recent.checkpoint(key)
        put = current_put(seen.events) if seen is not None and seen.epoch == attempt.batch.epoch else None
        if put is None:
            found = attempt.timeline.find(namespace, parent_id)
            put = found.put if found is not None else None
            if found is None:
                name = attempt.thread.name
                self._refuse_ghost(name, namespace, parent_id, self._directory.name_record(name)[0])
        return (Parent(parent_id, put.commit if put is not None else b""),)

    def _commit(self, attempt: _Attempt, new: NewCheckpoint, parents: tuple[Parent, ...]) -> Commit:
        parent = self._core.commit(ObjectId(parents[0].commit)) if parents and parents[0].commit else None
        cutter = Cutter(attempt.draft.add, attempt.draft.add_top)
        channels: dict[str, StoredValue] = {}
        sizes: dict[str, int] = {}
        total, limit = 0, self._core.max_checkpoint_size
        for name, channel in new.channels.items():
            if isinstance(channel, StoredValue):
                channels[name] = channel
            elif (
                parent is not None
                and channel.unchanged is not None
                and name in parent.channels
                and channel.unchanged(parent)
            ):
                channels[name] = parent.channels[name]
                sizes[name] = rope_length(channels[name].rope)
                total += sizes[name]
            else:
                type_, data = channel.typed()
                sizes[name] = len(data)
                total += sizes[name]
                if total > limit:
                    break
                channels[name] = self._value(attempt, cutter, new.namespace, name, type_, data)
        if total > limit:
            raise _too_large(sizes, total, limit)
        return Commit(
            new.namespace,
            new.checkpoint_id,
            new.timestamp,
            parents,
            _small(cutter, new.header),
            _small(cutter, new.metadata),
            channels,
        )

    def _value(
        self, attempt: _Attempt, cutter: Cutter, namespace: str, name: str, type_: str, data: bytes
    ) -> StoredValue:
        if len(data) < INLINE_MAX or type_ not in MSGPACK_TYPES:
            return StoredValue(type_, cutter.cut(type_, data)[0])
        slot = (attempt.thread.number, namespace, name)
        # A memo leaves out of the draft what was stored before, which could not be mended then.
        known = self._memos.get(slot) if not self._core.objects.found_damage else None
        rope, memo = cutter.cut(type_, data, known)
        if memo is not None:
            attempt.memos[slot] = memo
        self._core.remember_value(rope, data)
        return StoredValue(type_, rope)


def _too_large(sizes: Mapping[str, int], total: int, limit: int) -> StateTooLargeError:
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:3]
    return StateTooLargeError(size=total, limit=limit, channels=dict(largest))


def _small(cutter: Cutter, value: Typed | StoredValue) -> StoredValue:
    """Store a header or metadata: one inline item unless it is long.

    It differs in every commit; cutting it would cost more in references than the pack's dictionary saves.
    """
    if isinstance(value, StoredValue):
        return value
    if len(value.data) <= _HEADER_INLINE_MAX:
        return StoredValue(value.type, inline_rope(value.data))
    return StoredValue(value.type, cutter.cut(value.type, value.data)[0])

"""Removing short threads: many in one transaction, where one by one each takes some twenty round trips.

What needs more than a look stays for `ckpt.repository.remove`: a long thread, one with forks or tags, and all of them
when somebody else was faster.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from ckpt.errors import IntegrityError
from ckpt.history import clock, keys
from ckpt.history.checkpoints import current_put, decode_events
from ckpt.history.records import NameRecord, ThreadRecord
from ckpt.repository.ahead import Ahead, Joined
from ckpt.repository.core import Core
from ckpt.repository.directory import Change, Directory, ghost_hash, with_ghosts
from ckpt.repository.gathered import by_number, groups, ranges_of
from ckpt.repository.mark import rows
from ckpt.repository.tags import Tag, Tags
from ckpt.storage.base import Batch, Reading, RecordChangedError
from ckpt.storage.turns import Turns

ROWS_MAX = 500
"""Rows that one transaction removes, about."""


class ShortThreads:
    """Removes deleted and expired threads of one graph, many at a time.

    `restorable` returns which of some threads an operation can restore, wholly or in part, as the log is now.
    """

    def __init__(self, core: Core, restorable: Callable[[Collection[int]], Collection[int]]) -> None:
        self._core = core
        self._directory = Directory(core)
        self._tags = Tags(core)
        self._restorable = restorable
        self._turns = Turns()

    def remove(self, doomed: Iterable[ThreadRecord]) -> set[int]:
        """Remove those of the threads that can go at once, and return their numbers; some three trips for a hundred."""
        removed: set[int] = set()
        short = [thread for thread in doomed if not thread.forks and thread.sequence <= ROWS_MAX]
        for group in groups(by_number(short), ROWS_MAX):
            removed |= self._remove(group)
        return removed

    def _remove(self, group: Sequence[ThreadRecord]) -> set[int]:
        # No thread of this process is kept from writing: what is removed is compared with what was read.
        joined = Joined(self._read(group))
        # Only now: of what was read, the log then tells who can restore it.
        kept = self._restorable([thread.number for thread in group])
        tags = self._tags.all(joined.reading)
        numbers = [thread.number for thread in group if thread.number not in kept]
        removed = {number for number in numbers if self._add(number, tags, joined)}
        try:
            if removed:
                with self._turns.step():
                    self._core.storage.publish(Batch(joined.expected, joined.records))
        except RecordChangedError:
            return set()
        return removed

    def _read(self, group: Sequence[ThreadRecord]) -> Ahead:
        """Read all that removing these threads depends on, as of one moment."""
        names = {thread.name for thread in group}
        wanted = {keys.TAGS, *map(keys.name_key, names)}
        wanted.update(keys.directory_key(keys.name_bucket(name)) for name in names)
        wanted.update(keys.thread_key(thread.base.thread) for thread in group if thread.base is not None)
        return Ahead.of(
            self._core.storage, [keys.ALL_TAGS, *ranges_of(thread.number for thread in group)], sorted(wanted)
        )

    def _add(self, number: int, tags: Iterable[Tag], joined: Joined) -> bool:
        """Add the change that removes a thread to others; False where it needs more than a look."""
        reading = joined.reading
        raw = reading.read([keys.thread_key(number)])[0]
        if raw is None:
            return False
        thread = ThreadRecord.decode(number, raw)
        lapsed = thread.lapsed(clock.now_ms())
        if thread.forks or not (thread.deleted or lapsed):
            return False
        named, named_raw = self._directory.name_record(thread.name, reading)
        if named is None or (named.thread == number) == thread.deleted:
            # It was restored just now, or an earlier version of a record was put back.
            return False
        if thread.base is not None and not lapsed:
            # Of what it sees of its base ghosts have to be made as well.
            return False
        own = list(rows(reading, keys.thread_range(number)))
        checkpoints = {row.key: row.value for row in own if row.part == "c"}
        if any(tag.thread == number or _names(tag, number, checkpoints) for tag in tags):
            return False
        ghosts = [] if lapsed else [ghost_hash(keys.checkpoint_id_of(key, number)) for key in checkpoints]
        expected, records = without(self._directory, thread, raw, named, named_raw, ghosts, reading)
        joined.add(expected, {**dict.fromkeys(row.key for row in own), **records})
        return True


def _names(tag: Tag, number: int, checkpoints: Mapping[bytes, bytes]) -> bool:
    """Whether a tag, that was put on another thread perhaps, names one of these checkpoints of a thread."""
    key = keys.checkpoint_key(number, tag.namespace, tag.checkpoint_id)
    if key not in checkpoints:
        return False
    try:
        put = current_put(decode_events(key, checkpoints[key]))
    except IntegrityError:
        return True  # which needs more than a look
    return put is not None and put.commit == tag.commit


def without(
    directory: Directory,
    thread: ThreadRecord,
    raw: bytes,
    named: NameRecord,
    named_raw: bytes | None,
    ghosts: Iterable[bytes] = (),
    reading: Reading | None = None,
) -> Change:
    """Return the change that removes a thread's record, given it and that of its name.

    The thread's base has a fork less. The name remembers `ghosts`; one with nothing to remember is removed.
    """
    number = thread.number
    former = tuple(each for each in named.former if each != number)
    name = with_ghosts(named._replace(thread=None if named.thread == number else named.thread, former=former), ghosts)
    unused = name.thread is None and not name.former and not name.ghosts
    change = directory.renamed(name.name, named_raw, None if unused else name, reading)
    key = keys.thread_key(number)
    expected, records = {**change.expected, key: raw}, {**change.records, key: None}
    if thread.base is not None:
        base, base_raw = directory.by_number(thread.base.thread, reading)
        base_key = keys.thread_key(base.number)
        expected[base_key], records[base_key] = base_raw, base._replace(forks=base.forks - 1).encode()
    return Change(expected, records)

"""Records of threads, lines and names: what they hold, and their bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ckpt.history import clock, keys
from ckpt.history.seal import (
    NUMBER_MAX,
    Census,
    census,
    check_numbers,
    damaged,
    miscounted,
    new_salt,
    seal,
    shaped,
    unseal,
)

_LINE = (str, str | None, str | None, int, int, int, int, int, int)
_BASE = (int, int, str | None, int, str)
_RESET = (int, int, int)
_NAME = (str, int | None, list, bytes)
_THREAD = (str, int, str, list, int, int, list | None, int, bool, list, list | None, bytes)
_LIFETIME = (int, int, bool)
_NAMESPACE = "a namespace"


class Line(NamedTuple):
    """One namespace of one thread.

    `head` is the checkpoint the next run continues from, `greatest` the greatest id
    (None in a fork that has not needed it yet). `moved` is the sequence
    number at which `head` last changed. `census` counts the checkpoint records of this thread's own part, `low` those
    of them whose ids a base may have as well (see `Base.border`): none in a thread without a base. `newest` is the
    sequence number of the last event in this thread's record of `head` (0: it has none, or nobody looked).
    """

    namespace: str
    head: str | None = None
    greatest: str | None = ""
    moved: int = 0
    census: Census = Census()
    low: Census = Census()
    newest: int = 0

    def fields(self) -> list[object]:
        """Return the line as plain data."""
        return [self.namespace, self.head, self.greatest, self.moved, *self.census, *self.low, self.newest]

    def moved_to(self, checkpoint_id: str, parent: str | None, sequence: int) -> Line:
        """Return the line after a checkpoint was put: the head moves to a child of the head, and to the greatest id.

        `greatest` must be known unless the checkpoint is such a child.
        """
        namespace, head, greatest, moved, counted, low, newest = self
        child = head is None or (parent is not None and parent == head)
        if greatest is not None:
            greatest = max(greatest, checkpoint_id)
        if head != checkpoint_id and (child or checkpoint_id == greatest):
            head, moved, newest = checkpoint_id, sequence, sequence
        return Line(namespace, head, greatest, moved, counted, low, newest)

    @staticmethod
    def of(fields: object) -> Line:
        """Undo `fields`, or raise DamagedRecordError."""
        namespace, head, greatest, moved, count, digest, low, low_digest, newest = shaped(fields, _LINE, _NAMESPACE)
        # Written out, as in `ThreadRecord.decode`: `check_numbers` would take three times as long, at every read.
        numbers_fit = 0 <= moved <= NUMBER_MAX and 0 <= count <= NUMBER_MAX and 0 <= low <= NUMBER_MAX
        if not numbers_fit or digest < 0 or low_digest < 0 or newest < 0:
            raise damaged(_NAMESPACE)
        return Line(namespace, head, greatest, moved, Census(count, digest), Census(low, low_digest), newest)


class Base(NamedTuple):
    """Where a fork left another thread: everything of `thread` up to sequence number `moment` is part of it.

    `bare` is the root checkpoint whose pending writes are left out, when the fork did not leave at the head.
    `made` is the sequence number that `thread` had when the fork was made: what was pruned by then stays hidden.
    No checkpoint that the fork sees in a base has an id greater than `border`.
    """

    thread: int
    moment: int
    bare: str | None
    made: int
    border: str

    @staticmethod
    def of(fields: object, fork: int) -> Base:
        """Return the base of the thread of this number from its fields, or raise DamagedRecordError.

        A base is there before its forks, and numbers are given out in order: bases never lead round in a circle.
        """
        what = f"thread number {fork}"
        base = Base(*shaped(fields, _BASE, what))
        if not 0 < base.thread < fork:
            raise damaged(what)
        return base


class Reset(NamedTuple):
    """A rewind: from sequence number `at` on, other namespaces than the root stand where they stood at `moment`.

    `depth` says whose numbers `moment` is in: 0 the thread's own, 1 its base's, and so on.
    """

    at: int
    moment: int
    depth: int = 0


class Lifetime(NamedTuple):
    """How long a thread lives after a write: `ttl` in milliseconds (0: for ever), and when it `expires` (since 1970).

    `own`: it was given to this thread, and does not change with the policy of who writes.
    """

    ttl: int
    expires: int
    own: bool

    @staticmethod
    def of(fields: object, what: str) -> Lifetime:
        """Return a lifetime from its fields, or raise DamagedRecordError naming `what` has it."""
        ttl, expires, own = shaped(fields, _LIFETIME, what)
        if not 0 <= ttl <= expires < clock.TIME_END * 1000:
            raise damaged(what)
        return Lifetime(ttl, expires, own)


class ThreadRecord(NamedTuple):
    """A thread. `sequence` is the number of the newest row; `forks` how many threads have this one as base.

    `salt` is that of all censuses of the thread.
    """

    number: int
    name: str
    sequence: int = 0
    greatest: str = ""
    root: Line = Line("")
    lines: Census = Census()
    base: Base | None = None
    forks: int = 0
    deleted: bool = False
    resets: tuple[Reset, ...] = ()
    lifetime: Lifetime | None = None
    salt: bytes = b""

    def encode(self) -> bytes:
        """Return the record's bytes."""
        number, name, sequence, greatest, root, lines, *rest = self
        # Tuples are packed as lists are.
        return seal(keys.thread_key(number), [name, sequence, greatest, root.fields(), *lines, *rest])

    @staticmethod
    def decode(number: int, record: bytes) -> ThreadRecord:
        """Undo `encode`, or raise DamagedRecordError."""
        what = f"thread number {number}"
        fields = shaped(unseal(keys.thread_key(number), record, what), _THREAD, what)
        name, sequence, greatest, root, count, digest, base, forks, deleted, resets, lifetime, salt = fields
        numbers_fit = 0 <= sequence <= NUMBER_MAX and 0 <= count <= NUMBER_MAX and 0 <= forks <= NUMBER_MAX
        if not numbers_fit or digest < 0:
            raise damaged(what)
        return ThreadRecord(
            number,
            name,
            sequence,
            greatest,
            Line.of(root),
            Census(count, digest),
            Base.of(base, number) if base is not None else None,
            forks,
            deleted,
            tuple(Reset(*shaped(reset, _RESET, what)) for reset in resets),
            Lifetime.of(lifetime, what) if lifetime is not None else None,
            salt,
        )

    def check_resets(self, moments: Sequence[int | None]) -> None:
        """Raise DamagedRecordError unless each rewind went to what was there: in this thread before it, or in a base.

        `moments` says up to where the thread sees itself (None: all), its base, and so on.
        """
        for at, moment, depth in self.resets:
            end = at - 1 if not depth else moments[depth] if 0 < depth < len(moments) else None
            if end is None or not 0 <= moment <= end or not 0 < at <= self.sequence:
                raise damaged(f"thread {self.name!r}")

    def lapsed(self, now: int) -> bool:
        """Whether the thread's lifetime is over at `now`, in milliseconds since 1970."""
        return self.lifetime is not None and 0 < self.lifetime.expires <= now

    def may_be_in_base(self, checkpoint_id: str) -> bool:
        """Whether a base of this thread can have a checkpoint of this id that the thread sees."""
        return self.base is not None and checkpoint_id <= self.base.border

    def low_range(self, namespace: str) -> tuple[bytes, bytes] | None:
        """Return the range of this thread's checkpoints whose ids a base may have as well; None without a base."""
        if self.base is None:
            return None
        start, _ = keys.checkpoints_range(self.number, namespace)
        return start, keys.checkpoint_key(self.number, namespace, self.base.border) + b"\x00"

    def counted(
        self, line: Line, key: bytes, before: bytes | None, after: bytes | None, newest: int | None = None
    ) -> Line:
        """Return a line of this thread after the record of a checkpoint was written over another, added or removed.

        `newest` is given when that is the head's record: the sequence number of its last event.
        """
        namespace, head, greatest, moved, counted, low, known = line
        if self.base is not None and (bounds := self.low_range(namespace)) is not None and key < bounds[1]:
            low = low.replaced(self.salt, key, before, after)
        counted = counted.replaced(self.salt, key, before, after)
        return Line(namespace, head, greatest, moved, counted, low, known if newest is None else newest)

    def recounted(self, key: bytes, before: bytes | None, after: bytes | None) -> ThreadRecord:
        """Return the record after that of a line was written over another (None: there was none)."""
        return self._replace(lines=self.lines.replaced(self.salt, key, before, after))

    def advanced(self, line: Line, greatest: str, lifetime: Lifetime | None) -> ThreadRecord:
        """Return the record after one more row, with the root's line replaced if `line` is the root's."""
        root, greatest = line if not line.namespace else self.root, max(self.greatest, greatest)
        return self._replace(sequence=self.sequence + 1, root=root, greatest=greatest, lifetime=lifetime)


def encode_line(thread: int, line: Line) -> bytes:
    """Return the record of a line."""
    return seal(keys.line_key(thread, line.namespace), line.fields())


def decode_line(key: bytes, record: bytes) -> Line:
    """Undo `encode_line`, or raise DamagedRecordError."""
    return Line.of(unseal(key, record, _NAMESPACE))


class NameRecord(NamedTuple):
    """A thread name: the number of the thread that has it now (None when deleted), and of those that had it."""

    name: str
    thread: int | None
    former: tuple[int, ...] = ()
    ghosts: bytes = b""
    """Eight-byte hashes of checkpoint ids of deleted threads that have been collected."""

    def encode(self) -> bytes:
        """Return the record's bytes."""
        return seal(keys.name_key(self.name), [self.name, self.thread, list(self.former), self.ghosts])

    @staticmethod
    def decode(key: bytes, record: bytes) -> NameRecord:
        """Undo `encode`, or raise DamagedRecordError."""
        name, thread, former, ghosts = shaped(unseal(key, record, "a thread name"), _NAME, "a thread name")
        check_numbers("a thread name", *former, *([thread] if thread is not None else []))
        return NameRecord(name, thread, tuple(former), ghosts)


class Tally(NamedTuple):
    """The record that is nothing but a census: of a directory bucket, of all tags, or of all operations.

    It gets its salt with the first record that it counts.
    """

    salt: bytes = b""
    census: Census = Census()

    def encode(self, key: bytes) -> bytes:
        """Return the record's bytes."""
        return seal(key, [*self.census, self.salt])

    @staticmethod
    def decode(key: bytes, record: bytes | None) -> Tally:
        """Undo `encode`, or raise DamagedRecordError; what was never written counts nothing."""
        if record is None:
            return Tally()
        what = _TALLIES.get(key, "the directory of threads")
        count, digest, salt = shaped(unseal(key, record, what), (int, int, bytes), what)
        check_numbers(what, count)
        return Tally(salt, Census(count, digest))

    def replaced(self, key: bytes, before: bytes | None, after: bytes | None) -> Tally:
        """Return the tally after a record was written over another (None: there was none), or removed (None)."""
        salt = self.salt or new_salt()
        return Tally(salt, self.census.replaced(salt, key, before, after))

    def of(self, rows: Iterable[tuple[bytes, bytes]]) -> Census:
        """Count records as this tally does."""
        return census(self.salt, rows)

    def prove(self, what: str, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise DamagedRecordError, naming `what` the records are, unless they are those that this tally counts."""
        found = self.of(rows)
        if found != self.census:
            raise miscounted(what, found, self.census)


def encode_counter(number: int) -> bytes:
    """Return the record that says which number the next thread gets."""
    return seal(keys.COUNTERS, number)


def decode_counter(record: bytes | None) -> int:
    """Undo `encode_counter`, or raise DamagedRecordError; without a record the next thread is the first."""
    if record is None:
        return 1
    what = "the thread counter"
    number: int = unseal(keys.COUNTERS, record, what)
    check_numbers(what, number)
    return number


_TALLIES = {keys.TAGS: "the list of tags", keys.OPERATIONS: "the list of operations"}

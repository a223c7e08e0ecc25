"""Proofs that nothing is missing or old: the rows of a thread, counted against what its records say that there are.

A thread's record counts its lines, a line its checkpoints. In a fork the line counts apart those checkpoints whose
ids its base may have as well, so that reading a checkpoint of the base costs no count of all that the fork has made
since.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ckpt.history import keys
from ckpt.history.checkpoints import newest
from ckpt.history.records import Line, ThreadRecord, decode_line
from ckpt.history.seal import census, miscounted, missing, outdated
from ckpt.repository.core import Core
from ckpt.storage.base import Reading


class Proofs:
    """Reads the lines of threads and counts what they count, each once, as of the records given.

    What does not fit is damage only if the thread's record is still the one given: rows change with it. All methods
    raise DamagedRecordError then.
    """

    def __init__(self, core: Core, reading: Reading) -> None:
        self._core = core
        self._reading = reading
        self._lines: dict[tuple[int, str], Line | None] = {}
        self._counted: dict[tuple[int, str, bool], frozenset[bytes]] = {}

    def is_current(self, thread: ThreadRecord) -> bool:
        """Whether the thread is still as we read it, so that what is missing cannot be explained by a change."""
        key = keys.thread_key(thread.number)
        return self._reading.read([key])[0] == thread.encode()

    def known_line(self, thread: ThreadRecord, namespace: str) -> Line | None:
        """Return a thread's own line as far as it needs no reading."""
        return self._lines.get((thread.number, namespace)) if namespace else thread.root

    def line(self, thread: ThreadRecord, namespace: str) -> Line | None:
        """Return a thread's own line, or None when it has no row of its own in the namespace."""
        if not namespace:
            return thread.root
        slot = (thread.number, namespace)
        if slot not in self._lines:
            return self.take_line(thread, namespace, self._reading.read([keys.line_key(*slot)])[0])
        return self._lines[slot]

    def take_line(self, thread: ThreadRecord, namespace: str, raw: bytes | None) -> Line | None:
        """Return what `line` does, given the line's record as it was read just now."""
        if raw is None:
            self.lines(thread)
        line = decode_line(keys.line_key(thread.number, namespace), raw) if raw is not None else None
        self._lines[thread.number, namespace] = line
        return line

    def head(self, thread: ThreadRecord, namespace: str, checkpoint_id: str, key: bytes, raw: bytes | None) -> None:
        """Look whether the record that a thread has of its head, if this is its id, is as it was left."""
        line = self.known_line(thread, namespace)
        if raw is None or line is None or line.head != checkpoint_id or line.newest in (0, newest(key, raw)):
            return
        if self.is_current(thread):
            raise outdated(f"thread {thread.name!r} or of its head")

    def lines(self, thread: ThreadRecord) -> None:
        """Count the lines of a thread."""
        self._core.storage.check()
        if not thread.lines.count:
            return
        found = census(thread.salt, self._reading.scan(*keys.lines_range(thread.number)))
        if found != thread.lines and self.is_current(thread):
            raise miscounted(f"a namespace of thread {thread.name!r}", found, thread.lines)

    def rows(
        self,
        thread: ThreadRecord,
        namespace: str,
        rows: Sequence[tuple[bytes, bytes]],
        absent: Collection[bytes] = (),
    ) -> None:
        """Count all rows of a namespace; those in `absent`, which a look did not find, must not be among them."""
        line = self.line(thread, namespace) or Line(namespace)
        what = f"a checkpoint of thread {thread.name!r}"
        found = census(thread.salt, rows)
        if found != line.census and self.is_current(thread):
            raise miscounted(what, found, line.census)
        if (bounds := thread.low_range(namespace)) is not None:
            low = census(thread.salt, [row for row in rows if row[0] < bounds[1]])
            if low != line.low and self.is_current(thread):
                raise miscounted(what, low, line.low)
        if any(key in absent for key, _ in rows) and self.is_current(thread):
            raise missing(what)

    def around(self, thread: ThreadRecord, namespace: str, checkpoint_id: str) -> frozenset[bytes]:
        """Count the rows among which the row of an id would be that a thread does not have, and return their keys.

        Those are the rows with ids that its base may have too, mostly none, or all of the namespace where the base
        cannot have the id.
        """
        low = thread.may_be_in_base(checkpoint_id)
        slot = (thread.number, namespace, low)
        if slot not in self._counted:
            line = self.line(thread, namespace) or Line(namespace)
            expected = line.low if low else line.census
            bounds = (thread.low_range(namespace) if low else None) or keys.checkpoints_range(thread.number, namespace)
            rows = self._reading.scan(*bounds) if expected.count else []
            found = census(thread.salt, rows)
            if found != expected and self.is_current(thread):
                raise miscounted(f"a checkpoint of thread {thread.name!r}", found, expected)
            self._counted[slot] = frozenset(key for key, _ in rows)
        return self._counted[slot]

"""What was read or written last: threads, checkpoints and lines, so that the next call need not ask for them.

Nothing here is believed: a writer names every record it relied on in its transaction, and a reader compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ckpt.history.checkpoints import Event, decode_events
from ckpt.history.records import ThreadRecord
from ckpt.objects.cache import Cache
from ckpt.repository.core import Core

_SIZE = 8 << 20


class Seen(NamedTuple):
    """A thread as it was last seen: decoded, and its record's bytes."""

    thread: ThreadRecord
    raw: bytes


class Checkpoint(NamedTuple):
    """A checkpoint as it was last seen: its record's bytes, and the events they say."""

    raw: bytes
    events: tuple[Event, ...]


class Recent:
    """Records by name and by key, within a bound. Safe for many threads."""

    def __init__(self, core: Core) -> None:
        self._threads: Cache[str, Seen] = Cache(_SIZE)
        self._checkpoints: Cache[bytes, Checkpoint] = Cache(_SIZE)
        self._lines: Cache[bytes, bytes] = Cache(_SIZE)
        core.on_removal(self.clear)

    def clear(self) -> None:
        """Forget everything."""
        self._threads.clear()
        self._checkpoints.clear()
        self._lines.clear()

    def thread(self, name: str) -> Seen | None:
        """Return a thread as it was last seen."""
        return self._threads.get(name)

    def saw(self, name: str, seen: Seen) -> None:
        """Remember a thread."""
        self._threads.put(name, seen, 2 * len(seen.raw) + 400)

    def drop(self, name: str) -> None:
        """Forget a thread."""
        self._threads.drop(name)

    def checkpoint(self, key: bytes) -> Checkpoint | None:
        """Return a checkpoint as it was last seen."""
        return self._checkpoints.get(key)

    def saw_checkpoint(self, key: bytes, raw: bytes, events: Sequence[Event]) -> None:
        """Remember a checkpoint."""
        self._checkpoints.put(key, Checkpoint(raw, tuple(events)), 3 * len(raw) + 300)

    def decoded(self, key: bytes, raw: bytes) -> tuple[Event, ...]:
        """Return the events of a checkpoint's record, decoding it only when it is not as it was last seen."""
        seen = self._checkpoints.get(key)
        if seen is None or seen.raw != raw:
            seen = Checkpoint(raw, tuple(decode_events(key, raw)))
            self._checkpoints.put(key, seen, 3 * len(raw) + 300)
        return seen.events

    def line(self, key: bytes) -> bytes | None:
        """Return the record of a line as it was last seen."""
        return self._lines.get(key)

    def saw_line(self, key: bytes, raw: bytes) -> None:
        """Remember a line."""
        self._lines.put(key, raw, len(key) + len(raw) + 200)

    def forget(self, keys: Iterable[bytes]) -> None:
        """Forget checkpoints and lines that are not as they were last seen."""
        for key in keys:
            self._checkpoints.drop(key)
            self._lines.drop(key)

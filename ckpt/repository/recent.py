"""What was read or written last: threads, checkpoints and lines, so that the next call need not ask for them.

Nothing here is believed: a writer names every record it relied on in its transaction, and a reader compares. The one
exception are checkpoints that stand in the store, as long as nothing was removed from it (see `Checkpoint.epoch`).
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
    """A checkpoint as it was last seen: its record's bytes, and the events they say.

    It stood in the store at some moment of this epoch or after it: whoever names the epoch in a transaction need not
    name the record to know that what it leads to is there.
    """

    raw: bytes
    events: tuple[Event, ...]
    epoch: int


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

    def saw_checkpoint(self, key: bytes, raw: bytes, events: Sequence[Event], epoch: int) -> None:
        """Remember a checkpoint that is stored. `epoch` was the present one before it was written or read."""
        self._checkpoints.put(key, Checkpoint(raw, tuple(events), epoch), 3 * len(raw) + 300)

    def decoded(self, key: bytes, raw: bytes, epoch: int) -> tuple[Event, ...]:
        """Remember a checkpoint's record, and return its events; it is decoded when it is not as it was last seen."""
        seen = self._checkpoints.get(key)
        events = seen.events if seen is not None and seen.raw == raw else tuple(decode_events(key, raw))
        if seen is None or seen.raw != raw or seen.epoch != epoch:
            self.saw_checkpoint(key, raw, events, epoch)
        return events

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

"""What was read or written last: thread and checkpoint records, so that the next call need not ask for them.

Nothing here is believed: a writer names every record it relied on in its transaction, and a reader compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ckpt.history.records import ThreadRecord
from ckpt.objects.store import Cache
from ckpt.repository.core import Core

_SIZE = 8 << 20


class Seen(NamedTuple):
    """A thread as it was last seen: decoded, its record's bytes, and those of its name's record."""

    thread: ThreadRecord
    raw: bytes
    named: bytes


class Recent:
    """Records by name and by key, within a bound. Safe for many threads."""

    def __init__(self, core: Core) -> None:
        self._threads: Cache[str, Seen] = Cache(_SIZE)
        self._records: Cache[bytes, bytes] = Cache(_SIZE)
        core.on_removal(self._clear)

    def _clear(self) -> None:
        self._threads.clear()
        self._records.clear()

    def thread(self, name: str) -> Seen | None:
        """Return a thread as it was last seen."""
        return self._threads.get(name)

    def saw(self, name: str, seen: Seen) -> None:
        """Remember a thread."""
        self._threads.put(name, seen, 2 * (len(seen.raw) + len(seen.named)) + 400)

    def drop(self, name: str) -> None:
        """Forget a thread."""
        self._threads.drop(name)

    def record(self, key: bytes) -> bytes | None:
        """Return the record of a checkpoint or a line as it was last seen."""
        return self._records.get(key)

    def saw_records(self, records: Mapping[bytes, bytes | None]) -> None:
        """Remember records of checkpoints and lines; those that are gone are forgotten."""
        for key, value in records.items():
            if value is None:
                self._records.drop(key)
            elif key.startswith(b"t") and len(key) > 2 + key[1]:
                self._records.put(key, value, len(key) + len(value) + 200)

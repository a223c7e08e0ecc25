"""Upkeep in passing: what writers and readers do for lifetimes and retention besides their own work.

None of it may fail a call or hold it up for long: a step is bounded, and what goes wrong is logged.
"""

from __future__ import annotations

import logging
import time
from threading import Lock

from ckpt.errors import CkptError, ConflictError
from ckpt.history import clock, keys
from ckpt.history.records import NameRecord, ThreadRecord
from ckpt.objects.cache import Cache
from ckpt.repository.core import Core
from ckpt.repository.directory import Directory
from ckpt.repository.prune import Pruner
from ckpt.repository.retention import Retention
from ckpt.repository.tags import Tags
from ckpt.repository.threads import ThreadAdmin
from ckpt.storage.base import Batch

logger = logging.getLogger(__name__)

_STEP = 200
_REFRESH_PARTS = 20
"""A read refreshes a lifetime when a twentieth of it has passed, so that not every read is a write."""

_SLACK = 16
_PRUNED_MAX = 4096


class Upkeep:
    """Renews lifetimes, lets go of expired threads, and prunes, for one graph."""

    def __init__(
        self, core: Core, directory: Directory, admin: ThreadAdmin, pruner: Pruner, tags: Tags, retention: Retention
    ) -> None:
        self._core = core
        self._directory = directory
        self._admin = admin
        self._pruner = pruner
        self._tags = tags
        self._retention = retention
        self._pruned: Cache[int, int] = Cache(_PRUNED_MAX)
        self._lock = Lock()
        self._swept = time.monotonic()
        self._cursor = keys.ALL_NAMES[0]

    # -- after a write and after a read ---------------------------------------------------------------

    def written(self, thread: ThreadRecord) -> None:
        """Prune the thread if it has grown to twice what is to be kept, and sweep if it is time to."""
        try:
            last, count = self._retention.last, thread.root.census.count
            if last is not None and count >= (self._pruned.get(thread.number) or last) + last + _SLACK:
                # Rows that a fork needs stay and are counted: growth is what matters, not the number.
                self._pruned.put(thread.number, count, 1)
                self.prune(thread.name)
            interval = self._core.lifetimes.sweep_interval
            if interval is not None and time.monotonic() - self._swept >= interval.total_seconds():
                self._sweep_step()
        except CkptError as error:
            logger.warning("upkeep after a put did not succeed and is left for later: %s", error)

    def looked_at(self, name: str) -> None:
        """Do what `read` does, for a thread known by its name."""
        if self._core.lifetimes.refresh_on_read and (found := self._directory.find(name)) is not None:
            self.read(*found)

    def read(self, thread: ThreadRecord, raw: bytes) -> None:
        """Renew the lifetime of a thread that was read, if that was asked for."""
        lifetime = thread.lifetime
        if not self._core.lifetimes.refresh_on_read or lifetime is None or not lifetime.ttl:
            return
        now = clock.now_ms()
        if lifetime.expires - now > lifetime.ttl - lifetime.ttl // _REFRESH_PARTS:
            return
        key = keys.thread_key(thread.number)
        renewed = thread._replace(lifetime=lifetime._replace(expires=now + lifetime.ttl))
        try:
            self._core.storage.publish(Batch({key: raw}, {key: renewed.encode()}))
        except ConflictError:
            pass  # somebody writes to it, which renews it as well
        except CkptError as error:
            logger.warning("the lifetime of thread %r could not be renewed: %s", thread.name, error)

    # -- on request -----------------------------------------------------------------------------------

    def prune(self, name: str) -> None:
        """Remove what the retention policy does not keep of a thread."""
        keep = self._retention.keep(clock.now_ms())
        if keep is not None:
            self._pruner.prune(name, keep, protected=lambda thread: self._tags.protected(thread.number))

    def sweep(self) -> int:
        """Let go of all expired threads; return how many there were. The collector frees their space."""
        return sum(self._lapse(record) for record in self._directory.names() if record.thread is not None)

    def _sweep_step(self) -> None:
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._swept = time.monotonic()
            page = self._core.storage.scan(self._cursor, keys.ALL_NAMES[1], limit=_STEP)
            self._cursor = page[-1][0] + b"\x00" if len(page) == _STEP else keys.ALL_NAMES[0]
            for key, raw in page:
                self._lapse(NameRecord.decode(key, raw))
        finally:
            self._lock.release()

    def _lapse(self, record: NameRecord) -> bool:
        if record.thread is None:
            return False
        thread, _ = self._directory.by_number(record.thread)
        return thread.lapsed(clock.now_ms()) and self._admin.release_expired(record.name)

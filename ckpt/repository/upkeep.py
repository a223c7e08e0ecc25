"""Upkeep in passing: what writers and readers do for lifetimes and retention besides their own work.

None of it may fail a call or hold it up for long: a step is bounded, and what goes wrong is logged. What is left
undone, because a thread is too long or a writer stops too soon, is for the collector.
"""

from __future__ import annotations

import logging
import time
from itertools import chain
from threading import Lock

from ckpt.errors import ConflictError, IntegrityError
from ckpt.forking import renewed_in_child
from ckpt.history import clock, keys
from ckpt.history.records import Line, NameRecord, ThreadRecord
from ckpt.objects.cache import Cache
from ckpt.repository.core import Core
from ckpt.repository.directory import Directory
from ckpt.repository.gathered import look_at_all
from ckpt.repository.prune import Pruner
from ckpt.repository.retention import Retention
from ckpt.repository.tags import Tags
from ckpt.repository.threads import ThreadAdmin
from ckpt.repository.timeline import Timeline
from ckpt.storage.base import Batch

logger = logging.getLogger(__name__)

_STEP = 100
_RELEASES_MAX = 8
"""How many names a put looks at in passing, and how many threads it lets go of."""

_REFRESH_PARTS = 20
"""A read refreshes a lifetime when a twentieth of it has passed, so that not every read is a write."""

_SLACK = 16
_PRUNE_MAX = 4096
"""Up to how many checkpoints a namespace is pruned in passing: some 40 microseconds each."""

_UNDER_WAY = 4
"""How many checkpoints stay in passing: tasks of a step may still write to the checkpoint before the newest."""

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
        self._left: Cache[tuple[int, str], int] = Cache(_PRUNED_MAX)
        self._lock = Lock()
        renewed_in_child(self)
        self._swept = time.monotonic()
        self._cursor = b""

    def in_child(self) -> None:
        """Hold no lock in a forked process."""
        self._lock = Lock()

    # -- after a write and after a read ---------------------------------------------------------------

    def written(self, thread: ThreadRecord, line: Line) -> None:
        """Prune the namespace if it has grown to twice what is to be kept, and sweep if it is time to."""
        try:
            if self._retention and self._has_outgrown(thread, line):
                self._prune_in_passing(thread, line.namespace)
            if self._is_time_to_sweep():
                self._sweep_step()
        except Exception as error:  # the put is stored: no failure may say that it is not
            logger.warning("upkeep after a put did not succeed and is left for later: %s", error)

    def looked_at(self, name: str) -> None:
        """Do what `read` does, for a thread known by its name."""
        if self._core.lifetimes.refresh_on_read and (found := self._directory.find(name)) is not None:
            self.read(*found)

    def read(self, thread: ThreadRecord, raw: bytes) -> tuple[ThreadRecord, bytes]:
        """Renew the lifetime of a thread that was read, if that was asked for; return it and its record's bytes."""
        lifetime = thread.lifetime
        if not self._core.lifetimes.refresh_on_read or lifetime is None or not lifetime.ttl:
            return thread, raw
        now = clock.now_ms()
        if lifetime.expires - now > lifetime.ttl - lifetime.ttl // _REFRESH_PARTS:
            return thread, raw
        key = keys.thread_key(thread.number)
        renewed = thread._replace(lifetime=lifetime._replace(expires=now + lifetime.ttl))
        try:
            self._core.storage.publish(Batch({key: raw}, {key: renewed.encode()}))
        except ConflictError:
            return thread, raw  # somebody writes to it, which renews it as well
        except Exception as error:  # no reader is refused because a store cannot be written to
            logger.warning("the lifetime of thread %r could not be renewed: %s", thread.name, error)
            return thread, raw
        return renewed, renewed.encode()

    # -- retention ------------------------------------------------------------------------------------

    def _has_outgrown(self, thread: ThreadRecord, line: Line) -> bool:
        """Whether a namespace has twice as many checkpoints as the last prune left, or as the policy would leave.

        So a put pays for two checkpoints at most, however long the thread and whatever tags and forks hold in it.
        """
        slot, count = (thread.number, line.namespace), line.census.count
        least = max(self._retention.last or 0, _UNDER_WAY)
        left = self._left.get(slot)
        if left is None and self._retention.within is None:
            left = least
        elif left is not None and count < left:
            left = max(count, least)  # somebody else has pruned it since
            self._left.put(slot, left, 1)
        if left is not None and count < 2 * left + _SLACK:
            return False
        # Known from here on, also when pruning fails or is left to the collector.
        self._left.put(slot, count, 1)
        return (
            left is not None
            and (count <= _PRUNE_MAX or count <= 4 * left)
            # What a subgraph is to keep goes by the root's checkpoints, which are read then.
            and (not line.namespace or thread.root.census.count <= max(_PRUNE_MAX, 4 * least))
        )

    def _prune_in_passing(self, thread: ThreadRecord, namespace: str) -> None:
        self._prune(thread.name, self._retention.at_least(_UNDER_WAY), namespace)
        now, _ = self._directory.by_number(thread.number)
        line = Timeline(self._core, now).own_line(namespace)
        self._left.put((thread.number, namespace), line.census.count if line is not None else 0, 1)

    def prune_all(self) -> None:
        """Remove what the retention policy does not keep of any thread.

        A thread that cannot be read stays as it is, which is logged: the collection that follows tells what is damaged.
        """
        keep = self._retention.keep(clock.now_ms())
        if keep is None:
            return
        tagged = self._tags.all_protected()

        def outgrown(timeline: Timeline) -> list[str]:
            thread = timeline.thread
            protected = tagged.of(thread.number, [segment.thread.number for segment in timeline.segments])
            return [thread.name] if self._pruner.has_work(timeline, keep, protected) else []

        def damaged(error: IntegrityError, timeline: Timeline) -> list[str]:
            logger.warning("thread %r is not pruned: %s", timeline.thread.name, error)
            return []

        for name in chain.from_iterable(look_at_all(self._core, self._directory.threads(), outgrown, damaged=damaged)):
            self._prune(name, self._retention, None)

    def _prune(self, name: str, retention: Retention, namespace: str | None) -> None:
        keep = retention.keep(clock.now_ms())
        if keep is not None:
            self._pruner.prune(name, keep, guard=self._tags.guard, namespace=namespace)

    # -- lifetimes ------------------------------------------------------------------------------------

    def sweep(self) -> int:
        """Let go of all expired threads; return how many there were. The collector frees their space."""
        released, cursor = 0, keys.ALL_NAMES[0]
        while page := self._core.storage.scan(cursor, keys.ALL_NAMES[1], limit=_STEP):
            if expired := self._expired(page):
                released += self._admin.release_expired(expired)
            cursor = page[-1][0] + b"\x00"
        return released

    def _is_time_to_sweep(self) -> bool:
        interval = self._core.lifetimes.sweep_interval
        return interval is not None and (
            bool(self._cursor) or time.monotonic() - self._swept >= interval.total_seconds()
        )

    def _sweep_step(self) -> None:
        """Look at a page of names, and remember where to go on; a failure ends the round."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            start, self._cursor, self._swept = self._cursor or keys.ALL_NAMES[0], b"", time.monotonic()
            page = self._core.storage.scan(start, keys.ALL_NAMES[1], limit=_STEP)
            expired = self._expired(page)
            if expired:
                self._admin.release_expired(expired[:_RELEASES_MAX])
            if len(expired) > _RELEASES_MAX:
                self._cursor = start
            elif len(page) == _STEP:
                self._cursor = page[-1][0] + b"\x00"
        finally:
            self._lock.release()

    def _expired(self, page: list[tuple[bytes, bytes]]) -> list[str]:
        """Return those names of a page whose thread has expired, in one round trip."""
        records = [NameRecord.decode(key, raw) for key, raw in page]
        named = {record.thread: record.name for record in records if record.thread is not None}
        threads = self._core.storage.read([keys.thread_key(number) for number in named])
        now = clock.now_ms()
        return [
            name
            for (number, name), raw in zip(named.items(), threads, strict=True)
            if raw is not None and ThreadRecord.decode(number, raw).lapsed(now)
        ]

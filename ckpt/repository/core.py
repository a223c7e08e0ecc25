"""What all parts of a repository share: the store, its objects, decoded commits and values, locks and the epoch.

Nothing here knows threads. Caches hold immutable things only, within stated bounds; records are cached by the
writer alone, where every use is checked against the store in the transaction that relies on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from copy import copy
from threading import Lock, RLock
from typing import TypeVar
from weakref import WeakValueDictionary

from ckpt.errors import IntegrityError
from ckpt.forking import renewed_in_child
from ckpt.history.commits import Commit, StoredValue, decode_commit
from ckpt.objects.cache import Cache
from ckpt.objects.ids import ObjectId
from ckpt.objects.store import ObjectStore
from ckpt.repository.lifetimes import Lifetimes
from ckpt.storage.base import Storage
from ckpt.values.rope import assemble, whole

DEFAULT_MAX_CHECKPOINT_SIZE = 256 << 20
_VALUE_CACHE_SIZE = 24 << 20
_COMMIT_CACHE_SIZE = 16 << 20

_T = TypeVar("_T")


class _Belief:
    """The epoch at which all that is believed about the store was known, and who believes something."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.lock = Lock()
        self.listeners: list[Callable[[], None]] = []


class _Locks:
    """A lock for each name that somebody holds or waits for: who writes to one thread never waits for another's."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Hold nothing any more."""
        # Entered again where a signal handler or a finalizer that runs in the middle writes, too.
        self._guard = RLock()
        self._by_name: WeakValueDictionary[str, AbstractContextManager[object]] = WeakValueDictionary()

    def of(self, name: str) -> AbstractContextManager[object]:
        """Return the lock of `name`, which exists for as long as somebody has it at hand."""
        with self._guard:
            lock = self._by_name.get(name)
            if lock is None:
                lock = self._by_name[name] = RLock()
            return lock


class Core:
    """The shared state of one open repository. Safe for many threads."""

    def __init__(self, storage: Storage, *, max_checkpoint_size: int, lifetimes: Lifetimes | None = None) -> None:
        self.storage = storage
        self.lifetimes = lifetimes or Lifetimes()
        self.max_checkpoint_size = max_checkpoint_size
        self._belief = _Belief(storage.epoch())
        self.objects = ObjectStore(storage)
        self._values: Cache[bytes, bytes] = Cache(_VALUE_CACHE_SIZE)
        self._commits: Cache[ObjectId, Commit] = Cache(_COMMIT_CACHE_SIZE)
        self._locks = _Locks()
        renewed_in_child(self)

    def in_child(self) -> None:
        """Hold no lock in a forked process."""
        self._locks.renew()
        self._belief.lock = Lock()

    def beside(self, storage: Storage) -> Core:
        """Return the core of another scope of the same store: all but the records is shared, locks included.

        The policy of lifetimes is for the threads of one graph alone.
        """
        twin = copy(self)
        twin.storage = storage
        twin.lifetimes = Lifetimes()
        return twin

    @property
    def epoch(self) -> int:
        """The epoch to be named by a writer who relies on what is believed to be stored."""
        return self._belief.epoch

    # -- locks and the epoch ------------------------------------------------------------------------

    def locked(self, *names: str) -> AbstractContextManager[object]:
        """Keep other threads of this process from writing to these threads. Others are kept out by the store."""
        if len(names) == 1:
            return self._locks.of(names[0])
        return self._all_locked(sorted(set(names)))

    @contextmanager
    def _all_locked(self, names: Iterable[str]) -> Iterator[None]:
        with ExitStack() as held:
            for name in names:
                held.enter_context(self._locks.of(name))
            yield

    def on_removal(self, forget: Callable[[], None]) -> None:
        """Have `forget` called when something was removed from the store behind our back."""
        self._belief.listeners.append(forget)

    def removed(self) -> None:
        """Take note that the epoch changed: what was believed to be stored may be gone."""
        with self._belief.lock:
            # Read first, so that what is learned from here on is at least as new; set last, so that nobody
            # passes the check of the new epoch with a belief from before.
            epoch = self.storage.epoch()
            self.objects.forget()
            for forget in self._belief.listeners:
                forget()
            self._belief.epoch = epoch

    def consistently(self, read: Callable[[], _T]) -> _T:
        """Run a read of several steps; when it stumbles over something just removed, run it again.

        Damage is not hidden: the error is raised when the epoch stood still since the attempt before.
        """
        epoch: int | None = None
        while True:
            try:
                return read()
            except IntegrityError:
                before, epoch = epoch, self.storage.epoch()
                if before == epoch:
                    raise

    # -- commits and values -------------------------------------------------------------------------

    def commits(self, ids: Iterable[ObjectId]) -> dict[ObjectId, Commit]:
        """Return decoded commits, loading those that are not cached in one batch."""
        found, wanted = self._commits.get_many(ids)
        if wanted:
            loaded = self.objects.load(wanted)
            found.update((oid, decode_commit(data)) for oid, data in loaded.items())
            self._commits.put_many((oid, found[oid], 3 * len(data)) for oid, data in loaded.items())
        return found

    def commit(self, oid: ObjectId) -> Commit:
        """Return one decoded commit."""
        return self._commits.get(oid) or self.commits([oid])[oid]

    def remember_commit(self, oid: ObjectId, commit: Commit, size: int) -> None:
        """Spare the next reader loading a commit just stored."""
        self._commits.put(oid, commit, 3 * size)

    def value_bytes(self, values: Sequence[StoredValue]) -> list[bytes]:
        """Return the bytes of values, with a number of round trips that does not depend on how many there are."""
        found = [whole(value.rope) for value in values]
        wanted = [i for i, data in enumerate(found) if data is None]
        for i in wanted:
            found[i] = self._values.get(values[i].rope)
        wanted = [i for i in wanted if found[i] is None]
        if wanted:
            loaded = assemble([values[i].rope for i in wanted], self.objects.load)
            for i, data in zip(wanted, loaded, strict=True):
                found[i] = data
                self.remember_value(values[i].rope, data)
        return [data for data in found if data is not None]

    def remember_value(self, rope: bytes, data: bytes) -> None:
        """Spare the next reader putting a value together that was just stored."""
        if len(data) > len(rope):
            self._values.put(rope, data, len(data) + len(rope) + 100)

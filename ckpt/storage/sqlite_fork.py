"""What open SQLite stores do while their process forks.

SQLite keeps its table of locks in the memory of the process. A child that inherits an open connection believes in
locks which only its parent has, for every connection to the same file that it opens later too, and what it writes
can be lost. So each store closes its connections before the fork, and parent and child open their own when they
next need one. A connection that is in use for longer than that waits cannot be closed: the child then refuses the
file, for as long as it lives.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol
from weakref import WeakSet

from ckpt.errors import StoreUnavailableError

Identity = tuple[int, int]
"""Device and number of a file, which stay the same while it is renamed."""

FORK_SECONDS = 10.0
"""How long a fork waits for what other threads have begun, in all stores together."""


class Forking(Protocol):
    """A store that is told of forks."""

    @property
    def file(self) -> Identity | None:
        """The file that it has connections to."""

    def before_fork(self, deadline: float) -> None:
        """Close all connections and keep others from being opened; leave those in use at `deadline` as they are."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Go on without the threads of the parent, and `refuse` the file if a connection was left open."""


_refused: dict[Identity, list[object]] = {}


class _Forks:
    """The stores of this process, and the one fork at a time that they are told of."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stores: WeakSet[Forking] = WeakSet()
        self._told: list[Forking] = []
        self._hooked = False
        self._opening = threading.Lock()

    @contextmanager
    def opening(self, path: Path) -> Iterator[bool]:
        with self._opening:
            found = identity(path)
            with self._lock:
                stores = list(self._stores)
            yield found is not None and any(store.file == found for store in stores)

    def watch(self, store: Forking) -> None:
        with self._lock:
            if not self._hooked and hasattr(os, "register_at_fork"):
                os.register_at_fork(before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child)
                self._hooked = True
            self._stores.add(store)

    def _before(self) -> None:
        self._lock.acquire()
        deadline = time.monotonic() + FORK_SECONDS
        self._told = list(self._stores)
        for store in self._told:
            store.before_fork(deadline)

    def _in_parent(self) -> None:
        for store in self._told:
            store.after_fork_in_parent()
        self._told = []
        self._lock.release()

    def _in_child(self) -> None:
        self._lock, self._opening = threading.Lock(), threading.Lock()
        self._told = []
        for store in list(self._stores):
            store.after_fork_in_child()


_forks = _Forks()


def watch(store: Forking) -> None:
    """Tell `store` of forks from now on, for as long as it is referred to."""
    _forks.watch(store)


def opening(path: Path) -> AbstractContextManager[bool]:
    """Keep other threads from opening a store meanwhile, and say whether this process has that file open already.

    Such a file must not be opened and closed past SQLite: closing it would drop the locks that this process holds
    on it, as POSIX has it, and whoever closes it next would take the write-ahead log away from under the others.
    """
    return _forks.opening(path)


def refuse(file: Identity, connections: list[object]) -> None:
    """Have `check` refuse this file; its connections are kept, since closing them here could take its log away."""
    _refused.setdefault(file, []).extend(connections)


def check(path: Path) -> None:
    """Raise StoreUnavailableError when this process inherited connections to the file at `path`."""
    if _refused and identity(path) in _refused:
        raise StoreUnavailableError(
            f"{path} was in use by another thread while this process was forked from its parent",
            hints=["fork while no thread uses the store, or start processes with the method spawn"],
        )


def identity(path: Path) -> Identity | None:
    """Return what tells this file from another one of the same name; None when there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino

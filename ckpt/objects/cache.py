"""A cache with a bound, for what can be made or read again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import Generic, TypeVar

from ckpt.forking import renewed_in_child

_K = TypeVar("_K")
_V = TypeVar("_V")


class Cache(Generic[_K, _V]):
    """Keeps what was used last, up to a total size. Safe for many threads."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._size = 0
        self._entries: OrderedDict[_K, tuple[_V, int]] = OrderedDict()
        self._lock = Lock()
        renewed_in_child(self)

    def in_child(self) -> None:
        """Begin empty in a forked process."""
        self._lock = Lock()
        self._entries = OrderedDict()
        self._size = 0

    def get(self, key: _K) -> _V | None:
        """Return what is kept under a key, or None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def get_many(self, keys: Iterable[_K]) -> tuple[dict[_K, _V], list[_K]]:
        """Return what is kept under some keys, and the keys under which nothing is."""
        found: dict[_K, _V] = {}
        absent: list[_K] = []
        with self._lock:
            entries = self._entries
            for key in keys:
                entry = entries.get(key)
                if entry is None:
                    absent.append(key)
                else:
                    found[key] = entry[0]
                    entries.move_to_end(key)
        return found, absent

    def put(self, key: _K, value: _V, size: int) -> None:
        """Keep a value that takes about `size` bytes."""
        self.put_many(((key, value, size),))

    def put_many(self, entries: Iterable[tuple[_K, _V, int]]) -> None:
        """Keep values, each with its size in bytes."""
        with self._lock:
            kept = self._entries
            for key, value, size in entries:
                if key in kept:
                    self._size -= kept.pop(key)[1]
                kept[key] = (value, size)
                self._size += size
            while self._size > self._size_max and kept:
                self._size -= kept.popitem(last=False)[1][1]

    def drop(self, key: _K) -> None:
        """Forget one key."""
        with self._lock:
            if (old := self._entries.pop(key, None)) is not None:
                self._size -= old[1]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._size = 0

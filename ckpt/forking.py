"""What must be made anew in a forked process: locks that a thread held which is not there, and what it changed."""

from __future__ import annotations

import os
from threading import Lock
from typing import Protocol
from weakref import ref


class Renewable(Protocol):
    """Something with locks."""

    def in_child(self) -> None:
        """Replace all locks, and drop what a thread may have been changing. Called in the child, which has one."""


_GONE_MAX = 256
"""About how many that are gone are kept in mind: each time so many were added, all are looked through."""


class _Renewables:
    """All that is renewed, as long as it lives."""

    def __init__(self) -> None:
        self._lock = Lock()
        # Without callbacks, as a WeakSet has them: what a handler of signals raises in one reaches nobody.
        self._made: list[ref[Renewable]] = []

    def add(self, made: Renewable) -> None:
        with self._lock:
            if len(self._made) % _GONE_MAX == 0:
                self._made = [each for each in self._made if each() is not None]
            self._made.append(ref(made))

    def renew(self) -> None:
        self._lock = Lock()
        for each in list(self._made):
            if (made := each()) is not None:
                made.in_child()


_renewables = _Renewables()


def renewed_in_child(made: Renewable) -> None:
    """Have `in_child` called in every process forked from here on, as long as the object lives."""
    _renewables.add(made)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renewables.renew)

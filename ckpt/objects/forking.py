"""What must be made anew in a forked process: locks that a thread held which is not there, and what it changed."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Renewable(Protocol):
    """Something with locks."""

    def in_child(self) -> None:
        """Replace all locks, and drop what a thread may have been changing. Called in the child, which has one."""


_all: WeakSet[Renewable] = WeakSet()


def renewed_in_child(made: Renewable) -> None:
    """Have `in_child` called in every process forked from here on, as long as the object lives."""
    _all.add(made)


def _renew() -> None:
    for each in list(_all):
        each.in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)

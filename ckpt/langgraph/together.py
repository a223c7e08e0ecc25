"""Calls of many tasks that are made together: what comes while others are under way is one call afterwards.

Nobody waits for company: a call that comes alone is made at once, alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor, Future
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

from ckpt.errors import StoreUnavailableError
from ckpt.forking import renewed_in_child

WEIGHT_MAX = 256
"""Operations that are one call, unless a single caller has more."""

_J = TypeVar("_J")


class _Waiting(NamedTuple, Generic[_J]):
    """A job, the operations it consists of, what it claims for itself, and its end."""

    job: _J
    weight: int
    claims: frozenset[Hashable]
    ended: Future[None]


class Together(Generic[_J]):
    """Runs jobs on the threads of a pool, those together that came while as many as may were under way.

    `run` does one or several jobs, and either all of them or, raising an error, none. Jobs that failed together are
    run again one by one, so that each has its own error, unless the store could not be reached: whether they were
    done is not known then, and each of them gets that error. Safe for many threads and event loops.
    """

    def __init__(self, run: Callable[[Sequence[_J]], object], pool: Callable[[], Executor], *, at_once: int) -> None:
        self._run = run
        self._pool = pool
        self._at_once = at_once
        self.in_child()
        renewed_in_child(self)

    def in_child(self) -> None:
        """Begin without jobs in a forked process: those that wait are the parent's."""
        self._lock = Lock()
        self._waiting: deque[_Waiting[_J]] = deque()
        self._under_way = 0

    def submit(self, job: _J, weight: int, claims: frozenset[Hashable] = frozenset()) -> Future[None]:
        """Have a job run, and return its end; cancelled before it is begun, it is not run.

        Jobs with a claim in common are not run together, and in the order in which they came if `at_once` is 1.
        `weight` is the number of its operations: too many are not run together either.
        """
        waiting = _Waiting(job, weight, claims, Future())
        with self._lock:
            self._waiting.append(waiting)
            if self._under_way == self._at_once:
                return waiting.ended
            self._under_way += 1
        try:
            self._pool().submit(self._work)
        except BaseException:
            with self._lock:
                self._under_way -= 1
            waiting.ended.cancel()
            raise
        return waiting.ended

    def _work(self) -> None:
        while taken := self._taken():
            self._do(taken)

    def _taken(self) -> list[_Waiting[_J]]:
        """Take what is run together next; nothing when nothing waits, and nobody is at it any more then."""
        taken: list[_Waiting[_J]] = []
        weight, claims = 0, set[Hashable]()
        with self._lock:
            while self._waiting:
                first = self._waiting[0]
                if taken and (weight + first.weight > WEIGHT_MAX or not claims.isdisjoint(first.claims)):
                    break
                self._waiting.popleft()
                if first.ended.set_running_or_notify_cancel():
                    taken.append(first)
                    weight += first.weight
                    claims |= first.claims
            if not taken:
                self._under_way -= 1
        return taken

    def _do(self, taken: Sequence[_Waiting[_J]]) -> None:
        try:
            self._run([each.job for each in taken])
        except BaseException as error:  # whoever waits for a job shall have it
            if len(taken) > 1 and isinstance(error, Exception) and not isinstance(error, StoreUnavailableError):
                for each in taken:
                    self._do([each])
            else:
                for each in taken:
                    each.ended.set_exception(error)
        else:
            for each in taken:
                each.ended.set_result(None)

"""Calls of many tasks that are made together: what comes while others are under way is one call afterwards.

Nobody waits for company: a call that comes alone is made at once, alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from concurrent.futures import Executor, Future
from threading import Lock
from typing import Generic, NamedTuple, Protocol, TypeVar

from ckpt.errors import StoreUnavailableError
from ckpt.forking import renewed_in_child

_JOBS_MAX = 256
_SIZE_MAX = 4 << 20
"""Bytes from which on nothing is added to a call."""


class Job(Protocol):
    """What one caller wants."""

    @property
    def claims(self) -> Collection[Hashable]:
        """What this job has to itself: two with one in common are not run together."""

    def prepare(self) -> int:
        """Do what concerns this job alone, and return about how many bytes it is; what it raises ends this job alone.

        Called once, on the thread that runs the job then.
        """


_J = TypeVar("_J", bound=Job)


class _Waiting(NamedTuple, Generic[_J]):
    job: _J
    ended: Future[None]


class Together(Generic[_J]):
    """Runs jobs on the threads of a pool, those together that came while the threads had other things to do.

    On a single thread one call is made after the other, so that jobs with a claim in common are run in the order in
    which they came. Safe for many threads and event loops.
    """

    def __init__(self, pool: Callable[[], Executor]) -> None:
        self._pool = pool
        self.in_child()
        renewed_in_child(self)

    def in_child(self) -> None:
        """Begin without jobs in a forked process: those that wait are the parent's."""
        self._lock = Lock()
        self._waiting: deque[_Waiting[_J]] = deque()

    def submit(self, run: Callable[[Sequence[_J]], object], job: _J) -> Future[None]:
        """Have a job run, and return its end; cancelled before it is begun, it is not run.

        `run`, the same for all jobs, does one or several of them: all, or, raising an error, none. Those that failed
        together are run again one by one, so that each has its own error; not so if the store could not be reached,
        as whether they were done is not known then.
        """
        waiting = _Waiting(job, Future[None]())
        with self._lock:
            self._waiting.append(waiting)
        try:
            # One for each job, though most will find nothing left: so no job is ever without somebody who takes it, and
            # whatever else the pool is asked for has its turn.
            self._pool().submit(self._work, run)
        except BaseException:
            if waiting.ended.cancel():
                raise
        return waiting.ended

    def _work(self, run: Callable[[Sequence[_J]], object]) -> None:
        if taken := self._taken():
            _do(run, taken)

    def _taken(self) -> list[_Waiting[_J]]:
        """Take what is run together next, prepared."""
        taken: list[_Waiting[_J]] = []
        size, claims = 0, set[Hashable]()
        while True:
            with self._lock:
                if not self._waiting or len(taken) == _JOBS_MAX or size >= _SIZE_MAX:
                    return taken
                if not claims.isdisjoint(self._waiting[0].job.claims):
                    return taken
                job, ended = first = self._waiting.popleft()
            if not ended.set_running_or_notify_cancel():
                continue
            try:
                size += job.prepare()
            except BaseException as error:  # whoever waits for it shall have it
                ended.set_exception(error)
            else:
                taken.append(first)
                claims.update(job.claims)


def _do(run: Callable[[Sequence[_J]], object], taken: Sequence[_Waiting[_J]]) -> None:
    error = _run(run, [each.job for each in taken])
    if error is None:
        for each in taken:
            each.ended.set_result(None)
    elif len(taken) == 1 or not isinstance(error, Exception):
        for each in taken:
            each.ended.set_exception(error)
    elif isinstance(error, StoreUnavailableError):
        for each in taken:
            own = type(error)(error.message, hints=error.hints)
            own.__cause__ = error
            each.ended.set_exception(own)
    else:
        for each in taken:
            _do(run, [each])


def _run(run: Callable[[Sequence[_J]], object], jobs: Sequence[_J]) -> BaseException | None:
    try:
        run(jobs)
    except BaseException as error:  # returned, so that it is in no context of what is raised later
        return error
    return None

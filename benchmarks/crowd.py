"""Many threads at once: one process, as many LangGraph threads as Python threads, all of them saving.

Not here: one call at a time (`replay`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import islice

from benchmarks.contenders import Contender
from benchmarks.figures import median
from benchmarks.replay import clock, collector_off, perform
from benchmarks.trace import Call, GetTuple, Put, PutWrites, Trace

New = Callable[[], AbstractContextManager[Sequence[Contender]]]
"""Lends contenders over new stores; what they stored may be removed at the end."""


def crowd(
    trace: Trace,
    new: New,
    threads: int,
    attempts: int,
    calls_at_most: int,
    kinds: tuple[type[Call], ...] = (Put, PutWrites, GetTuple),
) -> dict[str, float]:
    """Return milliseconds per call when threads repeat the beginning of a trace, in new stores each time.

    Each takes the first `calls_at_most` calls, and of these the given kinds.
    """
    elapsed: dict[str, list[int]] = {}
    for _ in range(attempts):
        with new() as contenders:
            for contender in contenders:
                work = [
                    [
                        contender.own(call)
                        for call in _renamed(islice(trace, calls_at_most), f"crowd-{number}")
                        if isinstance(call, kinds)
                    ]
                    for number in range(threads)
                ]
                calls = sum(map(len, work))
                elapsed.setdefault(contender.name, []).append(_all_at_once(contender, work) // calls)
                contender.close()
    return {name: median(taken) for name, taken in elapsed.items()}


def _renamed(recorded: Iterable[Call], thread: str) -> list[Call]:
    """Return the calls of the first thread, made over into calls of another."""
    calls: list[Call] = []
    first: str | None = None
    for call in recorded:
        if isinstance(call, Put | PutWrites | GetTuple):
            configurable = call.config["configurable"]
            first = first or configurable["thread_id"]
            if configurable["thread_id"] == first:
                configurable["thread_id"] = thread
                calls.append(call)
    return calls


def _all_at_once(contender: Contender, work: Sequence[Sequence[Call]]) -> int:
    """Return the nanoseconds from the first call of any thread to the last."""
    workers = contender.crowd(len(work))
    for worker in workers:
        worker.saver.get_tuple({"configurable": {"thread_id": "nobody"}})
    start = threading.Barrier(len(work) + 1)
    errors: list[BaseException] = []

    def run(worker: Contender, calls: Sequence[Call]) -> None:
        start.wait()
        try:
            for call in calls:
                perform(worker, call)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=each) for each in zip(workers, work, strict=True)]
    for thread in threads:
        thread.start()

    def finish() -> None:
        start.wait()
        for thread in threads:
            thread.join()

    with collector_off():
        elapsed = clock(finish)
    if errors:
        raise errors[0]
    return elapsed

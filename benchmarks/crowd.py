"""Eight threads at once: one saver, eight LangGraph threads, all of them saving.

Not here: one call at a time (`replay`).
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from benchmarks.contenders import CkptContender, Contender, SqliteContender
from benchmarks.figures import median
from benchmarks.replay import clock, collector_off, perform
from benchmarks.trace import Call, GetTuple, Put, PutWrites, Trace

_THREADS = 8


def crowd(trace: Trace, directory: Path, attempts: int, calls_at_most: int) -> dict[str, float]:
    """Return milliseconds per call when eight threads repeat the beginning of a trace, in new stores each
    time.
    """
    elapsed: dict[str, list[int]] = {}
    for attempt in range(attempts):
        place = directory / f"crowd-{attempt}"
        place.mkdir()
        for contender in (CkptContender(place), SqliteContender(place)):
            work = [
                [contender.own(call) for call in _renamed(islice(trace, calls_at_most), f"crowd-{number}")]
                for number in range(_THREADS)
            ]
            calls = sum(map(len, work))
            elapsed.setdefault(contender.name, []).append(_all_at_once(contender, work) // calls)
            contender.close()
        shutil.rmtree(place)
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
    contender.saver.get_tuple({"configurable": {"thread_id": "nobody"}})
    start = threading.Barrier(len(work) + 1)
    errors: list[BaseException] = []

    def run(calls: Sequence[Call]) -> None:
        start.wait()
        try:
            for call in calls:
                perform(contender, call)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(calls,)) for calls in work]
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

"""Repeats a trace on several savers at once: each call on every saver, before the next call.

Both savers meet the same machine in the same second, so that a ratio of their times means something where the
times themselves do not. Who goes first changes from call to call. The garbage collector runs between calls
only.

Not here: what is measured after the trace has been replayed (`measure`).
"""

from __future__ import annotations

import gc
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from benchmarks.contenders import Contender
from benchmarks.floors import SerializerFloor
from benchmarks.trace import Call, CopyThread, GetTuple, Put, PutWrites

_COLLECT_EVERY = 100


@dataclass
class Times:
    """Nanoseconds of every call, by kind of call and by name of who performed it, in the trace's order."""

    elapsed: dict[str, dict[str, list[int]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    changed: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Bytes that had to be serialised in each call, by kind."""
    threads: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Every thread, with its number of checkpoints put."""

    @property
    def main_thread(self) -> str:
        """The thread with the longest history."""
        return max(self.threads, key=lambda thread: self.threads[thread])


@contextmanager
def collector_off() -> Iterator[None]:
    """Keep the garbage collector out of what is timed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def perform(contender: Contender, call: Call) -> None:
    """Make one recorded call on a saver."""
    match call:
        case Put(config, checkpoint, metadata, new_versions):
            contender.saver.put(config, checkpoint, metadata, new_versions)
        case PutWrites(config, writes, task_id, task_path):
            contender.saver.put_writes(config, writes, task_id, task_path)
        case GetTuple(config):
            contender.saver.get_tuple(config)
        case CopyThread(source, target):
            contender.copy_thread(source, target)


def clock(work: Callable[..., object], *arguments: object) -> int:
    """Return the nanoseconds that `work`, called with these arguments, took."""
    started = time.perf_counter_ns()
    work(*arguments)
    return time.perf_counter_ns() - started


def replay(calls: Iterable[Call], contenders: Sequence[Contender]) -> Times:
    """Make every call on every contender, interleaved, and on the bare serializer; return how long each
    took.
    """
    times = Times()
    floor = SerializerFloor()
    for contender in contenders:
        contender.saver.get_tuple({"configurable": {"thread_id": "nobody"}})  # opening is not part of the first call
    runners: list[tuple[str, Callable[[Call], Call], Callable[[Call], object]]] = [
        (floor.name, lambda call: call, floor.perform),
        *((each.name, each.own, partial(perform, each)) for each in contenders),
    ]
    with collector_off():
        for number, call in enumerate(calls):
            kind = type(call).__name__
            times.changed[kind].append(floor.perform(call))
            for place in range(len(runners)):
                name, own, run = runners[(number + place) % len(runners)]
                times.elapsed[kind][name].append(clock(run, own(call)))
            if isinstance(call, Put):
                times.threads[call.config["configurable"]["thread_id"]] += 1
            elif isinstance(call, CopyThread):
                times.threads[call.target] += times.threads[call.source]
            if number % _COLLECT_EVERY == 0:
                gc.collect()
    return times

"""Measures one workload on a server: records it, replays it on the savers, then reads, forks, deletes, crowds the
stores and counts round trips.

Not here: the same on files (`measure`), the server and the savers (`servers`), what the figures mean (`figures`,
`bars`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.crowd import crowd
from benchmarks.figures import Figures
from benchmarks.record import record
from benchmarks.replay import perform, replay
from benchmarks.servers import Server
from benchmarks.steps import Effort, Progress, of_calls, of_closed, read, require_same_head
from benchmarks.trace import GetTuple, Put, PutWrites, Trace
from benchmarks.wire import Wire
from benchmarks.workloads import Workload

_THREADS = 8
_WRITERS = (1, 8, 32)


def measure_shared(
    workload: Workload,
    scale: float,
    server: Server,
    directory: Path,
    effort: Effort,
    progress: Progress = lambda _: None,
) -> Figures:
    """Run one workload on new stores of a server and return its figures; `directory`, empty, takes the trace.

    The stores are removed at the end. Raises `DifferentStateError` if a thread's head differs between the savers.
    """
    progress("recording")
    trace = record(lambda saver: workload.run(saver, scale), directory / "trace")
    with server.new() as contenders:
        ours, *peers = contenders
        progress("replaying")
        times = replay(trace, contenders)
        figures = server.sizes(contenders, sum(times.threads.values())) | of_calls(times)
        progress("reading")
        for thread in times.threads:
            for peer in peers:
                require_same_head(ours, peer, thread)
        read(figures, contenders, times.main_thread, effort)
        for each in contenders:
            each.close()
        of_closed(figures, contenders, times.main_thread, effort, progress)
    progress("eight threads")
    figures["threads_8"] = crowd(trace, server.new, _THREADS, effort.crowds, effort.crowd_calls)
    for writers in _WRITERS:
        progress(f"writers: {writers}")
        figures[f"writers_{writers}"] = crowd(
            trace, server.new, writers, effort.crowds, effort.crowd_calls // 4, (Put, PutWrites)
        )
    progress("round trips")
    return figures | _trips(trace, server, effort.trip_calls)


def _trips(trace: Trace, server: Server, calls_at_most: int) -> Figures:
    """Return the mean round trips of the calls that begin a trace, then of reading what they left."""
    figures: Figures = {f"trips_{name}": {} for name in ("put", "put_writes", "get", "open", "list_10")}
    with server.wired() as (wired, wire), wired.new() as contenders:
        for each in contenders:
            for metric, found in _trips_of(each, wire, trace, calls_at_most).items():
                figures[metric][each.name] = sum(found) / len(found)
    return figures


def _trips_of(contender: Contender, wire: Wire, trace: Trace, calls_at_most: int) -> dict[str, list[int]]:
    names: dict[type, str] = {Put: "trips_put", PutWrites: "trips_put_writes", GetTuple: "trips_get"}
    found: dict[str, list[int]] = {name: [] for name in names.values()}

    def counted(work: Callable[..., object], *arguments: object) -> int:
        before = wire.trips
        work(*arguments)
        return wire.trips - before

    contender.saver.get_tuple({"configurable": {"thread_id": "nobody"}})
    last = ""
    for number, call in enumerate(trace):
        if number >= calls_at_most:
            break
        if isinstance(call, Put | PutWrites | GetTuple):
            found[names[type(call)]].append(counted(perform, contender, contender.own(call)))
            last = call.config["configurable"]["thread_id"]
    contender.close()
    head: Any = {"configurable": {"thread_id": last}}
    found["trips_open"] = [counted(lambda: contender.saver.get_tuple(head))]
    found["trips_list_10"] = [counted(lambda: list(contender.saver.list(head, limit=10)))]
    return found

"""The figures of a run: what each is called, in which unit, and how a list of times becomes one.

Not here: how they are taken (`measure`, `replay`) and how good they must be (`bars`).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Figures = dict[str, dict[str, float]]
"""Metric -> who -> value, less being better. Times are in milliseconds, sizes in bytes."""

FEWER = ("bytes", "rows")
"""How the names of metrics begin whose ratio is told as "times fewer"."""


@dataclass(frozen=True)
class Metric:
    """One line of a table."""

    title: str
    unit: str  # "bytes", "ms" or "count"


METRICS: dict[str, Metric] = {
    "bytes": Metric("bytes on disk", "bytes"),
    "bytes_gc": Metric("bytes on disk after `gc`", "bytes"),
    "bytes_memory": Metric("the server's memory", "bytes"),
    "bytes_memory_each": Metric("the server's memory, per checkpoint", "bytes"),
    "rows": Metric("rows", "count"),
    "put": Metric("`put`, median", "ms"),
    "put_p90": Metric("`put`, 90th percentile", "ms"),
    "put_large": Metric("`put` that changes over 128 KB, median", "ms"),
    "put_writes": Metric("`put_writes`, median", "ms"),
    "put_writes_p90": Metric("`put_writes`, 90th percentile", "ms"),
    "get": Metric("`get_tuple` at the start of a run, median", "ms"),
    "get_warm": Metric("`get_tuple` of the head, same process", "ms"),
    "get_cold": Metric("open and `get_tuple`, new process", "ms"),
    "get_cold_gc": Metric("open and `get_tuple`, new process, after `gc`", "ms"),
    "list_10": Metric("`list(limit=10)`", "ms"),
    "list_metadata": Metric("`list` of a thread, metadata of each", "ms"),
    "fork": Metric("fork of the longest thread", "ms"),
    "delete": Metric("`delete_thread` of that fork", "ms"),
    "threads_8": Metric("8 threads at once, per call", "ms"),
    "writers_1": Metric("1 writer, per call", "ms"),
    "writers_8": Metric("8 writers at once, per call", "ms"),
    "writers_32": Metric("32 writers at once, per call", "ms"),
    "trips_put": Metric("round trips of a `put`, mean", "count"),
    "trips_put_writes": Metric("round trips of a `put_writes`, mean", "count"),
    "trips_get": Metric("round trips of a `get_tuple` at the start of a run, mean", "count"),
    "trips_open": Metric("round trips to open and `get_tuple`", "count"),
    "trips_list_10": Metric("round trips of `list(limit=10)`", "count"),
    "memory": Metric("peak memory above reading the trace", "bytes"),
    "fork_10": Metric("fork, 10 checkpoints", "ms"),
    "fork_10000": Metric("fork, 10,000 checkpoints", "ms"),
    "fork_10_bytes": Metric("fork, 10 checkpoints", "bytes"),
    "fork_10000_bytes": Metric("fork, 10,000 checkpoints", "bytes"),
    "rewind_10": Metric("rewind, 10 checkpoints", "ms"),
    "rewind_10000": Metric("rewind, 10,000 checkpoints", "ms"),
    "rewind_10_bytes": Metric("rewind, 10 checkpoints", "bytes"),
    "rewind_10000_bytes": Metric("rewind, 10,000 checkpoints", "bytes"),
    "diff_10": Metric("diff of one turn, after 10 turns", "ms"),
    "diff_1000": Metric("diff of one turn, after 1,000 turns", "ms"),
}


def median(nanoseconds: Sequence[int]) -> float:
    """Return the median in milliseconds."""
    return statistics.median(nanoseconds) / 1e6


def percentile_90(nanoseconds: Sequence[int]) -> float:
    """Return the 90th percentile in milliseconds."""
    return sorted(nanoseconds)[(len(nanoseconds) - 1) * 9 // 10] / 1e6

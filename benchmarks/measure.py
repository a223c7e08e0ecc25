"""Measures one workload: records it, replays it on both savers, then reads, forks, deletes and crowds the
stores.

Not here: what the figures mean (`figures`, `bars`) and how the length of a history matters (`history`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import cold
from benchmarks.contenders import CkptContender, Contender, SqliteContender
from benchmarks.crowd import crowd
from benchmarks.figures import Figures, median, percentile_90
from benchmarks.memory import peaks
from benchmarks.record import record
from benchmarks.replay import Times, clock, collector_off, replay
from benchmarks.sizes import after_gc, references
from benchmarks.workloads import Workload

_LARGE = 128 * 1024
_SLOW_EXTRAS_AT_MOST = 2 * 1024**3
"""Above this size of SqliteSaver's file, memory and zstd are left out: they take longer than the rest."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Effort:
    """How often things are repeated, and whether memory and the zstd stream are measured, which is slow."""

    reads: int = 21
    cold_reads: int = 7
    forks: int = 3
    crowds: int = 3
    crowd_calls: int = 240
    floors: bool = True


MINIATURE = Effort(reads=2, cold_reads=1, forks=1, crowds=1, crowd_calls=24, floors=False)


class DifferentStateError(AssertionError):
    """The two savers were told the same and do not say the same."""


def measure(
    workload: Workload, scale: float, directory: Path, effort: Effort, progress: Progress = lambda _: None
) -> Figures:
    """Run one workload in an empty directory and return its figures.

    Raises `DifferentStateError` if a thread's head differs between the two savers afterwards.
    """
    progress("recording")
    trace = record(lambda saver: workload.run(saver, scale), directory / "trace")
    ours, peer = CkptContender(directory), SqliteContender(directory)
    progress("replaying")
    times = replay(trace, (ours, peer))
    figures = _of_calls(times)
    progress("reading")
    for thread in times.threads:
        _require_same_head(ours, peer, thread)
    _read(figures, (ours, peer), times.main_thread, effort)
    ours.close()
    peer.close()
    figures["bytes"] = {each.name: each.bytes_on_disk() for each in (ours, peer)}
    figures["bytes_gc"] = {ours.name: after_gc(ours, directory), peer.name: peer.bytes_on_disk()}
    progress("reading in new processes")
    figures["get_cold"] = _repeat(
        effort.cold_reads, {each.name: _cold(each, times.main_thread) for each in (ours, peer)}
    )
    progress("forking and deleting")
    _fork_and_delete(figures, (ours, peer), times.main_thread, effort)
    progress("eight threads")
    figures["threads_8"] = crowd(trace, directory, effort.crowds, effort.crowd_calls)
    slow_extras = effort.floors and figures["bytes"]["sqlite"] <= _SLOW_EXTRAS_AT_MOST
    if slow_extras:
        progress("memory")
        figures["memory"] = peaks(trace, directory)
    progress("bytes of the alternatives")
    found = references(workload, scale, trace, directory, floors=slow_extras)
    for metric in ("bytes", "bytes_gc"):
        figures[metric] |= found
    return figures


def _of_calls(times: Times) -> Figures:
    figures: Figures = {}
    for kind, metric in (("Put", "put"), ("PutWrites", "put_writes"), ("GetTuple", "get")):
        figures[metric] = {who: median(elapsed) for who, elapsed in times.elapsed[kind].items()}
    figures["get"].pop("serializer", None)
    for kind, metric in (("Put", "put_p90"), ("PutWrites", "put_writes_p90")):
        figures[metric] = {who: percentile_90(elapsed) for who, elapsed in times.elapsed[kind].items()}
    large = [place for place, changed in enumerate(times.changed["Put"]) if changed >= _LARGE]
    if large:
        figures["put_large"] = {
            who: median([elapsed[place] for place in large]) for who, elapsed in times.elapsed["Put"].items()
        }
    return figures


def _require_same_head(ours: Contender, peer: Contender, thread: str) -> None:
    config: Any = {"configurable": {"thread_id": thread}}
    found, expected = ours.saver.get_tuple(config), peer.saver.get_tuple(config)
    if found is None or expected is None:
        raise DifferentStateError(f"thread {thread!r} is missing")
    expected = expected._replace(checkpoint=ours.own_checkpoint(expected.checkpoint))
    if found != expected:
        raise DifferentStateError(f"thread {thread!r}: {ours.name} and {peer.name} return different heads")


def _repeat(count: int, work: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Return the median of each by name, taken in turns."""
    elapsed: dict[str, list[int]] = {name: [] for name in work}
    with collector_off():
        for _ in range(count):
            for name, measured in work.items():
                elapsed[name].append(measured())
    return {name: median(taken) for name, taken in elapsed.items()}


def _cold(contender: Contender, thread: str) -> Callable[[], int]:
    return lambda: cold.measure(contender, thread)


def _read(figures: Figures, contenders: Sequence[Contender], thread: str, effort: Effort) -> None:
    config: Any = {"configurable": {"thread_id": thread}}

    def head(contender: Contender) -> Callable[[], int]:
        return lambda: clock(contender.saver.get_tuple, config)

    def newest(contender: Contender) -> Callable[[], int]:
        return lambda: clock(lambda: list(contender.saver.list(config, limit=10)))

    def metadata(contender: Contender) -> Callable[[], int]:
        return lambda: clock(lambda: [found.metadata["step"] for found in contender.saver.list(config)])

    figures["get_warm"] = _repeat(effort.reads, {each.name: head(each) for each in contenders})
    figures["list_10"] = _repeat(max(1, effort.reads // 4), {each.name: newest(each) for each in contenders})
    figures["list_metadata"] = _repeat(1, {each.name: metadata(each) for each in contenders})


def _fork_and_delete(figures: Figures, contenders: Sequence[Contender], thread: str, effort: Effort) -> None:
    """Fork the longest thread and delete the fork: one saver after the other, the peer last.

    SqliteSaver's copies keep the disk busy for long enough to be felt in whatever is timed after them.
    """
    figures["fork"], figures["delete"] = {}, {}
    for each in contenders:
        each.saver.get_tuple({"configurable": {"thread_id": thread}})
        with collector_off():
            elapsed = [
                (clock(each.copy_thread, thread, "copy"), clock(each.saver.delete_thread, "copy"))
                for _ in range(effort.forks)
            ]
        each.close()
        figures["fork"][each.name] = median([forked for forked, _ in elapsed])
        figures["delete"][each.name] = median([deleted for _, deleted in elapsed])

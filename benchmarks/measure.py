"""Measures one workload on files: records it, replays it on both savers, then reads, forks, deletes and crowds
the stores.

Not here: the same on servers (`shared`), what the figures mean (`figures`, `bars`) and how the length of a
history matters (`history`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.contenders import CkptContender, Contender, SqliteContender
from benchmarks.crowd import crowd
from benchmarks.figures import Figures
from benchmarks.memory import peaks
from benchmarks.record import record
from benchmarks.replay import replay
from benchmarks.sizes import after_gc, references
from benchmarks.steps import Effort, Progress, of_calls, of_closed, read, require_same_head
from benchmarks.workloads import Workload

_SLOW_EXTRAS_AT_MOST = 2 * 1024**3
"""Above this size of SqliteSaver's file, memory and zstd are left out: they take longer than the rest."""

_THREADS = 8


def measure(
    workload: Workload, scale: float, directory: Path, effort: Effort, progress: Progress = lambda _: None
) -> Figures:
    """Run one workload in an empty directory and return its figures.

    Raises `DifferentStateError` if a thread's head differs between the two savers afterwards.
    """
    progress("recording")
    trace = record(lambda saver: workload.run(saver, scale), directory / "trace")
    ours, peer = CkptContender(directory), SqliteContender(directory)
    with closing(ours), closing(peer):
        progress("replaying")
        times = replay(trace, (ours, peer))
        figures = of_calls(times)
        progress("reading")
        for thread in times.threads:
            require_same_head(ours, peer, thread)
        read(figures, (ours, peer), times.main_thread, effort)
    figures["bytes"] = {each.name: each.bytes_on_disk() for each in (ours, peer)}
    figures["bytes_gc"] = {ours.name: after_gc(ours, directory), peer.name: peer.bytes_on_disk()}
    of_closed(figures, (ours, peer), times.main_thread, effort, progress)
    progress("eight threads")
    figures["threads_8"] = crowd(trace, lambda: _new_files(directory), _THREADS, effort.crowds, effort.crowd_calls)
    slow_extras = effort.floors and figures["bytes"]["sqlite"] <= _SLOW_EXTRAS_AT_MOST
    if slow_extras:
        progress("memory")
        figures["memory"] = peaks(trace, directory)
    progress("bytes of the alternatives")
    found = references(workload, scale, trace, directory, floors=slow_extras)
    for metric in ("bytes", "bytes_gc"):
        figures[metric] |= found
    return figures


@contextmanager
def _new_files(directory: Path) -> Iterator[Sequence[Contender]]:
    place = directory / "crowd"
    place.mkdir()
    yield CkptContender(place), SqliteContender(place)
    shutil.rmtree(place)

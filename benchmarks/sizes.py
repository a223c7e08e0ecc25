"""Bytes that are not those of the replay itself: after `gc`, with a DeltaChannel, as one zstd stream.

Not here: the bytes of the replayed stores (`measure`).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.contenders import CkptContender, FileContender, HeadCopyContender, SqliteContender
from benchmarks.floors import zstd_floor
from benchmarks.record import record
from benchmarks.replay import perform
from benchmarks.trace import CopyThread, GetTuple, Trace
from benchmarks.workloads import Run, Workload


def after_gc(store: CkptContender, directory: Path) -> int:
    """Return the bytes of a copy of a closed store, once everything that can be has been collected and
    repacked.
    """
    place = directory / "gc"
    place.mkdir()
    for file in store.path.parent.glob(f"{store.path.name}*"):
        shutil.copy(file, place)
    copy = CkptContender(place)
    copy.gc()
    copy.close()
    size = copy.bytes_on_disk()
    shutil.rmtree(place)
    return size


def references(workload: Workload, scale: float, trace: Trace, directory: Path, *, floors: bool) -> dict[str, float]:
    """Return what a workload's bytes are held against besides SqliteSaver, by name."""
    sizes: dict[str, float] = {}
    if any(isinstance(call, CopyThread) for call in trace):
        sizes["sqlite-head"] = _alone(trace, HeadCopyContender(directory))
    if workload.delta is not None:
        sizes["delta"] = _with_delta_channel(workload.delta, scale, directory)
    if floors:
        sizes["written"], sizes["zstd"] = zstd_floor(trace)
    return sizes


def _with_delta_channel(run: Run, scale: float, directory: Path) -> int:
    place = directory / "delta"
    place.mkdir()
    size = _alone(record(lambda saver: run(saver, scale), place / "trace"), SqliteContender(place))
    shutil.rmtree(place)
    return size


def _alone(trace: Trace, contender: FileContender) -> int:
    for call in trace:
        if not isinstance(call, GetTuple):
            perform(contender, call)
    contender.close()
    return contender.bytes_on_disk()

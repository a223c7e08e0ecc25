"""The steps that every measurement has, whatever the store: calls into figures, equal heads, reads, forks.

Not here: what is done in which order on files (`measure`) and on servers (`shared`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import cold
from benchmarks.contenders import Contender, Ours
from benchmarks.figures import Figures, median, percentile_90
from benchmarks.replay import Times, clock, collector_off

_LARGE = 128 * 1024

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Effort:
    """How often things are repeated, and whether memory and the zstd stream are measured, which is slow."""

    reads: int = 21
    cold_reads: int = 7
    forks: int = 3
    crowds: int = 3
    crowd_calls: int = 240
    trip_calls: int = 120
    floors: bool = True


MINIATURE = Effort(reads=2, cold_reads=1, forks=1, crowds=1, crowd_calls=24, trip_calls=12, floors=False)


class DifferentStateError(AssertionError):
    """The two savers were told the same and do not say the same."""


def of_calls(times: Times) -> Figures:
    """Return the figures of replayed calls."""
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


def require_same_head(ours: Contender, peer: Contender, thread: str) -> None:
    """Raise `DifferentStateError` unless both return the same head of a thread."""
    config: Any = {"configurable": {"thread_id": thread}}
    found, expected = ours.saver.get_tuple(config), peer.saver.get_tuple(config)
    if found is None or expected is None:
        raise DifferentStateError(f"thread {thread!r} is missing")
    expected = expected._replace(checkpoint=ours.own_checkpoint(expected.checkpoint))
    if peer.compared(found) != peer.compared(expected):
        raise DifferentStateError(f"thread {thread!r}: {ours.name} and {peer.name} return different heads")


def _repeat(count: int, work: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Return the median of each by name, taken in turns."""
    elapsed: dict[str, list[int]] = {name: [] for name in work}
    with collector_off():
        for _ in range(count):
            for name, measured in work.items():
                elapsed[name].append(measured())
    return {name: median(taken) for name, taken in elapsed.items()}


def read(figures: Figures, contenders: Sequence[Contender], thread: str, effort: Effort) -> None:
    """Read the head and the list of a thread in this process."""
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


def of_closed(
    figures: Figures, contenders: Sequence[Contender], thread: str, effort: Effort, progress: Progress
) -> None:
    """Take the figures of closed stores: the head of a thread in new processes, forks, and the head after `gc`.

    What is collected comes last, after all that is measured of stores as they were written. They are closed afterwards.
    """
    progress("reading in new processes")
    figures["get_cold"] = _heads_in_new_processes(contenders, thread, effort)
    progress("forking and deleting")
    _fork_and_delete(figures, contenders, thread, effort)
    progress("collecting and reading in new processes")
    for each in contenders:
        if isinstance(each, Ours):
            each.gc()
            each.close()
    figures["get_cold_gc"] = _heads_in_new_processes(contenders, thread, effort)


def _heads_in_new_processes(contenders: Sequence[Contender], thread: str, effort: Effort) -> dict[str, float]:
    def head(contender: Contender) -> Callable[[], int]:
        return lambda: cold.measure(contender, thread)

    return _repeat(effort.cold_reads, {each.name: head(each) for each in contenders})


def _fork_and_delete(figures: Figures, contenders: Sequence[Contender], thread: str, effort: Effort) -> None:
    """Fork the longest thread and delete the fork: one saver after the other, the peer last.

    A peer's copies keep the disk busy for long enough to be felt in whatever is timed after them. The stores are
    closed afterwards.
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

"""How costs depend on the length of a history: fork, rewind and diff, on short threads and on long ones.

Only ours is measured: SqliteSaver has no fork, rewind or diff. Sizes are what one operation adds to the
store's file, averaged over many, since a file grows by whole pages.

Not here: the workloads that both savers share (`measure`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.chat import Search, converse
from benchmarks.contenders import CkptContender
from benchmarks.figures import Figures, median
from benchmarks.replay import clock, collector_off
from benchmarks.workloads import count_up

_SHORT = 10
_TIMES = 50


def measure_history(directory: Path, scale: float, progress: Callable[[str], None] = lambda _: None) -> Figures:
    """Return the figures of fork, rewind and diff; `scale` shortens the long threads only."""
    figures: Figures = {}
    for named, checkpoints in ((10, _SHORT), (10_000, max(2 * _SHORT, round(10_000 * scale)))):
        progress(f"fork and rewind, {checkpoints} checkpoints")
        place = directory / f"counter-{named}"
        place.mkdir()
        contender = CkptContender(place)
        count_up(contender.saver, "counter", checkpoints)
        for operation, work in (("fork", _fork), ("rewind", _rewind)):
            milliseconds, size = _cost(contender, work)
            figures[f"{operation}_{named}"] = {"ckpt": milliseconds}
            figures[f"{operation}_{named}_bytes"] = {"ckpt": size}
    for named, turns in ((10, _SHORT), (1_000, max(2 * _SHORT, round(1_000 * scale)))):
        progress(f"diff after {turns} turns")
        place = directory / f"chat-{named}"
        place.mkdir()
        contender = CkptContender(place)
        converse(contender.saver, "chat", Search("diff"), turns=turns)
        figures[f"diff_{named}"] = {"ckpt": _diff(contender)}
        contender.close()
    return figures


def _fork(repository: Any, number: int) -> None:
    repository.fork("@", f"fork-{number}", thread="counter")


def _rewind(repository: Any, number: int) -> None:
    repository.rewind("counter", 1)


def _repository(contender: CkptContender) -> Any:
    saver: Any = contender.saver
    return saver.repository


def _cost(contender: CkptContender, work: Callable[[Any, int], object]) -> tuple[float, float]:
    """Return (median milliseconds, mean bytes added to the closed store) of an operation."""
    contender.close()
    before = contender.bytes_on_disk()
    repository = _repository(contender)
    with collector_off():
        elapsed = [clock(work, repository, number) for number in range(_TIMES)]
    contender.close()
    return median(elapsed), (contender.bytes_on_disk() - before) / _TIMES


def _diff(contender: CkptContender) -> float:
    repository = _repository(contender)
    new = repository.resolve("@", thread="chat")
    old = repository.resolve("@~5", thread="chat")
    with collector_off():
        return median([clock(repository.diff, old, new) for _ in range(11)])

"""The bars: what the design promises that its costs are, as data.

A bar holds one figure of ours against a reference taken in the same run: `ours <= factor * reference + plus`.
A factor below 1 is written as "times fewer".

Not here: the figures (`measure`, `history`) and the tables (`report`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.figures import Figures

HISTORY = "history"
"""The pseudo-workload of figures about the length of a history, which only ours has."""

FILES = "sqlite"
STORES = (FILES, "postgres", "redis")
"""What is measured on: files, and the servers that many machines share."""


def run_name(store: str, workload: str) -> str:
    """Return the name of a workload's run on one kind of store: "chat" on files, "postgres chat" on a server."""
    return workload if store == FILES else f"{store} {workload}"


_WITH_LARGE_STATE = ("chat", "files", "images", "fanout")
_ALL = (*_WITH_LARGE_STATE, "threads", "forks", "tiny")
_ALL_ON_POSTGRES = tuple(run_name("postgres", workload) for workload in _ALL)
_ALL_ON_REDIS = tuple(run_name("redis", workload) for workload in _ALL)
_TINY_ON_POSTGRES = (run_name("postgres", "tiny"),)
_KB = 1024


@dataclass(frozen=True)
class Bar:
    """What one metric must not exceed in the runs of some workloads."""

    metric: str
    workloads: tuple[str, ...]
    text: str
    factor: float = 0.0
    reference: str = ""  # whose value of the metric the factor is for
    plus: float = 0.0
    reference_metric: str = ""  # when the reference is a value of another metric

    def limit(self, figures: Figures) -> float | None:
        """Return the most that ours may be, or None if the run did not take the reference."""
        if not self.reference:
            return self.plus
        reference = figures.get(self.reference_metric or self.metric, {}).get(self.reference)
        return None if reference is None else self.factor * reference + self.plus


def _fewer(times: int, *workloads: str, than: str = "sqlite") -> Bar:
    named = {"sqlite": "SqliteSaver", "sqlite-head": "SqliteSaver, heads copied"}[than]
    return Bar("bytes", workloads, f"at least {times} times fewer than {named}", 1 / times, than)


BARS: tuple[Bar, ...] = (
    _fewer(300, "chat"),
    _fewer(150, "files"),
    _fewer(200, "images"),
    _fewer(100, "fanout"),
    _fewer(80, "threads"),
    _fewer(250, "forks"),
    _fewer(250, "forks", than="sqlite-head"),
    _fewer(3, "tiny"),
    Bar("bytes", _ALL, "at most those with a DeltaChannel", 1, "delta"),
    Bar("bytes", _WITH_LARGE_STATE, "at most 3 times one zstd stream", 3, "zstd"),
    Bar("bytes_gc", _WITH_LARGE_STATE, "at most 2 times one zstd stream", 2, "zstd"),
    Bar("put_large", _ALL, "at most 1.3 times the serializer + 0.3 ms", 1.3, "serializer", 0.3),
    Bar("put_large", _ALL, "below SqliteSaver", 1, "sqlite"),
    Bar("put", ("tiny",), "at most 1.3 times SqliteSaver", 1.3, "sqlite"),
    Bar("put_writes", ("tiny",), "at most 1.3 times SqliteSaver", 1.3, "sqlite"),
    Bar("get_warm", _ALL, "at most 1.1 times SqliteSaver", 1.1, "sqlite"),
    Bar("get_cold", _ALL, "at most 1.5 times SqliteSaver", 1.5, "sqlite"),
    Bar("bytes", _ALL_ON_POSTGRES, "never more than PostgresSaver", 1, "postgres"),
    Bar("rows", _ALL_ON_POSTGRES, "fewer than PostgresSaver", 1, "postgres", plus=-1),
    Bar("put_large", _ALL_ON_POSTGRES, "below PostgresSaver", 1, "postgres"),
    Bar("put", _TINY_ON_POSTGRES, "at most 1.3 times PostgresSaver", 1.3, "postgres"),
    Bar("put_writes", _TINY_ON_POSTGRES, "at most 1.3 times PostgresSaver", 1.3, "postgres"),
    Bar("get_warm", _ALL_ON_POSTGRES, "at most 1.1 times PostgresSaver", 1.1, "postgres"),
    Bar("get_cold", _ALL_ON_POSTGRES, "at most 1.5 times PostgresSaver", 1.5, "postgres"),
    Bar("trips_put", _ALL_ON_POSTGRES, "at most 2", plus=2),
    Bar("trips_put_writes", _ALL_ON_POSTGRES, "at most 1", plus=1),
    Bar("trips_put", _ALL_ON_REDIS, "at most 1", plus=1),
    Bar("trips_put_writes", _ALL_ON_REDIS, "at most 1", plus=1),
    Bar("fork_10000", (HISTORY,), "under 5 ms", plus=5),
    Bar("fork_10000", (HISTORY,), "as with 10 checkpoints (2 times + 0.2 ms)", 2, "ckpt", 0.2, "fork_10"),
    Bar("fork_10000_bytes", (HISTORY,), "under 4 KB", plus=4 * _KB),
    Bar(
        "fork_10000_bytes",
        (HISTORY,),
        "as with 10 checkpoints (within 512 bytes)",
        1,
        "ckpt",
        512,
        "fork_10_bytes",
    ),
    Bar("rewind_10000", (HISTORY,), "under 5 ms", plus=5),
    Bar("rewind_10000", (HISTORY,), "as with 10 checkpoints (2 times + 0.2 ms)", 2, "ckpt", 0.2, "rewind_10"),
    Bar("rewind_10000_bytes", (HISTORY,), "under 4 KB", plus=4 * _KB),
    Bar(
        "rewind_10000_bytes",
        (HISTORY,),
        "as with 10 checkpoints (within 512 bytes)",
        1,
        "ckpt",
        512,
        "rewind_10_bytes",
    ),
    Bar("diff_1000", (HISTORY,), "as after 10 turns (2 times + 1 ms)", 2, "ckpt", 1, "diff_10"),
)


@dataclass(frozen=True)
class Verdict:
    """A bar applied to a run."""

    workload: str
    bar: Bar
    ours: float
    limit: float

    @property
    def met(self) -> bool:
        """Whether ours is within the limit."""
        return self.ours <= self.limit


def judge(results: Mapping[str, Figures]) -> list[Verdict]:
    """Apply every bar to the figures of each run, by its name (`run_name`); a bar without its figures is left out."""
    verdicts: list[Verdict] = []
    for workload, figures in results.items():
        for bar in BARS:
            ours = figures.get(bar.metric, {}).get("ckpt")
            if workload in bar.workloads and ours is not None and (limit := bar.limit(figures)) is not None:
                verdicts.append(Verdict(workload, bar, ours, limit))
    return verdicts

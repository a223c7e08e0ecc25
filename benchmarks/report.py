"""Tables: what was measured, beside the peer and the bar, as Markdown.

Not here: measuring and judging (`measure`, `bars`).
"""

from __future__ import annotations

import platform
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.bars import HISTORY, Verdict
from benchmarks.figures import METRICS, Figures
from benchmarks.workloads import WORKLOADS

_REFERENCES = {
    "serializer": "serializer alone",
    "delta": "DeltaChannel on SqliteSaver",
    "sqlite-head": "SqliteSaver, heads copied only",
    "zstd": "one zstd -19 stream",
}
_HEADINGS = ("", "ckpt", "SqliteSaver", "ratio", "also", "bar", "")


def machine() -> str:
    """Return one line on what the figures were taken on."""
    parts = ("langgraph", "langgraph-checkpoint-sqlite", "msgpack", "zstandard")
    return ", ".join(
        (
            f"{_processor()}, {platform.system()} {platform.release()}",
            f"Python {platform.python_version()}",
            f"SQLite {sqlite3.sqlite_version}",
            *(f"{name} {version(name)}" for name in parts),
        )
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.machine()


def amount(value: float, unit: str) -> str:
    """Return a value with its unit, to three digits."""
    if unit == "ms":
        return f"{value:.3f} ms" if value < 10 else f"{value:,.0f} ms"
    for name, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {name}" if value < 1e3 * size else f"{value / size:,.0f} {name}"
    return f"{value:.0f} B"


def title(workload: str) -> str:
    """Return the heading of a workload's table."""
    return "length of the history" if workload == HISTORY else WORKLOADS[workload].title


def table(figures: Figures, verdicts: Iterable[Verdict]) -> str:
    """Return the Markdown table of one workload."""
    verdicts = list(verdicts)
    rows = [
        _row(metric, figures[metric], [verdict for verdict in verdicts if verdict.bar.metric == metric])
        for metric in METRICS
        if figures.get(metric)
    ]
    return "\n".join(_line(row) for row in (_HEADINGS, ("---",) * len(_HEADINGS), *rows))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(metric: str, values: Mapping[str, float], verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    unit = METRICS[metric].unit
    ours, peer = values["ckpt"], values.get("sqlite")
    also = [f"{name}: {amount(values[who], unit)}" for who, name in _REFERENCES.items() if who in values]
    return (
        METRICS[metric].title,
        amount(ours, unit),
        amount(peer, unit) if peer is not None else "",
        _ratio(ours, peer, metric) if peer is not None else "",
        "; ".join(also),
        "; ".join(verdict.bar.text for verdict in verdicts),
        "; ".join(_word(verdict, unit) for verdict in verdicts),
    )


def _word(verdict: Verdict, unit: str) -> str:
    return "met" if verdict.met else f"**missed** (limit {amount(verdict.limit, unit)})"


def _ratio(ours: float, peer: float, metric: str) -> str:
    if metric.startswith("bytes"):
        return f"{peer / ours:,.0f}× fewer" if peer >= 10 * ours else f"{peer / ours:.1f}× fewer"
    return f"{ours / peer:.2f}×"


def missed(verdicts: Iterable[Verdict]) -> list[str]:
    """Return one line per bar that is missed."""
    return [
        f"{verdict.workload}: {METRICS[verdict.bar.metric].title}: "
        f"{amount(verdict.ours, METRICS[verdict.bar.metric].unit)}, bar: {verdict.bar.text} "
        f"({amount(verdict.limit, METRICS[verdict.bar.metric].unit)})"
        for verdict in verdicts
        if not verdict.met
    ]


def replace_between(text: str, name: str, content: str) -> str:
    """Return `text` with what stands between the markers of `name` replaced.

    Raises ValueError if the markers are not there.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"markers of {name!r} are missing")
    return f"{head}{begin}\n{content}\n{end}{tail}"

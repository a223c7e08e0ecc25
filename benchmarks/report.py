"""Tables: what was measured, beside the peer and the bar, as Markdown.

Not here: measuring and judging (`measure`, `bars`).
"""

from __future__ import annotations

import platform
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.bars import HISTORY, Verdict
from benchmarks.figures import FEWER, METRICS, Figures
from benchmarks.workloads import WORKLOADS

_REFERENCES = {
    "serializer": "serializer alone",
    "delta": "DeltaChannel on SqliteSaver",
    "sqlite-head": "SqliteSaver, heads copied only",
    "zstd": "one zstd -19 stream",
}
_PEERS = {"sqlite": "SqliteSaver", "postgres": "PostgresSaver", "redis": "RedisSaver"}
_PARTS = {
    "sqlite": ("langgraph-checkpoint-sqlite",),
    "postgres": ("langgraph-checkpoint-postgres", "psycopg"),
    "redis": ("langgraph-checkpoint-redis", "redis"),
}


def machine(store: str = "sqlite", database: str = f"SQLite {sqlite3.sqlite_version}") -> str:
    """Return one line on what the figures of a kind of store were taken on."""
    parts = ("langgraph", *filter(_installed, _PARTS[store]), "msgpack", "zstandard")
    return ", ".join(
        (
            f"{_processor()}, {platform.system()} {platform.release()}",
            f"Python {platform.python_version()}",
            database,
            *(f"{name} {version(name)}" for name in parts),
        )
    )


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


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
    if unit == "count":
        return f"{value:,.0f}" if value == round(value) else f"{value:,.2f}"
    for name, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {name}" if value < 1e3 * size else f"{value / size:,.0f} {name}"
    return f"{value:.0f} B"


def title(run: str) -> str:
    """Return the heading of a run's table."""
    store, _, workload = run.rpartition(" ")
    heading = "length of the history" if workload == HISTORY else WORKLOADS[workload].title
    return f"{store}: {heading}" if store else heading


def table(figures: Figures, verdicts: Iterable[Verdict], store: str = "sqlite") -> str:
    """Return the Markdown table of one run on a kind of store."""
    verdicts = list(verdicts)
    rows = [
        _row(metric, figures[metric], [verdict for verdict in verdicts if verdict.bar.metric == metric], store)
        for metric in METRICS
        if figures.get(metric)
    ]
    headings = ("", "ckpt", _PEERS[store], "ratio", "also", "bar", "")
    kept = [place for place in range(len(headings)) if place < 2 or any(row[place] for row in rows)]
    return "\n".join(_line([cells[place] for place in kept]) for cells in (headings, ("---",) * len(headings), *rows))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(metric: str, values: Mapping[str, float], verdicts: Sequence[Verdict], store: str) -> tuple[str, ...]:
    unit = METRICS[metric].unit
    ours, peer = values["ckpt"], values.get(store)
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
    if metric.startswith(FEWER):
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

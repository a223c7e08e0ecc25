"""The command: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bars import HISTORY, judge
from benchmarks.figures import Figures
from benchmarks.history import measure_history
from benchmarks.measure import Effort, measure
from benchmarks.report import machine, missed, replace_between, table, title
from benchmarks.workloads import WORKLOADS

_DOCS = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure CkptSaver beside LangGraph's SqliteSaver, in one run.",
    )
    parser.add_argument(
        "--workload", action="append", choices=[*WORKLOADS, HISTORY], metavar="NAME",
        help=f"only this one; may be repeated ({', '.join([*WORKLOADS, HISTORY])})",
    )  # fmt: skip
    parser.add_argument(
        "--scale", type=float, default=1.0, metavar="F", help="length of the runs (1.0 is the real one)"
    )
    parser.add_argument("--no-floors", action="store_true", help="skip memory and the zstd stream, which take minutes")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="where the stores are put (default: temporary)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--update-docs", action="store_true", help="write the tables into docs/benchmarks.md")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks and print their tables; return 1 if a bar of a full run is missed."""
    options = _arguments(arguments)
    results: dict[str, Figures] = {}
    for name in options.workload or [*WORKLOADS, HISTORY]:
        results[name] = _run(name, options)
        print(f"\n## {title(name)}\n\n{table(results[name], judge({name: results[name]}))}", flush=True)
    verdicts = judge(results)
    failures = missed(verdicts)
    print(f"\n{machine()}\n{len(verdicts) - len(failures)} of {len(verdicts)} bars met")
    for failure in failures:
        print(f"missed: {failure}")
    if options.json:
        options.json.write_text(
            json.dumps({"machine": machine(), "scale": options.scale, "results": results}, indent=1)
        )
    if options.update_docs:
        _update_docs(results)
    return 1 if failures and options.scale == 1.0 else 0


def _run(name: str, options: argparse.Namespace) -> Figures:
    def progress(step: str) -> None:
        print(f"{name}: {step} …", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="ckpt-benchmark-", dir=options.directory) as directory:
        if name == HISTORY:
            return measure_history(Path(directory), options.scale, progress)
        effort = Effort(floors=not options.no_floors)
        return measure(WORKLOADS[name], options.scale, Path(directory), effort, progress)


def _update_docs(results: dict[str, Figures]) -> None:
    text = _DOCS.read_text()
    text = replace_between(text, "machine", machine() + ".")
    for name, figures in results.items():
        text = replace_between(text, name, table(figures, judge({name: figures})))
    _DOCS.write_text(text)


if __name__ == "__main__":
    sys.exit(main())

"""The command: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.bars import FILES, HISTORY, STORES, judge, run_name
from benchmarks.figures import Figures
from benchmarks.history import measure_history
from benchmarks.measure import measure
from benchmarks.report import machine, missed, replace_between, table, title
from benchmarks.servers import NoServerError, Server, served
from benchmarks.shared import measure_shared
from benchmarks.steps import Effort
from benchmarks.workloads import WORKLOADS

_DOCS = Path(__file__).parent.parent / "docs" / "benchmarks.md"
_SCHEMES = {"postgresql": "postgres", "postgres": "postgres", "redis": "redis", "unix": "redis"}


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure CkptSaver beside LangGraph's SqliteSaver, PostgresSaver and RedisSaver, each in one run.",
    )
    parser.add_argument(
        "--store", action="append", choices=STORES, metavar="KIND",
        help=f"only on this kind of store; may be repeated ({', '.join(STORES)})",
    )  # fmt: skip
    parser.add_argument(
        "--server", action="append", default=[], metavar="URL",
        help="measure on this PostgreSQL or Redis server instead of one started for the run",
    )  # fmt: skip
    parser.add_argument(
        "--workload", action="append", choices=[*WORKLOADS, HISTORY], metavar="NAME",
        help=f"only this one; may be repeated ({', '.join([*WORKLOADS, HISTORY])})",
    )  # fmt: skip
    parser.add_argument(
        "--scale", type=float, default=1.0, metavar="F", help="length of the runs (1.0 is the real one)"
    )
    parser.add_argument("--no-floors", action="store_true", help="skip memory and the zstd stream, which take minutes")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="where the files are put (default: temporary)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--update-docs", action="store_true", help="write the tables into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    options.servers = {_SCHEMES.get(url.partition("://")[0]): url for url in options.server}
    if None in options.servers:
        parser.error("--server takes postgresql://…, redis://… or unix://…")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks and print their tables.

    Returns 1 if a bar of a full run is missed, 2 if a store that was asked for has no server to be measured on.
    """
    options = _arguments(arguments)
    results: dict[str, Figures] = {}
    machines: dict[str, str] = {}
    for store in options.store or STORES:
        try:
            for name, figures, on in _measured(store, options):
                results[name], machines[store] = figures, on
                print(f"\n## {title(name)}\n\n{table(figures, judge({name: figures}), store)}", flush=True)
        except NoServerError as error:
            print(f"{store} IS NOT MEASURED: {error}", file=sys.stderr)
            if options.store:
                return 2
    verdicts = judge(results)
    failures = missed(verdicts)
    print("", *machines.values(), f"{len(verdicts) - len(failures)} of {len(verdicts)} bars met", sep="\n")
    for failure in failures:
        print(f"missed: {failure}")
    if options.json:
        options.json.write_text(
            json.dumps({"machines": machines, "scale": options.scale, "results": results}, indent=1)
        )
    if options.update_docs:
        _update_docs(results, machines)
    return 1 if failures and options.scale == 1.0 else 0


def _measured(store: str, options: argparse.Namespace) -> Iterator[tuple[str, Figures, str]]:
    """Yield the name, the figures and the machine of each run on one kind of store. Raises `NoServerError`."""
    workloads = [name for name in options.workload or [*WORKLOADS, HISTORY] if store == FILES or name != HISTORY]
    with ExitStack() as stack:
        server: Server | None = None
        if store != FILES and workloads:
            server = stack.enter_context(served(store, options.servers.get(store)))
        on = machine(store, server.version) if server else machine()
        for workload in workloads:
            name = run_name(store, workload)
            yield name, _run(name, workload, server, options), on


def _run(name: str, workload: str, server: Server | None, options: argparse.Namespace) -> Figures:
    def progress(step: str) -> None:
        print(f"{name}: {step} …", file=sys.stderr, flush=True)

    effort = Effort(floors=not options.no_floors)
    with tempfile.TemporaryDirectory(prefix="ckpt-benchmark-", dir=options.directory) as directory:
        if workload == HISTORY:
            return measure_history(Path(directory), options.scale, progress)
        if server is not None:
            return measure_shared(WORKLOADS[workload], options.scale, server, Path(directory), effort, progress)
        return measure(WORKLOADS[workload], options.scale, Path(directory), effort, progress)


def _update_docs(results: dict[str, Figures], machines: dict[str, str]) -> None:
    text = _DOCS.read_text()
    for store, on in machines.items():
        text = replace_between(text, run_name(store, "machine"), f"{on}.")
    for name, figures in results.items():
        store = name.rpartition(" ")[0] or FILES
        text = replace_between(text, name, table(figures, judge({name: figures}), store))
    _DOCS.write_text(text)


if __name__ == "__main__":
    sys.exit(main())

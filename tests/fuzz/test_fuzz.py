"""A short run of every fuzz target: always with mutated seeds, and guided by coverage where atheris is there.

`make fuzz` runs them for longer.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ROOT / "fuzz"
NAMES = sorted(path.stem for path in TARGETS.glob("fuzz_*.py"))
INPUTS = 500
SECONDS = 3


def test_there_are_targets() -> None:
    assert {"fuzz_rope", "fuzz_frame", "fuzz_commit", "fuzz_records"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_and_mutations_keep_the_property(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TARGETS))
    target, kit = importlib.import_module(name), importlib.import_module("fuzzkit")
    for data in kit.mutations(target.SEEDS, INPUTS, Random(name)):
        try:
            target.one(data)
        except Exception as error:
            error.add_note(f"input: {data!r}")
            raise


@pytest.fixture(scope="module")
def logs(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, tuple[subprocess.Popen[bytes], Path]]]:
    """All targets under atheris at the same time, since most of a short run is starting up."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris has no wheel for this platform")
    place = tmp_path_factory.mktemp("fuzz")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(place)}
    started = {}
    try:
        for name in NAMES:
            with open(place / f"{name}.log", "wb") as log:
                command = [sys.executable, str(TARGETS / f"{name}.py"), f"-max_total_time={SECONDS}"]
                process = subprocess.Popen(command, cwd=place, env=environment, stdout=log, stderr=subprocess.STDOUT)
            started[name] = process, place / f"{name}.log"
        yield started
    finally:
        for process, _ in started.values():
            process.kill()
            process.wait()


@pytest.mark.parametrize("name", NAMES)
def test_a_short_coverage_guided_run_finds_nothing(
    name: str, logs: dict[str, tuple[subprocess.Popen[bytes], Path]]
) -> None:
    process, log = logs[name]
    assert process.wait(timeout=120) == 0, log.read_text(errors="replace")[-3000:]

"""Measures how much memory a saver takes while a whole trace goes through it.

Run as `python -m benchmarks.memory CONTENDER TRACE DIRECTORY`; prints the process's peak in bytes. Reading
the trace takes memory too, which the contender `none` measures. Linux only: elsewhere there is no peak that a
parent process does not leak into.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.contenders import FILES
from benchmarks.replay import perform
from benchmarks.trace import Trace

_STATUS = Path("/proc/self/status")
_NONE = "none"


def peaks(trace: Trace, directory: Path) -> dict[str, float]:
    """Return the peak of each saver above that of reading the trace; nothing where it cannot be measured."""
    if not _STATUS.exists():
        return {}
    baseline = _in_new_process(_NONE, trace, directory)
    found = {kind.name: _in_new_process(kind.name, trace, directory) for kind in FILES}
    return {name: max(peak - baseline, 1.0) for name, peak in found.items()}


def _in_new_process(name: str, trace: Trace, directory: Path) -> float:
    place = directory / f"memory-{name}"
    place.mkdir()
    command = [sys.executable, "-m", "benchmarks.memory", name, str(trace.path), str(place)]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    for file in place.iterdir():
        file.unlink()
    return float(done.stdout)


def main(name: str, trace: str, directory: str) -> None:
    """Replay the trace in this process and print the most memory it ever had."""
    contender = next((kind(directory) for kind in FILES if kind.name == name), None)
    for call in Trace(Path(trace)):
        if contender is not None:
            perform(contender, contender.own(call))
    if contender is not None:
        contender.close()
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    print(int(lines["VmHWM"].split()[0]) * 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])

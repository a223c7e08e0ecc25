"""Times the first read of a new process: open the store, then `get_tuple` of a thread's head.

Run as `python -m benchmarks.cold CONTENDER DIRECTORY THREAD`; prints nanoseconds. What every LangGraph
program has loaded before it opens a saver (the saver's module, the message classes) is loaded before the
clock starts.
"""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
import time
from pathlib import Path

from langchain_core.messages import HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from benchmarks.contenders import CONTENDERS, Contender

_MODULES = {"ckpt": "ckpt.langgraph", "sqlite": "langgraph.checkpoint.sqlite"}


def measure(contender: Contender, thread: str) -> int:
    """Return the nanoseconds that opening and reading the head took in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.cold", contender.name, str(contender.path.parent), thread]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    return int(done.stdout)


def main(name: str, directory: str, thread: str) -> None:
    """Measure one read in this process and print it."""
    importlib.import_module(_MODULES[name])
    serde = JsonPlusSerializer()
    serde.loads_typed(serde.dumps_typed(HumanMessage("warm")))
    contender = CONTENDERS[name](Path(directory))
    gc.disable()
    started = time.perf_counter_ns()
    found = contender.saver.get_tuple({"configurable": {"thread_id": thread}})
    elapsed = time.perf_counter_ns() - started
    assert found is not None
    contender.close()
    print(elapsed)


if __name__ == "__main__":
    main(*sys.argv[1:])

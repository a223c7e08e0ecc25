"""Times the first read of a new process: open the store, then `get_tuple` of a thread's head.

Run as `python -m benchmarks.cold CLASS PLACE THREAD`; prints nanoseconds. What every LangGraph
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

from benchmarks.contenders import Contender


def measure(contender: Contender, thread: str) -> int:
    """Return the nanoseconds that opening and reading the head took in a process of its own."""
    kind = type(contender)
    command = [sys.executable, "-m", "benchmarks.cold", f"{kind.__module__}:{kind.__name__}", contender.place, thread]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    return int(done.stdout)


def main(kind: str, place: str, thread: str) -> None:
    """Measure one read in this process and print it."""
    module, _, name = kind.partition(":")
    contender: Contender = getattr(importlib.import_module(module), name)(place)
    for each in contender.modules:
        importlib.import_module(each)
    serde = JsonPlusSerializer()
    serde.loads_typed(serde.dumps_typed(HumanMessage("warm")))
    gc.disable()
    started = time.perf_counter_ns()
    found = contender.saver.get_tuple({"configurable": {"thread_id": thread}})
    elapsed = time.perf_counter_ns() - started
    assert found is not None
    contender.close()
    print(elapsed)


if __name__ == "__main__":
    main(*sys.argv[1:])

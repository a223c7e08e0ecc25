"""One store for many servers: a thread begun by one process is continued by another, and `ckpt` sees it all.

    python examples/shared_stores.py postgresql://agents@localhost/agents redis://localhost

It runs the agent of `demo.py` in two processes on each store that is named: PostgreSQL, Redis, or a file. Without any,
on a file of its own. Its threads are those of the graph `shared-demo`, which no other graph sees; they stay until it
runs again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from langchain_core.messages import HumanMessage
from langgraph.types import Command
from support_agent import build

import ckpt
from ckpt.langgraph import CkptSaver

GRAPH = "shared-demo"
THREAD = "support-42"
COMMANDS = [
    "threads",
    f"log {THREAD} -n 6",
    f"show {THREAD} ticket",
    f"diff '{THREAD}@{{next:approve}}' {THREAD}",
    f"fork '{THREAD}@{{next:approve}}' {THREAD}-no",
    f"checkout {THREAD}~4",
    "stats",
    "fsck",
    "gc",
]


def serve(store: str, calls: Connection) -> None:
    """Be a server: keep the store open, and run the agent on what comes in until nobody calls any more."""
    with CkptSaver(store, graph=GRAPH) as saver:
        graph = build(saver)
        while (given := calls.recv()) is not None:
            result = graph.invoke(given, {"configurable": {"thread_id": THREAD}})
            waiting = result.get("__interrupt__")
            calls.send(f"waits: {waiting[0].value}" if waiting else result["messages"][-1].text)


@contextmanager
def server(store: str) -> Iterator[Connection]:
    """Start a process that serves, and end it."""
    ours, theirs = multiprocessing.Pipe()
    # A forked process would share connections with this one.
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(store, theirs))
    process.start()
    theirs.close()  # so that a server that dies ends the call
    try:
        yield ours
        ours.send(None)
    finally:
        ours.close()
        process.join()


def ask(name: str, calls: Connection, given: Any) -> None:
    """Have one of the servers run the agent, and print what it says."""
    print(f"  to {name}: {given['messages'][0].text if isinstance(given, dict) else given}")
    calls.send(given)
    print(f"  {name}:    {calls.recv()}")


def says(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)], **more}


def two_servers(store: str) -> None:
    with server(store) as a, server(store) as b:
        ask("A", a, says("Hello, my order A-1001 arrived broken.", ticket={"status": "open", "customer": "C-1910"}))
        ask("A", a, says("I want my money back, please."))
        # The run stopped in process A; whoever has the store may go on with it.
        ask("B", b, Command(resume="yes"))
        ask("A", a, says("Thank you!"))


def command_line(store: str, shown: str) -> None:
    """Run `ckpt` on the store, which the environment names: other users of a machine can see options."""
    environment = os.environ | {"CKPT_STORE": store, "CKPT_GRAPH": GRAPH}
    print(f"\n$ export CKPT_STORE={shlex.quote(shown)} CKPT_GRAPH={GRAPH}")
    for line in COMMANDS:
        print(f"\n$ ckpt {line}", flush=True)
        subprocess.run([sys.executable, "-m", "ckpt", "--no-pager", *shlex.split(line)], env=environment, check=True)


def demonstrate(store: str) -> None:
    with ckpt.open(store, graph=GRAPH) as repository:
        shown = repository.url  # without the password
        for thread in repository.threads():
            repository.delete(thread.name)
    print(f"\n== {shown.partition('://')[0]}: two processes, one thread")
    two_servers(store)
    command_line(store, shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("stores", nargs="*", metavar="URL", help="postgresql://…, redis://…, or the path of a file")
    stores: list[str] = parser.parse_args().stores
    with tempfile.TemporaryDirectory() as folder:
        for store in stores or [str(Path(folder) / "store.db")]:
            try:
                demonstrate(store)
            except ckpt.CkptError as error:
                sys.exit("\n".join([f"error: {error}", *(f"hint: {hint}" for hint in error.hints)]))


if __name__ == "__main__":
    main()

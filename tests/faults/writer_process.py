"""A process that writes to a store and says on stdout, line by line, what has been acknowledged.

Arguments: URL of the store, prefix of its thread names, number of threads, checkpoints per thread, `same` or `own`.
"""

from __future__ import annotations

import json
import sys
from threading import Lock, Thread
from typing import Any

from engine_kit import checkpoint, put_writes

import ckpt
from ckpt.repository import Repository

_print_lock = Lock()


def values(thread: str, writer: str, step: int) -> dict[str, Any]:
    """Return what checkpoint `step` of a writer holds: a list that grows, and things of its own."""
    messages = [f"{thread} {writer} {number}: " + "what was said " * 20 for number in range(min(step, 40))]
    return {"messages": messages, "step": step, "blob": f"{writer}-{step} " * (step * 37 % 400)}


def say(*fact: object) -> None:
    """Print one acknowledged fact in one write."""
    with _print_lock:
        sys.stdout.write(json.dumps(fact) + "\n")
        sys.stdout.flush()


def run(repository: Repository, thread: str, writer: str, count: int) -> None:
    """Write a line of checkpoints with pending writes, saying each when it is acknowledged."""
    parent = None
    for step in range(count):
        name = f"{step:06d}-{writer}"
        repository.put(checkpoint(thread, name, values(thread, writer, step), parent=parent))
        say("put", thread, name, writer, step, parent)
        put_writes(
            repository, thread, name, f"task {writer}", [(0, "step", step), (-1, "__error__", f"{writer}{step}")]
        )
        say("writes", thread, name, writer, step, parent)
        parent = name


def main(url: str, prefix: str, threads: int, count: int, shared: bool) -> None:
    """Run the writers, each in a thread of this process."""
    with ckpt.open(url) as repository:
        say("ready")
        sys.stdin.readline()
        workers = [
            Thread(target=run, args=(repository, "shared" if shared else f"{prefix}{n}", f"{prefix}{n}", count))
            for n in range(threads)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "same")

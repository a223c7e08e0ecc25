"""Eight processes open one new file at the same moment, and write: all succeed and nothing is lost."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

from saver_kit import ids, put, values

PROCESSES = 8
STEPS = 5


def open_and_write(path: str, number: int, meeting: Any, failures: Any) -> None:
    """Run in a process of its own: wait for the others, open, write a thread of its own and a shared one."""
    try:
        from ckpt.langgraph import CkptSaver

        meeting.wait(60)
        saver = CkptSaver(path)
        for step in range(STEPS):
            name = f"{step}-{number}"
            put(saver, f"own-{number}", name, {"n": step}, parent=f"{step - 1}-{number}" if step else None)
            put(saver, "shared", name, {"n": [number, step]})
        saver.close()
    except BaseException as error:
        failures.put(f"process {number}: {type(error).__name__}: {error}")
        raise


def test_eight_processes_create_one_store(tmp_path: Path) -> None:
    from ckpt.langgraph import CkptSaver

    spawn = multiprocessing.get_context("spawn")
    meeting, failures = spawn.Barrier(PROCESSES), spawn.SimpleQueue()
    path = str(tmp_path / "new.ckpt")
    workers = [
        spawn.Process(target=open_and_write, args=(path, number, meeting, failures)) for number in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    told = []
    while not failures.empty():
        told.append(failures.get())
    assert told == []
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    saver = CkptSaver(path)
    for number in range(PROCESSES):
        own = ids(saver.list({"configurable": {"thread_id": f"own-{number}"}}))
        assert own == [f"{step}-{number}" for step in reversed(range(STEPS))]
        assert values(saver, f"own-{number}") == {"n": STEPS - 1}
    shared = list(saver.list({"configurable": {"thread_id": "shared"}}))
    assert {tuple(found.checkpoint["channel_values"]["n"]) for found in shared} == {
        (number, step) for number in range(PROCESSES) for step in range(STEPS)
    }
    assert saver.repository.fsck().problems == []
    saver.close()

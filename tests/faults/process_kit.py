"""Starting writer processes, and checking that what they acknowledged is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgpack
from engine_kit import contents
from writer_process import values

import ckpt
from ckpt.repository import Repository

HERE = Path(__file__).resolve().parent
Fact = Sequence[object]


def start(url: str, prefix: str, *, threads: int, count: int, shared: bool = False) -> subprocess.Popen[str]:
    """Start a writer process and wait until it has opened the store; it begins when told."""
    process = subprocess.Popen(
        [
            sys.executable,
            str(HERE / "writer_process.py"),
            url,
            prefix,
            str(threads),
            str(count),
            "same" if shared else "own",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first == '["ready"]\n', process.communicate()[1]
    return process


def go(process: subprocess.Popen[str]) -> None:
    """Tell a process to begin."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def facts(output: str) -> list[Fact]:
    """Return the facts that were acknowledged; a line cut short by a kill was never read by anybody."""
    return [json.loads(line) for line in output.splitlines() if line.endswith("]")]


def check(url: str, acknowledged: Sequence[Fact]) -> None:
    """Assert that every acknowledged fact is in the store as it was, and that the store is sound."""
    with ckpt.open(url, create=False) as repository:
        written = {(fact[1], fact[2]) for fact in acknowledged if fact[0] == "writes"}
        for kind, thread, name, writer, step, parent in acknowledged:
            if kind == "put":
                _check_one(
                    repository, (thread, name) in written, str(thread), str(name), str(writer), int(str(step)), parent
                )
        for thread in {str(fact[1]) for fact in acknowledged}:
            listed = [row.checkpoint_id for row in repository.read_all(thread)]
            assert {str(fact[2]) for fact in acknowledged if fact[1] == thread} <= set(listed)
            assert listed == sorted(set(listed), reverse=True)
        assert repository.fsck().problems == []


def _check_one(
    repository: Repository, with_writes: bool, thread: str, name: str, writer: str, step: int, parent: object
) -> None:
    found = contents(repository, repository.read(thread, "", name))
    assert isinstance(found, tuple), f"{thread}/{name} is gone"
    assert found[0] == name
    assert found[2] == ([parent] if parent is not None else [])
    assert {key: msgpack.unpackb(data) for key, data in found[4]} == values(thread, writer, step)
    pending = [(task, index, msgpack.unpackb(data)) for _, task, index, _, data in found[5]]
    wanted = [(f"task {writer}", -1, f"{writer}{step}"), (f"task {writer}", 0, step)]
    assert pending == wanted or (not with_writes and pending == [])

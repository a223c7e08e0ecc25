"""What is asked before something is taken away, at a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import ckpt

pty = pytest.importorskip("pty")


def asked(arguments: Sequence[str], answer: str) -> tuple[int, str, str]:
    """Run a command at a terminal where this is typed; return its exit code, what it said and what it asked."""
    mine, its = pty.openpty()
    try:
        os.write(mine, answer.encode())
        command = [sys.executable, "-m", "ckpt", *arguments]
        done = subprocess.run(command, check=False, stdin=its, capture_output=True, text=True, timeout=60)
    finally:
        os.close(mine)
        os.close(its)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "asked.db"
    with ckpt.open(path) as repository:
        for thread, count in (("a", 5), ("b", 3), ("c", 1)):
            for number in range(count):
                repository.commit(thread, {"n": number})
    monkeypatch.setenv("CKPT_STORE", str(path))
    return path


def test_a_prune_asks_with_the_numbers_of_what_would_go(store: Path) -> None:
    command = ["prune", "--all", "--keep-last", "2"]
    code, out, err = asked(command, "n\n")
    assert (code, out) == (1, "")
    assert err.startswith("Remove 4 checkpoints of 2 threads and keep 5? [y/N]: ")
    assert err.endswith("Nothing was changed.\n")
    code, out, err = asked(command, "y\n")
    assert (code, "Removed 4 checkpoints, kept 5" in out) == (0, True)
    # Nobody is asked where there is nothing to lose.
    assert asked(command, "") == (0, "Nothing to remove, kept 5\n", "")
    code, out, err = asked(["undo"], "")
    assert (code, out.endswith("1 checkpoint is back\n")) == (0, True)


def test_a_deletion_asks_with_the_name(store: Path) -> None:
    code, _, err = asked(["delete", "a"], "y\n")
    assert (code, err) == (0, "Delete the thread a (5 checkpoints)? [y/N]: ")
    with ckpt.open(store) as repository:
        assert repository.thread_names() == ["b", "c"]

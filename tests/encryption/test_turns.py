"""Rotations one after the other leave writers in other processes their turn."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

import ckpt
from ckpt.encryption import rotate, rotation
from ckpt.encryption.rotation import _Frames
from ckpt.history import keys
from ckpt.storage import turns
from ckpt.storage.turns import Turns

KEY = bytes(range(32))
ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import sys, threading, ckpt
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
with ckpt.open(sys.argv[1], encryption_key=bytes(range(32))) as repository:
    repository.thread("writer").commit({"turn": -1})
    print("begun", flush=True)
    count = 0
    while not stop.is_set():
        repository.thread("writer").commit({"turn": count})
        count += 1
    print(count, flush=True)
"""


def test_a_step_is_followed_by_a_rest_of_about_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    clock = [0.0]
    monkeypatch.setattr(turns.time, "sleep", rests.append)
    monkeypatch.setattr(turns.time, "monotonic", lambda: clock[0])
    work = Turns()
    for seconds in (0.0, 0.04, 5.0):
        with work.step():
            clock[0] += seconds
    short, fitting, long = rests
    assert 0.001 < short < 0.005
    assert 0.03 <= fitting <= 0.05
    assert 0.07 < long < 0.13
    with pytest.raises(ValueError, match="stopped"), work.step():
        raise ValueError("stopped")
    assert len(rests) == 3


def test_a_writer_in_another_process_gets_its_turn_while_keys_are_rotated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    with ckpt.open(path, encryption_key=KEY) as repository:
        for number in range(60):
            repository.thread(f"t{number % 6}").commit({"text": secrets.token_hex(60_000), "turn": number})
    monkeypatch.setattr(rotation, "_FRAMES_AT_ONCE", 1)
    thread = keys.thread_key(7)
    seen: list[bytes | None] = []
    move = _Frames._move

    def watched(self: _Frames, old: object) -> None:
        move(self, old)  # type: ignore[arg-type]
        seen.append(self._storage.read([thread])[0])

    monkeypatch.setattr(_Frames, "_move", watched)
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "begun\n"
        begun = time.monotonic()
        while time.monotonic() - begun < 3:
            rotate(path, KEY, data=True)
        count = int(other.communicate("stop\n", timeout=60)[0])
    through = sum(one != other for one, other in pairwise(seen))
    # With rests it mostly gets through after every other step; without them after one in seven at best.
    assert through > len(seen) / 5, (through, len(seen), count)

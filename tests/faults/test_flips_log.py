"""Bytes flipped in the write-ahead log of a store that was not closed: what was committed before the damage is there.

SQLite ends a log at the first frame whose checksum is wrong, as it must after a crash, and says nothing.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from engine_kit import everything, put, put_writes

import ckpt
from ckpt.errors import IntegrityError

LOG_HEADER, FRAME_HEADER, PAGE = 32, 24, 4096
TEXT = "what is said at length, so that it is an object of its own " * 4


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, object]]]:
    """Return a store as a crash leaves it, next to its log, and what it held after each commit, the first one empty."""
    folder = tmp_path_factory.mktemp("log")
    with ckpt.open(folder / "open.db") as repository:
        states = [everything(repository)]
        for step in range(5):
            put(repository, "t", f"c{step}", {"n": step, "text": f"{step}{TEXT}"}, parent=f"c{step - 1}")
            states.append(everything(repository))
            put_writes(repository, "t", f"c{step}", "task", [(0, "n", step)])
            states.append(everything(repository))
        repository.copy_thread("t", "fork")
        states.append(everything(repository))
        for name in ("store.db", "store.db-wal"):
            shutil.copy(folder / name.replace("store", "open"), folder / name)
    return folder / "store.db", states


@contextmanager
def opened(store: Path, log: bytes, scratch: Path) -> Iterator[ckpt.Repository]:
    """Open a copy of a store with this log."""
    copy = scratch / "copy.db"
    for each in scratch.iterdir():
        each.unlink()
    shutil.copy(store, copy)
    (scratch / "copy.db-wal").write_bytes(log)
    with ckpt.open(copy, create=False) as repository:
        yield repository


def frames(log: bytes) -> range:
    """Return where the frames of a log begin."""
    return range(LOG_HEADER, len(log), FRAME_HEADER + PAGE)


def ends(log: bytes) -> list[int]:
    """Return where the frames begin that end a transaction: they say how many pages the file then has."""
    return [start for start in frames(log) if log[start + 4 : start + 8] != bytes(4)]


@pytest.mark.parametrize("mask", [0xFF, 0x01])
def test_a_damaged_log_ends_where_the_damage_is(
    log: tuple[Path, list[dict[str, object]]], tmp_path: Path, mask: int
) -> None:
    store, states = log
    whole = store.with_name("store.db-wal").read_bytes()
    assert len(frames(whole)) > len(ends(whole)) == len(states) - 1
    with opened(store, whole, tmp_path) as repository:
        assert everything(repository) == states[-1]
    header = range(mask % 2, LOG_HEADER, 2)
    rest = [
        start + within for start in frames(whole) for within in (*range(mask % 5, FRAME_HEADER, 5), 100, 2000, 4119)
    ]
    for offset in (*header, *rest):
        damaged = bytearray(whole)
        damaged[offset] ^= mask
        left = sum(start + FRAME_HEADER + PAGE <= offset for start in ends(whole))
        with opened(store, bytes(damaged), tmp_path) as repository:
            assert everything(repository) == states[left], f"byte {offset} of the log"
            assert repository.fsck().problems == []


def test_a_log_cut_short_is_an_earlier_state(log: tuple[Path, list[dict[str, object]]], tmp_path: Path) -> None:
    store, states = log
    whole = store.with_name("store.db-wal").read_bytes()
    for count, last in enumerate(ends(whole)):
        for length in (last, last + 10, last + FRAME_HEADER + PAGE - 1):
            with opened(store, whole[:length], tmp_path) as repository:
                assert everything(repository) == states[count]


def test_a_damaged_log_that_was_copied_into_the_file_already_is_noticed(tmp_path: Path) -> None:
    path, scratch = tmp_path / "open.db", tmp_path / "scratch"
    scratch.mkdir()
    with ckpt.open(path) as repository, closing(sqlite3.connect(path)) as plain:
        for step in range(48):
            values = {"text": f"{step}{TEXT}", "list": [f"{i}" * 150 for i in range(step // 2)]}
            put(repository, f"t{step % 6}", f"c{step:02}", values)
        plain.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        states = [everything(repository)]
        for step in range(8):
            put(repository, f"t{5 - step % 6}", f"d{step:02}", {"text": f"late {step}{TEXT}"})
            states.append(everything(repository))
        # The file has the newest pages now, and a log cut short has older ones of some of them.
        assert plain.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[0] == 0
        whole = path.with_name("open.db-wal").read_bytes()
        shutil.copy(path, tmp_path / "store.db")
    noticed = 0
    for start in frames(whole):
        damaged = bytearray(whole)
        damaged[start + 100] ^= 0xFF
        try:
            with opened(tmp_path / "store.db", bytes(damaged), scratch) as repository:
                assert everything(repository) in states, f"byte {start + 100} of the log"
        except IntegrityError:
            noticed += 1
    assert noticed > 0

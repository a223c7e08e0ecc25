"""Processes that write to one store: killed at random moments, and many at once. Nothing acknowledged is lost."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from process_kit import check, facts, go, start

import ckpt


def test_what_a_killed_writer_acknowledged_is_there(tmp_path: Path) -> None:
    chance = random.Random()
    path = tmp_path / "store.db"
    acknowledged = []
    for turn in range(8):
        process = start(path, f"turn {turn} thread ", threads=2, count=100_000)
        go(process)
        time.sleep(chance.uniform(0.005, 0.5))
        process.kill()
        output, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors
        acknowledged += facts(output)
        check(path, acknowledged)
    assert len(acknowledged) > 100


def test_a_store_killed_with_its_writer_goes_on_under_the_survivor(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    survivor = start(path, "survivor ", threads=2, count=150)
    victim = start(path, "victim ", threads=2, count=100_000)
    go(victim)
    go(survivor)
    time.sleep(0.3)
    victim.kill()
    lost, _ = victim.communicate(timeout=60)
    kept, errors = survivor.communicate(timeout=120)
    assert survivor.returncode == 0, errors
    assert len(facts(kept)) == 2 * 2 * 150
    check(path, [*facts(kept), *facts(lost)])


@pytest.mark.parametrize("shared", [True, False], ids=["one thread", "threads of their own"])
def test_two_processes_of_four_threads_lose_nothing(tmp_path: Path, shared: bool) -> None:
    path = tmp_path / "store.db"
    count = 40
    processes = [start(path, f"{letter}", threads=4, count=count, shared=shared) for letter in "ab"]
    for process in processes:
        go(process)
    acknowledged = []
    for process in processes:
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        acknowledged += facts(output)
    assert len(acknowledged) == 2 * 4 * count * 2
    check(path, acknowledged)
    with ckpt.open(path) as repository:
        names = ["shared"] if shared else [f"{letter}{number}" for letter in "ab" for number in range(4)]
        assert repository.thread_names() == names
        for name in names:
            rows = {row.checkpoint_id: row for row in repository.read_all(name)}
            assert len(rows) == (8 * count if shared else count)
            heads = rows.keys() - {parent.checkpoint_id for row in rows.values() for parent in row.commit.parents}
            assert len(heads) == (8 if shared else 1)
            head = repository.read(name)
            assert head is not None
            assert head.checkpoint_id in heads
            reached = set()
            for each in heads:
                while each is not None and each not in reached:
                    reached.add(each)
                    parents = rows[each].commit.parents
                    each = parents[0].checkpoint_id if parents else None
            assert reached == rows.keys()

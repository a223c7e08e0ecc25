"""Processes that write to one store: killed at random moments, and many at once. Nothing acknowledged is lost."""

from __future__ import annotations

import random
import time

import pytest
from process_kit import check, facts, go, start
from stores import SHARED, store_url

import ckpt


@pytest.fixture(params=SHARED)
def url(request: pytest.FixtureRequest) -> str:
    return store_url(request.param, request)


def test_what_a_killed_writer_acknowledged_is_there(url: str) -> None:
    chance = random.Random()
    acknowledged: list[object] = []
    for turn in range(80):
        # Eight times at least, and as often as a slow disk needs.
        if turn >= 8 and len(acknowledged) > 100:
            break
        process = start(url, f"turn {turn} thread ", threads=2, count=100_000)
        go(process)
        time.sleep(chance.uniform(0.005, 0.5))
        process.kill()
        output, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors
        told = facts(output)
        check(url, told)
        acknowledged += told
    check(url, acknowledged)
    assert len(acknowledged) > 100


def test_a_store_killed_with_its_writer_goes_on_under_the_survivor(url: str) -> None:
    survivor = start(url, "survivor ", threads=2, count=150)
    victim = start(url, "victim ", threads=2, count=100_000)
    go(victim)
    go(survivor)
    time.sleep(0.3)
    victim.kill()
    lost, _ = victim.communicate(timeout=60)
    kept, errors = survivor.communicate(timeout=120)
    assert survivor.returncode == 0, errors
    assert len(facts(kept)) == 2 * 2 * 150
    check(url, [*facts(kept), *facts(lost)])


@pytest.mark.parametrize("shared", [True, False], ids=["one thread", "threads of their own"])
def test_two_processes_of_four_threads_lose_nothing(url: str, shared: bool) -> None:
    count = 40
    processes = [start(url, f"{letter}", threads=4, count=count, shared=shared) for letter in "ab"]
    for process in processes:
        go(process)
    acknowledged = []
    for process in processes:
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        acknowledged += facts(output)
    assert len(acknowledged) == 2 * 4 * count * 2
    check(url, acknowledged)
    with ckpt.open(url) as repository:
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

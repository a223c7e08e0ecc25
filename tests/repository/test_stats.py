"""What `stats` counts: what there is to be seen, and what a collection would free, now and once its grace is over."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from operator import attrgetter

import msgpack
import pytest
from clock_kit import Clock
from lifetime_kit import Opener, put

from ckpt.langgraph import CkptSaver
from ckpt.repository import Repository
from ckpt.repository.incoming import NewCheckpoint, Typed
from ckpt.repository.stats import Stats, collect_stats

SIZE = 50_000


def noise(seed: int) -> bytes:
    """Bytes that do not compress, so that what they take is known."""
    return random.Random(seed).randbytes(SIZE)


def fill(repository: Repository, thread: str, count: int, seed: int) -> None:
    for number in range(count):
        repository.commit(thread, {"noise": noise(100 * seed + number), "n": number})


def counts(found: Stats) -> tuple[int, int, int]:
    return found.checkpoints, found.threads, found.heads


@pytest.fixture
def repository(opened: Opener) -> Repository:
    return opened()


def test_what_a_saver_deletes_is_gone_at_once_and_awaits_gc(repository: Repository) -> None:
    fill(repository, "small", 1, 1)
    alone = repository.stats()
    fill(repository, "large", 20, 2)
    full = repository.stats()
    CkptSaver(repository).delete_thread("large")
    found = repository.stats()
    assert (counts(full), counts(found)) == ((21, 2, 2), (1, 1, 1))
    assert (found.bytes_logical, found.bytes_unique) == (alone.bytes_logical, alone.bytes_unique)
    assert [each.logical for each in found.channels] == [each.logical for each in alone.channels]
    assert abs(found.bytes_stored - alone.bytes_stored) < SIZE
    assert 19 * SIZE < found.bytes_reclaimable - full.bytes_reclaimable < 22 * SIZE
    assert found.bytes_restorable == 0
    repository.gc()
    after = repository.stats()
    assert counts(after) == (1, 1, 1)
    assert after.bytes_stored < 2 * SIZE
    assert after.objects < full.objects


@pytest.mark.parametrize("kind", ["delete", "prune"])
def test_what_people_take_away_is_kept_for_undo_until_the_grace_is_over(repository: Repository, kind: str) -> None:
    fill(repository, "small", 1, 1)
    fill(repository, "large", 20, 2)
    full = repository.stats()
    left = (1, 1, 1) if kind == "delete" else (2, 2, 2)
    repository.delete("large") if kind == "delete" else repository.prune(["large"], keep_last=1)
    found = repository.stats()
    assert counts(found) == left
    assert found.bytes_reclaimable == full.bytes_reclaimable
    assert 18 * SIZE < found.bytes_restorable < 22 * SIZE
    assert found.bytes_stored < 3 * SIZE
    repository.undo()
    assert replace(repository.stats(), bytes_disk=0) == replace(full, bytes_disk=0)
    repository.delete("large") if kind == "delete" else repository.prune(["large"], keep_last=1)
    repository.gc()
    kept = repository.stats()
    assert 18 * SIZE < kept.bytes_restorable < 22 * SIZE
    over = collect_stats(repository._core, repository.format, timedelta(0))
    assert (counts(over), over.bytes_restorable) == (left, 0)
    assert 18 * SIZE < over.bytes_reclaimable - kept.bytes_reclaimable < 22 * SIZE
    repository.gc(grace="0s")
    after = repository.stats()
    assert (counts(after), after.bytes_restorable, after.bytes_unique) == (left, 0, over.bytes_unique)
    assert after.bytes_stored < 3 * SIZE


def test_what_a_policy_has_pruned_is_not_counted(opened: Opener) -> None:
    repository = opened()
    fill(repository, "t", 10, 1)
    repository.prune(["t"], keep_last=1)
    repository = opened(retention="keep_latest")
    repository.gc()
    found = repository.stats()
    assert counts(found) == (1, 1, 1)
    assert found.bytes_stored < 2 * SIZE


def test_what_forks_show_counts_whatever_became_of_its_thread(repository: Repository) -> None:
    fill(repository, "base", 10, 1)
    repository.fork("base~4", "fork")
    repository.fork("fork", "again")
    saver = CkptSaver(repository)
    repository.prune(["base"], keep_last=2)
    found = repository.stats()
    assert counts(found) == (8, 3, 3)  # six that the forks show, and the two newest
    assert found.bytes_reclaimable == 0
    assert 1.9 * SIZE < found.bytes_restorable < 2.1 * SIZE  # the two that no fork ever saw
    saver.delete_thread("base")
    saver.delete_thread("fork")
    found = repository.stats()
    assert counts(found) == (6, 1, 1)
    assert 3 * SIZE < found.bytes_restorable < 5 * SIZE
    before = found
    repository.gc(grace="0s")
    found = repository.stats()
    assert (counts(found), found.bytes_unique, found.bytes_logical) == (
        (6, 1, 1), before.bytes_unique, before.bytes_logical,
    )  # fmt: skip
    assert [info.step for info in repository.log(thread="again")] == [5, 4, 3, 2, 1, 0]
    saver.delete_thread("again")
    assert counts(repository.stats()) == (0, 0, 0)


def test_what_the_run_behind_a_fork_made_is_not_counted_with_the_fork(repository: Repository) -> None:
    """A subgraph's checkpoint that reached the store before the root's in whose step it was made."""
    puts = [("", "1", None, {}), ("sub:1", "8", None, {"": "2"}), ("", "2", "1", {}), ("", "3", "2", {})]
    for namespace, checkpoint_id, parent, parents in puts:
        metadata = Typed("msgpack", msgpack.packb({"parents": parents}))
        repository.put(NewCheckpoint("base", namespace, checkpoint_id, parent, None, Typed("null", b""), metadata))
    repository.fork('ckpt:"2"', "fork", thread="base")
    repository.fork("fork", "again")
    assert counts(repository.stats()) == (4, 3, 3)
    CkptSaver(repository).delete_thread("base")
    for deleted in ("again", "fork"):
        shown = [info.checkpoint_id for info in repository.log(thread=deleted, subgraphs=True)]
        assert shown == ["2", "1"]
        assert repository.stats().checkpoints == 2
        CkptSaver(repository).delete_thread(deleted)
    assert counts(repository.stats()) == (0, 0, 0)


@pytest.mark.parametrize("grace", ["0s", "14d"])
def test_what_a_dry_run_tells_is_what_a_collection_does(repository: Repository, grace: str) -> None:
    saver = CkptSaver(repository)
    for thread in ("kept", "deleted", "undoable", "base"):
        fill(repository, thread, 8, 1)
    repository.fork("base", "fork")
    for thread in ("base", "fork"):
        repository.prune([thread], keep_last=3)
    saver.delete_thread("deleted")
    repository.delete("undoable")
    told = repository.gc(grace=grace, dry_run=True)
    assert told == repository.gc(grace=grace, dry_run=True)
    done = repository.gc(grace=grace)
    counts = attrgetter("threads_removed", "threads_restorable", "objects_removed", "packs_rewritten", "packs_left")
    assert counts(told) == counts(done)
    assert counts(told)[:2] == ((2, 0) if grace == "0s" else (1, 3))
    assert told.data_before == done.data_before
    assert abs(told.data_after - done.data_after) < 0.2 * SIZE
    assert repository.gc(grace=grace, dry_run=True).objects_removed == 0


def test_what_has_expired_is_not_counted(opened: Opener, time: Clock) -> None:
    repository = opened(ttl="1h")
    fill(repository, "t", 3, 1)
    time.after(hours=2)
    found = repository.stats()
    assert (counts(found), found.bytes_logical, found.bytes_restorable) == ((0, 0, 0), 0, 0)
    assert found.bytes_reclaimable > 3 * SIZE


def test_a_checkpoint_that_was_put_again_counts_as_it_is(repository: Repository) -> None:
    put(repository, "t", "1")
    once = repository.stats()
    put(repository, "t", "1", timestamp="2026-01-01T00:00:00+00:00")
    found = repository.stats()
    assert (found.checkpoints, found.bytes_logical) == (1, once.bytes_logical)
    assert found.bytes_logical == sum(thread.bytes_logical for thread in repository.threads())

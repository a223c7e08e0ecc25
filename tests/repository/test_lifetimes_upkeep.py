"""Lifetimes: what undo does with them, sweeping in passing and its failures, and what may be asked for."""

from __future__ import annotations

import logging
import subprocess
import sys
import time as real_time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from clock_kit import Clock
from lifetime_kit import FailingStorage, Opener, ids, put, records
from stores import SHARED, store_url

import ckpt
from ckpt.durations import duration_text, parse_duration
from ckpt.errors import ConflictError, InvalidInputError, ThreadNotFoundError
from ckpt.history import clock
from ckpt.repository import Repository
from ckpt.repository.lifetimes import Lifetimes
from ckpt.storage.memory import MemoryStorage

# -- undo ---------------------------------------------------------------------------------------------


def test_undoing_a_delete_gives_back_what_was_left_of_the_lifetime(opened: Opener, time: Clock) -> None:
    repository = opened(ttl="1h")
    repository.commit("t", {"n": 1})
    time.after(minutes=30)
    repository.delete("t")
    time.after(minutes=29)
    repository.gc()
    repository.undo()
    assert repository.thread("t").state() == {"n": 1}
    time.after(minutes=1)
    assert repository.thread_names() == []


@pytest.mark.parametrize("collected", [False, True], ids=["before gc", "after gc"])
@pytest.mark.parametrize("act", ["delete", "fork", "prune", "expire"])
def test_what_has_expired_does_not_come_back(opened: Opener, time: Clock, act: str, collected: bool) -> None:
    repository = opened(ttl="1h")
    repository.commit("t", {"n": 1})
    repository.commit("t", {"n": 2})
    if act == "fork":
        repository.fork("t", "fork")
    else:
        {
            "delete": lambda: repository.delete("t"),
            "prune": lambda: repository.prune(["t"], keep_last=1),
            "expire": lambda: repository.expire("t", "1h"),
        }[act]()
    time.after(hours=1)
    if collected:
        repository.gc(grace=timedelta(days=14))
        assert {key[:1] for key in records(repository)} == {b"o"}
        assert repository.stats().objects == 0
    with pytest.raises(ConflictError, match=r"gc has (run|removed)" if collected else "has expired since"):
        repository.undo()
    assert repository.thread_names() == []
    assert repository.fsck().problems == []


def test_expire_is_written_down_and_can_be_undone(opened: Opener, time: Clock) -> None:
    repository = opened(ttl="1h")
    repository.commit("t", {"n": 1})
    repository.expire("t", "1d12h")
    repository.expire("t", None)
    assert [each.text for each in repository.operations()] == ["expire t never", "expire t 1d12h"]
    time.after(minutes=30)
    now = datetime.fromtimestamp(time.now / 1000, UTC)
    for left in (timedelta(hours=36), timedelta(hours=1)):
        repository.undo()
        assert repository.threads()[0].expires == now + left
    repository.expire("t", "2h")
    opened(ttl="3h").commit("t", {"n": 2})
    repository.undo()
    opened(ttl="3h").commit("t", {"n": 2})
    assert repository.threads()[0].expires == now + timedelta(hours=3)
    repository.expire("t", "2h")
    repository.expire("t", "4h")
    with pytest.raises(ConflictError, match="has changed since"):
        repository.undo(repository.operations()[1].id)


def test_undoing_a_fork_that_was_deleted_and_collected(opened: Opener) -> None:
    repository = opened()
    repository.commit("t", {"n": 1})
    repository.fork("t", "fork")
    repository.delete_thread("fork")
    repository.gc(grace=timedelta(days=1))
    with pytest.raises(ConflictError, match=r"gc has (run|removed)"):
        repository.undo()


# -- sweeping in passing, and failures ----------------------------------------------------------------


def _waiting(**policy: Any) -> dict[str, object]:
    return {"default_ttl": 60, "sweep_interval_minutes": 1 / 60_000, **policy}


def test_writers_sweep_in_passing_a_few_at_a_time(opened: Opener, time: Clock) -> None:
    repository = opened(ttl="1h")
    for number in range(230):
        put(repository, f"t{number}", "01")
    time.after(hours=1)
    sweeping = opened(ttl=_waiting())
    left = [_unswept(repository)]
    while left[-1] > 1:
        real_time.sleep(0.002)
        put(sweeping, "writer", f"{len(left):03}", f"{len(left) - 1:03}" if len(left) > 1 else None)
        left.append(_unswept(repository))
    released = [before - after for before, after in pairwise(left[1:])]
    assert max(released) <= 8
    # A round goes on at the next put, and ends after one look at each name.
    assert len(left) < 230 / 8 + 5
    assert sweeping.thread_names() == ["writer"]
    assert sweeping.sweep() == 0


def _unswept(repository: Repository) -> int:
    return sum(record.thread is not None for record in repository._directory.names())


def test_without_an_interval_writers_do_not_sweep(opened: Opener, time: Clock) -> None:
    repository = opened(ttl="1h")
    put(repository, "t", "01")
    time.after(hours=1)
    put(repository, "writer", "01")
    assert _unswept(repository) == 2
    assert repository.sweep() == 1
    assert _unswept(repository) == 1


def test_sweeping_goes_through_all_pages(opened: Opener, time: Clock) -> None:
    repository = opened(ttl="1h")
    for number in range(205):
        put(repository, f"t{number}", "01")
    repository.expire("t7", "2h")
    time.after(hours=1)
    assert repository.sweep() == 204
    assert repository.thread_names() == ["t7"]


def test_a_sweep_that_fails_fails_no_put(time: Clock, caplog: pytest.LogCaptureFixture) -> None:
    storage: Any = FailingStorage(MemoryStorage())
    repository = Repository(storage, ttl=_waiting())
    put(repository, "t", "01")
    storage.fails = lambda method, arguments: method == "scan"
    real_time.sleep(0.002)
    with caplog.at_level(logging.WARNING):
        put(repository, "t", "02", "01")
    assert storage.failed == 1
    assert "upkeep after a put did not succeed and is left for later: the disk is on fire" in caplog.text
    storage.fails = lambda method, arguments: False
    assert ids(repository, "t") == ["02", "01"]


def test_a_renewal_that_fails_fails_no_read(time: Clock, caplog: pytest.LogCaptureFixture) -> None:
    storage: Any = FailingStorage(MemoryStorage())
    repository = Repository(storage, ttl={"default_ttl": 60, "refresh_on_read": True})
    put(repository, "t", "01")
    time.after(minutes=30)
    storage.fails = lambda method, arguments: method == "publish"
    with caplog.at_level(logging.WARNING):
        for read in (lambda: repository.read("t"), lambda: ids(repository, "t"), lambda: repository.resolve("t")):
            assert read()
    assert storage.failed == 3
    assert "the lifetime of thread 't' could not be renewed: the disk is on fire" in caplog.text
    time.after(minutes=30)
    assert repository.read("t") is None


def test_a_store_that_is_open_for_reading_only(tmp_path: Path, time: Clock) -> None:
    with ckpt.open(tmp_path / "store.db", ttl="1h") as repository:
        put(repository, "t", "01")
        time.after(minutes=30)
        reading = {"default_ttl": 60, "refresh_on_read": True}
        with ckpt.open(tmp_path / "store.db", readonly=True, ttl=reading) as other:
            assert other.read("t") is not None


WRITER = """
import sys, ckpt
from ckpt.history import clock
with ckpt.open(sys.argv[1], ttl="1h") as repository:
    repository.commit("t", {"n": 1})
    print("written", flush=True)
    sys.stdin.readline()
    now = clock.now_ms
    clock.now_ms = lambda: now() + 7_200_000
    try:
        repository.commit("t", {"n": 2})
    except ckpt.ThreadDeletedError:
        print("refused")
    print(len(repository.log(thread="t")))
"""


@pytest.mark.parametrize("kind", SHARED)
def test_two_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    url = store_url(kind, request)
    with (
        ckpt.open(url) as repository,
        subprocess.Popen(
            [sys.executable, "-c", WRITER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as writer,
    ):
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        assert repository.thread("t").state() == {"n": 1}
        now = clock.now_ms
        monkeypatch.setattr(clock, "now_ms", lambda: now() + 7_200_000)
        assert repository.thread_names() == []
        assert repository.gc(grace=timedelta(0)).threads_removed == 1
        assert repository.stats().objects == 0
        out, _ = writer.communicate("go on\n", timeout=60)
        assert out == "1\n"
        assert repository.thread("t").state() == {"n": 2}
        assert repository.fsck().problems == []


# -- what may be asked for ----------------------------------------------------------------------------


def test_policies() -> None:
    assert Lifetimes.of(None) == Lifetimes()
    assert Lifetimes.of("1d12h") == Lifetimes(timedelta(hours=36))
    assert Lifetimes.of(timedelta(days=2)) == Lifetimes(timedelta(days=2))
    shaped = {"default_ttl": 60, "refresh_on_read": True, "sweep_interval_minutes": "5m"}
    assert Lifetimes.of(shaped) == Lifetimes(timedelta(hours=1), True, timedelta(minutes=5))
    assert Lifetimes.of({"default_ttl": 0.5}) == Lifetimes(timedelta(seconds=30))


@pytest.mark.parametrize(
    ("ttl", "why"),
    [
        (30, "ttl=30 is not a duration"),
        ("30", "a duration without a unit"),
        ("0s", "^ttl is 0s, which is not a duration above 0"),
        ("0h0m", "^ttl is 0h0m, which is not a duration above 0"),
        (timedelta(0), "^ttl is 0s, which is not a duration above 0"),
        (timedelta(hours=-36), "^ttl is -1d12h, which is not a duration above 0"),
        ("36501d", "more than a hundred years"),
        (timedelta.max, "more than a hundred years"),
        ({"ttl": 60}, "'ttl' is not known"),
        ({"default_ttl": -1}, "^ttl: default_ttl is -1, which is not a duration above 0"),
        ({"default_ttl": -0.5}, "^ttl: default_ttl is -0.5, which is not a duration above 0"),
        ({"default_ttl": True}, "is not a duration"),
        ({"default_ttl": float("nan")}, "no number of minutes"),
        ({"default_ttl": 10**20}, "no number of minutes"),
        ({"refresh_on_read": 1}, "neither True nor False"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(ttl: object, why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        Repository(MemoryStorage(), ttl=ttl)


def test_the_longest_lifetime_can_be_shown(opened: Opener) -> None:
    repository = opened(ttl="36500d")
    repository.commit("t", {"n": 1})
    expires = repository.threads()[0].expires
    assert expires is not None
    assert expires.year > 2100


@pytest.mark.parametrize("text", ["1d", "1d12h", "90s", "1h1m1s", "400d"])
def test_durations_as_text(text: str) -> None:
    duration = parse_duration(text)
    assert parse_duration(duration_text(duration)) == duration
    assert duration_text(timedelta(seconds=90.5)) == "1m30s"
    assert duration_text(timedelta(milliseconds=5)) == "0s"


def test_expire_wants_a_thread_and_a_duration(opened: Opener) -> None:
    repository = opened()
    with pytest.raises(ThreadNotFoundError):
        repository.expire("t", "1h")
    repository.commit("t", {"n": 1})
    for bad in ("0s", "ever", timedelta(days=-1)):
        with pytest.raises(InvalidInputError):
            repository.expire("t", bad)
    assert repository.operations() == []

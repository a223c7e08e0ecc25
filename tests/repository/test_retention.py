"""Retention: what goes is what the policy does not keep, in passing as well as in gc, and no put pays for it."""

from __future__ import annotations

import logging
import time as clock_module
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgpack
import pytest
from clock_kit import NOW, Clock
from hypothesis import given, settings
from hypothesis import strategies as st
from lifetime_kit import FailingStorage, Opener, ids, put, records, typed

from ckpt.errors import InvalidInputError, ObjectMissingError
from ckpt.repository import Repository
from ckpt.repository.incoming import NewCheckpoint, Typed
from ckpt.repository.plan import _needed_by_deltas
from ckpt.repository.prune import keep_last
from ckpt.repository.retention import Retention
from ckpt.storage.memory import MemoryStorage


def named(number: int) -> str:
    return f"{number:05}"


def run(repository: Repository, count: int, thread: str = "t", first: int = 1, namespace: str = "") -> list[int]:
    """Put checkpoints one behind the other, and return how many there were after each put."""
    counts = []
    for number in range(first, first + count):
        put(repository, thread, named(number), named(number - 1) if number > 1 else None, namespace=namespace)
        counts.append(len(ids(repository, thread, namespace)))
    return counts


def rows(repository: Repository, thread: str = "t") -> int:
    """How many checkpoint records a thread has of its own, hidden ones included."""
    found = repository._directory.find(thread)
    assert found is not None
    return found[0].root.census.count


# -- what may be asked for ----------------------------------------------------------------------------


def test_policies() -> None:
    assert not Retention.of(None)
    assert not Retention.of("everything")
    assert Retention.of("keep_latest") == Retention.of({"keep_last": 1}) == Retention(1)
    both = Retention.of({"keep_last": 50, "keep_within": "30d"})
    assert both == Retention(50, timedelta(days=30))
    assert str(both) == "--keep-last 50 --keep-within 30d"
    assert str(Retention(None, timedelta(hours=36))) == "--keep-within 1d12h"


@pytest.mark.parametrize(
    "policy",
    [
        "newest", 5, {}, {"keep": 5}, {"keep_last": 0}, {"keep_last": True}, {"keep_last": 2.5}, {"keep_last": "5"},
        {"keep_within": 30}, {"keep_within": "0s"}, {"keep_within": timedelta.max},
    ],
)  # fmt: skip
def test_a_policy_that_makes_no_sense_is_refused(policy: object) -> None:
    with pytest.raises(InvalidInputError):
        Repository(MemoryStorage(), retention=policy)


AGED: dict[str, tuple[Mapping[str, object], list[str]]] = {
    "by number": ({"keep_last": 2}, ["06", "05"]),
    "by age": ({"keep_within": "100m"}, ["06", "05", "04", "02"]),
    "either keeps": ({"keep_last": 4, "keep_within": "20m"}, ["06", "05", "04", "03", "02"]),
    "the head at least": ({"keep_within": "1s"}, ["06", "02"]),
}


@pytest.mark.parametrize("policy", AGED)
def test_what_gc_keeps(opened: Opener, time: Clock, policy: str) -> None:
    repository = opened(retention=AGED[policy][0])
    for number in range(1, 7):
        made = datetime.fromtimestamp(NOW / 1000, UTC) - timedelta(minutes=160 - 20 * number)
        timestamp = "no moment" if number == 2 else made.isoformat()
        put(repository, "t", f"0{number}", f"0{number - 1}" if number > 1 else None, timestamp=timestamp)
    assert len(ids(repository, "t")) == 6
    repository.gc(dry_run=True)
    assert len(ids(repository, "t")) == 6
    time.after(minutes=1)
    repository.gc()
    # What does not say when it was made is kept by every age.
    assert ids(repository, "t") == AGED[policy][1]
    assert rows(repository) == len(AGED[policy][1])
    assert repository.fsck().problems == []


def test_gc_prunes_every_thread_and_namespace_of_its_graph_alone(opened: Opener) -> None:
    bare, other = opened(), opened(graph="other")
    for repository in (bare, other):
        for name in ("t", "u"):
            run(repository, 5, name)
            run(repository, 4, name, namespace="sub")
    opened(retention="keep_latest").gc()
    for name in ("t", "u"):
        assert (ids(bare, name), ids(bare, name, "sub")) == (["00005"], ["00004"])
        assert (len(ids(other, name)), len(ids(other, name, "sub"))) == (5, 4)
    assert bare.fsck().problems == []


def test_the_oldest_checkpoint_that_is_kept_is_shown_like_a_first_one(opened: Opener) -> None:
    repository = opened()
    run(repository, 6)
    repository.prune_thread("t", keep_last(2))
    repository.gc(grace=timedelta(0))
    fresh = opened()
    assert fresh.fsck().problems == []
    newest, oldest = fresh.log(thread="t")
    assert (newest.checkpoint_id, oldest.checkpoint_id) == ("00006", "00005")
    assert [(change.key, change.add, change.change) for change in fresh.changes(newest)] == [("id", 0, 1)]
    assert [(change.key, change.add, change.change) for change in fresh.changes(oldest)] == [("id", 1, 0)]


def test_a_parent_that_is_missing_and_was_not_pruned_is_damage(opened: Opener) -> None:
    repository = opened()
    run(repository, 2)
    first, second = repository.log(thread="t")[::-1]
    with repository.storage.exclusive() as session:
        session.forget([bytes.fromhex(first.id)[:16]])
    again = opened()
    with pytest.raises(ObjectMissingError):
        again.changes(second)


# -- in passing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "least", "most"),
    [("keep_latest", 4, 23), ({"keep_last": 10}, 10, 35), ({"keep_last": 100}, 100, 215)],
)
@pytest.mark.parametrize("namespace", ["", "sub"])
def test_a_thread_stays_as_short_as_the_policy_wants(
    opened: Opener, policy: Any, least: int, most: int, namespace: str
) -> None:
    repository = opened(retention=policy)
    counts = run(repository, 250, namespace=namespace)
    assert max(counts) == most
    assert min(counts[most:]) == least
    assert counts[-1] < most
    assert len(ids(repository, "t", namespace)) == counts[-1]
    assert ids(repository, "t", namespace)[0] == named(250)
    assert opened().fsck().problems == []


def test_commits_are_pruned_in_passing_too(opened: Opener) -> None:
    repository = opened(retention={"keep_last": 5})
    for number in range(60):
        repository.commit("t", {"n": number})
    assert len(repository.log(thread="t")) <= 26
    assert repository.thread("t").state() == {"n": 59}


def test_by_age_a_thread_is_pruned_when_it_has_doubled(opened: Opener, time: Clock) -> None:
    repository = opened(retention={"keep_within": "1h"})
    most = 0
    for number in range(1, 500):
        made = datetime.fromtimestamp(time.now / 1000, UTC).isoformat()
        put(repository, "t", named(number), named(number - 1) if number > 1 else None, timestamp=made)
        most = max(most, rows(repository))
        time.after(minutes=1)
    # An hour has 60 checkpoints; those before are let go when there are twice as many and some.
    assert 60 < most < 2 * 61 + 20


def test_a_thread_that_holds_its_rows_is_not_pruned_at_every_put(opened: Opener) -> None:
    """Forks keep what was pruned: how often it is tried goes with how much there is."""
    repository = opened(retention={"keep_last": 5})
    tries: list[int] = []
    prune = repository._pruner.prune

    def counting(*arguments: Any, **named: Any) -> Any:
        tries.append(1)
        return prune(*arguments, **named)

    repository._pruner.prune = counting  # type: ignore[method-assign]
    run(repository, 20)
    repository.copy_thread("t", "fork")
    run(repository, 480, first=21)
    assert len(tries) <= 6
    assert rows(repository) == 500
    assert len(ids(repository, "t")) < 300
    repository.gc()
    assert len(ids(repository, "t")) == 5
    assert ids(repository, "fork") == [named(20 - i) for i in range(5)]


def test_the_own_checkpoints_of_a_fork_go_for_good(opened: Opener) -> None:
    repository = opened(retention={"keep_last": 5})
    run(repository, 8, "source")
    repository.copy_thread("source", "t")
    run(repository, 300, "t", first=9)
    assert rows(repository) <= 26 + 8
    repository.gc(grace=timedelta(0))
    assert ids(repository, "t") == [named(308 - i) for i in range(5)]
    assert rows(repository) == 5 + 5
    assert ids(repository, "source") == [named(8 - i) for i in range(5)]
    assert repository.fsck().problems == []


def test_a_long_thread_is_left_to_gc(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckpt.repository.upkeep._PRUNE_MAX", 100)
    run(opened(), 200)
    repository = opened(retention={"keep_last": 5})
    run(repository, 50, first=201)
    assert rows(repository) == 250
    repository.gc()
    assert rows(repository) == 5
    run(repository, 100, first=251)
    assert rows(repository) <= 26


def test_a_task_may_still_write_to_the_checkpoint_before(opened: Opener) -> None:
    repository = opened(retention="keep_latest")
    for number in range(1, 100):
        put(repository, "t", named(number), named(number - 1) if number > 1 else None)
        before = named(max(number - 1, 1))
        repository.put_writes("t", "", before, f"task {number}", "", [(0, "c", typed("late"))])
        stored = repository.read("t", "", before)
        assert stored is not None
        assert f"task {number}" in [write.task_id for write in stored.writes]


# -- what stays ---------------------------------------------------------------------------------------

POLICIES = [{"keep_last": 3}, "keep_latest", {"keep_within": "1s"}, {"keep_last": 2, "keep_within": "1s"}]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_tags_and_forks_stay(opened: Opener, policy: Any) -> None:
    repository = opened(retention=policy)
    for number in range(40):
        repository.commit("t", {"n": number})
        if number == 5:
            repository.tag("five", "t")
        if number == 6:
            repository.fork("t", "at six")
            repository.fork("@~2", "at four", thread="t")
    repository.gc(grace=timedelta(0))
    assert repository.state("tag:five") == {"n": 5}
    assert repository.thread("at six").state() == {"n": 6}
    assert repository.thread("at four").state() == {"n": 4}
    assert repository.thread("t").state() == {"n": 39}
    repository.fork("tag:five", "again", thread="t")
    assert repository.thread("again").state() == {"n": 5}
    repository.untag("five")
    for name in ("again", "at six", "at four"):
        repository.delete_thread(name)
    repository.gc(grace=timedelta(0))
    repository.gc(grace=timedelta(0))
    # By age the commits of this test are young, and all of them stay; by number only the newest do.
    last = policy.get("keep_last", 40) if isinstance(policy, dict) else 1
    assert rows(repository) == (last if "keep_within" not in policy else rows(repository))
    assert repository.fsck().problems == []


def test_a_fork_of_a_pruned_thread(opened: Opener) -> None:
    repository = opened(retention={"keep_last": 3})
    for number in range(60):
        repository.commit("t", {"n": number})
    repository.gc()
    oldest = repository.log(thread="t")[-1]
    repository.fork(oldest.spec, "fork", thread="t")
    assert repository.thread("fork").state() == {"n": 57}
    repository.commit("fork", {"n": "other"})
    repository.gc(grace=timedelta(0))
    assert repository.thread("fork").state() == {"n": "other"}
    assert repository.thread("t").state() == {"n": 59}
    assert repository.fsck().problems == []


def test_pruning_that_fails_fails_no_put(caplog: pytest.LogCaptureFixture) -> None:
    storage: Any = FailingStorage(MemoryStorage())
    repository = Repository(storage, retention={"keep_last": 5})
    storage.fails = lambda method, arguments: method == "publish" and len(arguments[0].records) > 8
    with caplog.at_level(logging.WARNING):
        assert run(repository, 100)[-1] == 100
    # It is tried again when the thread has doubled, not at every put.
    assert storage.failed == 2
    assert "the disk is on fire" in caplog.text
    storage.fails = lambda method, arguments: False
    run(repository, 200, first=101)
    assert len(ids(repository, "t")) <= 26


def write(repository: Repository, checkpoint_id: str, namespace: str = "") -> None:
    repository.put_writes("t", namespace, checkpoint_id, "task", "", [(0, "c", typed(f"late, to {checkpoint_id}"))])


def writes(repository: Repository, checkpoint_id: str) -> list[str]:
    stored = repository.read("t", "", checkpoint_id)
    return [write.task_id for write in stored.writes] if stored is not None else []


def test_late_writes_to_what_was_pruned_go_with_the_next_gc(opened: Opener) -> None:
    repository = opened(retention={"keep_last": 2})
    run(repository, 6)
    run(repository, 6, namespace="sub")
    repository.gc(grace=timedelta(0))
    before = records(repository).keys()
    for number in (1, 4, 5):
        write(repository, named(number))
        write(repository, named(number), "sub")
    # One that comes before its checkpoint does, which is on its way.
    write(repository, named(7))
    assert len(records(repository)) == len(before) + 5
    repository.gc(grace=timedelta(0))
    assert len(records(repository)) == len(before) + 1
    put(repository, "t", named(7), named(6))
    assert [writes(repository, named(number)) for number in (5, 6, 7)] == [["task"], [], ["task"]]
    repository.gc(grace=timedelta(0))
    assert writes(repository, named(7)) == ["task"]
    assert repository.fsck().problems == []


def test_late_writes_to_what_was_pruned_by_hand_go_once_it_is_collected(opened: Opener) -> None:
    repository = opened()
    run(repository, 4)
    repository.prune(["t"], keep_last=1)
    repository.gc(grace=timedelta(0))
    write(repository, named(2))
    assert rows(repository) == 2
    run(repository, 2, first=5)
    repository.prune(["t"], keep_last=1)
    repository.undo()
    assert rows(repository) == 4
    repository.prune(["t"], keep_last=1)
    repository.gc(grace=timedelta(0))
    assert rows(repository) == 1
    assert repository.fsck().problems == []


# -- tasks --------------------------------------------------------------------------------------------


def step(repository: Repository, number: int, tasks: int = 2) -> None:
    """A root checkpoint, and below it those of its tasks, of which the first has a task below itself."""
    root = named(number)
    put(repository, "t", root, named(number - 1) if number > 1 else None)
    for task in range(tasks):
        namespace = f"node:{number}.{task}"
        put_below(repository, f"{root}a", None, namespace, {"": root})
        put_below(repository, f"{root}b", f"{root}a", namespace, {"": root})
        if not task:
            put_below(repository, f"{root}c", None, f"{namespace}|deep:{number}", {"": root, namespace: f"{root}a"})


def put_below(
    repository: Repository, checkpoint_id: str, parent: str | None, namespace: str, parents: Mapping[str, str]
) -> None:
    metadata = Typed("msgpack", msgpack.packb({"parents": parents}))
    repository.put(NewCheckpoint("t", namespace, checkpoint_id, parent, None, typed(""), metadata))


def namespaces(repository: Repository) -> list[str]:
    timeline = repository.timeline("t")
    assert timeline is not None
    return [each for each in timeline.namespaces()[1:] if ids(repository, "t", each)]


def of_step(number: int) -> list[str]:
    return [f"node:{number}.0", f"node:{number}.0|deep:{number}", f"node:{number}.1"]


def test_a_task_goes_with_the_step_it_ran_in(opened: Opener) -> None:
    repository = opened(retention={"keep_last": 2})
    for number in range(1, 7):
        step(repository, number)
        if number == 3:
            repository.tag("three", "t")
    repository.gc(grace=timedelta(0))
    assert namespaces(repository) == [*of_step(3), *of_step(5), *of_step(6)]
    # Nothing is left of the others, not their names: as much as a thread has that never had them.
    found = repository.timeline("t")
    assert found is not None
    assert found.namespaces()[1:] == namespaces(repository)
    assert found.thread.lines.count == 9
    repository.untag("three")
    write(repository, "00003a", "node:3.0")
    repository.gc(grace=timedelta(0))
    assert namespaces(repository) == [*of_step(5), *of_step(6)]
    assert len(records(repository)) == len({"name", "thread", "tags", "operations"}) + 2 + 6 + 10 + 1
    assert repository.fsck().problems == []


def test_a_task_of_a_pruned_step_stays_for_a_fork_and_for_undo(opened: Opener) -> None:
    repository = opened()
    for number in range(1, 4):
        step(repository, number)
    before = {each: ids(repository, "t", each) for each in namespaces(repository)}
    assert len(before) == 9
    repository.prune(["t"], keep_last=1)
    assert namespaces(repository) == of_step(3)
    assert repository.read("t", "node:1.0") is None
    repository.undo()
    assert {each: ids(repository, "t", each) for each in namespaces(repository)} == before
    stored = repository.read("t", "node:1.0")
    assert stored is not None
    assert stored.checkpoint_id == "00001b"
    repository.copy_thread("t", "fork")
    repository.prune_thread("t", keep_last(1))
    repository.gc(grace=timedelta(0))
    assert namespaces(repository) == of_step(3)
    assert ids(repository, "fork", "node:1.0") == ["00001b", "00001a"]
    repository.delete_thread("fork")
    repository.gc(grace=timedelta(0))
    repository.gc(grace=timedelta(0))
    assert namespaces(repository) == of_step(3)
    assert repository.fsck().problems == []


def test_a_task_whose_checkpoint_above_is_still_on_its_way_stays(opened: Opener) -> None:
    repository = opened(retention="keep_latest")
    step(repository, 1)
    step(repository, 2)
    # A graph that stores at its end alone: the subgraph's checkpoint is there before the one it ran under.
    put_below(repository, "00003a", None, "node:3.0", {"": named(3)})
    # And by a clock that is behind.
    put_below(repository, "00001z", None, "node:0.0", {"": "00000"})
    repository.gc(grace=timedelta(0))
    assert namespaces(repository) == ["node:0.0", *of_step(2), "node:3.0"]
    put(repository, "t", named(3), named(2))
    repository.gc(grace=timedelta(0))
    assert namespaces(repository) == ["node:3.0"]


def test_tasks_go_in_passing_in_a_number_of_round_trips_that_does_not_grow(opened: Opener) -> None:
    trips = []
    for tasks in (1, 12):
        repository = opened(retention="keep_latest")
        repository.delete_thread("t")
        for number in range(1, 24):
            step(repository, number, tasks)
        put(repository, "t", named(24), named(23))
        thread = repository.timeline("t")
        assert thread is not None
        storage, calls = repository.storage, list[str]()
        for method in ("read", "view", "scan", "publish", "locate", "load", "fetch"):
            monitored(storage, method, calls)
        repository._upkeep._prune_in_passing(thread.thread, "")
        for method in ("read", "view", "scan", "publish", "locate", "load", "fetch"):
            delattr(storage, method)
        trips.append(len(calls))
        assert len(namespaces(repository)) <= 3 * (tasks + 1)
    assert trips[0] == trips[1] <= 25


def monitored(storage: Any, method: str, calls: list[str]) -> None:
    real = getattr(storage, method)

    def call(*arguments: Any, **named: Any) -> Any:
        calls.append(method)
        return real(*arguments, **named)

    setattr(storage, method, call)


# -- on request ---------------------------------------------------------------------------------------


def test_prune_by_age_and_by_number_can_be_undone(opened: Opener, time: Clock) -> None:
    repository = opened()
    for number in range(1, 7):
        made = datetime.fromtimestamp(NOW / 1000, UTC) - timedelta(minutes=160 - 20 * number)
        put(repository, "t", f"0{number}", f"0{number - 1}" if number > 1 else None, timestamp=made.isoformat())
    (report,) = repository.prune(["t"], keep_within="60m", dry_run=True)
    assert [name for _, name in report.kept] == ["06", "05"]
    repository.prune(["t"], keep_last=1, keep_within=timedelta(minutes=80))
    assert ids(repository, "t") == ["06", "05", "04"]
    assert repository.operations()[0].text == "prune t --keep-last 1 --keep-within 1h20m"
    repository.undo()
    assert len(ids(repository, "t")) == 6
    for bad in ({}, {"keep_last": 0}, {"keep_within": "soon"}):
        with pytest.raises(InvalidInputError):
            repository.prune(["t"], **bad)  # type: ignore[arg-type]


def test_a_report_says_why_each_stays(opened: Opener, time: Clock) -> None:
    repository = opened()

    def put_ago(minutes: int, checkpoint_id: str, parent: str | None, namespace: str = "") -> None:
        made = datetime.fromtimestamp(NOW / 1000, UTC) - timedelta(minutes=minutes)
        put(repository, "t", checkpoint_id, parent, timestamp=made.isoformat(), namespace=namespace)

    put_ago(140, "01", None)
    put_ago(130, "a1", None, "agent")
    put_ago(120, "02", "01")
    put_ago(110, "02, otherwise", "01")
    put_ago(100, "03", "02")
    for number in (2, 3, 4):
        put_ago(90, f"a{number}", f"a{number - 1}", "agent")
    for number in (4, 5, 6):
        put_ago(200 - 30 * number, f"0{number}", f"0{number - 1}")
    repository.tag("good", 'ckpt:"03"', thread="t")
    (report,) = repository.prune(["t"], keep_last=2, keep_within="85m", dry_run=True)
    assert dict(zip(report.kept, report.reasons, strict=True)) == {
        ("", "06"): ("last", "within", "head"),
        ("", "05"): ("last", "within"),
        ("", "04"): ("within",),
        ("", "03"): ("tag",),
        ("", "02, otherwise"): ("head",),
        ("agent", "a4"): ("last", "head", "needed"),
        ("agent", "a3"): ("last",),
        ("agent", "a1"): ("needed",),
    }
    assert report.removed == (("", "02"), ("", "01"), ("agent", "a2"))
    (report,) = repository.prune(["t"], keep_within="1m", dry_run=True)
    assert report.kept[0] == ("", "06")
    assert report.reasons[0] == ("head",)
    repository.rewind("t", 2)
    (report,) = repository.prune(["t"], keep_last=1)
    # Of the root's: where the rewind stands, and the tip that it left.
    assert report.reasons[:4] == (("last", "head"), ("head",), ("tag",), ("head",))
    assert [name for _, name in report.kept[1:4]] == ["06", "03", "02, otherwise"]
    assert repository.prune(["t"], keep_last=1)[0].kept == report.kept


# -- what a DeltaChannel needs ------------------------------------------------------------------------


class _Write(NamedTuple):
    channel: str


class _Parent(NamedTuple):
    checkpoint_id: str


class _Commit(NamedTuple):
    parents: tuple[_Parent, ...]
    channels: dict[str, None]


class _Lines:
    """A history made up: for each checkpoint the writes on it."""

    def __init__(self, writes: Mapping[str, Collection[str]]) -> None:
        self._writes = writes

    def writes(self, found: str) -> list[_Write]:
        return [_Write(channel) for channel in self._writes[found]]


def _told(
    writes: Mapping[str, Collection[str]],
    commits: Mapping[str, _Commit],
    kept: Collection[str],
    named: Mapping[str, Collection[str]],
) -> set[str]:
    """What is needed, told for each checkpoint and each channel by itself, by going all the way up."""
    needed: set[str] = set()
    for start in kept:
        for channel in "xyz":
            if channel in commits[start].channels:
                continue
            path: list[str] = []
            last = 0
            cursor = start
            while commits[cursor].parents:
                cursor = commits[cursor].parents[0].checkpoint_id
                path.append(cursor)
                last = len(path) if channel in writes[cursor] else last
                if channel in commits[cursor].channels:
                    last = len(path) if last or channel in named[start] else 0
                    break
            needed |= set(path[:last])
    return needed - set(kept)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_what_deltas_need_is_found_in_one_walk(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    names = [f"{number:02}" for number in range(count)]
    some = st.sets(st.sampled_from("xyz"))
    writes = {name: data.draw(some) for name in names}
    commits = {
        name: _Commit(
            (_Parent(data.draw(st.sampled_from(names[max(number - 3, 0) : number]))),) if number else (),
            dict.fromkeys(data.draw(some)),
        )
        for number, name in enumerate(names)
    }
    kept = data.draw(st.sets(st.sampled_from(names)))
    rows: Any = {name: (name, commit) for name, commit in commits.items()}
    lines: Any = _Lines(writes)
    named = {name: data.draw(some) for name in sorted(kept)}
    assert _needed_by_deltas(lines, rows, kept, named) == _told(writes, commits, kept, named)


def test_pruning_a_long_thread_takes_steps_in_proportion(opened: Opener) -> None:
    repository = opened()
    run_quietly(repository, 1200)
    calls: list[str] = []
    storage: Any = repository.storage
    read = storage.read

    def counting(keys: Any) -> Any:
        calls.append("read")
        return read(keys)

    storage.read = counting
    report = repository.prune_thread("t", keep_last(600))
    assert len(report.removed) == 600
    # No round trip for each checkpoint.
    assert len(calls) < 20


def run_quietly(repository: Repository, count: int) -> None:
    for number in range(1, count + 1):
        put(repository, "t", named(number), named(number - 1) if number > 1 else None)


@pytest.mark.parametrize("forked", [False, True])
def test_who_prunes_each_week_has_what_was_pruned_longer_ago_freed(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, forked: bool
) -> None:
    """The last prunes can be undone; what earlier ones hid goes all the same, forks or not."""
    repository, now, real = opened(), [0.0], clock_module.time
    monkeypatch.setattr(clock_module, "time", lambda: real() + now[0])
    found = []
    for week in range(6):
        for number in range(10):
            repository.commit("t", {"n": number, "week": week})
        if forked and not week:
            repository.fork("t", "fork")
        repository.prune(["t", "fork"] if forked else ["t"], keep_last=3)
        now[0] += 60
        repository.gc()
        found.append((rows(repository), repository.stats().checkpoints))
        now[0] += 7 * 24 * 3600
    # Three to see, ten each of the prunes of this week and the last; the fork shows three of the first week, which the
    # second week's prune hid.
    shown = 3 + 3 * forked
    assert [count for count, _ in found[2:]] == [23, *[shown + 20] * 3]
    assert {count for _, count in found[2:]} == {shown}
    repository.undo()
    repository.undo()
    assert len(repository.log(thread="t")) == 3 + 20
    assert repository.fsck().problems == []

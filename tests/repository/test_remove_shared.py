"""What threads share and none of them shows any more goes with the next collection, and nothing else does."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from clock_kit import Clock
from hypothesis import given, settings
from hypothesis import strategies as st
from lifetime_kit import Opener, typed

from ckpt.errors import CkptError
from ckpt.history import keys
from ckpt.history.checkpoints import current_put, decode_events
from ckpt.history.records import ThreadRecord
from ckpt.repository import Repository, remove_shared
from ckpt.repository.incoming import Channel, NewCheckpoint
from ckpt.repository.mark import rows, thread_records
from ckpt.repository.plan import Reason
from ckpt.repository.prune import keep_last
from ckpt.storage.base import Batch
from ckpt.storage.memory import MemoryStorage

NOW = timedelta(0)


def checkpoints(repository: Repository) -> Counter[int]:
    """Return how many rows of checkpoints each thread has, by its number, in a store."""
    return Counter(row.thread for row in rows(repository.storage) if row.part == "c")


def exactly(*ids: str) -> dict[str, list[Reason]]:
    """Return what a `Keep` that keeps these ids does."""
    return {checkpoint_id: ["last"] for checkpoint_id in ids}


def run(repository: Repository, thread: str, count: int) -> None:
    for _ in range(count):
        number = len(repository.log(thread)) if thread in repository.thread_names() else 0
        repository.commit(thread, {"n": number, "by": thread, "text": f"{thread} said {number}. " * 20})


def shown(repository: Repository) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Return all that every thread shows."""
    return {
        name: [(info.id, repository.state(info.id, thread=name)) for info in repository.log(thread=name)]
        for name in repository.thread_names()
    }


def prune(repository: Repository, *threads: str, keep: int = 2) -> None:
    repository.prune([*threads], keep_last=keep)


def collect(repository: Repository) -> int:
    """Collect, and return how many objects went; all is shown as before, and nothing is left to free."""
    before, stats = shown(repository), repository.stats()
    report = repository.gc(grace=NOW)
    assert shown(repository) == before
    assert repository.fsck().problems == []
    assert stats.checkpoints == repository.stats().checkpoints
    assert repository.gc(grace=NOW).objects_removed == 0
    return report.objects_removed


def test_what_a_thread_and_its_fork_have_pruned_goes(opened: Opener) -> None:
    repository = opened()
    run(repository, "a", 10)
    repository.fork("a", "b")
    run(repository, "b", 3)
    prune(repository, "a")
    collect(repository)
    assert checkpoints(repository) == {1: 10, 2: 3}
    prune(repository, "b")
    assert collect(repository) == 18
    # Of what it was forked from, the fork has hidden two that the thread itself still shows.
    assert checkpoints(repository) == {1: 2, 2: 4}
    assert [state["n"] for _, state in shown(repository)["a"]] == [9, 8]
    assert [state["n"] for _, state in shown(repository)["b"]] == [12, 11]
    run(repository, "a", 1)
    run(repository, "b", 1)
    assert [state["n"] for _, state in shown(repository)["b"]] == [2, 12, 11]


@pytest.mark.parametrize("ends", ["deleted", "expired"])
def test_what_the_forks_of_a_thread_that_is_gone_have_pruned_goes(opened: Opener, time: Clock, ends: str) -> None:
    repository = opened()
    run(repository, "a", 10)
    repository.fork("a", "b")
    repository.fork("b", "c")
    run(repository, "c", 3)
    repository.delete("a") if ends == "deleted" else repository.expire("a", "1h")
    time.after(hours=2)
    prune(repository, "b")
    collect(repository)
    assert checkpoints(repository)[1] == 10
    prune(repository, "c")
    collect(repository)
    assert checkpoints(repository) == {1: 2, 3: 4}
    prune(repository, "b", keep=1)
    collect(repository)
    assert checkpoints(repository) == {1: 1, 3: 3}


def test_a_fork_that_left_after_the_prune_has_nothing_to_hide(opened: Opener) -> None:
    repository = opened()
    run(repository, "a", 10)
    repository.fork("a", "before")
    prune(repository, "a")
    repository.fork("a", "after")
    collect(repository)
    assert checkpoints(repository) == {1: 10}
    repository.delete("before")
    collect(repository)
    assert checkpoints(repository) == {1: 2}


@pytest.mark.parametrize(("settled", "undoable"), [("a", "b"), ("b", "a")])
def test_a_prune_that_can_be_undone_keeps_what_it_hid(opened: Opener, settled: str, undoable: str) -> None:
    repository = opened()
    run(repository, "a", 10)
    repository.fork("a", "b")
    before = shown(repository)
    prune(repository, settled)
    repository.gc(grace=NOW)
    prune(repository, undoable)
    repository.gc()
    assert checkpoints(repository)[1] == 10
    repository.undo()
    left = shown(repository)
    assert left[undoable] == before[undoable]
    repository.delete("b")
    repository.gc()
    repository.undo()
    assert shown(repository)["b"] == left["b"]


def test_what_a_thread_that_is_gone_has_hidden_stays_hidden_in_its_forks(opened: Opener) -> None:
    repository = opened()
    run(repository, "a", 10)
    repository.fork("a", "b")
    run(repository, "b", 3)
    prune(repository, "b")
    repository.fork("b", "c")
    repository.delete("b")
    collect(repository)
    # Of its own three one went; ten say what does not count of the thread below, which shows them all.
    assert checkpoints(repository) == {1: 10, 2: 12}
    prune(repository, "a")
    collect(repository)
    assert checkpoints(repository) == {1: 2, 2: 4}


def test_what_a_delta_channel_of_a_fork_is_rebuilt_from_stays(opened: Opener) -> None:
    repository = opened()
    put(repository, "a", "1", None, "x")
    repository.put_writes("a", "", "1", "task", "", [(0, "x", typed("more"))])
    put(repository, "a", "2", "1", "y")
    repository.copy_thread("a", "b")
    for thread in "ab":
        repository.prune_thread(thread, keep_last(1))
    collect_rows(repository, {1: 2, 2: 1})
    put(repository, "a", "3", "2", "xy")
    repository.prune_thread("a", keep_last(1))
    collect_rows(repository, {1: 3, 2: 1})
    put(repository, "b", "4", "2", "xy")
    repository.prune_thread("b", keep_last(1))
    collect_rows(repository, {1: 1, 2: 1})


def test_where_a_subgraph_remembers_from_run_to_run_all_stays(opened: Opener) -> None:
    repository = opened()
    put(repository, "a", "1", None)
    # The head is the second of these: the third neither continues it, nor has the greatest id.
    for checkpoint_id, parent in (("9", None), ("3", "9"), ("4", None)):
        put(repository, "a", checkpoint_id, parent, namespace="sub")
    put(repository, "a", "2", "1")
    repository.copy_thread("a", "b")
    for thread in "ab":
        repository.prune_thread(thread, lambda namespace, *_: exactly("3", "4") if namespace else exactly("2"))
    repository.gc(grace=NOW)
    assert checkpoints(repository)[1] == 5
    for thread in "ab":
        put(repository, thread, "91", "3", namespace="sub")
        put(repository, thread, "5", "2")
        repository.fork('ckpt:"2"', f"from {thread}", thread=thread)
        stored = repository.read(f"from {thread}", "sub")
        assert stored is not None
        assert stored.checkpoint_id == "3"
    assert repository.fsck().problems == []


def test_what_the_subgraphs_of_tasks_made_goes_too(opened: Opener) -> None:
    repository = opened()
    for number in range(1, 5):
        put(repository, "a", f"{number}0", f"{number - 1}0" if number > 1 else None)
        put(repository, "a", f"{number}1", None, namespace=f"node:{number}")
    repository.copy_thread("a", "b")
    for thread in "ab":
        repository.prune_thread(thread, lambda namespace, *_: exactly("40") if not namespace else {})
    repository.gc(grace=NOW)
    assert checkpoints(repository) == {1: 1}
    assert repository.fsck().problems == []
    assert [found.checkpoint_id for found in repository.read_all("b", None)] == ["40"]


def test_writers_meanwhile_are_no_damage(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = opened()
    run(repository, "a", 6)
    repository.fork("a", "b")
    prune(repository, "a", "b")
    groups = remove_shared._groups

    def written_to(*arguments: Any) -> Any:
        run(repository, "b", 1)
        yield from groups(*arguments)

    monkeypatch.setattr(remove_shared, "_groups", written_to)
    repository.gc(grace=NOW)
    assert repository.stats().checkpoints == 3
    assert checkpoints(repository)[1] == 2


def test_a_fork_of_a_fork_that_is_gone_keeps_what_that_had_hidden(opened: Opener) -> None:
    repository = opened()
    put(repository, "a", "01", None)
    put(repository, "a", "02", "01")
    repository.copy_thread("a", "b")
    put(repository, "b", "03", "02")
    put(repository, "b", "04", "03")
    # Later than that was put at which the third leaves.
    repository.prune_thread("b", lambda *_: exactly("03", "04"))
    repository.fork('ckpt:"03"', "c", thread="b")
    repository.delete_thread("b")
    repository.gc(grace=NOW)
    assert [found.checkpoint_id for found in repository.read_all("c", "")] == ["03"]


def test_a_fork_made_meanwhile_through_a_thread_that_is_gone_loses_nothing(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = opened()
    run(repository, "a", 6)
    repository.fork("a", "f")
    run(repository, "f", 3)
    repository.fork("f", "g")
    run(repository, "g", 2)
    repository.tag("keep", "@~2", thread="g")
    for thread in "ag":
        repository.prune_thread(thread, keep_last(1)) if thread == "a" else prune(repository, thread, keep=1)
    repository.delete("f")
    storage, publish = repository.storage, repository.storage.publish
    seen: list[int] = []

    def interrupted(batch: Batch) -> list[int]:
        if not seen and sum(value is None for value in batch.records.values()) >= 4:
            monkeypatch.setattr(storage, "publish", publish)
            repository.fork("tag:keep", "x")
            seen.append(len(repository.log("x")))
            repository.tag("old", f'ckpt:"{repository.log("x")[-1].checkpoint_id}"', thread="x")
        return publish(batch)

    monkeypatch.setattr(storage, "publish", interrupted)
    repository.gc(grace=NOW)
    assert seen == [len(repository.log("x"))]
    assert sorted(repository.tags()) == ["keep", "old"]


def test_many_forks_and_chains_of_forks_are_looked_at_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count what is looked at: a chain of forks of forks once had the whole of it looked at for each of them."""
    repository, made = Repository(MemoryStorage()), 0
    for number in range(12):
        if number:
            repository.copy_thread(f"t{number - 1}", f"t{number}")
        run(repository, f"t{number}", 2)
    for number in range(12):
        repository.prune_thread(f"t{number}", keep_last(1))
    plan = remove_shared.Plan

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal made
        made += 1
        return plan(*arguments, **named)

    monkeypatch.setattr(remove_shared, "Plan", counted)
    repository.gc(grace=NOW)
    assert made == 12
    repository.gc(grace=NOW)
    assert made == 12


def put(
    repository: Repository, thread: str, checkpoint_id: str, parent: str | None, names: str = "x", namespace: str = ""
) -> None:
    channels = {name: Channel(lambda: typed(checkpoint_id)) for name in names}
    repository.put(NewCheckpoint(thread, namespace, checkpoint_id, parent, None, typed(""), typed(""), channels))


def collect_rows(repository: Repository, expected: dict[int, int]) -> None:
    repository.gc(grace=NOW)
    assert checkpoints(repository) == expected
    assert repository.fsck().problems == []


def test_what_is_tagged_in_any_of_them_stays(opened: Opener) -> None:
    repository = opened()
    run(repository, "a", 10)
    repository.fork("a", "b")
    repository.tag("good", "@~5", thread="b")
    prune(repository, "a")
    prune(repository, "b")
    repository.delete("a")
    collect(repository)
    assert [state["n"] for _, state in shown(repository)["b"]] == [9, 8, 4]
    assert checkpoints(repository)[1] == 3
    repository.untag("good")
    prune(repository, "b")
    collect(repository)
    assert checkpoints(repository)[1] == 2 + 1  # the tip of an abandoned branch stays in a prune


def test_where_a_fork_left_stays_in_what_it_left(opened: Opener) -> None:
    repository = opened()
    run(repository, "a", 10)
    repository.fork("a~4", "b")
    run(repository, "b", 4)
    prune(repository, "a")
    prune(repository, "b")
    collect(repository)
    assert checkpoints(repository) == {1: 3, 2: 3}


def test_late_writes_to_what_went_from_a_thread_that_is_gone_are_refused(opened: Opener) -> None:
    repository = opened()
    run(repository, "a", 5)
    old = repository.log("a")[-1]
    repository.fork("a", "b")
    repository.delete("a")
    prune(repository, "b", keep=1)
    collect(repository)
    assert checkpoints(repository)[1] == 1
    with pytest.raises(CkptError, match="deleted"):
        repository.put_writes("a", "", old.checkpoint_id, "task", "", [])


def test_a_collector_that_somebody_is_faster_than_leaves_what_became_of_it(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = opened()
    run(repository, "a", 10)
    repository.fork("a", "b")
    prune(repository, "a", "b")
    storage, publish = repository.storage, repository.storage.publish
    names = iter(["x", "y"])

    def interrupted(batch: Batch) -> list[int]:
        # As long as nobody compares it, a fork may be made that sees what is about to go.
        if sum(value is None for value in batch.records.values()) >= 8 and (name := next(names, None)):
            monkeypatch.setattr(storage, "publish", publish)
            run(repository, "b", 1)
            repository.fork("b", name)
            monkeypatch.setattr(storage, "publish", interrupted)
        return publish(batch)

    monkeypatch.setattr(storage, "publish", interrupted)
    repository.gc(grace=NOW)
    assert next(names, None) is None
    assert checkpoints(repository)[1] == 2
    assert repository.fsck().problems == []
    assert sorted(shown(repository)) == ["a", "b", "x", "y"]


_NAMES = st.sampled_from("abc")
_ACTS = st.one_of(
    st.tuples(st.sampled_from(["commit", "commit", "commit", "prune", "checkout", "delete", "expire"]), _NAMES, _NAMES),
    st.tuples(st.just("fork"), st.tuples(_NAMES, st.sampled_from(["", "~1", "~2"])).map("".join), _NAMES),
    st.tuples(st.sampled_from(["gc", "undo", "wait", "tag", "gc"]), _NAMES, _NAMES),
)


@given(acts=st.lists(_ACTS, min_size=10, max_size=40))
@settings(max_examples=300, deadline=None)
def test_a_collection_changes_nothing_that_is_shown(acts: list[tuple[str, str, str]]) -> None:
    """Tell of random histories that what is to be seen stays, and that a second collection finds nothing more."""
    with pytest.MonkeyPatch.context() as patch:
        clock, repository = Clock(patch), Repository(MemoryStorage())
        for act, subject, other in [*acts, ("gc", "a", "a")]:
            with suppress(CkptError):
                if act == "wait":
                    clock.after(hours=2)
                elif act == "undo":
                    repository.undo()
                elif act == "commit":
                    run(repository, subject, 1)
                elif act == "expire":
                    repository.expire(subject, "1h")
                elif act == "prune":
                    prune(repository, subject, keep=1)
                elif act == "checkout":
                    repository.checkout(f"{subject}~1")
                elif act == "delete":
                    repository.delete(subject)
                elif act == "fork":
                    repository.fork(subject, other)
                elif act == "tag":
                    repository.tag("good", subject)
            if act == "gc":
                collect(repository)
                assert unneeded(repository) == []


def unneeded(repository: Repository) -> list[str]:
    """Return the checkpoints in the store that no thread shows, and at which none was forked."""
    found, storage = [], repository.storage
    forked_at = {thread.base.bare for thread in threads(repository) if thread.base is not None}
    known = {info.id for name in repository.thread_names() for info in repository.log(thread=name)}
    for row in rows(storage):
        put = current_put(decode_events(row.key, row.value)) if row.part == "c" else None
        if put is not None and put.commit.hex() not in known:
            found.append(keys.checkpoint_id_of(row.key, row.thread))
    return [each for each in found if each not in forked_at]


def threads(repository: Repository) -> list[ThreadRecord]:
    return [ThreadRecord.decode(number, raw) for number, raw in thread_records(repository.storage)]

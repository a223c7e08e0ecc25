"""Deleting, copying and pruning: what goes, what stays whole, and which calls are refused."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from saver_kit import Calls, config, ids, put, values

from ckpt.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    ThreadDeletedError,
)

SHARED = [{"id": n, "text": f"message {n} " * 20} for n in range(30)]


def fill(api: Calls, thread: str, count: int = 4, ns: str = "", runs: tuple[str, ...] = ("run",)) -> None:
    """A chain of checkpoints whose values share nearly everything, with one write each."""
    for n in range(1, count + 1):
        put(
            api,
            thread,
            str(n),
            {"messages": [*SHARED, n], "fixed": SHARED},
            parent=str(n - 1) if n > 1 else None,
            ns=ns,
            metadata={"step": n, "run_id": runs[(n - 1) % len(runs)]},
        )
        api.put_writes(config(thread, str(n), ns), [("ch", f"{thread} {n}"), ("big", SHARED)], "task", "path")


def everything(api: Calls, thread: str) -> list[Any]:
    """All that a thread holds, comparable between threads."""
    return [
        (
            found.config["configurable"]["checkpoint_ns"],
            found.checkpoint,
            found.metadata,
            found.parent_config and found.parent_config["configurable"]["checkpoint_id"],
            found.pending_writes,
        )
        for found in api.list(config(thread, ns=None))
    ]


def test_delete_removes_every_namespace_and_leaves_other_threads_whole(api: Calls) -> None:
    for thread in ("t", "u", "t2"):
        fill(api, thread)
        fill(api, thread, 2, ns="child:1")
    before = everything(api, "u")
    api.delete_thread("t")
    assert api.list(config("t", ns=None)) == []
    assert api.get_tuple(config("t")) is None
    assert api.get_tuple(config("t", "2")) is None
    assert api.get_tuple(config("t", ns="child:1")) is None
    assert everything(api, "u") == before
    assert len(everything(api, "t2")) == 6
    assert {found.config["configurable"]["thread_id"] for found in api.list(None)} == {"u", "t2"}


def test_deleting_an_unknown_thread_or_twice_is_harmless(api: Calls) -> None:
    fill(api, "t", 1)
    api.delete_thread("nowhere")
    api.delete_thread("t")
    api.delete_thread("t")
    assert api.list(None) == []


def test_late_writes_of_a_deleted_thread_are_refused(api: Calls) -> None:
    fill(api, "t", 2)
    api.delete_thread("t")
    with pytest.raises(ThreadDeletedError) as caught:
        put(api, "t", "3", {"late": True}, parent="2")
    assert isinstance(caught.value, ConflictError)
    with pytest.raises(ThreadDeletedError):
        api.put_writes(config("t", "2"), [("ch", "late")], "task")
    assert api.get_tuple(config("t")) is None
    assert api.list(None) == []


def test_a_deliberate_new_run_on_a_deleted_name_works(api: Calls, make_saver: Any) -> None:
    fill(api, "t", 2)
    api.delete_thread("t")
    put(api, "t", "7", {"new": True})
    api.put_writes(config("t", "7"), [("ch", "new")], "task")
    put(api, "t", "8", {"new": 2}, parent="7")
    assert values(api, "t") == {"new": 2}
    assert ids(api.list(config("t"))) == ["8", "7"]
    for saver in (api, make_saver()):
        with pytest.raises(ThreadDeletedError):
            put(saver, "t", "3", {"late": True}, parent="2")
        with pytest.raises(ThreadDeletedError):
            saver.put_writes(config("t", "2"), [("ch", "late")], "task")
    assert ids(api.list(config("t"))) == ["8", "7"]


def test_a_copy_holds_everything_under_its_own_name(api: Calls) -> None:
    fill(api, "t")
    fill(api, "t", 2, ns="child:1")
    api.copy_thread("t", "copy")
    assert everything(api, "copy") == everything(api, "t")
    assert len(everything(api, "copy")) == 6
    for found in api.list(config("copy", ns=None)):
        assert found.config["configurable"]["thread_id"] == "copy"
        if found.parent_config:
            assert found.parent_config["configurable"]["thread_id"] == "copy"
            assert api.get_tuple(found.parent_config) is not None


def test_source_and_copy_go_their_own_ways(api: Calls) -> None:
    fill(api, "t")
    api.copy_thread("t", "copy")
    put(api, "t", "5", {"a": "source"}, parent="4")
    put(api, "copy", "5", {"a": "copy"}, parent="4")
    api.put_writes(config("t", "4"), [("only", "source")], "task-2")
    put(api, "t", "2", {"replaced": True}, parent="1")
    assert values(api, "t") == {"a": "source"}
    assert values(api, "copy") == {"a": "copy"}
    assert len(api.get_tuple(config("copy", "4")).pending_writes) == 2
    assert values(api, "copy", "2") == {"messages": [*SHARED, 2], "fixed": SHARED}
    assert api.get_tuple(config("copy", "9")) is None


def test_copies_of_copies_outlive_what_they_came_from(api: Calls, make_saver: Any) -> None:
    fill(api, "t")
    expected = everything(api, "t")
    api.copy_thread("t", "second")
    api.copy_thread("second", "third")
    put(api, "t", "1", {"changed": True})
    api.delete_thread("t")
    assert api.list(config("t")) == []
    assert {found.config["configurable"]["thread_id"] for found in api.list(None)} == {"second", "third"}
    put(api, "t", "1", {"a new thread": True})
    assert everything(api, "second") == expected
    api.delete_thread("second")
    assert everything(api, "third") == expected
    assert everything(make_saver(), "third") == expected
    assert values(api, "t") == {"a new thread": True}


def test_a_copy_of_nothing_makes_nothing_and_a_taken_name_is_refused(api: Calls) -> None:
    with contextlib.suppress(NotFoundError):
        api.copy_thread("nowhere", "copy")
    assert api.list(None) == []
    fill(api, "t", 1)
    fill(api, "taken", 2)
    with pytest.raises(AlreadyExistsError):
        api.copy_thread("t", "taken")
    assert ids(api.list(config("taken"))) == ["2", "1"]


@pytest.mark.parametrize("strategy", ["keep_latest", "delete", "delete_all"])
def test_prune_touches_only_the_threads_named(api: Calls, strategy: str) -> None:
    for thread in ("t", "u", "kept"):
        fill(api, thread)
        fill(api, thread, 2, ns="child:1")
    api.copy_thread("t", "copy")
    whole = everything(api, "kept")
    of_copy = everything(api, "copy")
    heads = [api.get_tuple(config("t")), api.get_tuple(config("t", ns="child:1"))]
    api.prune(["t", "u", "nowhere"], strategy=strategy)
    assert everything(api, "kept") == whole
    assert everything(api, "copy") == of_copy
    if strategy == "keep_latest":
        assert [api.get_tuple(config("t")), api.get_tuple(config("t", ns="child:1"))] == heads
        assert ids(api.list(config("t"))) == ["4"]
        assert ids(api.list(config("t", ns="child:1"))) == ["2"]
        put(api, "t", "5", {"on": True}, parent="4")
        assert values(api, "t") == {"on": True}
    else:
        assert api.list(config("t", ns=None)) == api.list(config("u", ns=None)) == []
        assert api.get_tuple(config("t", "3")) is None


@pytest.mark.parametrize("order", [["copy"], ["copy", "copy"], ["t", "copy"], ["copy", "t"], ["copy of copy", "copy"]])
@pytest.mark.parametrize("deleted", [False, True])
def test_copies_are_pruned_and_go_on(api: Calls, make_saver: Any, order: list[str], deleted: bool) -> None:
    fill(api, "t")
    fill(api, "t", 2, ns="child:1")
    api.copy_thread("t", "copy")
    api.copy_thread("copy", "copy of copy")
    whole = everything(api, "t")
    if deleted:
        api.delete_thread("t")
    for name in order:
        api.prune([name])
    head_of_each_namespace = [each for each in whole if each[1]["id"] == ("2" if each[0] else "4")]
    for reader in (api, Calls(make_saver(), False)):
        assert everything(reader, "t") == ([] if deleted else head_of_each_namespace if "t" in order else whole)
        for name in ("copy", "copy of copy"):
            assert everything(reader, name) == (head_of_each_namespace if name in order else whole)
    put(api, "copy", "5", {"on": True}, parent="4")
    api.prune(["copy"])
    assert values(api, "copy") == {"on": True}
    assert ids(api.list(config("copy"))) == ["5"]
    api.delete_for_runs(["run"])
    assert ids(api.list(None)) == ["5"]


def test_prune_keeps_the_head_even_when_its_id_is_not_the_greatest(api: Calls) -> None:
    put(api, "t", "9", {"n": 9})
    put(api, "t", "3", {"n": 3}, parent="9")
    api.prune(["t"], strategy="keep_latest")
    assert values(api, "t") == {"n": 3}


def test_pruned_values_that_others_need_survive_a_collection(make_saver: Any) -> None:
    saver = make_saver()
    api = Calls(saver, False)
    fill(api, "t")
    fill(api, "same values")
    put(api, "gone", "1", {"messages": SHARED})
    api.copy_thread("t", "copy")
    expected = everything(api, "copy")
    head = api.get_tuple(config("t"))
    api.prune(["t"])
    api.delete_thread("same values")
    api.delete_thread("gone")
    saver.repository.gc()
    for reader in (api, Calls(make_saver(), False)):
        assert everything(reader, "copy") == expected
        assert reader.get_tuple(config("t")) == head
    assert saver.repository.fsck().problems == []


def test_delete_for_runs_removes_the_runs_in_every_thread_and_namespace(api: Calls) -> None:
    for thread in ("t", "u"):
        fill(api, thread, 4, runs=("a", "b"))
        fill(api, thread, 2, ns="child:1", runs=("a", "c"))
    kept = [api.get_tuple(config("t", "4")).checkpoint, api.get_tuple(config("t", "2")).checkpoint]
    api.delete_for_runs(["a", "never ran"])
    for thread in ("t", "u"):
        assert ids(api.list(config(thread))) == ["4", "2"]
        assert ids(api.list(config(thread, ns="child:1"))) == ["2"]
        assert api.get_tuple(config(thread, "1")) is None
    assert [found.checkpoint for found in api.list(config("t"))] == kept
    assert api.get_tuple(config("t", "4")).pending_writes[0] == ("task", "ch", "t 4")
    api.delete_for_runs(["b", "c"])
    assert api.list(None) == []


def test_the_head_falls_back_to_what_a_deleted_run_left(api: Calls) -> None:
    fill(api, "t", 3, runs=("a", "b", "b"))
    api.delete_for_runs(["b"])
    assert ids([api.get_tuple(config("t"))]) == ["1"]
    put(api, "t", "2-again", {"n": 2}, parent="1", metadata={"run_id": "c"})
    assert ids(api.list(config("t"))) == ["2-again", "1"]


def test_empty_lists_are_harmless(api: Calls) -> None:
    fill(api, "t", 2)
    api.prune([], strategy="keep_latest")
    api.prune([], strategy="delete")
    api.delete_for_runs([])
    assert ids(api.list(None)) == ["2", "1"]


def test_a_plain_string_instead_of_a_list_is_refused(api: Calls) -> None:
    for thread in ("t", "th", "h"):
        fill(api, thread, 2, runs=("th",))
    for call in (
        lambda: api.prune("th"),
        lambda: api.prune("th", strategy="delete"),
        lambda: api.delete_for_runs("th"),
    ):
        with pytest.raises((TypeError, InvalidInputError)):
            call()
    assert len(api.list(None)) == 6


@pytest.mark.parametrize("strategy", ["", "keep", "KEEP_LATEST", "keep_last", None])
def test_an_unknown_strategy_is_refused(api: Calls, strategy: Any) -> None:
    fill(api, "t", 2)
    for threads in (["t"], []):
        with pytest.raises(ValueError, match="strategy"):
            api.prune(threads, strategy=strategy)
    assert ids(api.list(config("t"))) == ["2", "1"]


@pytest.mark.parametrize("ns", ["child", "child:1"])
def test_a_fork_shows_nothing_of_the_run_it_has_yet_to_make(api: Calls, ns: str) -> None:
    """What a subgraph stored before its root's checkpoint came, as LangGraph does that does not wait for it."""
    put(api, "t", "1")
    put(api, "t", "15", ns=ns, metadata={"parents": {"": "1"}})
    put(api, "t", "25", ns=ns, parent="15", metadata={"parents": {"": "2"}})
    api.put_writes(config("t", "25", ns), [("ch", "early")], "task")
    put(api, "t", "2", parent="1")
    put(api, "t", "3", parent="2")
    assert ids(api.list(config("t", ns=None))) == ["3", "25", "2", "15", "1"]
    for revision, target in (("t~1", "fork"), ("fork", "fork of it"), ("fork~1", "older")):
        api.saver.repository.fork(revision, target)
    for name, stood in (("fork", ["2", "15", "1"]), ("fork of it", ["2", "15", "1"]), ("older", ["1"])):
        assert ids(api.list(config(name, ns=None))) == stood
        assert ids(api.list(config(name, "25", ns))) == []
        assert api.get_tuple(config(name, "25", ns)) is None
        assert [each.checkpoint_id for each in api.saver.repository.log(thread=name, subgraphs=True)] == stood
    put(api, "fork", "25", ns=ns, parent="15", metadata={"parents": {"": "2"}})
    assert ids(api.list(config("fork", ns=ns))) == ["25", "15"]
    assert api.get_tuple(config("fork", "25", ns)).pending_writes == []
    assert [each[2] for each in api.get_tuple(config("t", "25", ns)).pending_writes] == ["early"]
    assert api.saver.repository.fsck().problems == []

"""Pending writes: when they may come, in which order they return, which of two in one slot counts."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from langgraph.checkpoint.base import WRITES_IDX_MAP
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, SCHEDULED
from saver_kit import Calls, config, ids, put

from ckpt.langgraph import CkptSaver


def pending(api: Calls, checkpoint_id: str = "1", thread: str = "t") -> list[tuple[str, str, Any]]:
    """The pending writes, which get_tuple and list must agree on."""
    found = api.get_tuple(config(thread, checkpoint_id))
    listed = {ids([each])[0]: each for each in api.list(config(thread))}[checkpoint_id]
    assert listed.pending_writes == found.pending_writes
    return list(found.pending_writes)


def test_writes_may_come_before_their_checkpoint(api: Calls) -> None:
    put(api, "t", "1")
    api.put_writes(config("t", "2"), [("ch", "early"), (INTERRUPT, "i")], "task", "path")
    assert api.get_tuple(config("t", "2")) is None
    assert ids(api.list(config("t"))) == ["1"]
    assert ids([api.get_tuple(config("t"))]) == ["1"]
    put(api, "t", "2", parent="1")
    api.put_writes(config("t", "2"), [("ch", "ignored: the first stays"), (INTERRUPT, "j")], "task", "path")
    assert pending(api, "2") == [("task", INTERRUPT, "j"), ("task", "ch", "early")]


def test_writes_of_an_unknown_thread_do_not_make_it_appear(api: Calls) -> None:
    api.put_writes(config("new", "1"), [("ch", 1)], "task")
    assert api.get_tuple(config("new")) is None
    assert api.list(config("new")) == []
    assert api.list(None) == []
    put(api, "new", "1")
    assert pending(api, "1", "new") == [("task", "ch", 1)]


def test_writes_stay_with_their_own_checkpoint_namespace_and_thread(api: Calls) -> None:
    for thread in ("t", "u"):
        for ns in ("", "child:1"):
            for name in ("1", "2"):
                put(api, thread, name, ns=ns)
                api.put_writes(config(thread, name, ns), [("ch", f"{thread}/{ns}/{name}")], "task")
    for thread in ("t", "u"):
        for ns in ("", "child:1"):
            for name in ("1", "2"):
                found = api.get_tuple(config(thread, name, ns))
                assert found.pending_writes == [("task", "ch", f"{thread}/{ns}/{name}")]


def test_the_namespace_defaults_to_the_root(api: Calls) -> None:
    put(api, "t", "1")
    api.put_writes(config("t", "1", ns=None), [("ch", 1)], "task")
    assert pending(api) == [("task", "ch", 1)]


def test_order_is_task_path_then_task_id_then_index(api: Calls) -> None:
    put(api, "t", "1")
    for task, path in (
        ("a", "~pull, 02"),
        ("z", "~pull, 01"),
        ("m", ""),
        ("b", "~pull, 01"),
        ("c", "~pull, 10"),
    ):
        api.put_writes(config("t", "1"), [("first", task), ("second", task)], task, path)
    assert [(task, channel) for task, channel, _ in pending(api)] == [
        ("m", "first"),
        ("m", "second"),
        ("b", "first"),
        ("b", "second"),
        ("z", "first"),
        ("z", "second"),
        ("a", "first"),
        ("a", "second"),
        ("c", "first"),
        ("c", "second"),
    ]


def test_indexes_are_ordered_as_numbers(api: Calls) -> None:
    put(api, "t", "1")
    api.put_writes(config("t", "1"), [("ch", n) for n in range(120)], "task")
    assert [value for _, _, value in pending(api)] == list(range(120))


def test_order_does_not_depend_on_the_order_of_arrival(api: Calls) -> None:
    tasks = [(f"task-{n}", f"~pull, {n:02}") for n in range(6)]
    for thread, arrival in (("t", tasks), ("u", tasks[::-1])):
        put(api, thread, "1")
        for task, path in arrival:
            api.put_writes(config(thread, "1"), [("ch", task)], task, path)
    assert pending(api, thread="t") == pending(api, thread="u")


def test_special_channels_sort_before_ordinary_writes_in_slot_order(api: Calls) -> None:
    put(api, "t", "1")
    api.put_writes(
        config("t", "1"),
        [("a", 0), (ERROR, "e"), (SCHEDULED, "s"), (INTERRUPT, "i"), (RESUME, "r"), ("b", 5)],
        "task",
    )
    assert [channel for _, channel, _ in pending(api)] == [RESUME, INTERRUPT, SCHEDULED, ERROR, "a", "b"]


def test_a_mixed_batch_is_decided_write_by_write(api: Calls) -> None:
    put(api, "t", "1")
    api.put_writes(config("t", "1"), [("a", "a1"), (INTERRUPT, "i1"), ("b", "b1")], "task")
    api.put_writes(config("t", "1"), [("a", "a2"), (INTERRUPT, "i2"), ("b", "b2"), ("c", "c2")], "task")
    assert pending(api) == [
        ("task", INTERRUPT, "i2"),
        ("task", "a", "a1"),
        ("task", "b", "b1"),
        ("task", "c", "c2"),
    ]


@pytest.mark.parametrize("channel", sorted(WRITES_IDX_MAP))
def test_a_special_write_is_replaced_and_displaces_nothing(api: Calls, channel: str) -> None:
    put(api, "t", "1")
    api.put_writes(config("t", "1"), [("ordinary", "kept")], "task")
    api.put_writes(config("t", "1"), [(channel, "first")], "task")
    api.put_writes(config("t", "1"), [(channel, "second")], "task")
    api.put_writes(config("t", "1"), [(channel, "another task's")], "task-2")
    assert pending(api) == [
        ("task", channel, "second"),
        ("task", "ordinary", "kept"),
        ("task-2", channel, "another task's"),
    ]


def test_a_retry_with_an_ordinary_write_still_replaces_the_error(api: Calls) -> None:
    put(api, "t", "1")
    api.put_writes(config("t", "1"), [(ERROR, "first failure")], "task")
    api.put_writes(config("t", "1"), [(ERROR, "second failure"), ("out", 1)], "task")
    assert pending(api) == [("task", ERROR, "second failure"), ("task", "out", 1)]


def test_the_first_ordinary_write_of_a_slot_stays_even_against_another_channel(api: Calls) -> None:
    put(api, "t", "1")
    api.put_writes(config("t", "1"), [("a", 1)], "task")
    api.put_writes(config("t", "1"), [("z", 9), ("y", 8)], "task")
    assert pending(api) == [("task", "a", 1), ("task", "y", 8)]


def test_the_rule_holds_across_two_savers(make_saver: Any) -> None:
    first, second = make_saver(), make_saver()
    put(first, "t", "1")
    first.put_writes(config("t", "1"), [("a", 1), (RESUME, "r1")], "task")
    second.put_writes(config("t", "1"), [("a", 2), (RESUME, "r2"), ("b", 3)], "task")
    for saver in (first, second, make_saver()):
        found = saver.get_tuple(config("t"))
        assert found.pending_writes == [("task", RESUME, "r2"), ("task", "a", 1), ("task", "b", 3)]


def test_values_of_every_kind_come_back(api: Calls) -> None:
    odd = [None, "", 0, False, [], {}, b"", "nul \x00 inside", {"k": {"n": [1.5, None]}}, ("a", 1)]
    put(api, "t", "1")
    api.put_writes(config("t", "1"), [("ch", value) for value in odd], "task")
    expected = [api.saver.serde.loads_typed(api.saver.serde.dumps_typed(value)) for value in odd]
    assert [value for _, _, value in pending(api)] == expected


def test_no_writes_is_an_empty_list(api: Calls) -> None:
    put(api, "t", "1")
    assert api.put_writes(config("t", "1"), [], "task") is None
    assert pending(api) == []


def test_task_path_is_a_named_parameter() -> None:
    for name in ("put_writes", "aput_writes"):
        parameter = inspect.signature(getattr(CkptSaver, name)).parameters["task_path"]
        assert parameter.default == ""
        assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD

"""Delta history: the writes on a checkpoint's own line back to the nearest stored value of the channel.

The facts follow the specification in LangGraph's repository, which its released conformance package
does not test yet: a value stored at a checkpoint is the state on entering it, so the writes under that
same checkpoint come after it.
"""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from saver_kit import Calls, checkpoint, config, put


def history(api: Calls, channel: str = "ch", checkpoint_id: str | None = None) -> tuple[list[Any], dict[str, Any]]:
    """The values of one channel's writes, and the seed as a mapping that is empty when there is none."""
    result = api.get_delta_channel_history(config=config("t", checkpoint_id), channels=[channel])
    assert set(result) == {channel}
    entry = dict(result[channel])
    written = entry.pop("writes")
    assert all(each[1] == channel for each in written)
    return [value for _, _, value in written], entry


def chain(api: Calls, length: int, stored: dict[int, Any], thread: str = "t") -> None:
    """Checkpoints "0", "1", … each the next one's parent, each with a write that names its step."""
    for step in range(length):
        present = {"ch": stored[step]} if step in stored else {}
        parent = str(step - 1) if step else None
        put(api, thread, str(step), present, parent=parent, versions={"ch": step + 1})
        api.put_writes(config(thread, str(step)), [("ch", f"w{step}"), ("unasked", step)], f"task-{step}")


def test_writes_come_oldest_first_with_the_nearest_seed(api: Calls) -> None:
    chain(api, 6, {0: _DeltaSnapshot(["far"]), 2: _DeltaSnapshot(["near"])})
    written, seed = history(api)
    assert written == ["w2", "w3", "w4"]
    assert seed == {"seed": _DeltaSnapshot(["near"])}
    assert type(seed["seed"]) is _DeltaSnapshot


def test_the_targets_own_value_and_writes_are_left_out(api: Calls) -> None:
    chain(api, 4, {1: _DeltaSnapshot("one"), 3: _DeltaSnapshot("target's own")})
    assert history(api, checkpoint_id="3") == (["w1", "w2"], {"seed": _DeltaSnapshot("one")})
    assert history(api, checkpoint_id="1") == (["w0"], {})
    assert history(api, checkpoint_id="0") == ([], {})


@pytest.mark.parametrize("plain", [[10, 20], {"k": 1}, "text", 0, False, "", [], None])
def test_any_stored_value_ends_the_walk(api: Calls, plain: object) -> None:
    chain(api, 4, {0: ["too far"], 1: plain})
    assert history(api) == (["w1", "w2"], {"seed": plain})


def test_a_version_without_a_value_does_not_end_the_walk(api: Calls) -> None:
    put(api, "t", "0", {"ch": ["seed"]}, versions={"ch": 1})
    for step in (1, 2, 3):
        stored = checkpoint(str(step), {}, channel_versions={"ch": step + 1})
        api.put(config("t", str(step - 1)), stored, {}, {"ch": step + 1})
        api.put_writes(config("t", str(step)), [("ch", step)], "task")
    assert history(api) == ([1, 2], {"seed": ["seed"]})


def test_without_any_stored_value_the_seed_is_left_out(api: Calls) -> None:
    chain(api, 4, {})
    assert history(api) == (["w0", "w1", "w2"], {})


def test_each_channel_ends_its_own_walk(api: Calls) -> None:
    stored = {1: ("a", "snap a"), 3: ("b", "snap b")}
    for step in range(5):
        name, value = stored.get(step, (None, None))
        present = {name: _DeltaSnapshot(value)} if name else {}
        put(api, "t", str(step), present, parent=str(step - 1) if step else None)  # type: ignore[arg-type]
        api.put_writes(config("t", str(step)), [("a", f"a{step}"), ("b", f"b{step}")], "task")
    result = api.get_delta_channel_history(config=config("t"), channels=["a", "b", "never"])
    assert set(result) == {"a", "b", "never"}
    assert [each[2] for each in result["a"]["writes"]] == ["a1", "a2", "a3"]
    assert result["a"]["seed"] == _DeltaSnapshot("snap a")
    assert [each[2] for each in result["b"]["writes"]] == ["b3"]
    assert result["b"]["seed"] == _DeltaSnapshot("snap b")
    assert result["never"] == {"writes": []}


def test_no_channels_gives_an_empty_mapping(api: Calls) -> None:
    chain(api, 3, {0: 1})
    assert api.get_delta_channel_history(config=config("t"), channels=[]) == {}
    assert api.get_delta_channel_history(config=config("nowhere"), channels=[]) == {}


def test_nothing_stored_gives_empty_entries(api: Calls) -> None:
    chain(api, 2, {})
    for place in (config("nowhere"), config("t", "9"), config("t", ns="other")):
        assert api.get_delta_channel_history(config=place, channels=["ch"]) == {"ch": {"writes": []}}


@pytest.mark.parametrize("given", [{}, {"checkpoint_id": None}, {"checkpoint_id": ""}])
def test_a_missing_or_empty_id_means_the_head(api: Calls, given: dict[str, Any]) -> None:
    chain(api, 4, {1: "seed"})
    result = api.get_delta_channel_history(config={"configurable": {"thread_id": "t", **given}}, channels=["ch"])
    assert [each[2] for each in result["ch"]["writes"]] == ["w1", "w2"]


def test_parents_are_followed_and_not_the_order_of_ids(api: Calls) -> None:
    chain(api, 3, {0: "seed"})
    put(api, "t", "2-other-branch", parent="1")
    api.put_writes(config("t", "2-other-branch"), [("ch", "off the path")], "task")
    put(api, "t", "3", parent="2")
    assert history(api, checkpoint_id="3") == (["w0", "w1", "w2"], {"seed": "seed"})
    put(api, "t", "00", parent="2-other-branch")
    assert history(api, checkpoint_id="00") == (["w0", "w1", "off the path"], {"seed": "seed"})


def test_parallel_writes_replay_by_path_then_task_then_index(api: Calls) -> None:
    chain(api, 2, {0: "seed"})
    for task, path in (("0", "~pull, 02"), ("f", "~pull, 01"), ("a", "~pull, 01"), ("e", "")):
        api.put_writes(config("t", "0"), [("other", 0), ("ch", f"{task}0"), ("ch", f"{task}1")], task, path)
    assert history(api) == (["e0", "e1", "w0", "a0", "a1", "f0", "f1", "00", "01"], {"seed": "seed"})


def test_a_missing_parent_ends_the_walk(api: Calls) -> None:
    put(api, "t", "5", parent="4-never-stored")
    api.put_writes(config("t", "5"), [("ch", "w5")], "task")
    api.put_writes(config("t", "4-never-stored"), [("ch", "of no checkpoint")], "task")
    put(api, "t", "6", parent="5")
    assert history(api) == (["w5"], {})


def test_a_cycle_of_parents_ends_the_walk(api: Calls) -> None:
    put(api, "t", "1", parent="2")
    put(api, "t", "2", parent="1")
    put(api, "t", "3", parent="2")
    put(api, "t", "4", parent="4")
    for name in ("1", "2", "3", "4"):
        api.put_writes(config("t", name), [("ch", f"w{name}")], "task")
    assert history(api, checkpoint_id="3") == (["w1", "w2"], {})
    assert history(api, checkpoint_id="4")[1] == {}


def test_namespaces_and_threads_do_not_mix(api: Calls) -> None:
    for thread, ns in (("t", ""), ("t", "child:1"), ("u", "")):
        put(api, thread, "1", {"ch": f"seed {thread}/{ns}"}, ns=ns)
        api.put_writes(config(thread, "1", ns), [("ch", f"write {thread}/{ns}")], "task")
        put(api, thread, "2", parent="1", ns=ns)
    for thread, ns in (("t", ""), ("t", "child:1"), ("u", "")):
        result = api.get_delta_channel_history(config=config(thread, "2", ns), channels=["ch"])
        assert result["ch"]["seed"] == f"seed {thread}/{ns}"
        assert [each[2] for each in result["ch"]["writes"]] == [f"write {thread}/{ns}"]


def test_history_is_the_same_after_reopening_and_in_a_copy(make_saver: Any) -> None:
    first = Calls(make_saver(), False)
    chain(first, 5, {1: _DeltaSnapshot([1])})
    expected = history(first)
    assert history(Calls(make_saver(), True)) == expected == (["w1", "w2", "w3"], {"seed": _DeltaSnapshot([1])})
    first.saver.copy_thread("t", "copy")
    result = first.saver.get_delta_channel_history(config=config("copy"), channels=["ch"])
    assert [each[2] for each in result["ch"]["writes"]] == expected[0]


@pytest.mark.parametrize("stored", [{0: _DeltaSnapshot([0])}, {2: _DeltaSnapshot([2])}, {4: _DeltaSnapshot([4])}, {}])
def test_pruning_keeps_what_the_kept_checkpoint_is_rebuilt_from(api: Calls, stored: dict[int, Any]) -> None:
    chain(api, 6, stored)
    chain(api, 6, stored, thread="bystander")
    expected = history(api)
    api.prune(["t"], strategy="keep_latest")
    assert history(api) == expected
    assert history(api, checkpoint_id="5") == expected
    put(api, "t", "6", parent="5")
    assert history(api) == ([*expected[0], "w5"], expected[1])

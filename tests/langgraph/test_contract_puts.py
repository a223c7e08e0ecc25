"""What a put keeps: ids, parents, keys, channel values. Lists, writes, metadata: see their own files."""

from __future__ import annotations

from typing import Any

import pytest
from saver_kit import Calls, checkpoint, config, ids, parent_id, put, values


def test_put_returns_the_three_parts_of_the_address(api: Calls) -> None:
    stored = checkpoint("1")
    returned = api.put(
        {"configurable": {"thread_id": "t", "checkpoint_ns": "sub:1", "model": "m"}, "tags": ["x"]},
        stored,
        {"source": "loop"},
        {},
    )
    assert returned["configurable"] == {"thread_id": "t", "checkpoint_ns": "sub:1", "checkpoint_id": "1"}
    found = api.get_tuple(returned)
    assert found.checkpoint == stored
    assert found.config["configurable"] == returned["configurable"]


def test_an_unknown_checkpoint_is_none(api: Calls) -> None:
    put(api, "t", "1")
    assert api.get_tuple(config("t", "2")) is None
    assert api.get_tuple(config("other")) is None
    assert api.get_tuple(config("t", ns="other")) is None


@pytest.mark.parametrize("given", [{}, {"checkpoint_id": None}, {"checkpoint_id": ""}])
def test_no_parent_in_the_config_is_no_parent(api: Calls, given: dict[str, Any]) -> None:
    put(api, "t", "1")
    api.put({"configurable": {"thread_id": "t", "checkpoint_ns": "", **given}}, checkpoint("2"), {}, {})
    assert api.get_tuple(config("t", "2")).parent_config is None


def test_the_parent_is_the_configs_id_and_never_the_head(api: Calls) -> None:
    put(api, "t", "1")
    put(api, "t", "2", parent="1")
    put(api, "t", "3", parent="1")
    assert parent_id(api.get_tuple(config("t", "3"))) == "1"
    assert api.get_tuple(config("t", "3")).parent_config["configurable"] == {
        "thread_id": "t",
        "checkpoint_ns": "",
        "checkpoint_id": "1",
    }


def test_a_parent_that_was_never_stored_is_said_back(api: Calls) -> None:
    put(api, "t", "2", {"a": 1}, parent="1-never-stored")
    found = api.get_tuple(config("t"))
    assert parent_id(found) == "1-never-stored"
    assert parent_id(api.list(config("t"))[0]) == "1-never-stored"
    assert found.checkpoint["channel_values"] == {"a": 1}
    assert api.get_tuple(found.parent_config) is None


@pytest.mark.parametrize("none", [None, ""])
def test_an_empty_id_means_the_head(api: Calls, none: str | None) -> None:
    put(api, "t", "1")
    put(api, "t", "2", parent="1")
    found = api.get_tuple({"configurable": {"thread_id": "t", "checkpoint_id": none}})
    assert ids([found]) == ["2"]


def test_ids_are_opaque_and_the_greatest_is_the_head_of_puts_without_parents(api: Calls) -> None:
    for name in ("2-inner", "1", "10", "é", "z"):
        put(api, "t", name, {"name": name})
    assert ids(api.list(config("t"))) == ["é", "z", "2-inner", "10", "1"]
    assert values(api, "t") == {"name": "é"}
    assert values(api, "t", "2-inner") == {"name": "2-inner"}


def test_the_head_follows_parents_when_a_clock_runs_behind(api: Calls) -> None:
    put(api, "t", "9", {"n": 9})
    put(api, "t", "3", {"n": 3}, parent="9")
    assert values(api, "t") == {"n": 3}
    put(api, "t", "5", {"n": 5}, parent="3")
    assert values(api, "t") == {"n": 5}
    assert ids(api.list(config("t"))) == ["9", "5", "3"]


def test_a_late_sibling_becomes_another_head_unless_its_id_is_the_greatest(api: Calls) -> None:
    put(api, "t", "5")
    put(api, "t", "6", parent="5")
    put(api, "t", "4", parent="5")
    assert ids([api.get_tuple(config("t"))]) == ["6"]
    assert ids(api.list(config("t"))) == ["6", "5", "4"]
    put(api, "t", "7", parent="5")
    assert ids([api.get_tuple(config("t"))]) == ["7"]


def test_namespaces_have_heads_of_their_own(api: Calls) -> None:
    put(api, "t", "9", {"where": "root"})
    put(api, "t", "1", {"where": "child"}, ns="child:1")
    put(api, "t", "2", {"where": "other"}, ns="child:2")
    assert values(api, "t") == {"where": "root"}
    assert values(api, "t", ns="child:1") == {"where": "child"}
    assert values(api, "t", ns="child:2") == {"where": "other"}
    assert api.get_tuple(config("t", "9", "child:1")) is None


def test_the_head_is_the_same_for_a_second_saver_on_the_store(make_saver: Any) -> None:
    first = make_saver()
    put(first, "t", "9", {"n": 9})
    put(first, "t", "3", {"n": 3}, parent="9")
    second = make_saver()
    assert values(second, "t") == {"n": 3}
    put(second, "t", "4", {"n": 4}, parent="3")
    assert values(first, "t") == {"n": 4}


def test_putting_an_id_again_replaces_all_but_the_writes(api: Calls) -> None:
    put(api, "t", "1")
    put(api, "t", "2", {"a": "old", "gone": 1}, parent="1", metadata={"step": 1, "old": True})
    api.put_writes(config("t", "2"), [("ch", "kept")], "task")
    put(api, "t", "2", {"a": "new"}, metadata={"step": 2})
    found = api.get_tuple(config("t", "2"))
    assert found.checkpoint["channel_values"] == {"a": "new"}
    assert found.metadata == {"step": 2}
    assert found.parent_config is None
    assert found.pending_writes == [("task", "ch", "kept")]
    assert ids(api.list(config("t"))) == ["2", "1"]


def test_putting_an_older_id_again_does_not_move_the_head(api: Calls) -> None:
    put(api, "t", "1", {"n": 1})
    put(api, "t", "2", {"n": 2}, parent="1")
    put(api, "t", "1", {"n": 100})
    assert values(api, "t") == {"n": 2}
    assert values(api, "t", "1") == {"n": 100}


def test_a_checkpoint_comes_back_with_exactly_the_keys_it_was_given(api: Calls) -> None:
    full = checkpoint(
        "1",
        {"a": [1, None, "x"], "none": None, "": "unnamed"},
        updated_channels=["a", "none"],
        pending_sends=[],
        versions_seen={"node": {"a": 1}, "__input__": {}},
        a_key_of_tomorrow={"nested": [1, {"deep": None}]},
        another=None,
    )
    bare = {k: v for k, v in checkpoint("2").items() if k != "updated_channels"}
    api.put(config("t"), full, {}, full["channel_versions"])
    api.put(config("t"), bare, {}, {})
    assert api.get_tuple(config("t", "1")).checkpoint == full
    assert api.get_tuple(config("t", "2")).checkpoint == bare
    assert [found.checkpoint for found in api.list(config("t"))] == [bare, full]


@pytest.mark.parametrize("timestamp", [None, "", "not a date", "2026-01-31T12:00:00+05:45"])
def test_the_timestamp_is_not_interpreted(api: Calls, timestamp: object) -> None:
    stored = checkpoint("1", {"a": 1}, ts=timestamp)
    api.put(config("t"), stored, {}, stored["channel_versions"])
    assert api.get_tuple(config("t")).checkpoint == stored


@pytest.mark.parametrize("version", [7, 7.5, "00000000000000000000000000000007.0.25"])
def test_versions_of_every_kind_come_back_as_they_were(api: Calls, version: object) -> None:
    put(api, "t", "1", {"a": 1}, versions={"a": version})
    found = api.get_tuple(config("t")).checkpoint
    assert found["channel_versions"] == {"a": version}
    assert type(found["channel_versions"]["a"]) is type(version)
    assert found["channel_values"] == {"a": 1}


def test_a_new_version_without_a_value_is_absent_and_not_the_parents(api: Calls) -> None:
    put(api, "t", "1", {"a": "parent's", "b": 1}, versions={"a": 1, "b": 1})
    stored = checkpoint("2", {"b": 1}, channel_versions={"a": 2, "b": 1})
    api.put(config("t", "1"), stored, {}, {"a": 2})
    assert values(api, "t") == {"b": 1}
    assert api.get_tuple(config("t")).checkpoint["channel_versions"] == {"a": 2, "b": 1}


def test_an_unchanged_channel_is_carried_on(api: Calls) -> None:
    put(api, "t", "1", {"a": ["big"], "b": 1}, versions={"a": 1, "b": 1})
    api.put(
        config("t", "1"),
        checkpoint("2", {"a": ["big"], "b": 2}, channel_versions={"a": 1, "b": 2}),
        {},
        {"b": 2},
    )
    api.put(
        config("t", "2"),
        checkpoint("3", {"a": ["big"], "b": 3}, channel_versions={"a": 1, "b": 3}),
        {},
        {"b": 3},
    )
    assert values(api, "t") == {"a": ["big"], "b": 3}
    assert values(api, "t", "2") == {"a": ["big"], "b": 2}


def test_all_values_are_stored_whatever_new_versions_says(api: Calls) -> None:
    full = {"text": "a", "list": [1, 2], "map": {"k": [None]}, "bytes": b"\x00\xff"}
    api.put(config("copy"), checkpoint("1", full), {}, {})
    assert values(api, "copy") == full
    api.put(config("copy", "1"), checkpoint("2", {**full, "late": [3]}), {}, {})
    assert values(api, "copy") == {**full, "late": [3]}


def test_two_branches_with_one_version_keep_their_own_values(api: Calls) -> None:
    put(api, "t", "1", {"a": ["base"]}, versions={"a": 1})
    put(api, "t", "2", {"a": ["base", "left"]}, parent="1", versions={"a": 2})
    put(api, "t", "3", {"a": ["base", "right"]}, parent="1", versions={"a": 2})
    put(api, "other", "2", {"a": ["elsewhere"]}, versions={"a": 2})
    assert values(api, "t", "1") == {"a": ["base"]}
    assert values(api, "t", "2") == {"a": ["base", "left"]}
    assert values(api, "t", "3") == {"a": ["base", "right"]}
    assert values(api, "other", "2") == {"a": ["elsewhere"]}


def test_one_version_reused_for_another_value_does_not_bring_the_old_one_back(api: Calls) -> None:
    put(api, "t", "1", {"a": "first"}, versions={"a": 1})
    put(api, "t", "2", {"a": "second"}, parent="1", versions={"a": 1})
    assert values(api, "t", "2") == {"a": "second"}
    assert values(api, "t", "1") == {"a": "first"}


def test_what_is_returned_can_be_changed_without_changing_the_store(api: Calls) -> None:
    given = {"a": [1], "b": {"k": [1]}}
    put(api, "t", "1", given, versions={"a": 1, "b": 1}, metadata={"nested": {"k": [1]}})
    given["a"].append(99)  # type: ignore[attr-defined]
    for found in (api.get_tuple(config("t")), api.list(config("t"))[0]):
        found.checkpoint["channel_values"]["a"].append(2)
        found.checkpoint["channel_values"]["b"]["k"].clear()
        found.checkpoint["channel_versions"].clear()
        found.metadata["nested"]["k"].append(3)
    again = api.get_tuple(config("t"))
    assert again.checkpoint["channel_values"] == {"a": [1], "b": {"k": [1]}}
    assert again.checkpoint["channel_versions"] == {"a": 1, "b": 1}
    assert again.metadata == {"nested": {"k": [1]}}


def test_get_is_the_checkpoint_of_get_tuple(api: Calls) -> None:
    put(api, "t", "1", {"a": 1})
    assert api.get(config("t")) == api.get_tuple(config("t")).checkpoint
    assert api.get(config("nowhere")) is None

"""What a saver refuses: nothing is written then, and all that was there before can be read as before."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.graph import END, START, StateGraph
from saver_kit import Calls, checkpoint, config, ids, put
from typing_extensions import TypedDict

from ckpt.errors import InvalidInputError
from ckpt.history.commits import StoredValue
from ckpt.langgraph import CkptSaver
from ckpt.repository.incoming import NewCheckpoint, Typed

NO_TEXT = [None, 0, 1, 1.5, True, b"x", ("a",), ...]
"""All of them hashable, so that they can stand as the name of a channel."""


def unharmed(saver: Any) -> None:
    """Assert that a thread `t`, of the one checkpoint `1` without writes, is what it was, however it is read."""
    found = saver.get_tuple(config("t"))
    assert (found.checkpoint["channel_values"], found.pending_writes) == ({"a": 1}, [])
    assert ids(saver.list(None)) == ["1"]
    assert [info.checkpoint_id for info in saver.repository.log("t")] == ["1"]
    assert [info.name for info in saver.repository.threads()] == ["t"]
    assert saver.repository.fsck().problems == []


@pytest.mark.parametrize("odd", NO_TEXT, ids=repr)
def test_what_is_not_named_by_text_is_refused_before_anything_is_written(api: Calls, odd: Any) -> None:
    put(api.saver, "t", "1", {"a": 1})
    at = config("t", "1")
    for writes, task in [([("ok", 1), (odd, 1)], ("task", "")), ([("a", 1)], (odd, "")), ([("a", 1)], ("task", odd))]:
        with pytest.raises(InvalidInputError, match="not a str"):
            api.put_writes(at, writes, *task)
    with pytest.raises(InvalidInputError, match="the name of a channel"):
        api.put(at, checkpoint("2", {"a": 2, odd: 1}), {}, {})
    with pytest.raises(InvalidInputError, match="the id of a checkpoint"):
        api.put(at, checkpoint(odd, {"a": 2}), {}, {})
    with pytest.raises(InvalidInputError, match="the name of a channel"):
        api.saver.repository.commit("t", {odd: 1})
    unharmed(api.saver)


@pytest.mark.parametrize("odd", NO_TEXT, ids=repr)
def test_the_engine_refuses_the_same_from_any_framework(saver: CkptSaver, odd: Any) -> None:
    put(saver, "t", "1", {"a": 1})
    engine, value = saver.repository, Typed("json", b"1")
    for place in range(5):
        given = ["t", "", "1", "task", "path"]
        given[place] = odd
        with pytest.raises(InvalidInputError, match="not a str"):
            engine.put_writes(*given, [(0, "a", value)])  # type: ignore[arg-type]
    for write in [(0, odd, value), (0, "a", Typed(odd, b"1"))]:
        with pytest.raises(InvalidInputError, match="not a str"):
            engine.put_writes("t", "", "1", "task", "", [write])
    new = NewCheckpoint("t", "", "2", "1", None, value, value)
    changes: list[dict[str, Any]] = [{name: odd} for name in ("thread", "namespace", "checkpoint_id")]
    changes += [{name: odd} for name in ("parent_id", "timestamp") if odd is not None]
    changes += [{name: Typed(odd, b"1")} for name in ("header", "metadata")]
    for change in [*changes, {"channels": {odd: StoredValue("json", b"")}}]:
        with pytest.raises(InvalidInputError, match="not a str"):
            engine.put(new._replace(**change))
    unharmed(saver)


@pytest.mark.parametrize("given", [None, {}, [], 1, {"configurable": None}, {"configurable": []}, {"configurable": {}}])
def test_a_config_that_names_no_thread_is_refused(api: Calls, given: Any) -> None:
    calls = {
        "get_tuple": lambda: api.get_tuple(given),
        "put": lambda: api.put(given, checkpoint("1"), {}, {}),
        "put_writes": lambda: api.put_writes(given, [("a", 1)], "task"),
        "list": lambda: api.list(given),
        "history": lambda: api.get_delta_channel_history(config=given, channels=["a"]),
    }
    if given is None:
        del calls["list"]
    for call in calls.values():
        with pytest.raises(InvalidInputError, match="the config") as caught:
            call()
        assert "thread_id" in caught.value.hints[0]
    assert api.list(None) == []


@pytest.mark.parametrize("key", ["checkpoint_ns", "checkpoint_id"])
@pytest.mark.parametrize("odd", [0, 1, True, b"x", [], ["a"], {}], ids=repr)
def test_a_place_that_is_no_text_is_refused(api: Calls, key: str, odd: Any) -> None:
    put(api.saver, "t", "1", {"a": 1})
    given = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "1", key: odd}}
    for call in (
        lambda: api.get_tuple(given),
        lambda: api.list(given),
        lambda: api.put(given, checkpoint("2"), {}, {}),
        lambda: api.put_writes(given, [("a", 1)], "task"),
        lambda: api.get_delta_channel_history(config=given, channels=["a"]),
    ):
        with pytest.raises(InvalidInputError, match=f"{key} is a {type(odd).__name__}"):
            call()
    if key == "checkpoint_id":
        with pytest.raises(InvalidInputError, match=key):
            api.list(config("t"), before=given)
    unharmed(api.saver)


@pytest.mark.parametrize("odd", ["a/b", "x", "\n", "☃" * 600, float("inf"), float("nan"), [1], ...], ids=repr)
def test_what_is_no_version_has_no_next_one(saver: CkptSaver, odd: object) -> None:
    with pytest.raises(InvalidInputError, match="no version of a channel"):
        saver.get_next_version(odd, None)


class State(TypedDict, total=False):
    count: int
    note: str


def test_a_commit_is_read_and_continued_like_any_checkpoint(api: Calls) -> None:
    saver = api.saver
    graph = StateGraph(State)
    graph.add_node("step", lambda state: {"count": state["count"] + 1})
    graph.add_edge(START, "step")
    graph.add_edge("step", END)
    compiled = graph.compile(checkpointer=saver)
    compiled.invoke({"count": 1}, config("t", ns=None))
    made = saver.repository.commit("t", {"count": 41, "note": "by hand", "pair": (1, {2})}, metadata={"why": "test"})

    found = api.get_tuple(config("t"))
    assert found.checkpoint["id"] == made.checkpoint_id
    assert found.checkpoint["channel_values"] == {"count": 41, "note": "by hand", "pair": (1, {2})}
    assert (found.metadata["source"], found.metadata["why"]) == ("commit", "test")
    assert ids(api.list(config("t")))[0] == made.checkpoint_id
    assert ids(api.list(None, filter={"why": "test"})) == [made.checkpoint_id]
    seen = api.get_delta_channel_history(config=config("t"), channels=["count"])
    assert seen["count"]["seed"] == 2

    state = compiled.get_state(config("t", ns=None))
    assert (state.values, state.next) == ({"count": 41, "note": "by hand"}, ())
    assert compiled.invoke({"note": "again"}, config("t", ns=None)) == {"count": 42, "note": "again"}
    rows = ids(api.list(config("t")))
    child = rows[rows.index(made.checkpoint_id) - 1]
    seen = api.get_delta_channel_history(config=config("t", child), channels=["count", "note"])
    assert (seen["count"]["seed"], seen["note"]["seed"]) == (41, "by hand")
    assert compiled.get_state(config("t", made.checkpoint_id, ns=None)).values["count"] == 41

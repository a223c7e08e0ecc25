"""Lifetimes under LangGraph: what the saver's methods see of an expired thread, and runs that outlast it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from clock_kit import Clock
from graph_kit import Delta4, Log, delta_graph, steps_graph, subgraph, thread
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from saver_kit import Calls, config, ids, put, values

from ckpt.errors import ThreadDeletedError, ThreadNotFoundError

FACTORY = Callable[..., Any]


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture(params=["sync", "async"])
def hourly(request: pytest.FixtureRequest, make_saver: FACTORY, time: Clock) -> Calls:
    """A saver whose threads live an hour, with a thread of two checkpoints and one of them with writes."""
    saver = make_saver(ttl="1h")
    put(saver, "t", "01", {"x": 1})
    put(saver, "t", "02", {"x": 2}, parent="01")
    put(saver, "t", "021", {"y": 1}, ns="sub", metadata={"parents": {"": "02"}})
    saver.put_writes(config("t", "02"), [("x", 3)], "task")
    return Calls(saver, request.param == "async")


def test_every_method_takes_an_expired_thread_for_absent(hourly: Calls, time: Clock) -> None:
    assert len(hourly.list(config("t", ns=None))) == 3
    time.after(hours=1)
    assert hourly.get_tuple(config("t")) is None
    assert hourly.get_tuple(config("t", "02")) is None
    assert hourly.get_tuple(config("t", ns="sub")) is None
    for where in (None, config("t"), config("t", ns=None), config("t", "02")):
        assert hourly.list(where) == []
    assert hourly.list(None, filter={}, before=config("t", "99")) == []
    with pytest.raises(ThreadNotFoundError):
        hourly.copy_thread("t", "copy")
    hourly.prune(["t"], strategy="keep_latest")
    hourly.delete_for_runs(["a run"])
    assert hourly.get_delta_channel_history(config=config("t"), channels=["x"])["x"]["writes"] == []
    hourly.delete_thread("t")
    put(hourly.saver, "t", "11", {"x": 4})
    assert ids(hourly.list(None)) == ["11"]


def test_reading_renews_when_asked(make_saver: FACTORY, backend: str, time: Clock) -> None:
    if backend == "memory":
        saver = make_saver(ttl={"default_ttl": 60, "refresh_on_read": True})
    else:
        make_saver(ttl="1h")
        saver = make_saver(ttl={"default_ttl": 60, "refresh_on_read": True})
    put(saver, "t", "01", {"x": 1})
    reads: list[Callable[[], Any]] = [
        lambda: saver.get_tuple(config("t")),
        lambda: saver.get_tuple(config("t", "01")),
        lambda: list(saver.list(config("t"))),
        lambda: list(saver.list(None)),
        lambda: saver.get_delta_channel_history(config=config("t"), channels=["x"]),
    ]
    for read in reads:
        time.after(minutes=59)
        assert read()
    time.after(minutes=60)
    assert saver.get_tuple(config("t")) is None


def test_late_writes_revive_and_are_refused_after_the_sweep(hourly: Calls, time: Clock) -> None:
    time.after(hours=1)
    hourly.put_writes(config("t", "02"), [("x", 4)], "late")
    assert values(hourly.saver, "t") == {"x": 2}
    assert [each[0] for each in hourly.get_tuple(config("t")).pending_writes] == ["late", "task"]
    time.after(hours=1)
    hourly.saver.repository.sweep()
    with pytest.raises(ThreadDeletedError, match="has expired"):
        hourly.put_writes(config("t", "02"), [("x", 4)], "later")
    with pytest.raises(ThreadDeletedError, match="has expired"):
        put(hourly.saver, "t", "03", {"x": 4}, parent="02")


# -- graphs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["sync", "exit"])
def test_a_run_whose_step_takes_longer_than_the_lifetime(make_saver: FACTORY, time: Clock, durability: Any) -> None:
    saver = make_saver(ttl="1h")
    builder = StateGraph(Log)

    def slow(state: Log) -> dict[str, Any]:
        time.after(hours=3)
        return {"log": ["slow"]}

    builder.add_node("slow", slow)
    builder.add_node("after", lambda state: {"log": ["after"]})
    builder.add_edge(START, "slow")
    builder.add_edge("slow", "after")
    builder.add_edge("after", END)
    graph = builder.compile(checkpointer=saver)
    graph.invoke({"log": ["begin"]}, thread(), durability=durability)
    assert graph.get_state(thread()).values["log"] == ["begin", "slow", "after"]
    graph.invoke({"log": ["again"]}, thread(), durability=durability)
    expected = ["begin", "slow", "after", "again", "slow", "after"]
    assert graph.get_state(thread()).values["log"] == expected
    assert saver.repository.fsck().problems == []


@pytest.mark.parametrize("persistence", [None, True], ids=["each run anew", "persistent"])
def test_a_subgraph_that_begins_after_the_thread_expired(
    make_saver: FACTORY, time: Clock, persistence: bool | None
) -> None:
    """Its first checkpoint has no parent, and belongs to the run above all the same."""
    saver = make_saver(ttl="1h")
    inner = StateGraph(Log)
    inner.add_node("one", lambda state: {"log": ["one"]})
    inner.add_node("two", lambda state: {"log": ["two"]})
    inner.add_edge(START, "one")
    inner.add_edge("one", "two")
    inner.add_edge("two", END)
    child = inner.compile(checkpointer=persistence)

    def node(state: Log) -> dict[str, Any]:
        time.after(hours=2)
        return {"log": child.invoke({"log": ["child"]})["log"]}

    outer = StateGraph(Log)
    outer.add_node("before", lambda state: {"log": ["before"]})
    outer.add_node("node", node)
    outer.add_edge(START, "before")
    outer.add_edge("before", "node")
    outer.add_edge("node", END)
    graph = outer.compile(checkpointer=saver)
    graph.invoke({"log": ["begin"]}, thread(), durability="sync")
    assert graph.get_state(thread()).values["log"] == ["begin", "before", "child", "one", "two"]
    assert [each.metadata["step"] for each in graph.get_state_history(thread())] == [2, 1, 0, -1]


def test_an_interrupted_thread_expires_too_and_begins_anew(make_saver: FACTORY, time: Clock) -> None:
    runs: list[str] = []
    saver = make_saver(ttl="1h")
    graph = subgraph(saver, runs, None)
    graph.invoke({"log": ["first"]}, thread())
    time.after(minutes=59)
    assert graph.get_state(thread()).next == ("child",)
    graph.invoke(Command(resume="yes"), thread())
    assert "inner=yes" in graph.get_state(thread()).values["log"]
    graph.invoke({"log": ["second"]}, thread())
    time.after(hours=1)
    assert graph.get_state(thread()).values == {}
    graph.invoke({"log": ["third"]}, thread())
    assert graph.get_state(thread()).values["log"] == ["third", "before"]
    saver.repository.gc(grace=timedelta(0))
    graph.invoke(Command(resume="no"), thread())
    log = graph.get_state(thread()).values["log"]
    assert (log[0], log.count("inner=no"), log.count("inner=yes")) == ("third", 1, 0)
    assert saver.repository.fsck().problems == []


def test_forks_and_deltas_of_an_expired_thread(make_saver: FACTORY, time: Clock) -> None:
    saver = make_saver(ttl="1h")
    graph = delta_graph(saver, Delta4)
    for turn in range(4):
        graph.invoke({"log": [f"in {turn}"], "turn": turn}, thread())
    whole = graph.get_state(thread()).values
    time.after(minutes=30)
    saver.copy_thread("t", "copy")
    saver.repository.expire("copy", None)
    time.after(minutes=30)
    for _ in range(2):
        assert graph.get_state(thread()).values == {}
        assert graph.get_state(thread("copy")).values == whole
        saver.repository.gc(grace=timedelta(0))
    graph.invoke({"log": ["in 9"], "turn": 9}, thread("copy"))
    assert graph.get_state(thread("copy")).values["log"][: len(whole["log"])] == whole["log"]


def test_a_store_with_lifetimes_and_retention_at_once(make_saver: FACTORY, time: Clock) -> None:
    saver = make_saver(ttl={"default_ttl": 60, "sweep_interval_minutes": 1 / 60_000}, retention="keep_latest")
    graph = steps_graph(saver)
    for turn in range(40):
        graph.invoke({"log": [turn]}, thread(f"t{turn % 4}"))
        time.after(minutes=2)
    assert {
        name: len(list(saver.list(config(name)))) <= 24 for name in saver.repository.thread_names()
    } == dict.fromkeys(["t0", "t1", "t2", "t3"], True)
    time.after(minutes=60)
    assert list(saver.list(None)) == []
    saver.repository.gc(grace=timedelta(0))
    assert saver.repository.stats().objects == 0


def test_writes_of_a_subgraph_that_come_before_its_checkpoint_belong_to_the_run_above(
    make_saver: FACTORY, time: Clock
) -> None:
    """LangGraph sends both at once, and names the checkpoint above with either."""
    saver = make_saver(ttl="1h")
    put(saver, "t", "1", {"a": 1})
    time.after(hours=2)
    ahead = config("t", "2", "child")
    ahead["configurable"]["checkpoint_map"] = {"": "1"}
    saver.put_writes(ahead, [("a", 2)], "task")
    put(saver, "t", "2", {"a": 2}, ns="child", metadata={"parents": {"": "1"}})
    put(saver, "t", "3", {"a": 3}, parent="1")
    assert ids(saver.list(config("t"))) == ["3", "1"]
    assert saver.get_tuple(config("t", "2", "child")).pending_writes == [("task", "a", 2)]
    # Of what is not there any more, nothing is continued.
    time.after(hours=2)
    strange = config("t", "5", "child")
    strange["configurable"]["checkpoint_map"] = {"": "4", 7: "3", "x": None}
    saver.put_writes(strange, [("a", 2)], "task")
    assert ids(saver.list(config("t"))) == []

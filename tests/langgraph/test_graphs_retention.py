"""Retention under LangGraph: real graphs go on as if nothing had been pruned, under every policy."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypedDict

import pytest
from graph_kit import (
    Delta4,
    Delta1000,
    chat_graph,
    delta_graph,
    human,
    noting_graph,
    parallel_graph,
    plain,
    question_ids,
    state,
    steps_graph,
    subgraph,
    thread,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from ckpt.langgraph import CkptSaver

POLICIES: dict[str, Any] = {
    "latest": "keep_latest",
    "last": {"keep_last": 3},
    "age": {"keep_within": "1s"},
    "both": {"keep_last": 2, "keep_within": "1s"},
}
MakeSaver = Callable[..., CkptSaver]


@pytest.fixture(params=list(POLICIES))
def pruning(request: pytest.FixtureRequest, make_saver: MakeSaver, monkeypatch: pytest.MonkeyPatch) -> CkptSaver:
    """A saver that prunes at nearly every put; what is an hour old or less is too old for it."""
    monkeypatch.setattr("ckpt.repository.upkeep._SLACK", 0)
    saver = make_saver(retention=POLICIES[request.param])
    real = saver.repository._upkeep._retention
    if real.within is not None:
        within = timedelta(microseconds=1)
        monkeypatch.setattr(saver.repository._upkeep, "_retention", type(real)(real.last, within))
    return saver


def settled(saver: CkptSaver) -> None:
    """Prune to what the policy leaves, and collect."""
    saver.repository.gc(grace=timedelta(0))


def test_a_chat_reads_as_without_retention(pruning: CkptSaver) -> None:
    graph, whole = chat_graph(pruning), chat_graph(InMemorySaver())
    for turn in range(12):
        for each in (graph, whole):
            each.invoke(human(f"turn {turn}"), thread())
        assert state(graph, thread()) == state(whole, thread())
        if turn % 5 == 4:
            settled(pruning)
    kept = list(graph.get_state_history(thread()))
    assert 1 <= len(kept) <= 14
    assert len(list(whole.get_state_history(thread()))) == 60
    settled(pruning)
    assert len(list(graph.get_state_history(thread()))) <= 3
    assert state(graph, thread()) == state(whole, thread())
    assert pruning.repository.fsck().problems == []


def test_interrupted_threads_resume_after_every_prune(pruning: CkptSaver) -> None:
    runs: list[str] = []
    graph = parallel_graph(pruning, runs)
    for turn in range(4):
        runs.clear()
        graph.invoke({"log": [f"turn {turn}"]}, thread())
        for answered in ("p", "q", "r"):
            settled(pruning)
            open_questions = question_ids(graph, thread())
            assert answered in open_questions
            graph.invoke(Command(resume={open_questions[answered]: f"{answered}{turn}"}), thread())
        log = graph.get_state(thread()).values["log"]
        assert log[-1] == "last"
        assert {f"p=p{turn}", f"q=q{turn}", f"r=r{turn}", "busy"} <= set(log)
        assert runs.count("busy") == 1


@pytest.mark.parametrize("persistence", [None, True], ids=["each run anew", "persistent"])
def test_a_subgraph_that_waits_for_an_answer(pruning: CkptSaver, persistence: bool | None) -> None:
    runs: list[str] = []
    graph, whole = subgraph(pruning, runs, persistence), subgraph(InMemorySaver(), [], persistence)
    for turn in range(5):
        for each in (graph, whole):
            each.invoke({"log": [f"turn {turn}"]}, thread())
        settled(pruning)
        waiting = graph.get_state(thread(), subgraphs=True)
        assert waiting.next == ("child",)
        assert waiting.tasks[0].state.next == ("ask",)
        for each in (graph, whole):
            each.invoke(Command(resume=f"yes {turn}"), thread())
        settled(pruning)
        assert state(graph, thread()) == state(whole, thread())
    assert runs.count("inner first") == 5
    assert pruning.repository.fsck().problems == []


def test_time_travel_to_a_tag(pruning: CkptSaver) -> None:
    graph = steps_graph(pruning, "abcdef")
    graph.invoke({"log": ["first"]}, thread(), interrupt_before=["d"])
    pruning.repository.tag("before-d", "@", thread="t")
    before = state(graph, thread())
    graph.invoke(None, thread())
    for turn in range(6):
        graph.invoke({"log": [turn]}, thread())
    settled(pruning)
    place = pruning.config("tag:before-d")
    for what in ("values", "next", "step"):
        assert state(graph, place)[what] == before[what]
    forked = graph.invoke(None, place)
    assert forked["log"] == ["first", *"abcdef"]
    pruning.repository.fork("tag:before-d", "again", thread="t")
    assert graph.invoke(None, thread("again"))["log"] == ["first", *"abcdef"]
    settled(pruning)
    assert state(graph, pruning.config("tag:before-d"))["next"] == ("d",)


def answers(graph: Any, *questions: str, name: str = "t") -> list[str]:
    """Ask one after another, and return what the subgraph remembers at last."""
    return [graph.invoke({"question": each}, thread(name)) for each in questions][-1]["answer"]


@pytest.mark.parametrize("by", ["fork", "checkout", "checkout, pruned and forked before"])
def test_a_subgraph_remembers_at_a_tag_what_it_did_there(pruning: CkptSaver, by: str) -> None:
    graph, repository = noting_graph(pruning, True), pruning.repository
    assert answers(graph, "one", "two") == ["one", "two"]
    repository.tag("good", "t")
    if "forked" in by:
        repository.fork("t~3", "before")
    answers(graph, "three", "secret four")
    settled(pruning)
    if by == "fork":
        repository.fork("tag:good", "f")
    else:
        if "pruned" in by:
            repository.prune(["t"], keep_last=1)
        repository.checkout("tag:good", thread="t")
    settled(pruning)
    assert answers(graph, "five", name="f" if by == "fork" else "t") == ["one", "two", "five"]
    assert repository.fsck().problems == []


def test_every_checkpoint_that_stays_leads_to_what_subgraphs_remembered(pruning: CkptSaver) -> None:
    saver = CkptSaver("memory://")
    graph, whole = noting_graph(pruning, True), noting_graph(saver, True)
    for question in "abcdefgh":
        assert answers(graph, question) == answers(whole, question)
        if question == "d":
            settled(pruning)
    for last in (False, True):
        kept = len(list(graph.get_state_history(thread())))
        for back in range(kept):
            name = f"{back} {last}"
            for each in (pruning, saver):
                each.repository.fork(f"t~{back}", name)
            assert answers(graph, "then", name=name) == answers(whole, "then", name=name)
            pruning.delete_thread(name)
        settled(pruning)
    saver.close()


def test_what_the_subgraphs_of_tasks_made_goes_with_the_steps_they_ran_in(pruning: CkptSaver) -> None:
    graph = noting_graph(pruning, None)
    counts = []
    for number in range(30):
        assert answers(graph, str(number)) == [str(number)]
        counts.append(len(list(pruning.list(thread()))))
    # Seven of each turn, of which the last few turns stay.
    assert max(counts) <= 56
    settled(pruning)
    assert len(list(pruning.list(thread()))) <= 7
    timeline = pruning.repository.timeline("t")
    assert timeline is not None
    assert len(timeline.namespaces()) <= 2
    assert pruning.repository.fsck().problems == []


def test_a_fork_of_a_pruned_thread_goes_on(pruning: CkptSaver) -> None:
    graph = steps_graph(pruning)
    for turn in range(6):
        graph.invoke({"log": [turn]}, thread())
    settled(pruning)
    oldest = list(graph.get_state_history(thread()))[-1]
    pruning.copy_thread("t", "copy")
    pruning.repository.fork(f"ckpt:{oldest.config['configurable']['checkpoint_id']}", "fork", thread="t")
    for name in ("copy", "fork", "t"):
        for turn in range(6):
            graph.invoke({"log": [f"{name} {turn}"]}, thread(name))
    settled(pruning)
    for name in ("copy", "fork", "t"):
        log = graph.get_state(thread(name)).values["log"]
        assert log[:5] == [0, "a", "b", "c", 1]
        assert [each for each in log if isinstance(each, str) and re.match(r"\w+ \d", each)] == [
            f"{name} {turn}" for turn in range(6)
        ]
    pruning.delete_thread("t")
    settled(pruning)
    assert graph.get_state(thread("copy")).values["log"][-1] == "c"
    assert pruning.repository.fsck().problems == []


@pytest.mark.parametrize("schema", [Delta4, Delta1000])
def test_delta_channels_are_rebuilt(pruning: CkptSaver, schema: type) -> None:
    graph, whole = delta_graph(pruning, schema), delta_graph(InMemorySaver(), schema)
    for turn in range(10):
        for each in (graph, whole):
            each.invoke({"log": [f"in {turn}"], "turn": turn}, thread())
        assert plain(graph.get_state(thread()).values) == plain(whole.get_state(thread()).values)
        if turn % 4 == 3:
            settled(pruning)
    fresh = delta_graph(CkptSaver(pruning.repository), schema)
    assert plain(fresh.get_state(thread()).values) == plain(whole.get_state(thread()).values)
    assert len(fresh.get_state(thread()).values["log"]) == 40
    assert pruning.repository.fsck().problems == []


async def test_async_runs_are_pruned_as_well(pruning: CkptSaver) -> None:
    graph = chat_graph(pruning)
    for turn in range(8):
        await graph.ainvoke(human(f"turn {turn}"), thread())
    assert len([each async for each in graph.aget_state_history(thread())]) <= 14
    assert len((await graph.aget_state(thread())).values["messages"]) == 32


def test_under_everything_nothing_goes(make_saver: MakeSaver) -> None:
    saver = make_saver(retention="everything")
    graph = chat_graph(saver)
    for turn in range(12):
        graph.invoke(human(f"turn {turn}"), thread())
    settled(saver)
    assert len(list(graph.get_state_history(thread()))) == 60


class Counting(TypedDict):
    n: int


def looping_graph(saver: CkptSaver, *, rounds: int) -> Any:
    """A loop of two nodes, one of which gives way to a third in the first round and the last."""
    builder = StateGraph(Counting)
    for name in ("plan", "work", "approve"):
        builder.add_node(name, lambda state: {"n": state["n"] + 1})
    builder.add_edge(START, "plan")
    builder.add_conditional_edges(
        "plan", lambda state: "approve" if state["n"] == 1 or state["n"] >= rounds else "work", ["work", "approve"]
    )
    builder.add_edge("work", "plan")
    builder.add_conditional_edges("approve", lambda state: END if state["n"] >= rounds else "work", ["work", END])
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("by", ["ckpt", "langgraph"])
def test_a_rewind_to_before_a_rare_node_keeps_no_history_from_being_pruned(make_saver: MakeSaver, by: str) -> None:
    saver = make_saver()
    graph = looping_graph(saver, rounds=40)
    graph.invoke({"n": 0}, {**thread(), "recursion_limit": 100})
    if by == "ckpt":
        saver.repository.rewind("t", 2)
    else:
        graph.invoke(None, saver.config("t~2"), interrupt_before="*")
    before = state(graph, thread())
    assert sum(len(report.removed) for report in saver.repository.prune(["t"], keep_last=1)) > 38
    settled(saver)
    assert saver.repository.stats().checkpoints == saver.repository.fsck().checkpoints <= 2
    assert state(graph, thread()) == before
    assert graph.invoke(None, thread())["n"] == 41

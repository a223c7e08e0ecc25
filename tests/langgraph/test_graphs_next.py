"""What `next` and `status` say of a checkpoint is what LangGraph's own history says, however a node is started."""

from __future__ import annotations

import operator
from contextlib import nullcontext
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.func import entrypoint
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

from ckpt.langgraph import CkptSaver


class State(TypedDict, total=False):
    out: Annotated[list[str], operator.add]


def _ask(state: State) -> State:
    return {"out": [interrupt("?")]}


def _graph(*edges: tuple[Any, str], ask: str = "", defer: str = "") -> StateGraph[State]:
    builder = StateGraph(State)
    names = {name for starts, end in edges for name in (*((starts,) if isinstance(starts, str) else starts), end)}
    for name in sorted(names - {START}):
        action = _ask if name == ask else lambda state, name=name: {"out": [name]}
        builder.add_node(name, action, defer=name == defer)
    for starts, end in edges:
        builder.add_edge(list(starts) if isinstance(starts, tuple) else starts, end)
    return builder


def _sends() -> StateGraph[State]:
    builder = _graph((START, "plan"))
    builder.add_node("work", _ask)
    builder.add_conditional_edges("plan", lambda state: [Send("work", {"out": []}) for _ in range(3)], ["work"])
    return builder


def _command() -> StateGraph[State]:
    builder = StateGraph(State)
    builder.add_node("a", lambda state: Command(goto=[Send("y", {"out": []}), "z"]), destinations=("y", "z"))
    builder.add_node("y", _ask)
    builder.add_node("z", lambda state: {"out": ["z"]})
    builder.add_edge(START, "a")
    return builder


GRAPHS = {
    "edges": lambda: _graph((START, "a"), ("a", "b"), ("b", "c"), ask="c"),
    "join": lambda: _graph((START, "a"), (START, "b"), (("a", "b"), "c"), ask="c"),
    "join that waits": lambda: _graph((START, "a"), ("a", "b"), (("a", "b"), "c"), ask="b"),
    "names with a plus": lambda: _graph((START, "a"), (START, "a+b"), (("a", "a+b"), "c"), ask="c"),
    "deferred": lambda: _graph((START, "a"), ("a", "b"), ("a", "c"), ("b", "d"), ("d", "c"), ask="c", defer="c"),
    "deferred join": lambda: _graph(
        (START, "a"), (START, "b"), (("a", "b"), "c"), ("b", "d"), ("d", "e"), ask="e", defer="c"
    ),
    "sends": _sends,
    "command": _command,
}


@pytest.mark.parametrize("make", GRAPHS.values(), ids=GRAPHS)
def test_next_is_what_get_state_says(make: Any) -> None:
    place: Any = {"configurable": {"thread_id": "t"}}
    with CkptSaver("memory://") as saver:
        graph = make().compile(checkpointer=saver)
        graph.invoke({"out": []}, place)
        _same(saver, graph, place)
        assert saver.repository.resolve("t").status == "interrupted"
        answers = {each.id: "yes" for each in graph.get_state(place).interrupts}
        graph.invoke(Command(resume=answers), place)
        _same(saver, graph, place)
        assert saver.repository.resolve("t").status == "done"
        assert not any(each.name.startswith("join:") and not each.internal for each in _channels(saver))
        _ran_what_was_next(saver)


@pytest.mark.parametrize("seen", [{}, {"c": {}}, {"c": {"join:a+b:c": 2}}, {"c": {"join:a+b:c": 3}}], ids=str)
@pytest.mark.parametrize("joined", [{"a"}, {"b", "a"}], ids=sorted)
def test_a_join_that_its_node_has_seen_starts_nothing(joined: set[str], seen: Any) -> None:
    place: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    with CkptSaver("memory://") as saver:
        graph = GRAPHS["join"]().compile(checkpointer=saver)
        versions: Any = {"join:a+b:c": 3}
        checkpoint: Any = {**empty_checkpoint(), "channel_values": {"join:a+b:c": joined}}
        checkpoint |= {"channel_versions": versions, "versions_seen": seen}
        saver.put(place, checkpoint, {"source": "loop", "step": 1}, versions)
        _same(saver, graph, place)
        [info] = saver.repository.log(thread="t")
        assert info.next == (("c",) if len(joined) == 2 and seen.get("c", {}).get("join:a+b:c") != 3 else ())


def test_what_the_functional_api_runs_is_the_start() -> None:
    place: Any = {"configurable": {"thread_id": "t"}}
    with CkptSaver("memory://") as saver:

        @entrypoint(checkpointer=saver)
        def letter(text: str) -> str:
            return f"{text}: {interrupt('sign?')}"

        letter.invoke("Dear Ana", place)
        waiting = saver.repository.resolve("t")
        assert (waiting.next, waiting.status, waiting.stopped) == (("__start__",), "interrupted", ("letter",))
        assert letter.invoke(Command(resume="yes"), place) == "Dear Ana: yes"
        told = [(info.next, info.status) for info in saver.repository.log(thread="t")]
        assert told == [((), "done"), (("__start__",), "pending")]


def test_a_thread_that_has_more_to_run_is_not_idle() -> None:
    def place(name: str) -> Any:
        return {"configurable": {"thread_id": name}}

    with CkptSaver("memory://") as saver:
        edges = _graph((START, "a"), ("a", "b"))
        asking = _graph((START, "a"), ("a", "b"), ask="b").compile(checkpointer=saver)
        failing = _graph((START, "a"), ("a", "c"))
        failing.add_node("d", lambda state: 1 / 0)
        failing.add_edge("c", "d")
        plain = edges.compile(checkpointer=saver)
        plain.invoke({"out": []}, place("finished"))
        plain.invoke({"out": []}, place("rewound"))
        saver.repository.rewind("rewound", 1)
        asking.invoke({"out": []}, place("asking"))
        edges.compile(checkpointer=saver, interrupt_before=["b"]).invoke({"out": []}, place("paused"))
        for _ in plain.stream({"out": []}, place("broken off"), stream_mode="updates"):
            break
        with pytest.raises(ZeroDivisionError):
            failing.compile(checkpointer=saver).invoke({"out": []}, place("failed"))
        assert {each.name: each.status for each in saver.repository.threads()} == {
            "finished": "idle",
            "rewound": "pending",
            "asking": "interrupted",
            "paused": "pending",
            "broken off": "pending",
            "failed": "error",
        }


@pytest.mark.parametrize("second", ["ask", "fail"])
def test_those_that_asked_or_failed_are_named_and_no_others(second: str) -> None:
    place: Any = {"configurable": {"thread_id": "t"}}
    fails = second == "fail"

    def risky(state: State) -> State:
        if fails:
            raise ValueError("no")
        return _ask(state)

    builder = _graph((START, "x"), (START, "y"), (START, "z"), ask="x")
    builder.add_node("plan", lambda state: Command(goto=[Send("part", {"out": [each]}) for each in "12"]))
    builder.add_node("part", lambda state: {"out": state["out"]} if state["out"] == ["1"] else risky(state))
    builder.add_edge("z", "plan")
    builder.add_node("risky", risky)
    builder.add_edge("x", "risky")
    with CkptSaver("memory://") as saver:
        graph = builder.compile(checkpointer=saver)
        graph.invoke({"out": []}, place)
        head = saver.repository.resolve("t")
        assert (head.status, set(head.next), head.stopped) == ("interrupted", {"x", "y", "z"}, ("x",))
        with pytest.raises(ValueError, match="no") if fails else nullcontext():
            graph.invoke(Command(resume="yes"), place)
        head = saver.repository.resolve("t")
        assert (head.status, head.stopped) == (("error", ("risky",)) if fails else ("interrupted", ("risky",)))
        fails = False
        if second == "fail":
            graph.invoke(None, place)
        graph.invoke(Command(resume="yes"), place)
        head = saver.repository.resolve("t")
        assert (head.status, set(head.next), head.stopped) == ("interrupted", {"part"}, ("part",))
        assert {task.name for task in graph.get_state(place).tasks if task.interrupts} == {"part"}


def test_to_check_out_the_head_changes_nothing_and_keeps_its_question() -> None:
    place: Any = {"configurable": {"thread_id": "t"}}
    with CkptSaver("memory://") as saver:
        graph = _graph((START, "a"), ("a", "b"), ask="b").compile(checkpointer=saver)
        graph.invoke({"out": []}, place)
        head = saver.repository.resolve("t")
        assert saver.repository.checkout("t") == saver.repository.checkout(head.spec) == head
        assert saver.repository.operations() == []
        assert graph.invoke(Command(resume="yes"), place) == {"out": ["a", "yes"]}
        assert saver.repository.checkout(head.spec).parents == (head.id,)


def _same(saver: CkptSaver, graph: Any, place: Any) -> None:
    told = [set(snapshot.next) for snapshot in graph.get_state_history(place)]
    assert [set(info.next) for info in saver.repository.log(thread="t")] == told


def _channels(saver: CkptSaver) -> list[Any]:
    repository = saver.repository
    return [channel for info in repository.log(thread="t") for channel in repository.channels(info)]


def _ran_what_was_next(saver: CkptSaver) -> None:
    infos = {info.checkpoint_id: info for info in saver.repository.log(thread="t")}
    steps = [info for info in infos.values() if info.source == "loop"]
    assert len(steps) > 2
    for info in steps:
        assert set(info.nodes) == set(infos[info.parent_checkpoint_id or ""].next) - {START}


def test_what_a_send_started_ran_in_every_round() -> None:
    builder = StateGraph(State)
    builder.add_node("plan", lambda state: {"out": ["plan"]})
    builder.add_node("work", lambda state: {"out": ["work"]})
    builder.add_edge(START, "plan")
    builder.add_conditional_edges(
        "plan", lambda state: [Send("work", {"out": []})] * 2 if len(state["out"]) < 9 else [], ["work"]
    )
    builder.add_edge("work", "plan")
    with CkptSaver("memory://") as saver:
        builder.compile(checkpointer=saver).invoke({"out": []}, {"configurable": {"thread_id": "t"}})
        _ran_what_was_next(saver)
        steps = [info.nodes for info in reversed(saver.repository.log(thread="t"))]
    assert steps == [(), (), *[("plan",), ("work",)] * 3, ("plan",)]


def test_a_question_that_an_input_drops_did_not_run() -> None:
    place: Any = {"configurable": {"thread_id": "t"}}
    with CkptSaver("memory://") as saver:
        graph = _graph((START, "a"), ("a", "b"), ask="b").compile(checkpointer=saver)
        graph.invoke({"out": []}, place)
        graph.invoke({"out": ["again"]}, place)
        steps = [(info.source, info.nodes) for info in reversed(saver.repository.log(thread="t"))]
    assert steps == [("input", ()), ("loop", ()), ("loop", ("a",)), ("input", ()), ("loop", ()), ("loop", ("a",))]


def test_of_a_checkpoint_whose_parent_was_pruned_no_nodes_are_told() -> None:
    with CkptSaver("memory://") as saver:
        graph = _graph((START, "a"), ("a", "b"), ("b", "c")).compile(checkpointer=saver)
        graph.invoke({"out": []}, {"configurable": {"thread_id": "t"}})
        saver.repository.prune(["t"], keep_last=2)
        saver.repository.gc(grace="0s")
        assert [info.nodes for info in saver.repository.log(thread="t")] == [("c",), ()]

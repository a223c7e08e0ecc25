"""Subgraphs in threads that were rewound or pruned while they wait: what they remember, and where they go on."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import pytest
from graph_kit import noting_graph, plain, thread
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt


def ask(graph: Any, question: str, place: Any, **options: Any) -> list[str]:
    answer: list[str] = plain(graph.invoke({"question": question}, place, **options))["answer"]
    return answer


def id_of(graph: Any, place: Any) -> str:
    return str(graph.get_state(place).config["configurable"]["checkpoint_id"])


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("addressed", [False, True], ids=["by its thread", "by its head"])
def test_a_rewound_subgraph_remembers_what_it_did_before_and_nothing_else(
    make_saver: Any, durability: Any, addressed: bool
) -> None:
    saver = make_saver()
    graph = noting_graph(saver, True)
    assert ask(graph, "one", thread(), durability=durability) == ["one"]
    one = id_of(graph, thread())
    assert ask(graph, "two", thread(), durability=durability) == ["one", "two"]
    saver.repository.checkout(f"ckpt:{one}", thread="t")
    for question, seen in (("three", ["one", "three"]), ("four", ["one", "three", "four"])):
        place = saver.config("t") if addressed else thread()
        assert ask(graph, question, place, durability=durability) == seen
    saver.repository.checkout(f"ckpt:{one}", thread="t")
    saver.copy_thread("t", "copy")
    assert ask(graph, "five", saver.config("copy") if addressed else thread("copy")) == ["one", "five"]


def test_the_history_of_a_rewound_subgraph_is_listed_whole(make_saver: Any) -> None:
    saver = make_saver()
    graph = noting_graph(saver, True)
    ask(graph, "one", thread())
    one = id_of(graph, thread())
    ask(graph, "two", thread())
    whole = list(saver.list(thread(checkpoint_ns="agent")))
    saver.repository.checkout(f"ckpt:{one}", thread="t")
    assert list(saver.list(thread(checkpoint_ns="agent"))) == whole
    for position, row in enumerate(whole):
        assert list(saver.list(thread(checkpoint_ns="agent"), before=row.config)) == whole[position + 1 :]
    rewound = list(saver.list(thread(checkpoint_ns="agent"), before=saver.config("t")))
    assert 0 < len(rewound) < len(whole)
    assert rewound == whole[-len(rewound) :]


class Noted(TypedDict):
    question: str
    notes: Annotated[list[str], operator.add]
    answer: list[str]


class Asked(TypedDict):
    question: str
    answer: list[str]


def waiting_graph(saver: Any, runs: list[str], persistence: bool | None, *, nested: bool = False) -> Any:
    """A subgraph that notes the question, then asks; if `nested`, in a subgraph of its own that lasts a task."""

    def note(state: Any) -> dict[str, Any]:
        runs.append("note")
        return {"notes": [state["question"]]}

    inner = StateGraph(Noted)
    inner.add_node("note", note)
    inner.add_node("ask", lambda state: {"answer": [interrupt("?")]})
    inner.add_edge(START, "note")
    inner.add_edge("note", "ask")
    child = inner.compile(checkpointer=None if nested else persistence)
    if nested:
        middle = StateGraph(Noted)
        middle.add_node("inner", child)
        middle.add_edge(START, "inner")
        child = middle.compile(checkpointer=persistence)
    outer = StateGraph(Asked)
    outer.add_node("agent", child)
    outer.add_edge(START, "agent")
    return outer.compile(checkpointer=saver)


def test_a_waiting_tip_that_a_rewind_left_behind_waits_where_it_did(make_saver: Any) -> None:
    runs: list[str] = []
    saver = make_saver()
    graph = waiting_graph(saver, runs, None)
    graph.update_state(thread(), {"question": "zero"}, as_node="agent")
    zero = id_of(graph, thread())
    graph.invoke({"question": "one"}, thread())
    tip = graph.get_state(thread()).config
    waiting = plain(graph.get_state(tip, subgraphs=True).tasks[0].state.values)
    assert waiting == {"question": "one", "notes": ["one"]}
    saver.repository.checkout(f"ckpt:{zero}", thread="t")
    graph = waiting_graph(make_saver(), runs, None)
    found = graph.get_state(tip, subgraphs=True).tasks[0].state
    assert (plain(found.values), found.next) == (waiting, ("ask",))
    runs.clear()
    assert plain(graph.invoke(Command(resume="yes"), tip)) == {"question": "one", "answer": ["yes"]}
    assert runs == []


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("persistence", [None, True])
def test_a_subgraph_that_waits_goes_on_after_a_prune_as_without_one(
    make_saver: Any, persistence: bool | None, nested: bool, edited: bool
) -> None:
    def scenario(saver: Any, *, prune: bool) -> Any:
        runs: list[str] = []
        graph = waiting_graph(saver, runs, persistence, nested=nested)
        graph.invoke({"question": "one"}, thread())
        if edited:
            graph.update_state(thread(), {"question": "edited"})
        if prune:
            saver.prune(["t"])
            saver.repository.gc(grace="0s")
        runs.clear()
        return plain(graph.invoke(Command(resume="yes"), thread())), runs

    assert scenario(make_saver(), prune=True) == scenario(InMemorySaver(), prune=False)

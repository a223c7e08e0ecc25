"""What only this store offers, under real graphs: forks, checkouts, copies, prunes of waiting threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from graph_kit import (
    chat_graph,
    fan_graph,
    history,
    human,
    parallel_graph,
    plain,
    question_ids,
    state,
    steps_graph,
    subgraph,
    thread,
)
from langgraph.types import Command, interrupt
from saver_kit import config


def answer(graph: Any, place: dict[str, Any], name: str, value: str) -> Any:
    """Answer one of the open questions."""
    return plain(graph.invoke(Command(resume={question_ids(graph, place)[name]: value}), place))


def checkpoint_with_next(graph: Any, place: dict[str, Any], following: tuple[str, ...]) -> str:
    """The revision of the newest checkpoint whose next nodes are these."""
    found = next(each for each in graph.get_state_history(place) if each.next == following)
    return f"ckpt:{found.config['configurable']['checkpoint_id']}"


@pytest.mark.parametrize("answered", [[], ["q"], ["r", "p"]], ids=len)
@pytest.mark.parametrize("collect", [False, True])
def test_prune_of_a_thread_with_some_questions_answered(make_saver: Any, answered: list[str], collect: bool) -> None:
    runs: list[str] = []
    saver = make_saver()
    graph = parallel_graph(saver, runs)
    graph.invoke({"log": ["earlier"]}, thread())
    graph.invoke(Command(resume=dict.fromkeys(question_ids(graph, thread()).values(), "old")), thread())
    graph.invoke({"log": ["in"]}, thread())
    runs.clear()
    for name in answered:
        answer(graph, thread(), name, f"<{name}>")
    before = state(graph, thread())
    finished_before = [each for each in runs if "begins" not in each]
    saver.prune(["t"], strategy="keep_latest")
    if collect:
        saver.repository.gc()
    graph = parallel_graph(make_saver(), runs)
    assert state(graph, thread()) == before
    assert len(history(graph, thread())) == 1
    assert sorted(question_ids(graph, thread())) == [name for name in "pqr" if name not in answered]
    for name in "pqr":
        if name not in answered:
            result = answer(graph, thread(), name, f"<{name}>")
    assert result["log"][-6:] == ["in", "busy", "p=<p>", "q=<q>", "r=<r>", "last"]
    finished = [each for each in runs if "begins" not in each]
    assert sorted(finished) == sorted(["last", *(f"{name} ends" for name in "pqr")])
    assert finished[: len(finished_before)] == finished_before


def test_prune_of_a_fan_out_that_waits(make_saver: Any) -> None:
    runs: list[str] = []

    def work(given: Any) -> dict[str, Any]:
        item = given["item"]
        value = interrupt({"question": item}) if item in "bd" else item.upper()
        runs.append(item)
        return {"done": [f"{item}={value}"]}

    saver = make_saver()
    fan_graph(saver, work).invoke({"items": list("abcd")}, thread())
    answer(fan_graph(saver, work), thread(), "d", "late")
    saver.prune(["t"])
    saver.repository.gc()
    result = answer(fan_graph(make_saver(), work), thread(), "b", "last")
    assert result["done"] == ["planned", "a=A", "b=last", "c=C", "d=late", "joined 5"]
    assert sorted(runs) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("persistence", [None, True])
def test_prune_while_a_subgraph_waits(make_saver: Any, persistence: bool | None) -> None:
    runs: list[str] = []
    saver = make_saver()
    graph = subgraph(saver, runs, persistence)
    graph.invoke({"log": ["in"]}, thread())
    halted = state(graph, thread(), subgraphs=True)
    saver.copy_thread("t", "whole")
    saver.prune(["t"])
    saver.repository.gc()
    graph = subgraph(make_saver(), runs, persistence)
    assert state(graph, thread(), subgraphs=True) == halted
    runs.clear()
    result = graph.invoke(Command(resume="yes"), thread())
    assert runs == ["inner begins", "inner ends"]
    assert result == graph.invoke(Command(resume="yes"), thread("whole"))


@pytest.mark.parametrize("first", ["t", "copy"])
def test_source_and_copy_of_a_waiting_thread_both_resume(make_saver: Any, first: str) -> None:
    runs: list[str] = []
    saver = make_saver()
    graph = parallel_graph(saver, runs)
    graph.invoke({"log": ["in"]}, thread())
    answer(graph, thread(), "q", "shared")
    saver.copy_thread("t", "copy")
    assert history(graph, thread("copy")) == history(graph, thread())
    results = {}
    for name in (first, "copy" if first == "t" else "t"):
        graph = parallel_graph(make_saver(), runs)
        assert sorted(question_ids(graph, thread(name))) == ["p", "r"]
        answer(graph, thread(name), "r", name)
        results[name] = answer(graph, thread(name), "p", name)["log"]
    for name in ("t", "copy"):
        assert results[name] == ["in", "busy", f"p={name}", "q=shared", f"r={name}", "last"]
    assert runs.count("busy") == 1
    assert runs.count("q ends") == 1


@pytest.mark.parametrize("persistence", [None, True])
def test_a_copy_whose_subgraph_waits_resumes_inside_it(make_saver: Any, persistence: bool | None) -> None:
    runs: list[str] = []
    saver = make_saver()
    graph = subgraph(saver, runs, persistence)
    graph.invoke({"log": ["in"]}, thread())
    saver.copy_thread("t", "copy")
    saver.delete_thread("t")
    saver.repository.gc()
    runs.clear()
    graph = subgraph(make_saver(), runs, persistence)
    assert "inner=yes" in graph.invoke(Command(resume="yes"), thread("copy"))["log"]
    assert runs == ["inner begins", "inner ends"]


def test_a_fork_at_the_head_of_a_waiting_thread_waits_too(make_saver: Any) -> None:
    runs: list[str] = []
    saver = make_saver()
    graph = parallel_graph(saver, runs)
    graph.invoke({"log": ["in"]}, thread())
    answer(graph, thread(), "p", "shared")
    saver.repository.fork("@", "fork", thread="t")
    assert sorted(question_ids(graph, thread("fork"))) == ["q", "r"]
    for name in ("fork", "t"):
        answer(graph, thread(name), "q", name)
        log = answer(graph, thread(name), "r", name)["log"]
        assert log == ["in", "busy", "p=shared", f"q={name}", f"r={name}", "last"]
    assert runs.count("p ends") == runs.count("busy") == 1


def test_a_fork_at_an_older_checkpoint_runs_its_next_nodes_again(make_saver: Any) -> None:
    saver = make_saver()
    graph = steps_graph(saver, "abcd")
    graph.invoke({"log": ["in"]}, thread())
    before = history(graph, thread())
    saver.repository.fork(checkpoint_with_next(graph, thread(), ("c",)), "fork", thread="t")
    fork = state(graph, thread("fork"))
    assert (fork["values"], fork["next"]) == ({"log": ["in", "a", "b"], "last": "b"}, ("c",))
    assert graph.invoke(None, thread("fork"))["log"] == ["in", "a", "b", "c", "d"]
    graph.update_state(thread("fork"), {"log": ["only here"]})
    assert history(graph, thread()) == before
    saver.delete_thread("t")
    graph = steps_graph(make_saver(), "abcd")
    assert state(graph, thread("fork"))["values"]["log"] == ["in", "a", "b", "c", "d", "only here"]
    assert [each["values"].get("log") for each in history(graph, thread("fork"))][-3:] == [
        ["in", "a"],
        ["in"],
        [],
    ]


def test_a_fork_cannot_see_what_its_source_does_later(make_saver: Any) -> None:
    saver = make_saver()
    graph = chat_graph(saver)
    graph.invoke(human("one"), thread())
    saver.repository.fork("@", "fork", thread="t")
    graph.invoke(human("two"), thread())
    later = graph.get_state(thread()).config["configurable"]["checkpoint_id"]
    assert saver.get_tuple(config("fork", later)) is None
    assert len(state(graph, thread("fork"))["values"]["messages"]) == 4
    graph.invoke(human("other"), thread("fork"))
    texts = [each[1] for each in state(graph, thread("fork"))["values"]["messages"] if each[0] == "human"]
    assert texts == ["one", "other"]


def asking_line(make: Callable[[], Any]) -> Any:
    """A graph that asks once, run to its end with the answer "old"."""
    runs: list[str] = []
    graph = parallel_graph(make(), runs, names=("p",), plain=False)
    graph.invoke({"log": ["in"]}, thread())
    answer(graph, thread(), "p", "old")
    return graph


def test_a_checkout_asks_again_and_keeps_the_old_branch(make_saver: Any) -> None:
    saver = make_saver()
    graph = asking_line(lambda: saver)
    old_tip = graph.get_state(thread()).config
    old_ids = [found.checkpoint["id"] for found in saver.list(config("t"))]
    saver.repository.checkout(checkpoint_with_next(graph, thread(), ("p",)), thread="t")
    graph = parallel_graph(make_saver(), [], names=("p",), plain=False)
    halted = state(graph, thread())
    assert (halted["values"]["log"], halted["next"], halted["source"]) == (["in"], ("p",), "fork")
    assert halted["interrupts"] == []
    newest = next(iter(saver.list(config("t")))).checkpoint["id"]
    assert newest > max(old_ids)
    assert "__interrupt__" in graph.invoke(None, thread())
    assert answer(graph, thread(), "p", "new")["log"] == ["in", "p=new", "last"]
    assert graph.get_state(old_tip).values["log"] == ["in", "p=old", "last"]
    assert set(old_ids) < {found.checkpoint["id"] for found in saver.list(config("t"))}


def test_rewind_and_a_new_input(make_saver: Any) -> None:
    saver = make_saver()
    graph = chat_graph(saver)
    for text in ("one", "two"):
        graph.invoke(human(text), thread())
    whole = state(graph, thread())
    saver.repository.rewind("t", 5)
    rewound = state(graph, thread())
    assert len(rewound["values"]["messages"]) == 4
    assert rewound["next"] == ()
    graph.invoke(human("instead"), thread())
    texts = [each[1] for each in state(graph, thread())["values"]["messages"] if each[0] == "human"]
    assert texts == ["one", "instead"]
    saver.repository.checkout(checkpoint_with_text(graph, "answer 7 to found two"), thread="t")
    assert state(graph, thread())["values"] == whole["values"]


def checkpoint_with_text(graph: Any, text: str) -> str:
    """The revision of the newest checkpoint whose last message says this."""
    found = next(
        each
        for each in graph.get_state_history(thread())
        if each.values.get("messages") and each.values["messages"][-1].content == text
    )
    return f"ckpt:{found.config['configurable']['checkpoint_id']}"


@pytest.mark.parametrize("persistence", [None, True])
@pytest.mark.parametrize("by", ["checkout", "fork"])
def test_going_back_brings_the_subgraphs_state_of_that_moment(
    make_saver: Any, persistence: bool | None, by: str
) -> None:
    runs: list[str] = []
    saver = make_saver()
    graph = subgraph(saver, runs, persistence)

    def turn(place: dict[str, Any], text: str) -> None:
        graph.invoke({"log": [text]}, place)
        graph.invoke(Command(resume=f"answer {text}"), place)

    for text in ("one", "three"):
        turn(thread("straight"), text)
    turn(thread(), "one")
    after_one = f"ckpt:{graph.get_state(thread()).config['configurable']['checkpoint_id']}"
    turn(thread(), "two")
    graph.invoke({"log": ["left waiting"]}, thread())
    if by == "checkout":
        saver.repository.checkout(after_one, thread="t")
        place = thread()
    else:
        saver.repository.fork(after_one, "fork", thread="t")
        place = thread("fork")
    graph = subgraph(make_saver(), runs, persistence)
    assert state(graph, place)["next"] == ()
    turn(place, "three")
    assert state(graph, place)["values"] == state(graph, thread("straight"))["values"]


@pytest.mark.parametrize("persistence", [None, True])
@pytest.mark.parametrize("by", ["checkout", "fork"])
def test_going_back_to_before_the_subgraph_ever_ran(make_saver: Any, persistence: bool | None, by: str) -> None:
    runs: list[str] = []
    saver = make_saver()
    graph = subgraph(saver, runs, persistence)
    graph.invoke({"log": ["in"]}, thread("straight"))
    expected = graph.invoke(Command(resume="yes"), thread("straight"))
    graph.invoke({"log": ["in"]}, thread())
    graph.invoke(Command(resume="old"), thread())
    target = checkpoint_with_next(graph, thread(), ("before",))
    place = thread() if by == "checkout" else thread("fork")
    if by == "checkout":
        saver.repository.checkout(target, thread="t")
    else:
        saver.repository.fork(target, "fork", thread="t")
    graph = subgraph(make_saver(), runs, persistence)
    halted = graph.invoke(None, place)
    assert [each.value["seen"] for each in halted["__interrupt__"]] == [3]
    assert graph.invoke(Command(resume="yes"), place) == expected


@pytest.mark.parametrize("persistence", [None, True])
def test_a_fork_at_the_head_resumes_inside_the_subgraph(make_saver: Any, persistence: bool | None) -> None:
    runs: list[str] = []
    saver = make_saver()
    graph = subgraph(saver, runs, persistence)
    graph.invoke({"log": ["in"]}, thread())
    saver.repository.fork("@", "fork", thread="t")
    runs.clear()
    for name in ("fork", "t"):
        assert f"inner={name}" in graph.invoke(Command(resume=name), thread(name))["log"]
    assert runs == ["inner begins", "inner ends"] * 2


def test_a_checkout_before_the_subgraph_runs_all_of_it_again(make_saver: Any) -> None:
    runs: list[str] = []
    saver = make_saver()
    graph = subgraph(saver, runs, None)
    graph.invoke({"log": ["in"]}, thread())
    graph.invoke(Command(resume="old"), thread())
    saver.repository.checkout(checkpoint_with_next(graph, thread(), ("child",)), thread="t")
    runs.clear()
    graph.invoke(None, thread())
    assert "inner=new" in graph.invoke(Command(resume="new"), thread())["log"]
    assert runs == ["inner first", "inner begins", "inner begins", "inner ends"]

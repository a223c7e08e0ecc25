"""Graphs that wait: before, after and inside nodes, side by side, edited while they wait."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from graph_kit import Log, asking, history, parallel_graph, plain, question_ids, state, steps_graph, thread
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command


@pytest.mark.parametrize("where", ["interrupt_before", "interrupt_after"])
def test_before_and_after_a_node(same: Callable[..., Any], where: str) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        def build() -> Any:
            return steps_graph(open_saver(), "abcd", **{where: ["b", "c"]})

        views = []
        for given in ({"log": ["in"]}, None, None):
            views.append(build().invoke(given, thread()))
            views.append(state(build(), thread()))
        return views, history(build(), thread())

    views, past = same(scenario)
    assert [len(view["log"]) for view in views[::2]] == ([2, 3, 5] if where == "interrupt_before" else [3, 4, 5])
    assert len(past) == 6


@pytest.mark.parametrize("asynchronous", [False, True])
def test_inside_a_node_with_several_questions(same: Callable[..., Any], asynchronous: bool) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        runs: list[str] = []

        def build() -> Any:
            builder = StateGraph(Log)
            builder.add_node("first", asking("first", runs))
            builder.add_node("second", asking("second", runs))
            builder.add_edge(START, "first")
            builder.add_edge("first", "second")
            builder.add_edge("second", END)
            return builder.compile(checkpointer=open_saver())

        views = []
        for given in ({"log": ["in"]}, Command(resume="yes"), Command(resume={"deep": [1, None]})):
            graph = build()
            result = asyncio.run(graph.ainvoke(given, thread())) if asynchronous else graph.invoke(given, thread())
            views.append(plain(result))
            views.append(state(build(), thread()))
        return views, runs, history(build(), thread())

    views, runs, _ = same(scenario)
    assert views[-2]["log"] == ["in", "first=yes", "second={'deep': [1, None]}"]
    assert runs == [
        "first begins",
        "first begins",
        "first ends",
        "second begins",
        "second begins",
        "second ends",
    ]


@pytest.mark.parametrize("order", list(itertools.permutations("pqr")), ids="".join)
def test_several_side_by_side_are_answered_in_any_order(same: Callable[..., Any], order: tuple[str, ...]) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        runs: list[str] = []

        def build() -> Any:
            return parallel_graph(open_saver(), runs)

        build().invoke({"log": ["in"]}, thread())
        views = [state(build(), thread())]
        for name in order:
            open_questions = question_ids(build(), thread())
            views.append(plain(build().invoke(Command(resume={open_questions[name]: f"<{name}>"}), thread())))
            views.append(state(build(), thread()))
        return views, [sorted(open_questions)], sorted(each for each in runs if "begins" not in each)

    views, _, finished = same(scenario)
    assert views[-1]["values"]["log"] == ["in", "busy", "p=<p>", "q=<q>", "r=<r>", "last"]
    assert finished == ["busy", "last", "p ends", "q ends", "r ends"]


def test_all_side_by_side_are_answered_at_once(same: Callable[..., Any]) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        runs: list[str] = []
        parallel_graph(open_saver(), runs).invoke({"log": []}, thread())
        graph = parallel_graph(open_saver(), runs)
        answers = {number: name * 2 for name, number in question_ids(graph, thread()).items()}
        result = plain(parallel_graph(open_saver(), runs).invoke(Command(resume=answers), thread()))
        return result, history(parallel_graph(open_saver(), runs), thread())

    assert same(scenario)[0]["log"] == ["busy", "p=pp", "q=qq", "r=rr", "last"]


def test_update_state_between_runs(same: Callable[..., Any]) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        steps_graph(open_saver()).invoke({"log": ["in"]}, thread())
        steps_graph(open_saver()).update_state(thread(), {"log": ["edited"], "last": "edit"})
        edited = state(steps_graph(open_saver()), thread())
        steps_graph(open_saver()).update_state(thread(), {"log": ["as a"]}, as_node="a")
        again = state(steps_graph(open_saver()), thread())
        result = steps_graph(open_saver()).invoke(None, thread())
        return edited, again, result, history(steps_graph(open_saver()), thread())

    edited, again, result, _ = same(scenario)
    assert (edited["next"], again["next"]) == ((), ("b",))
    assert result["log"] == ["in", "a", "b", "c", "edited", "as a", "b", "c"]


def test_update_state_of_a_thread_that_does_not_exist(same: Callable[..., Any]) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        steps_graph(open_saver()).update_state(thread(), {"log": ["made"]}, as_node="a")
        return steps_graph(open_saver()).invoke(None, thread()), history(steps_graph(open_saver()), thread())

    assert same(scenario)[0]["log"] == ["made", "b", "c"]


def test_update_state_while_waiting_before_a_node(same: Callable[..., Any]) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        def build() -> Any:
            return steps_graph(open_saver(), interrupt_before=["b"])

        build().invoke({"log": ["in"]}, thread())
        build().update_state(thread(), {"log": ["edited"]})
        halted = state(build(), thread())
        return halted, build().invoke(None, thread()), history(build(), thread())

    halted, result, _ = same(scenario)
    assert halted["next"] == ("b",)
    assert result["log"] == ["in", "a", "edited", "b", "c"]


def test_update_state_while_questions_are_open(same: Callable[..., Any]) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        runs: list[str] = []

        def build() -> Any:
            return parallel_graph(open_saver(), runs)

        build().invoke({"log": ["in"]}, thread())
        build().invoke(Command(resume={question_ids(build(), thread())["q"]: "answered"}), thread())
        build().update_state(thread(), {"log": ["edited"]}, as_node="p")
        halted = state(build(), thread())
        result = plain(build().invoke(None, thread()))
        return halted, result, state(build(), thread()), len(history(build(), thread()))

    same(scenario)


def test_a_fresh_input_while_waiting_starts_over(same: Callable[..., Any]) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        runs: list[str] = []

        def build() -> Any:
            return parallel_graph(open_saver(), runs)

        build().invoke({"log": ["one"]}, thread())
        build().invoke({"log": ["two"]}, thread())
        views = [state(build(), thread())]
        answers = {number: name for name, number in question_ids(build(), thread()).items()}
        views.append(plain(build().invoke(Command(resume=answers), thread())))
        return views, history(build(), thread())

    assert same(scenario)[0][1]["log"] == ["one", "two", "busy", "p=p", "q=q", "r=r", "last"]


def test_goto_and_update_of_a_command(same: Callable[..., Any]) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        steps_graph(open_saver(), "abcd").invoke({"log": ["in"]}, thread())
        result = steps_graph(open_saver(), "abcd").invoke(Command(update={"log": ["told"]}, goto="c"), thread())
        return result, history(steps_graph(open_saver(), "abcd"), thread())

    assert same(scenario)[0]["log"] == ["in", "a", "b", "c", "d", "told", "c", "d"]

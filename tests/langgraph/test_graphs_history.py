"""Going back: replay from an older checkpoint, branches from it, subgraphs with and without persistence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from graph_kit import at_step, chat_graph, history, human, plain, state, steps_graph, subgraph, thread
from langgraph.types import Command


def test_the_past_is_read_as_it_was(same: Callable[..., Any]) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        chat_graph(open_saver()).invoke(human("one"), thread())
        first = [(each.config, plain(each.values)) for each in chat_graph(open_saver()).get_state_history(thread())]
        for text in ("two", "three"):
            chat_graph(open_saver()).invoke(human(text), thread())
        graph = chat_graph(open_saver())
        assert [plain(graph.get_state(place).values) for place, _ in first] == [values for _, values in first]
        limited = [plain(each.values) for each in graph.get_state_history(thread(), limit=3)]
        inputs = [plain(each.values) for each in graph.get_state_history(thread(), filter={"source": "input"})]
        earlier = [plain(each.values) for each in graph.get_state_history(thread(), before=first[1][0])]
        return limited, inputs, earlier

    limited, inputs, earlier = same(scenario)
    assert [len(each) for each in (limited, inputs, earlier)] == [3, 3, 3]


def test_replay_from_an_older_checkpoint(same: Callable[..., Any]) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        steps_graph(open_saver(), "abcd").invoke({"log": ["in"]}, thread())
        place = at_step(steps_graph(open_saver(), "abcd"), thread(), 2)
        streamed = list(steps_graph(open_saver(), "abcd").stream(None, place, stream_mode="updates"))
        return (
            streamed,
            state(steps_graph(open_saver(), "abcd"), thread()),
            len(history(steps_graph(open_saver(), "abcd"), thread())),
        )

    streamed, last, _ = same(scenario)
    assert [next(iter(each)) for each in streamed] == ["c", "d"]
    assert last["values"]["log"] == ["in", "a", "b", "c", "d"]


def test_a_branch_from_an_older_checkpoint_and_both_tips_kept(same: Callable[..., Any]) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        def build() -> Any:
            return steps_graph(open_saver(), "abcd")

        build().invoke({"log": ["in"]}, thread())
        old_tip = build().get_state(thread()).config
        branch = build().update_state(at_step(build(), thread(), 2), {"log": ["other"]})
        result = build().invoke(None, branch)
        assert build().get_state(old_tip).values["log"] == ["in", "a", "b", "c", "d"]
        second = build().update_state(at_step(build(), thread(), 1), {"log": ["third"], "last": "x"})
        return result, build().invoke(None, second), state(build(), thread()), history(build(), thread())

    result, third, last, past = same(scenario)
    assert result["log"] == ["in", "a", "b", "other", "c", "d"]
    assert third["log"] == last["values"]["log"] == ["in", "a", "third", "b", "c", "d"]
    assert len(past) == 13


def test_a_run_with_new_input_from_an_older_checkpoint(same: Callable[..., Any]) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        for text in ("one", "two"):
            chat_graph(open_saver()).invoke(human(text), thread())
        graph = chat_graph(open_saver())
        place = next(each.config for each in graph.get_state_history(thread()) if len(each.values["messages"]) == 4)
        result = plain(chat_graph(open_saver()).invoke(human("instead"), place))
        return result, history(chat_graph(open_saver()), thread())

    result, _ = same(scenario)
    assert [each[1] for each in result["messages"] if each[0] == "human"] == ["one", "instead"]


PERSISTENCE = [None, True, False]


@pytest.mark.parametrize("persistence", [None, True])
def test_a_subgraph_that_asks(same: Callable[..., Any], persistence: bool | None) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        runs: list[str] = []
        views = []
        for turn in ("one", "two"):
            views.append(plain(subgraph(open_saver(), runs, persistence).invoke({"log": [turn]}, thread())))
            views.append(state(subgraph(open_saver(), runs, persistence), thread(), subgraphs=True))
            answer = Command(resume=f"answer {turn}")
            views.append(plain(subgraph(open_saver(), runs, persistence).invoke(answer, thread())))
        return views, runs, history(subgraph(open_saver(), runs, persistence), thread())

    views, runs, _ = same(scenario)
    assert "inner=answer two" in views[-1]["log"]
    assert runs == ["inner first", "inner begins", "inner begins", "inner ends"] * 2
    halted = views[1]["tasks"][0][4]
    assert halted["next"] == ("ask",)


@pytest.mark.parametrize("persistence", [None, True])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_subgraph_under_each_durability(same: Callable[..., Any], persistence: bool | None, durability: Any) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        runs: list[str] = []
        views = []
        for given in ({"log": ["in"]}, Command(resume="yes"), {"log": ["again"]}, Command(resume="no")):
            graph = subgraph(open_saver(), runs, persistence)
            views.append(plain(graph.invoke(given, thread(), durability=durability)))
        return views, runs

    same(scenario)


def test_a_subgraphs_state_is_updated_while_it_waits(same: Callable[..., Any]) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        runs: list[str] = []

        def build() -> Any:
            return subgraph(open_saver(), runs, None)

        build().invoke({"log": ["in"]}, thread())
        inner = build().get_state(thread(), subgraphs=True).tasks[0].state.config
        build().update_state(inner, {"log": ["edited inside"]})
        halted = state(build(), thread(), subgraphs=True)
        return halted, plain(build().invoke(Command(resume="yes"), thread())), runs

    same(scenario)


@pytest.mark.parametrize("persistence", PERSISTENCE)
def test_going_back_in_a_parent_with_a_subgraph(same: Callable[..., Any], persistence: bool | None) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        runs: list[str] = []

        def build() -> Any:
            return subgraph(open_saver(), runs, persistence)

        build().invoke({"log": ["in"]}, thread())
        build().invoke(Command(resume="first answer"), thread())
        place = next(each.config for each in build().get_state_history(thread()) if each.next == ("child",))
        views = [plain(build().invoke(None, place))]
        views.append(state(build(), thread()))
        views.append(plain(build().invoke(Command(resume="second answer"), thread())))
        return views, runs, history(build(), thread())

    views, _, _ = same(scenario)
    assert "inner=second answer" in views[-1]["log"]
    assert "inner=first answer" not in views[-1]["log"]


def test_a_subgraphs_own_history_is_listed_in_its_namespace(same: Callable[..., Any]) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        runs: list[str] = []
        subgraph(open_saver(), runs, True).invoke({"log": ["in"]}, thread())
        subgraph(open_saver(), runs, True).invoke(Command(resume="yes"), thread())
        inner = thread(checkpoint_ns="child")
        found = [
            (
                each.metadata["source"],
                each.metadata["step"],
                plain(each.checkpoint["channel_values"].get("log")),
            )
            for each in open_saver().list(inner)
        ]
        return found, sorted({each.config["configurable"]["checkpoint_ns"] for each in open_saver().list(thread())})

    found, namespaces = same(scenario)
    assert len(found) == 4
    assert namespaces == ["", "child"]

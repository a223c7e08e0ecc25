"""Whole runs: chat over several turns, streams, fan-out, durability, crashes, several threads at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from graph_kit import Log, chat_graph, fan_graph, history, human, plain, state, steps_graph, thread
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from saver_kit import config


def test_a_chat_of_several_turns(same: Callable[..., Any]) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        views = []
        for text in ("one", "two", "three"):
            graph = chat_graph(open_saver())
            views.append(plain(graph.invoke(human(text), thread("chat"))))
            graph.invoke(human(f"aside {text}"), thread(f"other-{text}"))
        graph = chat_graph(open_saver())
        return (
            views,
            state(graph, thread("chat")),
            history(graph, thread("chat")),
            history(graph, thread("other-two")),
        )

    views, _, past, _ = same(scenario)
    assert [len(view["messages"]) for view in views] == [4, 8, 12]
    assert len(past) == 15


def test_a_message_is_edited_and_removed_in_place(same: Callable[..., Any]) -> None:
    from langchain_core.messages import AIMessage, RemoveMessage

    def scenario(open_saver: Callable[[], Any]) -> Any:
        chat_graph(open_saver()).invoke(human("one"), thread())
        chat_graph(open_saver()).update_state(thread(), {"messages": [AIMessage("rewritten", id="ai-3")]})
        chat_graph(open_saver()).update_state(thread(), {"messages": [RemoveMessage(id="ai-1")]})
        return history(chat_graph(open_saver()), thread())

    newest = same(scenario)[0]
    assert [each[1] for each in newest["values"]["messages"]] == ["one", "found one", "rewritten"]


def test_stream_modes(same: Callable[..., Any]) -> None:
    modes = ["values", "updates", "checkpoints", "tasks"]

    def shown(mode: str, chunk: Any) -> Any:
        if mode == "checkpoints":
            return mode, plain(chunk["values"]), chunk["next"], chunk["metadata"]["step"]
        if mode == "tasks":
            return mode, chunk["name"], plain(chunk.get("input")), plain(chunk.get("result"))
        return mode, plain(chunk)

    def scenario(open_saver: Callable[[], Any]) -> Any:
        graph = chat_graph(open_saver())
        streamed = [shown(*each) for each in graph.stream(human("one"), thread(), stream_mode=modes)]
        return streamed, history(chat_graph(open_saver()), thread())

    streamed, past = same(scenario)
    assert len([each for each in streamed if each[0] == "checkpoints"]) == len(past) == 5


def test_astream(same: Callable[..., Any]) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        async def run() -> Any:
            graph = chat_graph(open_saver())
            streamed = []
            async for chunk in graph.astream(human("one"), thread(), stream_mode="values"):
                streamed.append(plain(chunk))
            async for chunk in chat_graph(open_saver()).astream(human("two"), thread(), stream_mode="updates"):
                streamed.append(plain(chunk))
            past = [plain(each.values) async for each in chat_graph(open_saver()).aget_state_history(thread())]
            return streamed, past

        return asyncio.run(run())

    streamed, past = same(scenario)
    assert len(streamed) == 7
    assert len(past) == 10


def test_a_stream_left_early_can_be_resumed(same: Callable[..., Any]) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        for _ in steps_graph(open_saver()).stream({"log": ["in"]}, thread(), durability="sync"):
            break
        halted = state(steps_graph(open_saver()), thread())
        finished = steps_graph(open_saver()).invoke(None, thread())
        return halted["values"]["log"][:1], finished

    assert same(scenario)[1]["log"] == ["in", "a", "b", "c"]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_durability(same: Callable[..., Any], durability: Any, asynchronous: bool) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        results = []
        for text in ("one", "two"):
            graph = chat_graph(open_saver())
            if asynchronous:
                work = graph.ainvoke(human(text), thread(), durability=durability)
                results.append(plain(asyncio.run(work)))
            else:
                results.append(plain(graph.invoke(human(text), thread(), durability=durability)))
        return results, history(chat_graph(open_saver()), thread())

    _, past = same(scenario)
    assert len(past) == (2 if durability == "exit" else 10)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_an_interrupt_under_each_durability(same: Callable[..., Any], durability: Any) -> None:
    def ask(state: Any) -> dict[str, Any]:
        return {"log": [interrupt("first?"), interrupt("second?")]}

    def build(saver: Any) -> Any:
        builder = StateGraph(Log)
        builder.add_node("ask", ask)
        builder.add_edge(START, "ask")
        builder.add_edge("ask", END)
        return builder.compile(checkpointer=saver)

    def scenario(open_saver: Callable[[], Any]) -> Any:
        views = []
        for given in ({"log": ["in"]}, Command(resume=1), Command(resume=2)):
            graph = build(open_saver())
            views.append(plain(graph.invoke(given, thread(), durability=durability)))
            views.append(state(build(open_saver()), thread()))
        return views

    assert same(scenario)[-2]["log"] == ["in", 1, 2]


def test_fan_out_by_send(same: Callable[..., Any]) -> None:
    items = [f"item-{n:02}" for n in range(12)]

    def scenario(open_saver: Callable[[], Any]) -> Any:
        graph = fan_graph(open_saver(), lambda given: {"done": [given["item"].upper()]})
        views = [graph.invoke({"items": items}, thread())]
        graph = fan_graph(open_saver(), lambda given: {"done": [given["item"] + " again"]})
        views.append(graph.invoke({"items": items[:3]}, thread()))
        return views, history(graph, thread())

    views, _ = same(scenario)
    assert views[0]["done"] == ["planned", *map(str.upper, items), "joined 13"]


def test_fan_out_where_some_ask(same: Callable[..., Any]) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        runs: list[str] = []

        def work(given: Any) -> dict[str, Any]:
            item = given["item"]
            if item in "bd":
                return {"done": [f"{item}={interrupt({'question': item})}"]}
            runs.append(item)
            return {"done": [item]}

        graph = fan_graph(open_saver(), work)
        graph.invoke({"items": list("abcd")}, thread())
        views = [state(fan_graph(open_saver(), work), thread())]
        for answered in ("d", "b"):
            graph = fan_graph(open_saver(), work)
            wanted = {each.value["question"]: each.id for each in graph.get_state(thread()).interrupts}
            views.append(plain(graph.invoke(Command(resume={wanted[answered]: answered * 2}), thread())))
        return views, sorted(runs), history(fan_graph(open_saver(), work), thread())

    views, runs, _ = same(scenario)
    assert views[-1]["done"] == ["planned", "a", "b=bb", "c", "d=dd", "joined 5"]
    assert runs == ["a", "c"]


class CrashedError(RuntimeError):
    """What a node raises in these tests."""


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_crash_in_a_node_and_a_resume_run_no_finished_sibling_again(
    same: Callable[..., Any], durability: Any
) -> None:
    def scenario(open_saver: Callable[[], Any]) -> Any:
        runs: list[str] = []
        broken = [True]
        siblings = threading.Semaphore(0)

        def build(saver: Any) -> Any:
            def well(name: str) -> Callable[[Any], dict[str, Any]]:
                def node(state: Any) -> dict[str, Any]:
                    runs.append(name)
                    return {"log": [name]}

                return node

            def crash(state: Any) -> dict[str, Any]:
                runs.append("crash")
                for _ in range(2 if broken[0] else 0):
                    siblings.acquire(timeout=10)
                if broken[0]:
                    raise CrashedError("on purpose")
                return {"log": ["mended"]}

            builder = StateGraph(Log)
            for name, node in (("one", well("one")), ("crash", crash), ("two", well("two"))):
                builder.add_node(name, node)
                builder.add_edge(START, name)
            builder.add_node("last", well("last"))
            builder.add_edge(["one", "crash", "two"], "last")
            builder.add_edge("last", END)
            return builder.compile(checkpointer=saver)

        with pytest.raises(CrashedError):
            # What a sibling wrote is kept by the time that its update is told.
            for _ in build(open_saver()).stream(
                {"log": ["in"]}, thread(), durability=durability, stream_mode=["updates", "custom"]
            ):
                siblings.release()
        halted = state(build(open_saver()), thread())
        broken[0] = False
        finished = build(open_saver()).invoke(None, thread(), durability=durability)
        return halted, finished, sorted(runs)

    halted, finished, runs = same(scenario)
    assert finished["log"] == ["in", "mended", "one", "two", "last"]
    assert runs == ["crash", "crash", "last", "one", "two"]
    assert any("on purpose" in (error or "") for _, _, _, error, _ in halted["tasks"])


def test_eight_graph_threads_at_once(saver: Any, make_saver: Any) -> None:
    found: dict[str, Any] = {}

    def run(name: str) -> None:
        graph = chat_graph(saver)
        for text in ("one", "two", "three"):
            found[name] = plain(graph.invoke(human(f"{text} of {name}"), thread(name)))

    workers = [threading.Thread(target=run, args=(f"thread-{n}",)) for n in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert len(found) == 8
    again = chat_graph(make_saver())
    for name, view in found.items():
        assert [each[1] for each in view["messages"] if each[0] == "human"] == [
            f"{text} of {name}" for text in ("one", "two", "three")
        ]
        assert plain(again.get_state(thread(name)).values) == view
        assert len(list(saver.list(config(name)))) == 15


def test_eight_graphs_in_one_event_loop(saver: Any) -> None:
    async def run() -> None:
        graph = chat_graph(saver)
        for text in ("one", "two"):
            results = await asyncio.gather(
                *(graph.ainvoke(human(f"{text} of {n}"), thread(f"thread-{n}")) for n in range(8))
            )
            assert [each["messages"][-1].content for each in results] == [
                f"answer {4 * (1 + ('one', 'two').index(text)) - 1} to found {text} of {n}" for n in range(8)
            ]

    asyncio.run(run())


def test_secrets_in_the_config_of_a_run_reach_no_checkpoint(saver: Any) -> None:
    chat_graph(saver).invoke(human("one"), thread(db_password="hunter2", my_api_key="hunter2", tenant="acme"))
    for found in saver.list(config("t")):
        assert "hunter2" not in repr(found)
        assert found.metadata["tenant"] == "acme"

"""The workloads: what LangGraph users do, in seven small programs that need no network.

Every run is a real graph on the saver it is given. `scale` shortens a run (fewer turns, steps, forks,
threads) and leaves the values their size; 1.0 is the run that the design's bars are about.

Not here: the conversation graph, which four of them share (`chat`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from langchain_core.messages import SystemMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from benchmarks.chat import Images, Model, Search, converse
from benchmarks.text import Writer

Saver = BaseCheckpointSaver[str]
Run = Callable[[Saver, float], None]


@dataclass(frozen=True)
class Workload:
    """One kind of use. `delta` is the same run with LangGraph's DeltaChannel, where one fits."""

    name: str
    title: str
    run: Run
    miniature: float  # the scale at which the tests run it
    delta: Run | None = None


def _count(full: int, scale: float) -> int:
    return max(2, round(full * scale))


def _chat(saver: Saver, scale: float, *, delta: bool = False) -> None:
    converse(saver, "chat", Search("chat"), turns=_count(250, scale), delta=delta)


def _images(saver: Saver, scale: float, *, delta: bool = False) -> None:
    converse(saver, "images", Images("images"), turns=_count(100, scale), delta=delta)


def _forks(saver: Saver, scale: float) -> None:
    converse(saver, "base", Search("forks"), turns=_count(100, scale))
    for number in range(_count(50, scale)):
        saver.copy_thread("base", f"fork-{number}")
        converse(saver, f"fork-{number}", Search(f"fork {number}"), turns=2)


def _threads(saver: Saver, scale: float) -> None:
    prompt = SystemMessage(Writer("prompt").prose(24_000), id="system-prompt")
    for number in range(_count(500, scale)):
        model = Model(f"thread {number}")
        converse(saver, model.writer.identifier(), model, turns=2, first=[prompt])


def _merge(old: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    return {**old, **new}


def _merge_all(old: dict[str, str], new: list[dict[str, str]]) -> dict[str, str]:
    merged = dict(old)
    for files in new:
        merged.update(files)
    return merged


class _Files(TypedDict):
    files: Annotated[dict[str, str], _merge]
    step: int


class _DeltaFiles(TypedDict):
    files: Annotated[dict[str, str], DeltaChannel(_merge_all)]
    step: int


def _files(saver: Saver, scale: float, *, delta: bool = False) -> None:
    """A coding agent: 40 files of 5 to 30 KB; each step edits a line or two of one, every eighth adds a
    file.
    """
    writer = Writer("files")
    steps = _count(100, scale)

    def edit(state: Any) -> dict[str, Any]:
        if state["step"] % 8 == 7:
            path = f"src/new/{'_'.join(writer.words(2))}_{state['step']}.py"
            return {"files": {path: writer.code(writer.size(1_000, 8_000))}, "step": state["step"] + 1}
        path = writer.random.choice(list(state["files"]))
        lines = state["files"][path].split("\n")
        for _ in range(writer.random.randint(1, 3)):
            place = writer.random.randrange(len(lines))
            lines[place : place + writer.random.randint(0, 1)] = [writer.line()]
        return {"files": {path: "\n".join(lines)}, "step": state["step"] + 1}

    builder = StateGraph(_DeltaFiles if delta else _Files)
    builder.add_node("edit", edit)
    builder.add_edge(START, "edit")
    builder.add_conditional_edges("edit", lambda state: END if state["step"] >= steps else "edit", ["edit", END])
    graph = builder.compile(checkpointer=saver)
    files = {
        f"src/{'/'.join(writer.words(2))}_{number}.py": writer.code(writer.size(5_000, 30_000)) for number in range(40)
    }
    config: Any = {"configurable": {"thread_id": "files"}, "recursion_limit": steps + 10}
    graph.invoke({"files": files, "step": 0}, config, durability="sync")


class _Research(TypedDict):
    briefing: str
    notes: Annotated[list[str], operator.add]
    round: int
    item: int


def _fanout(saver: Saver, scale: float) -> None:
    """A map-reduce agent: eight rounds of 20 workers, each of which is sent a copy of the whole state."""
    rounds = _count(8, scale)

    def plan(state: _Research) -> dict[str, Any]:
        return {"round": state["round"] + 1}

    def dispatch(state: _Research) -> list[Send]:
        return [Send("work", {**state, "item": item}) for item in range(20)]

    def work(state: _Research) -> dict[str, Any]:
        return {"notes": [Writer(f"note {state['round']} {state['item']}").prose(600)]}

    def gather(state: _Research) -> dict[str, Any]:
        return {"briefing": state["briefing"] + "\n\n" + Writer(f"gather {state['round']}").prose(2_000)}

    builder = StateGraph(_Research)
    builder.add_node("plan", plan)
    builder.add_node("work", work)
    builder.add_node("gather", gather)
    builder.add_edge(START, "plan")
    builder.add_conditional_edges("plan", dispatch, ["work"])
    builder.add_edge("work", "gather")
    builder.add_conditional_edges("gather", lambda state: END if state["round"] >= rounds else "plan", ["plan", END])
    graph = builder.compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "fanout"}, "recursion_limit": 3 * rounds + 10}
    start: Any = {"briefing": Writer("briefing").prose(60_000), "notes": [], "round": 0, "item": -1}
    graph.invoke(start, config, durability="sync")


class _Counter(TypedDict):
    count: int


def count_up(saver: Saver, thread: str, steps: int) -> None:
    """Count to `steps` on one thread: the smallest state there is, one checkpoint per step."""

    def count(state: _Counter) -> dict[str, int]:
        return {"count": state["count"] + 1}

    builder = StateGraph(_Counter)
    builder.add_node("count", count)
    builder.add_edge(START, "count")
    builder.add_conditional_edges("count", lambda state: END if state["count"] >= steps else "count", ["count", END])
    config: Any = {"configurable": {"thread_id": thread}, "recursion_limit": steps + 10}
    builder.compile(checkpointer=saver).invoke({"count": 0}, config, durability="sync")


def _tiny(saver: Saver, scale: float) -> None:
    for number in range(5):
        count_up(saver, f"counter-{number}", _count(100, scale))


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload(
            "chat",
            "chat of 250 turns (1,000 messages)",
            _chat,
            0.06,
            lambda s, scale: _chat(s, scale, delta=True),
        ),
        Workload(
            "files",
            "`files` dict, edited 100 times",
            _files,
            0.06,
            lambda s, scale: _files(s, scale, delta=True),
        ),
        Workload(
            "images",
            "large tool outputs with images, 100 turns",
            _images,
            0.06,
            lambda s, scale: _images(s, scale, delta=True),
        ),
        Workload("fanout", "fan-out, 8 rounds of 20 state copies", _fanout, 0.25),
        Workload("threads", "500 threads that share a prompt", _threads, 0.02),
        Workload("forks", "50 forks of a 100-turn chat", _forks, 0.06),
        Workload("tiny", "tiny state, 500 steps", _tiny, 0.2),
    )
}

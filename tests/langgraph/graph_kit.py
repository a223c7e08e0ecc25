"""Real graphs for the saver's tests, and views of their state that leave out what differs from run to run.

Every model is a function of its input, so one scenario run on two savers must give equal views.
States stand at module level because LangGraph resolves their annotations by name.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Interrupt, Send, interrupt

Scenario = Callable[[Callable[[], Any]], Any]


def thread(name: str = "t", **more: Any) -> dict[str, Any]:
    return {"configurable": {"thread_id": name, **more}}


def plain(value: Any) -> Any:
    """The value without anything that is made anew in each run."""
    if isinstance(value, BaseMessage):
        return (value.type, value.content, value.id, getattr(value, "tool_calls", None))
    if isinstance(value, Interrupt):
        return ("interrupt", plain(value.value))
    if isinstance(value, dict):
        # A result lists interrupts as parallel tasks happened to end; states are ordered, and compared as they are.
        return {
            key: sorted(plain(each), key=repr) if key == "__interrupt__" else plain(each) for key, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


def view(snapshot: Any) -> dict[str, Any]:
    """One state snapshot, subgraph states included."""
    metadata = snapshot.metadata or {}
    return {
        "values": plain(snapshot.values),
        "next": snapshot.next,
        "source": metadata.get("source"),
        "step": metadata.get("step"),
        "has parent": snapshot.parent_config is not None,
        "interrupts": plain(snapshot.interrupts),
        "tasks": [
            (
                task.name,
                plain(task.interrupts),
                plain(task.result),
                task.error and repr(task.error),
                view(task.state) if hasattr(task.state, "values") and hasattr(task.state, "tasks") else None,
            )
            for task in snapshot.tasks
        ],
    }


def state(graph: Any, place: dict[str, Any], subgraphs: bool = False) -> dict[str, Any]:
    return view(graph.get_state(place, subgraphs=subgraphs))


def history(graph: Any, place: dict[str, Any]) -> list[dict[str, Any]]:
    return [view(snapshot) for snapshot in graph.get_state_history(place)]


def at_step(graph: Any, place: dict[str, Any], step: int) -> dict[str, Any]:
    """The config of the newest checkpoint with this step."""
    return next(each.config for each in graph.get_state_history(place) if each.metadata["step"] == step)


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    calls: Annotated[int, operator.add]


def model(state: Chat) -> dict[str, Any]:
    """Ask for a tool after each human message, and answer after each tool message."""
    last = state["messages"][-1]
    number = len(state["messages"])
    if isinstance(last, HumanMessage):
        call = {"name": "look_up", "args": {"text": last.content}, "id": f"call-{number}"}
        return {"messages": [AIMessage("", id=f"ai-{number}", tool_calls=[call])], "calls": 1}
    return {"messages": [AIMessage(f"answer {number} to {last.content}", id=f"ai-{number}")], "calls": 1}


def tools(state: Chat) -> dict[str, Any]:
    last = state["messages"][-1]
    assert isinstance(last, AIMessage)
    return {
        "messages": [
            ToolMessage(f"found {call['args']['text']}", tool_call_id=call["id"], id=f"tool-{call['id']}")
            for call in last.tool_calls
        ]
    }


def chat_graph(saver: Any, **options: Any) -> Any:
    """model -> tools -> model until the model answers."""
    builder = StateGraph(Chat)
    builder.add_node("model", model)
    builder.add_node("tools", tools)
    builder.add_edge(START, "model")
    builder.add_conditional_edges(
        "model", lambda state: "tools" if state["messages"][-1].tool_calls else END, ["tools", END]
    )
    builder.add_edge("tools", "model")
    return builder.compile(checkpointer=saver, **options)


def human(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text, id=f"human-{text}")]}


class Log(TypedDict):
    log: Annotated[list[Any], operator.add]
    last: str


def steps_graph(saver: Any, names: Sequence[str] = "abc", **options: Any) -> Any:
    """A line of nodes, each of which writes its name."""
    builder = StateGraph(Log)
    for before, name in zip([START, *names], names, strict=False):
        builder.add_node(name, lambda state, name=name: {"log": [name], "last": name})
        builder.add_edge(before, name)
    builder.add_edge(names[-1], END)
    return builder.compile(checkpointer=saver, **options)


def asking(name: str, runs: list[str]) -> Callable[[Log], dict[str, Any]]:
    """A node that asks once, and notes in `runs` each time it begins and each time it ends."""

    def node(state: Log) -> dict[str, Any]:
        runs.append(f"{name} begins")
        answer = interrupt({"question": name, "seen": len(state["log"])})
        runs.append(f"{name} ends")
        return {"log": [f"{name}={answer}"]}

    return node


def parallel_graph(saver: Any, runs: list[str], names: Sequence[str] = ("p", "q", "r"), plain: bool = True) -> Any:
    """Nodes that ask side by side, one that does not ask beside them, and a last one after all."""

    def busy(state: Log) -> dict[str, Any]:
        runs.append("busy")
        return {"log": ["busy"]}

    def last(state: Log) -> dict[str, Any]:
        runs.append("last")
        return {"log": ["last"], "last": "done"}

    builder = StateGraph(Log)
    sides = [*names]
    for name in names:
        builder.add_node(name, asking(name, runs))
    if plain:
        builder.add_node("busy", busy)
        sides.append("busy")
    builder.add_node("last", last)
    for name in sides:
        builder.add_edge(START, name)
    builder.add_edge(sides, "last")
    builder.add_edge("last", END)
    return builder.compile(checkpointer=saver)


def question_ids(graph: Any, place: dict[str, Any]) -> dict[str, str]:
    """The interrupt id of each open question, by the node that asks."""
    return {each.value["question"]: each.id for each in graph.get_state(place).interrupts}


class Fan(TypedDict):
    items: list[str]
    done: Annotated[list[str], operator.add]


def fan_graph(saver: Any, work: Callable[[Any], dict[str, Any]]) -> Any:
    """One task for each item by Send, then one node that joins."""
    builder = StateGraph(Fan)
    builder.add_node("plan", lambda state: {"done": ["planned"]})
    builder.add_node("work", work)
    builder.add_node("join", lambda state: {"done": [f"joined {len(state['done'])}"]})
    builder.add_edge(START, "plan")
    builder.add_conditional_edges("plan", lambda state: [Send("work", {"item": item}) for item in state["items"]])
    builder.add_edge("work", "join")
    builder.add_edge("join", END)
    return builder.compile(checkpointer=saver)


def subgraph(saver: Any, runs: list[str], persistence: bool | None) -> Any:
    """A parent whose middle node is a graph of its own: it counts, asks, and answers."""

    def inner_first(state: Log) -> dict[str, Any]:
        runs.append("inner first")
        return {"log": [f"inner sees {len(state['log'])}"]}

    inner = StateGraph(Log)
    inner.add_node("first", inner_first)
    inner.add_node("ask", asking("inner", runs))
    inner.add_edge(START, "first")
    inner.add_edge("first", "ask")
    inner.add_edge("ask", END)
    outer = StateGraph(Log)
    outer.add_node("before", lambda state: {"log": ["before"]})
    outer.add_node("child", inner.compile(checkpointer=persistence))
    outer.add_node("after", lambda state: {"log": ["after"], "last": "after"})
    outer.add_edge(START, "before")
    outer.add_edge("before", "child")
    outer.add_edge("child", "after")
    outer.add_edge("after", END)
    return outer.compile(checkpointer=saver)


class Asked(TypedDict):
    question: str
    answer: list[str]


class Noting(TypedDict):
    question: str
    notes: Annotated[list[str], operator.add]
    answer: list[str]


def noting_graph(saver: Any, persistence: bool | None) -> Any:
    """A subgraph that notes each question and answers with its notes: all of them if it remembers."""
    inner = StateGraph(Noting)
    inner.add_node("note", lambda state: {"notes": [state["question"]]})
    inner.add_node("tell", lambda state: {"answer": state["notes"]})
    inner.add_edge(START, "note")
    inner.add_edge("note", "tell")
    outer = StateGraph(Asked)
    outer.add_node("agent", inner.compile(checkpointer=persistence))
    outer.add_edge(START, "agent")
    return outer.compile(checkpointer=saver)


def extend(base: list[Any], writes: Sequence[list[Any]]) -> list[Any]:
    """The delta reducer: lists one after another, in the order of the writes."""
    return [*base, *(each for write in writes for each in write)]


class Delta1(TypedDict):
    log: Annotated[list[Any], DeltaChannel(extend, list, snapshot_frequency=1)]
    turn: int


class Delta2(TypedDict):
    log: Annotated[list[Any], DeltaChannel(extend, list, snapshot_frequency=2)]
    turn: int


class Delta4(TypedDict):
    log: Annotated[list[Any], DeltaChannel(extend, list, snapshot_frequency=4)]
    turn: int


class Delta1000(TypedDict):
    log: Annotated[list[Any], DeltaChannel(extend, list, snapshot_frequency=1000)]
    turn: int


def delta_graph(saver: Any, schema: type) -> Any:
    """Two nodes side by side and one after them, all appending to a delta channel."""

    def writer(name: str) -> Callable[[Any], dict[str, Any]]:
        return lambda state: {"log": [f"{name}{state['turn']} after {len(state['log'])}"]}

    builder = StateGraph(schema)
    for name in ("left", "right", "end"):
        builder.add_node(name, writer(name))
    builder.add_edge(START, "left")
    builder.add_edge(START, "right")
    builder.add_edge(["left", "right"], "end")
    builder.add_edge("end", END)
    return builder.compile(checkpointer=saver)

"""Stores for the tests of the command line: a real LangGraph graph, and the framework-free API.

The graph answers questions, asks for approval in the middle of a node, and files the answer in a subgraph.
Its state stands at module level because LangGraph resolves annotations by name.
"""

from __future__ import annotations

import json
import operator
import shutil
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from click.testing import CliRunner, Result
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt

import ckpt
from ckpt.cli.main import cli
from ckpt.langgraph import CkptSaver

SUPPORT = "support-42"
WAITING = "support-43"
LETTER = "Dear Ana,\n\nwe refunded the whole order.\nThe money arrives within three days.\n\nYour support team"


class Support(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    ticket: dict[str, Any]
    notes: Annotated[list[str], operator.add]


def agent(state: Support) -> dict[str, Any]:
    last = state["messages"][-1]
    number = len(state["messages"])
    if isinstance(last, HumanMessage):
        call = {"name": "refund", "args": {"order": "O-17"}, "id": f"call-{number}"}
        return {
            "messages": [AIMessage("", id=f"ai-{number}", tool_calls=[call])],
            "ticket": {"status": "open", "customer_id": "C-1902"},
        }
    return {"messages": [AIMessage("Refund issued, reference R-881", id=f"ai-{number}")]}


def approve(state: Support) -> dict[str, Any]:
    answer = interrupt({"question": "approve the refund?"})
    return {"notes": [f"approved: {answer}"]}


def tools(state: Support) -> dict[str, Any]:
    number = len(state["messages"])
    result = ToolMessage("refund booked as R-881", tool_call_id=f"call-{number - 1}", id=f"tool-{number}")
    return {"messages": [result], "ticket": {**state["ticket"], "status": "refunded", "refund_ref": "R-881"}}


def support_graph(saver: CkptSaver) -> Any:
    """agent -> approve (asks) -> tools -> agent -> archive (a subgraph)."""
    inner = StateGraph(Support)
    inner.add_node("write", lambda state: {"notes": ["letter written"]})
    inner.add_node("file", lambda state: {"notes": ["filed"]})
    inner.add_edge(START, "write")
    inner.add_edge("write", "file")
    inner.add_edge("file", END)
    builder = StateGraph(Support)
    builder.add_node("agent", agent)
    builder.add_node("approve", approve)
    builder.add_node("tools", tools)
    builder.add_node("archive", inner.compile())
    builder.add_edge(START, "agent")
    builder.add_conditional_edges(
        "agent",
        lambda state: "approve" if state["messages"][-1].tool_calls else "archive",
        ["approve", "archive"],
    )
    builder.add_edge("approve", "tools")
    builder.add_edge("tools", "agent")
    builder.add_edge("archive", END)
    return builder.compile(checkpointer=saver)


def place(thread: str, **more: Any) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread, **more}}


def question(text: str, name: str = "human-0") -> dict[str, Any]:
    return {"messages": [HumanMessage(text, id=name)], "notes": []}


def write_graph_store(path: Path) -> None:
    """Run one thread to its end and leave another one waiting for approval."""
    with CkptSaver(path) as saver:
        graph = support_graph(saver)
        graph.invoke(question("please refund the whole order"), place(SUPPORT))
        graph.invoke(Command(resume="yes"), place(SUPPORT))
        graph.invoke(question("where is my parcel?"), place(WAITING))


def write_plain_store(path: Path) -> None:
    """Commit three states of a thread without a framework, and fork it."""
    with ckpt.open(str(path), actor="ana@laptop") as repository:
        thread = repository.thread("plans")
        thread.commit({"title": "draft", "steps": ["a", "b"], "size": 3, "letter": LETTER})
        thread.commit({"title": "draft", "steps": ["a", "b", "c"], "size": 5, "letter": LETTER})
        letter = LETTER.replace("whole", "last")
        thread.commit({"title": "final", "steps": ["c", "a", "b"], "size": 8, "letter": letter})
        thread.fork("plans-b", "@~1", values={"title": "other"})
        thread.tag("good", "@~1")


def write_shared_store(path: Path) -> None:
    """Commit a thread of the same name in the default graph and in another one."""
    for graph, threads in {"": ["plans"], "billing": ["inv-1", "plans"]}.items():
        with ckpt.open(str(path), graph=graph, actor="ana@laptop") as repository:
            for name in threads:
                repository.thread(name).commit({"title": f"{name} of {graph or 'nobody'}", "letter": LETTER})


def run(*arguments: str) -> Result:
    """Run one command line in this process."""
    return CliRunner().invoke(cli, list(arguments))


def succeed(*arguments: str) -> str:
    """Run a command that must work, and return its result."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def document(*arguments: str) -> Any:
    """Run a command that must work, and return its JSON document."""
    return json.loads(succeed(*arguments, "--json"))


def copied(source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy a store that nobody has open, and make it the one that commands find."""
    target = folder / "store.db"
    shutil.copy(source, target)
    monkeypatch.setenv("CKPT_STORE", str(target))
    return target

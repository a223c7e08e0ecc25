"""Stores with something of everything in them, made through the saver and the framework-free API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.types import Send

import ckpt
from ckpt.langgraph import CkptSaver

TASKS = [f"00000000-0000-4000-8000-00000000000{i}" for i in range(8)]
_WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")
SUBGRAPH = "ask:5f1c2b1e-0d3c-5b64-8f0e-d1a3c2b4e5f6"
PLAIN = {
    "text": "snow ☃, NUL \x00 and a lone surrogate \ud800",
    "numbers": [0, -1, 2**63, 2**80, 0.5, True, None],
    "kinds": ((1, "a"), {1, 2}, b"\x00\xff", Decimal("1.50"), datetime(2026, 1, 31, 12, tzinfo=UTC)),
    "files": {f"src/file_{i}.py": f"# {i}\nprint('hello')\n" * 12 for i in range(30)},
}
"""The state that the thread `plain` ends with."""


def messages(count: int) -> list[Any]:
    """Return a conversation; the first `n` messages of a longer one are those of a shorter one."""
    made: list[Any] = []
    for i in range(count):
        words = " ".join(Random(i).choices(_WORDS, k=40))
        if i % 3 == 0:
            made.append(HumanMessage(words, id=f"human-{i}"))
        elif i % 3 == 1:
            calls = [{"name": "search", "args": {"q": words}, "id": f"call-{i}"}]
            made.append(AIMessage("", id=f"ai-{i}", tool_calls=calls))
        else:
            made.append(ToolMessage(words, id=f"tool-{i}", tool_call_id=f"call-{i - 1}"))
    return made


def checkpoint_id(number: int) -> str:
    """Return an id that sorts as its number does."""
    return f"1f0e5b00-0000-6000-8000-{number:012d}"


def _config(thread: str, checkpoint: int | None = None, namespace: str = "") -> Any:
    configurable = {"thread_id": thread, "checkpoint_ns": namespace}
    if checkpoint is not None:
        configurable["checkpoint_id"] = checkpoint_id(checkpoint)
    return {"configurable": configurable}


def put(
    saver: CkptSaver,
    thread: str,
    number: int,
    values: dict[str, Any],
    *,
    parent: int | None = None,
    namespace: str = "",
    changed: tuple[str, ...] | None = None,
) -> None:
    """Put one checkpoint; channels not named in `changed` keep the parent's version."""
    versions = dict.fromkeys(values, f"{number:032}")
    if changed is not None:
        versions |= {name: f"{parent or 0:032}" for name in values if name not in changed}
    saver.put(
        _config(thread, parent, namespace),
        {
            "v": 4,
            "id": checkpoint_id(number),
            "ts": f"2026-01-31T12:{number // 60 % 60:02}:{number % 60:02}.000000+00:00",
            "channel_values": values,
            "channel_versions": versions,
            "versions_seen": {"agent": versions},
            "updated_channels": sorted(values),
        },
        {
            "source": "loop" if parent is not None else "input",
            "step": number,
            "parents": {},
            "run_id": "run-1",
        },
        {name: version for name, version in versions.items() if changed is None or name in changed},
    )


def put_writes(
    saver: CkptSaver,
    thread: str,
    number: int,
    writes: list[tuple[str, Any]],
    task: int = 0,
    namespace: str = "",
) -> None:
    """Attach writes of a task to a checkpoint."""
    saver.put_writes(_config(thread, number, namespace), writes, TASKS[task], f"~__pregel_pull, {task}")


def fill(path: Path) -> None:
    """Make the store that is kept as a fixture: small, and with every kind of record."""
    with CkptSaver(path) as saver:
        put(saver, "chat", 1, {"messages": messages(2), "count": 1})
        put_writes(saver, "chat", 1, [("messages", messages(3)[2:]), ("count", 2)])
        put(saver, "chat", 2, {"messages": messages(24), "count": 2}, parent=1)
        put(saver, "chat", 3, {"messages": messages(26), "count": 2}, parent=2, changed=("messages",))
        put(saver, "chat", 1, {"question": "inner"}, namespace=SUBGRAPH)
        put(saver, "chat", 2, {"question": "inner", "answer": 42}, parent=1, namespace=SUBGRAPH)
        put_writes(saver, "chat", 3, [("__interrupt__", ["approve?"]), ("x", 1)], task=1)
        put_writes(saver, "chat", 3, [("__interrupt__", ["approve? (again)"]), ("x", 2)], task=1)
        put_writes(saver, "chat", 3, [("tasks", Send("worker", {"item": 7})), ("big", "line\n" * 90)], task=2)
        for task in (3, 4, 5):
            put_writes(saver, "chat", 3, [("long", messages(6 * task)), ("n", task)], task=task)
        put_writes(saver, "early", 1, [("x", "before its checkpoint")])
        saver.copy_thread("chat", "copy")
        put(saver, "copy", 4, {"messages": messages(27), "count": 3}, parent=3)
        put(saver, "chat", 4, {"messages": [*messages(26), HumanMessage("other", id="o")]}, parent=3)
        put(saver, "chat", 5, {"messages": messages(1)}, parent=2)
        put(saver, "gone", 1, {"x": "deleted later"})
    with ckpt.open(path, actor="maker") as repository:
        plain = repository.thread("plain")
        plain.commit({"text": "first"}, metadata={"note": "é"})
        plain.commit({**PLAIN, "files": {"a": "b"}})
        plain.commit(PLAIN)
        repository.commit('odd "name"\n\ud800', {"x": 1})
        repository.fork(f"ckpt:{checkpoint_id(2)}", "older", thread="chat")
        repository.fork("@", "edited", thread="plain", values={"text": "edited"})
        repository.rewind("older")
        repository.tag("good", f"ckpt:{checkpoint_id(2)}", thread="chat")
        repository.tag("v1.0", "@~1", thread="plain")
        repository.tag("mistake", "@", thread="plain")
        repository.undo()
        repository.delete("gone")


def fill_more(path: Path) -> None:
    """Go on with `fill` until everything was pruned, collected, rewound and spilled at least once."""
    fill(path)
    with CkptSaver(path) as saver:
        for number in range(10, 60):
            parent = number - 1 if number > 10 else 5
            put(saver, "chat", number, {"messages": messages(number), "n": number}, parent=parent)
            put(saver, "chat", number, {"inner": messages(number % 7)}, parent=parent, namespace=SUBGRAPH)
            put_writes(saver, "chat", number, [("messages", messages(3))], task=number % 8)
        saver.copy_thread("chat", "late copy")
        for task in range(8):
            put_writes(saver, "late copy", 59, [("m", messages(9 + task)), ("__error__", "x")], task=task)
        put(saver, "late copy", 30, {"messages": "put again"}, parent=29)
        put(saver, "lonely", 1, {"x": "v" * 200_000, "lines": "".join(f"line {i}\n" for i in range(20_000))})
        for number in range(2, 9):
            put(saver, "lonely", number, {"x": number, "messages": messages(200 + number)}, parent=number - 1)
    with ckpt.open(path) as repository:
        repository.fork(f"ckpt:{checkpoint_id(40)}", "middle", thread="late copy")
        repository.rewind("middle", 3)
        repository.fork("@", "middle 2", thread="middle")
        repository.prune(["chat", "lonely"], keep_last=5)
        repository.fork("@", "copy 2", thread="copy")
        repository.thread("copy").commit({"x": "seen by nobody once the thread is deleted"})
        repository.delete("copy")
        repository.gc(grace=timedelta(0))
    with CkptSaver(path) as saver:
        for number in range(60, 66):
            put(saver, "chat", number, {"messages": messages(number), "n": number}, parent=number - 1)
            put_writes(saver, "chat", number, [("n", number)], task=1)
        saver.prune(["lonely"])
    with ckpt.open(path) as repository:
        repository.prune(["middle"], keep_last=3)
        repository.thread("gone").commit({"x": "a new thread of an old name"})

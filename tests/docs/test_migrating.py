"""The recipe of docs/migrating.md copies whole threads: every checkpoint, subgraph, task and interrupt."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from docs_kit import ROOT, blocks
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from ckpt.langgraph import CkptSaver

Copy = Callable[[BaseCheckpointSaver[Any], BaseCheckpointSaver[Any], str], int]
CONFIG: Any = {"configurable": {"thread_id": "t"}}


class State(TypedDict, total=False):
    """What the tasks add up."""

    done: Annotated[list[str], operator.add]


def code_with(text: str) -> str:
    page = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
    return next(code for block in blocks(page) if text in (code := "\n".join(block.lines)))


@pytest.fixture(scope="module")
def copy() -> Copy:
    names: dict[str, Any] = {}
    exec(code_with("def copy_thread_over"), names)
    found: Copy = names["copy_thread_over"]
    return found


def build(saver: BaseCheckpointSaver[Any]) -> Any:
    inner = StateGraph(State)
    inner.add_node("ask", lambda state: {"done": [f"asked: {interrupt('inner?')}"]})
    inner.add_edge(START, "ask")
    outer = StateGraph(State)
    outer.add_node("plan", lambda state: {"done": ["plan"]})
    outer.add_node("work", lambda state: {"done": [f"work {state['number']}"]})
    outer.add_node("judge", lambda state: {"done": [f"judged: {interrupt('outer?')}"]})
    outer.add_node("inner", inner.compile())
    outer.add_edge(START, "plan")
    outer.add_conditional_edges(
        "plan",
        lambda state: [
            *(Send("work", {"number": n}) for n in range(5)),
            Send("judge", {}),
            Send("inner", {}),
        ],
        ["work", "judge", "inner"],
    )
    for name in ("work", "judge", "inner"):
        outer.add_edge(name, END)
    return outer.compile(checkpointer=saver)


def comparable(found: CheckpointTuple) -> tuple[Any, ...]:
    return (
        found.config,
        found.checkpoint,
        found.metadata,
        found.parent_config,
        sorted(found.pending_writes or [], key=repr),
    )


def test_a_copy_holds_what_the_original_holds_and_goes_on_alike(copy: Copy, tmp_path: Path) -> None:
    with (
        SqliteSaver.from_conn_string(str(tmp_path / "old.db")) as old,
        CkptSaver(tmp_path / "new.db") as new,
    ):
        waiting = build(old).invoke({"done": []}, CONFIG)["__interrupt__"]
        assert len(waiting) == 2
        copied = copy(old, new, "t")
        before, after = list(old.list(CONFIG)), list(new.list(CONFIG))
        assert copied == len(before) == len(after)
        assert len({found.config["configurable"]["checkpoint_ns"] for found in after}) == 2
        assert [comparable(found) for found in before] == [comparable(found) for found in after]

        answers = Command(resume={each.id: f"yes to {each.value}" for each in waiting})
        results = [build(saver).invoke(answers, CONFIG)["done"] for saver in (old, new)]
        assert results[0] == results[1]
        assert len(results[1]) == 8


class Stopped(CkptSaver):
    """A saver whose process is stopped before its n-th call that writes."""

    left = 0

    def _count(self) -> None:
        Stopped.left -= 1
        if Stopped.left < 0:
            raise KeyboardInterrupt

    def put(self, *given: Any) -> Any:
        self._count()
        return super().put(*given)

    def put_writes(self, *given: Any) -> None:
        self._count()
        super().put_writes(*given)


def test_a_loop_that_was_stopped_anywhere_goes_on_and_leaves_what_went_on(
    copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"SqliteSaver": SqliteSaver, "CkptSaver": Stopped, "copy_thread_over": copy}
    threads: list[Any] = [{"configurable": {"thread_id": name}} for name in ("t", "u")]
    with SqliteSaver.from_conn_string("checkpoints.db") as old:
        waiting = [build(old).invoke({"done": []}, thread)["__interrupt__"] for thread in threads]
        expected = [[comparable(found) for found in old.list(thread)] for thread in threads]
    for left in (0, 1, 2, 5, 9, 14):
        Stopped.left = left
        with pytest.raises(KeyboardInterrupt):
            exec(code_with("SELECT DISTINCT"), names)
    Stopped.left = 1_000
    exec(code_with("SELECT DISTINCT"), names)
    with CkptSaver("ckpt.db") as new:
        assert [[comparable(found) for found in new.list(thread)] for thread in threads] == expected
        answers = Command(resume={each.id: "yes" for each in waiting[0]})
        assert len(build(new).invoke(answers, threads[0])["done"]) == 8
    assert capsys.readouterr().out.count("checkpoints copied") == 2
    exec(code_with("SELECT DISTINCT"), names)
    assert capsys.readouterr().out == ""

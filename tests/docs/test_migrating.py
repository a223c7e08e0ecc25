"""The recipe of docs/migrating.md copies whole threads: every checkpoint, subgraph, task and interrupt."""

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from docs_kit import ROOT, blocks
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Overwrite, Send, interrupt

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


class Rebuilt(TypedDict, total=False):
    """A channel that is rebuilt from writes, and how often there was a run."""

    items: Annotated[list[Any], DeltaChannel(lambda state, writes: [*state, *chain.from_iterable(writes)])]
    runs: int


def rebuilding(saver: BaseCheckpointSaver[Any]) -> Any:
    graph = StateGraph(Rebuilt)
    graph.add_node("run", lambda state: {"items": [state["runs"]], "runs": state["runs"] + 1})
    graph.add_edge(START, "run")
    return graph.compile(checkpointer=saver)


def test_what_a_delta_channel_is_rebuilt_from_is_copied_or_the_thread_refused(copy: Copy, tmp_path: Path) -> None:
    with (
        CkptSaver(tmp_path / "old.db") as old,
        CkptSaver(tmp_path / "whole.db") as whole,
        CkptSaver(tmp_path / "new.db", encryption_key=bytes(32)) as new,
    ):
        graph, moved = rebuilding(old), rebuilding(new)
        graph.invoke({"items": ["first"], "runs": 0}, CONFIG)
        for turn in range(3):
            graph.invoke({"items": [turn]}, CONFIG)
        copy(old, whole, "t")
        assert [comparable(found) for found in whole.list(CONFIG)] == [comparable(found) for found in old.list(CONFIG)]

        old.prune(["t"])
        values = {"items": ["first", 0, 0, 1, 1, 2, 2, 3], "runs": 4}
        assert graph.get_state(CONFIG).values == rebuilding(whole).get_state(CONFIG).values == values
        with pytest.raises(RuntimeError, match=r"'items'.* pruned"):
            copy(old, new, "t")
        assert new.get_tuple(CONFIG) is None

        graph.update_state(CONFIG, {"items": Overwrite(values["items"])}, as_node="run")
        old.prune(["t"])
        assert copy(old, new, "t") == 1
        results = [each.invoke({"items": ["more"]}, CONFIG) for each in (graph, moved)]
        assert results[0] == results[1] == {"items": [*values["items"], "more", 4], "runs": 5}  # type: ignore[misc]


def put(saver: BaseCheckpointSaver[Any], namespace: str, number: int, parent: Any = None) -> Any:
    checkpoint = empty_checkpoint()
    checkpoint["id"] = f"1f1e5bd3-0000-6000-8000-{number:012}"
    checkpoint["channel_values"], checkpoint["channel_versions"] = {"number": number}, {"number": number}
    config = parent or {"configurable": {"thread_id": "t", "checkpoint_ns": namespace}}
    return saver.put(config, checkpoint, {"source": "loop", "step": number}, {"number": number})


@pytest.mark.parametrize("namespace", ["", "inner"])
def test_a_copy_goes_on_from_where_the_original_does_though_a_clock_lagged(
    copy: Copy, tmp_path: Path, namespace: str
) -> None:
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": namespace}}
    with (
        CkptSaver(tmp_path / "old.db") as old,
        CkptSaver(tmp_path / "new.db") as new,
        SqliteSaver.from_conn_string(str(tmp_path / "sqlite.db")) as sqlite,
        CkptSaver(tmp_path / "moved.db") as moved,
    ):
        for source, target, current in ((old, new, 5), (sqlite, moved, 9)):
            parent = None
            for number in (1, 9, 3, 5):
                parent = put(source, namespace, number, parent)
            if namespace:
                put(source, "", 4)
            assert copy(source, target, "t") == (5 if namespace else 4)
            before, after = source.get_tuple(config), target.get_tuple(config)
            assert before is not None and after is not None
            assert comparable(before) == comparable(after)
            assert after.checkpoint["channel_values"] == {"number": current}


def test_a_thread_that_would_go_on_elsewhere_is_refused(copy: Copy, tmp_path: Path) -> None:
    with CkptSaver(tmp_path / "old.db") as old, CkptSaver(tmp_path / "new.db") as new:
        first = put(old, "", 1)
        put(old, "inner", 2)
        put(old, "", 3, first)
        old.repository.rewind("t", 1)
        with pytest.raises(RuntimeError, match="current in the source"):
            copy(old, new, "t")


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

"""`saver.config` and `saver.repository`: from a revision to a config LangGraph can use, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from graph_kit import chat_graph, human, plain, thread
from saver_kit import config, put, values

import ckpt
from ckpt.errors import NotFoundError, RevisionSyntaxError
from ckpt.langgraph import CkptSaver


def test_a_revision_gives_the_config_of_its_checkpoint(saver: Any) -> None:
    for n in range(1, 5):
        put(saver, "t", str(n), {"n": n}, parent=str(n - 1) if n > 1 else None)
    assert saver.config("t")["configurable"] == {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "4"}
    assert saver.config("t~2")["configurable"]["checkpoint_id"] == "2"
    assert saver.config('thread:"t"~1')["configurable"]["checkpoint_id"] == "3"
    assert saver.config("ckpt:1")["configurable"]["checkpoint_id"] == "1"
    info = saver.repository.resolve("t~1")
    assert info.checkpoint_id == "3"
    assert saver.config(info.spec)["configurable"]["checkpoint_id"] == "3"
    assert saver.get_tuple(saver.config("t~2")).checkpoint["channel_values"] == {"n": 2}


def test_what_cannot_be_resolved_is_an_error(saver: Any) -> None:
    put(saver, "t", "1")
    with pytest.raises(NotFoundError):
        saver.config("nowhere")
    with pytest.raises(NotFoundError):
        saver.config("t~5")
    with pytest.raises(RevisionSyntaxError):
        saver.config('thread:"t')


def test_a_run_goes_on_from_a_revision(saver: Any) -> None:
    graph = chat_graph(saver)
    for text in ("one", "two"):
        graph.invoke(human(text), thread())
    place = saver.config("t~5")
    assert len(graph.get_state(place).values["messages"]) == 4
    result = plain(graph.invoke(human("instead"), place))
    assert [each[1] for each in result["messages"] if each[0] == "human"] == ["one", "instead"]


def test_the_saver_works_on_a_repository_opened_elsewhere(tmp_path: Path) -> None:
    with ckpt.open(str(tmp_path / "store.ckpt")) as repository:
        saver = CkptSaver(repository)
        put(saver, "t", "1", {"n": 1})
        assert saver.repository is repository
        assert [each.name for each in repository.threads()] == ["t"]
        assert repository.log("t")[0].checkpoint_id == "1"
    with CkptSaver.from_conn_string(str(tmp_path / "store.ckpt")) as again:
        assert values(again, "t") == {"n": 1}
        assert again.get_tuple(config("t", "1")) is not None


def test_what_the_graph_wrote_is_seen_by_the_engine(saver: Any) -> None:
    graph = chat_graph(saver)
    graph.invoke(human("one"), thread())
    log = saver.repository.log(None, thread="t")
    assert [each.step for each in log] == [3, 2, 1, 0, -1]
    assert [each.checkpoint_id for each in log] == [
        each.config["configurable"]["checkpoint_id"] for each in graph.get_state_history(thread())
    ]
    assert log[0].is_current
    assert log[0].status == "done"
    assert [each.source for each in log] == ["loop"] * 4 + ["input"]
    assert "messages" in {each.name for each in saver.repository.channels(log[0])}

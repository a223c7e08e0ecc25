"""Stores of past formats, kept as they were written: today's code opens them and finds what was put there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import engine_content
import kept_stores
import pytest
import reader

import ckpt
from ckpt.langgraph import CkptSaver
from ckpt.storage.sqlite_file import FORMAT

FIXTURES = Path(__file__).resolve().parent / "fixtures"
KEPT = sorted(FIXTURES.glob("*.db"))


@pytest.fixture(params=KEPT, ids=lambda path: path.stem)
def kept(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture
def copy(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(kept, tmp_path / "copy.db"))


def test_there_is_one_for_this_format() -> None:
    assert (FIXTURES / f"format-{FORMAT}.db").is_file()


@pytest.mark.parametrize("readonly", [True, False])
def test_the_content_is_what_was_written(kept: Path, copy: Path, readonly: bool) -> None:
    expected = json.loads(kept.with_suffix(".json").read_text(encoding="utf-8"))
    with ckpt.open(copy, readonly=readonly) as repository:
        assert engine_content.shortened(engine_content.content(repository)) == expected
        assert repository.fsck().problems == []
    assert copy.read_bytes() == kept.read_bytes(), "reading changed the file"


def test_the_independent_reader_agrees(kept: Path, copy: Path) -> None:
    expected = json.loads(kept.with_suffix(".json").read_text(encoding="utf-8"))
    assert engine_content.shortened(reader.Store(copy).content()) == expected


def test_values_come_back_alive(copy: Path) -> None:
    with CkptSaver(copy) as saver:
        ids = [found.config["configurable"]["checkpoint_id"] for found in saver.list(_config("chat"))]
        assert ids == [kept_stores.checkpoint_id(number) for number in (5, 4, 3, 2, 1)]
        found = saver.get_tuple(_config("chat", kept_stores.checkpoint_id(3)))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"messages": kept_stores.messages(26), "count": 2}
        writes = {(task, channel): value for task, channel, value in found.pending_writes or ()}
        assert writes[kept_stores.TASKS[1], "__interrupt__"] == ["approve? (again)"]
        assert writes[kept_stores.TASKS[1], "x"] == 1
        assert writes[kept_stores.TASKS[2], "big"] == "line\n" * 90
        assert writes[kept_stores.TASKS[5], "long"] == kept_stores.messages(30)
        copied = saver.get_tuple(_config("copy", kept_stores.checkpoint_id(3)))
        assert copied is not None
        assert copied.pending_writes == found.pending_writes
    with ckpt.open(copy) as repository:
        state = repository.state("@", thread="plain")
        assert state == kept_stores.PLAIN
        assert repr(state) == repr(kept_stores.PLAIN)


def test_it_can_be_continued(copy: Path) -> None:
    with CkptSaver(copy) as saver:
        kept_stores.put(saver, "chat", 6, {"messages": kept_stores.messages(27)}, parent=5)
    with ckpt.open(copy) as repository:
        assert repository.resolve("chat").checkpoint_id == kept_stores.checkpoint_id(6)
        repository.thread("plain").rewind()
        repository.undo()
        assert repository.fsck().problems == []


def _config(thread: str, checkpoint_id: str | None = None) -> dict[str, dict[str, str]]:
    configurable = {"thread_id": thread, "checkpoint_ns": ""}
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}

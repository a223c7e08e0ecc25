"""What who is new types first, and what the answer says."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_kit import run, succeed

import ckpt

NEW = [
    (("completion",), 2, "missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish"),
    (("log", "hello"), 3, "hint: there are no threads yet"),
    (("thread",), 2, "hint: did you mean threads?"),
]


@pytest.mark.parametrize(("typed", "code", "words"), NEW)
def test_an_error_says_what_to_do(typed: tuple[str, ...], code: int, words: str) -> None:
    succeed("init")
    result = run(*typed)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr
    assert "\\n" not in result.stderr


def test_a_store_of_memory_alone_does_not_look_empty() -> None:
    with ckpt.open(".ckpt/store.db") as repository:
        repository.memory("default").put(("users", "ana"), "tea", {"likes": "oolong"})
    assert "0 checkpoints · 0 threads · 0 heads · 1 item · " in succeed("stats")
    assert succeed("fsck").startswith("checked 0 checkpoints, 1 item, ")


def test_where_no_folder_can_be_made_none_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    result = run("init", str(tmp_path / "file" / "folder"))
    assert (result.exit_code, result.stdout) == (11, "")
    assert "no folder" in result.stderr
    assert "name another folder" in result.stderr
    assert (tmp_path / "file").read_text() == "mine"

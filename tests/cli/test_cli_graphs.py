"""A graph without threads, in a store where others have some: the answer names them."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_kit import run

import ckpt

NAMED = "this graph has no threads; these have: 'support', '\u202eodd'. Choose one with --graph, in Python with graph="


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "s.db"
    for graph in ("support", "\u202eodd"):
        with ckpt.open(path, graph=graph) as repository:
            repository.commit("y1", {"a": 1})
    with ckpt.open(path, graph="gone") as repository:
        repository.commit("y1", {"a": 1})
        repository.delete("y1")
    monkeypatch.setenv("CKPT_STORE", str(path))
    return path


@pytest.mark.parametrize("graph", [[], ["--graph", "suport"], ["--graph", "gone"]], ids=str)
def test_where_the_threads_are_is_said(store: Path, graph: list[str]) -> None:
    for line in (["threads"], ["threads", "y*"], ["log"]):
        result = run(*graph, *line)
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr.splitlines()[1:] == [NAMED.replace("\u202e", "\\u202e")]
    result = run(*graph, "log", "y1")
    assert result.exit_code == 3
    assert result.stderr.splitlines()[1:] == ["hint: " + NAMED.replace("\u202e", "\\u202e")]


def test_a_graph_with_threads_is_not_told_of_others(store: Path) -> None:
    assert run("--graph", "support", "threads", "z*").stderr == "no threads match z*\n"
    assert "hint: ckpt threads lists them" in run("--graph", "support", "log", "z1").stderr


def test_the_default_graph_is_named_in_words(store: Path) -> None:
    with ckpt.open(store) as repository:
        repository.commit("x", {"a": 1})
    assert "these have: the default one, 'support', " in run("threads", "--graph", "suport").stderr


def test_a_store_without_any_threads_names_no_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ckpt.open(tmp_path / "empty.db").close()
    monkeypatch.setenv("CKPT_STORE", str(tmp_path / "empty.db"))
    assert run("threads").stderr == "no threads\n"
    assert "hint: there are no threads yet" in run("log", "y1").stderr

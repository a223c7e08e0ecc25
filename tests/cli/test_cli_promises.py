"""Promises of single commands that are easily broken unnoticed: defaults, what is tried only, what is never guessed."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from cli_kit import run

import ckpt
from ckpt.cli.escape import escape
from ckpt.cli.output import dump_json
from ckpt.cli.pager import Pager
from ckpt.repository import Repository


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "store.db"
    with ckpt.open(path) as repository:
        for n in range(3):
            repository.commit("t", {"n": n})
    monkeypatch.setenv("CKPT_STORE", str(path))
    return path


def test_trying_to_expire_what_is_not_there_fails_as_doing_it_would() -> None:
    for more in ((), ("--dry-run",)):
        done = run("expire", "nope", "30d", *more)
        assert (done.exit_code, done.stderr.splitlines()[0]) == (3, "error: there is no thread 'nope'")


def test_collecting_spares_two_weeks_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[timedelta] = []
    collect = Repository.gc

    def gc(self: Repository, *, grace: timedelta, dry_run: bool = False) -> object:
        asked.append(grace)
        return collect(self, grace=grace, dry_run=dry_run)

    monkeypatch.setattr(Repository, "gc", gc)
    assert run("gc").exit_code == run("gc", "--grace", "0s").exit_code == 0
    assert asked == [timedelta(days=14), timedelta(0)]


def test_pruning_takes_no_thread_from_the_environment(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CKPT_THREAD", "t")
    assert run("prune", "--keep-last", "1", "-y").exit_code == 2
    with ckpt.open(store) as repository:
        assert len(repository.log(thread="t")) == 3
    assert run("prune", "-t", "t", "--keep-last", "1", "-y").exit_code == 0
    with ckpt.open(store) as repository:
        assert len(repository.log(thread="t")) == 1


def test_a_tag_may_be_set_again_where_it_is() -> None:
    for more in ((), (), ("--dry-run",)):
        assert run("tag", "good", "t", *more).exit_code == 0
    for more in ((), ("--dry-run",)):
        assert run("tag", "good", "t~1", *more).exit_code == 4


def test_what_stands_behind_two_dashes_is_no_option() -> None:
    done = run("log", "--", "--json")
    assert (done.exit_code, "ckpt.error" in done.stderr) == (3, False)
    assert json.loads(run("log", "--json", "--", "nope").stderr.splitlines()[-1])["schema"] == "ckpt.error/1"


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\ufeff", "\ufff9", "\ufffa", "\ufffb"])
def test_letters_that_move_text_about_are_shown_escaped(letter: str) -> None:
    assert escape(f"a{letter}b") == f"a\\u{ord(letter):04x}b"


def test_json_holds_nothing_that_steers_a_terminal() -> None:
    text = "".join(map(chr, range(0x100)))
    written = dump_json({"text": text})
    assert written.isascii() and written.isprintable()
    assert json.loads(written) == {"text": text}


def test_a_pager_is_told_that_text_is_utf8(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = tmp_path / "told"
    monkeypatch.setenv("CKPT_PAGER", f'cat >/dev/null; printf %s "$LESSCHARSET" > {told}')
    monkeypatch.delenv("LESSCHARSET", raising=False)
    pager = Pager(lambda _: None, height=1)
    pager.write("a line\n")
    pager.write("another\n")
    pager.close()
    assert told.read_text() == "utf-8"


def test_a_key_that_is_a_number_is_pointed_at(store: Path) -> None:
    with ckpt.open(store) as repository:
        repository.commit("numbers", {"notes": {3: "three", "a": 1}})
    done = run("show", "numbers", "notes.3")
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (3, "hint: there is notes[3]")
    assert run("show", "numbers", "notes[3]").stdout == "three\n"
    assert "hint: there is" not in run("show", "numbers", "notes.4").stderr


def test_usage_says_what_is_wrong_with_a_number_and_with_two_ways_to_name_threads() -> None:
    for arguments, words in [
        (("log", "t", "-n", "x"), "invalid value for '-n': 'x' is not a whole number"),
        (("prune", "--all", "t", "--keep-last", "1"), "--all means every thread, and threads are named as well"),
        (("prune", "--keep-last", "1"), "name the threads, or all of them with --all"),
    ]:
        done = run(*arguments)
        assert (done.exit_code, done.stderr.splitlines()[0]) == (2, f"error: {words}")


def test_stats_tells_what_gc_frees_from_what_undo_needs(store: Path) -> None:
    assert "nothing to free" in run("stats").stdout
    assert run("delete", "t", "-y").exit_code == 0
    lines = run("stats").stdout.splitlines()
    assert lines[0].startswith("0 checkpoints · 0 threads · 0 heads · ")
    assert lines[4].endswith("kept for undo")
    found = json.loads(run("stats", "--json").stdout)["bytes"]
    assert (found["logical"], found["stored"], found["restorable"] > 0) == (0, 0, True)
    assert run("gc", "--grace", "0s").exit_code == 0
    assert json.loads(run("stats", "--json").stdout)["bytes"]["restorable"] == 0

"""How commands end on real stores: exit codes, dry runs that change nothing, colours, completion."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from cli_kit import SUPPORT, WAITING, document, place, run, succeed, support_graph
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command

import ckpt
from ckpt.langgraph import CkptSaver
from ckpt.repository import Repository
from ckpt.storage.sqlite_file import FORMAT

ROOT = Path(__file__).resolve().parents[2]
READING = [
    "threads", "log", "log --all --subgraphs", "show support-42", "show support-43 --internal", "stats",
    "diff support-42", "diff support-42 support-43 --full", "op log", "tag", "show support-42 messages", "fsck",
]  # fmt: skip
TRYING = [
    "fork support-42 new -n", "fork support-42~2 new --set ticket.status=1 -n", "checkout support-42~1 -n",
    "rewind support-42 -n", "tag v1 support-42 -n", "tag -d good -n", "undo -n", "delete support-42 -n",
    "prune --all --keep-last 1 -n", "gc --grace 0s -n",
]  # fmt: skip


def same_error(line: str, code: int, name: str) -> str:
    """Run a command that must fail so, as lines and as a document; return its lines."""
    plain = run(*shlex.split(line))
    assert (plain.exit_code, plain.stdout) == (code, ""), plain.output
    assert plain.stderr.startswith("error: ")
    assert "\nhint: " in plain.stderr
    found = json.loads(run("--json", *shlex.split(line)).stderr.splitlines()[-1])
    assert (found["exit"], found["code"]) == (code, name)
    assert found["hints"]
    return plain.stderr


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("show nobody", "REV_NOT_FOUND"),
        ("show support-42~99", "REV_NOT_FOUND"),
        ("show id:abcdabcd", "REV_NOT_FOUND"),
        ("log -t nobody", "THREAD_NOT_FOUND"),
        ("delete -y nobody", "THREAD_NOT_FOUND"),
        ("prune nobody --keep-last 1 -y", "THREAD_NOT_FOUND"),
        ("show support-42 nothing", "PATH_NOT_FOUND"),
        ("show support-42 messages[9]", "PATH_NOT_FOUND"),
        ("diff support-42 -- ticket.nothing", "PATH_NOT_FOUND"),
        ("fork support-42 new --set nothing.x=1", "PATH_NOT_FOUND"),
        ("tag -d nothing", "NOT_FOUND"),
        ("undo op:abc", "NOT_FOUND"),
    ],
)
def test_what_does_not_exist_is_3(graph_store: Path, line: str, code: str) -> None:
    same_error(line, 3, code)


def test_a_name_that_is_taken_is_4(graph_store: Path) -> None:
    succeed("tag", "good", SUPPORT)
    assert "good" in same_error("tag good support-42~1", 4, "EXISTS")
    same_error("tag good support-42~1 -n", 4, "EXISTS")
    same_error("fork support-42 support-43", 4, "EXISTS")
    same_error("fork support-42 support-43 -n", 4, "EXISTS")


def test_an_undo_that_is_no_longer_safe_is_4(graph_store: Path) -> None:
    succeed("rewind", WAITING)
    with CkptSaver(graph_store) as saver:
        support_graph(saver).invoke(None, place(WAITING))
    same_error("undo", 4, "CONFLICT")
    succeed("tag", "good", SUPPORT)
    succeed("undo")
    same_error("undo op:002", 4, "CONFLICT")
    same_error("undo op:002 -n", 4, "CONFLICT")


def test_a_run_that_moved_the_head_is_4(graph_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ckpt.repository.writer import Writer

    put = Writer.put

    def late(self: Writer, new: object) -> object:
        monkeypatch.setattr(Writer, "put", put)
        with CkptSaver(graph_store) as saver:
            support_graph(saver).invoke(Command(resume="yes"), place(WAITING))
        return put(self, new)  # type: ignore[arg-type]

    monkeypatch.setattr(Writer, "put", late)
    result = run("rewind", WAITING)
    assert (result.exit_code, result.stdout) == (4, "")
    assert document("show", WAITING)["checkpoint"]["status"] == "done"


@pytest.mark.parametrize(
    ("act", "line", "doing"),
    [
        ("rewind", "rewind support-42 2", "rewinding it"),
        ("checkout", "checkout support-42~2", "checking it out"),
        ("checkout", "checkout id:{target}", "checking it out"),
    ],
)
def test_a_run_that_moves_a_thread_while_a_command_looks_at_it_is_4(
    graph_store: Path, act: str, line: str, doing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was shown as the head before is not the head any more, whatever the revision names."""
    original, before = getattr(Repository, act), document("show", SUPPORT)["checkpoint"]["id"]
    target = document("show", f"{SUPPORT}~2")["checkpoint"]["id"]

    def late(self: Repository, *arguments: object, **named: object) -> object:
        with ckpt.open(graph_store) as repository:
            repository.commit(SUPPORT, {"n": 1})
        return original(self, *arguments, **named)

    monkeypatch.setattr(Repository, act, late)
    result = run(*shlex.split(line.format(target=target)))
    now = document("show", SUPPORT)["checkpoint"]
    assert (result.exit_code, result.stdout, now["parents"]) == (4, "", [before])
    assert result.stderr == (
        f"error: thread 'support-42' moved while you were {doing} (now {now['id'][:8]}, was {before[:8]})\n"
        "hint: a run is probably active. Look with ckpt log -n 3 -t support-42, then try again\n"
    )


def test_damage_is_5_and_names_what_needs_it(graph_store: Path) -> None:
    with closing(sqlite3.connect(graph_store)) as connection:
        number, data = connection.execute("SELECT number, data FROM frame ORDER BY number LIMIT 1 OFFSET 1").fetchone()
        broken = bytes(data[:-9]) + bytes([data[-9] ^ 0x55]) + bytes(data[-8:])
        connection.execute("UPDATE frame SET data = ? WHERE number = ?", (broken, number))
        connection.commit()
    result = run("fsck")
    assert result.exit_code == 5
    assert "problem" in result.stdout
    assert SUPPORT in result.stdout
    found = run("fsck", "--json")
    assert found.exit_code == 5
    assert any(SUPPORT in needs for each in json.loads(found.stdout)["problems"] for needs in each["needed_by"])
    shown = run("show", SUPPORT, "--json")
    assert shown.exit_code == 5
    assert json.loads(shown.stderr.splitlines()[-1])["exit"] == 5
    assert run("log").exit_code == 5


def test_no_store_is_10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same_error("threads", 10, "STORE_MISSING")
    same_error("--store nothing.db log", 10, "STORE_MISSING")
    same_error("--store nothing/at/all.db init", 10, "STORE_MISSING")
    (tmp_path / "text.db").write_text("not a database, but long enough to look at its head" * 10)
    with closing(sqlite3.connect("other.db")) as connection:
        connection.execute("CREATE TABLE t (x)")
    with SqliteSaver.from_conn_string("langgraph.db") as saver:
        saver.setup()
    (tmp_path / "folder").mkdir()
    for name in ("text.db", "other.db", "langgraph.db", "folder"):
        before = (tmp_path / name).read_bytes() if (tmp_path / name).is_file() else b""
        same_error(f"--store {name} threads", 10, "NOT_A_STORE")
        same_error(f"--store {name} init", 10, "NOT_A_STORE")
        same_error(f"--store {name} delete -y x", 10, "NOT_A_STORE")
        assert before == ((tmp_path / name).read_bytes() if (tmp_path / name).is_file() else b"")
    same_error("--store ftp://host/x log", 2, "INVALID_INPUT")


def test_a_locked_store_is_11(graph_store: Path) -> None:
    with closing(sqlite3.connect(graph_store, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        store = f"sqlite:///{graph_store}?busy_timeout=0.1"
        same_error(f"--store {store} tag good support-42", 11, "STORE_LOCKED")
        assert run("--store", store, "log").exit_code == 0


def test_a_newer_format_is_13(graph_store: Path) -> None:
    with closing(sqlite3.connect(graph_store)) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    assert str(FORMAT + 1) in same_error("log", 13, "FORMAT_TOO_NEW")
    same_error("init", 13, "FORMAT_TOO_NEW")
    same_error("delete -y support-42", 13, "FORMAT_TOO_NEW")


def contents(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        tables = ("frame", "object", "record", "counter")
        return [row for table in tables for row in connection.execute(f"SELECT * FROM {table}")]


def test_reading_and_dry_runs_change_nothing(graph_store: Path) -> None:
    succeed("tag", "good", f"{SUPPORT}~1")
    before = (contents(graph_store), graph_store.read_bytes())
    for line in READING + TRYING:
        result = run(*shlex.split(line))
        assert result.exit_code == 0, (line, result.output)
        if line in TRYING:
            assert "Nothing was changed." in result.stdout, line
            assert document(*shlex.split(line))["dry_run"] is True
    assert (contents(graph_store), graph_store.read_bytes()) == before


def test_reading_needs_no_permission_to_write(graph_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[bool] = []
    original = ckpt.open

    def watched(*arguments: object, **options: object) -> object:
        opened.append(bool(options["readonly"]))
        return original(*arguments, **options)  # type: ignore[arg-type]

    succeed("tag", "good", f"{SUPPORT}~1")
    monkeypatch.setattr(ckpt, "open", watched)
    for line in READING + TRYING:
        succeed(*shlex.split(line))
    assert opened == [True] * len(opened) != []
    opened.clear()
    succeed("tag", "other", SUPPORT)
    assert opened == [False]


@pytest.mark.parametrize("dry_run", [[], ["-n"]], ids=str)
def test_to_check_out_the_head_is_told_and_not_done(graph_store: Path, dry_run: list[str]) -> None:
    before = document("log", WAITING)["items"]
    told = document("checkout", WAITING, *dry_run)
    assert told["target"] == told["old_head"]
    assert told["head"] == (None if dry_run else told["target"])
    assert told["target"]["stopped"] == ["approve"]
    assert document("log", WAITING)["items"] == before
    assert document("op", "log")["items"] == []


def test_the_operation_log_names_who_did_it(graph_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ana")
    succeed("tag", "good", SUPPORT)
    user = document("op", "log")["items"][0]["user"]
    assert re.fullmatch(r"ana@.+", user)


@pytest.mark.parametrize("line", ["log", "log --subgraphs", "show support-43", "diff support-42~2", "threads"])
def test_colours_are_never_the_only_sign(graph_store: Path, line: str) -> None:
    coloured = succeed(*shlex.split(line), "--color", "always")
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == succeed(*shlex.split(line))


def complete(*words: str) -> set[str]:
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "_CKPT_COMPLETE": "zsh_complete",
        "COMP_WORDS": shlex.join(["ckpt", *words]), "COMP_CWORD": str(len(words)),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", "from ckpt.cli.main import main; main()"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return set(done.stdout.splitlines()[1::3])


@pytest.mark.parametrize(
    "words",
    [["log", "sup"], ["rewind", "sup"], ["-t", "sup"], ["show", "--thread", "sup"], ["diff", SUPPORT, "sup"]],
)
def test_thread_ids_complete(graph_store: Path, words: list[str]) -> None:
    assert complete(*words) == {SUPPORT, WAITING}
    assert complete(*words[:-1], "support-43") == {WAITING}
    assert complete(*words[:-1], "xyz") == set()


def test_completion_takes_the_store_that_is_named(graph_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(graph_store, "named.db")
    monkeypatch.delenv("CKPT_STORE")
    assert complete("log", "sup") == set()
    assert complete("--store", "named.db", "log", "sup") == {SUPPORT, WAITING}
    assert complete("--store", "missing.db", "log", "sup") == set()


def test_commands_and_options_complete() -> None:
    assert {"log", "threads", "undo"} <= complete("")
    assert {"--subgraphs", "--json"} <= complete("log", "--")


def test_ids_that_a_shell_would_act_on_are_not_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ckpt.open("odd.db") as repository:
        for name in ("t-plain", "t-$(rm)", "t-`x`", "t- y", "t-\x1b[31m", "t-\n"):
            repository.thread(name).commit({})
    monkeypatch.setenv("CKPT_STORE", "odd.db")
    assert complete("log", "t-") == {"t-plain"}

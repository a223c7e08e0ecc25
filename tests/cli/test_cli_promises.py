"""Promises of single commands that are easily broken unnoticed: defaults, what is tried only, what is never guessed."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from cli_kit import run

import ckpt
from ckpt import errors
from ckpt.cli.context import Invocation
from ckpt.cli.escape import escape
from ckpt.cli.main import COMMANDS
from ckpt.cli.output import dump_json
from ckpt.cli.pager import Pager
from ckpt.cli.topics import TOPICS
from ckpt.errors import DamagedObjectError
from ckpt.history import keys
from ckpt.repository import FsckReport, Problem, Repository
from ckpt.repository.browse import Browser
from ckpt.storage.base import Batch


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


def test_help_names_every_topic() -> None:
    for help_text in (run("help").stdout, run("--help").stdout, run("help", "help").stdout):
        assert all(topic in " ".join(help_text.split()) for topic in TOPICS)
    for topic, text in TOPICS.items():
        assert run("help", topic).stdout == text.lstrip("\n")
    commands = re.findall(r"  ckpt ([a-z]+)", TOPICS["git"])
    assert {"log", "show", "diff", "fork", "checkout", "rewind", "undo"} <= set(commands) <= set(COMMANDS)


def test_the_exit_codes_of_the_topic_are_those_of_the_page_in_the_same_words() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^ *([0-9]+)   *(.+)$", TOPICS["exit-codes"], re.MULTILINE))
    shown = re.findall(r"^\| ([0-9]+) \| (.+) \|$", page, re.MULTILINE)
    assert told == {code: re.sub(r" \(`[A-Z_]+`\)|`", "", words) for code, words in shown}
    given = {each.exit_code for each in vars(errors).values() if isinstance(each, type) and hasattr(each, "exit_code")}
    assert {str(code) for code in given} <= told.keys()


def test_names_are_told_in_full_and_in_quotes(store: Path) -> None:
    with ckpt.open(store) as repository:
        number = repository._directory.find("t")[0].number  # type: ignore[index]
        repository.commit("customers/support-42", {"n": 1})
        record = repository._directory.find("customers/support-42")
        assert record is not None
        thread = record[0]._replace(root=record[0].root._replace(head="nowhere"))
        repository.storage.publish(
            Batch({keys.thread_key(number + 1): record[1]}, {keys.thread_key(number + 1): thread.encode()})
        )
    checked = run("fsck")
    assert checked.exit_code == 5
    assert "thread customers/support-42 " in checked.stdout
    for line in ("delete -y nope", "prune nope --keep-last 1 -y", "expire nope 1d", "log -t nope"):
        assert "error: there is no thread 'nope'\n" in run(*line.split()).stderr
    assert "there is a thread 't' already" in run("fork", "t~1", "t", "-n").stderr


def test_why_something_is_not_done_is_told_once(store: Path) -> None:
    assert run("tag", "good", "t").exit_code == run("undo").exit_code == 0
    assert run("undo", "op:002").stderr.startswith(
        "error: op 002 (Undid op 001: tag good is gone) cannot be undone: it is an undo itself"
    )
    assert "it is of type int" in run("fork", "t", "new", "--set", "n.x=1").stderr


def test_a_prune_of_threads_of_which_one_is_not_there_changes_none(store: Path) -> None:
    assert run("prune", "t", "nope", "--keep-last", "1", "-y").exit_code == 3
    with ckpt.open(store) as repository:
        assert len(repository.log(thread="t")) == 3


def test_a_prune_that_names_a_thread_twice_over_is_refused_unless_it_is_the_same(store: Path) -> None:
    with ckpt.open(store) as repository:
        for n in range(4):
            repository.commit("other", {"n": n})
    for named in (["other"], ["t", "other"]):
        done = run("prune", "-t", "t", *named, "--keep-last", "1", "-y")
        assert (done.exit_code, "-t names one thread, and others are named as well" in done.stderr) == (2, True)
    assert run("prune", "-t", "t", "t", "--keep-last", "2", "-y").exit_code == 0
    with ckpt.open(store) as repository:
        assert [len(repository.log(thread=name)) for name in ("t", "other")] == [2, 4]


def test_a_thread_that_is_named_twice_to_prune_counts_once(store: Path) -> None:
    with ckpt.open(store) as repository:
        for n in range(4):
            repository.commit("other", {"n": n})
    done = run("prune", "t", "other", "t", "--keep-last", "2", "-n", "--json")
    told = json.loads(done.stdout)
    assert (told["removed"], told["kept"], [each["thread"] for each in told["threads"]]) == (3, 4, ["t", "other"])
    done = run("prune", "other", "other", "--keep-last", "1", "-y")
    assert "Removed 3 checkpoints, kept 1." in done.stdout


def test_threads_named_to_prune_win_over_the_environment(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ckpt.open(store) as repository:
        for n in range(4):
            repository.commit("other", {"n": n})
    monkeypatch.setenv("CKPT_THREAD", "t")
    assert run("prune", "other", "--keep-last", "1", "-y").exit_code == 0
    with ckpt.open(store) as repository:
        assert [len(repository.log(thread=name)) for name in ("t", "other")] == [3, 1]


def test_what_to_keep_is_read_before_anybody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_args: object, **_options: object) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(Invocation, "confirm", asked)
    done = run("prune", "t", "--keep-within", "soon")
    assert (done.exit_code, done.stderr.splitlines()[0]) == (2, "error: 'soon' is not a duration")


def test_a_prune_that_finds_nothing_offers_no_way_back() -> None:
    for more in (("-n",), ("-y",)):
        assert run("prune", "t", "--keep-last", "3", *more).stdout == "Nothing to remove, kept 3\n"
    assert "To undo: ckpt undo\n" in run("prune", "t", "--keep-last", "2", "-y").stdout


def test_what_is_unknown_of_a_damaged_thread_is_no_number(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ckpt.open(store) as repository:
        repository.commit("whole", {"n": 1})
    describe = Browser.thread

    def stumbling(self: Browser) -> object:
        if self.timeline.thread.name == "t":
            raise DamagedObjectError("a record that cannot be read")
        return describe(self)

    monkeypatch.setattr(Browser, "thread", stumbling)
    rows = [line.split()[:5] for line in run("threads").stdout.splitlines()[1:]]
    assert sorted(rows) == [["t", "damaged", "3", "-", "-"], ["whole", "idle", "1", "1", "23"]]


def test_a_thread_without_a_name_is_seen(store: Path) -> None:
    with ckpt.open(store) as repository:
        for n in range(3):
            repository.commit("", {"n": n})
    assert '\n""      idle ' in run("threads").stdout
    for line, said in [
        ("tag good @", ' (""'), ("log", '  "", tag good'), ("show", '   ""   '), ("diff", '""   '),
        ("fork @ other", ' ("" step 2)'), ("rewind 1", 'Rewound "" to '), ("expire 2d", '"" expires on '),
        ("prune --keep-last 1 -y", '""  keep '), ("delete -y", 'Deleted "" ('),
    ]:  # fmt: skip
        command, *rest = line.split()
        assert said in run(command, "-t", "", *rest).stdout, line


def test_what_a_checkpoint_took_may_be_more_than_it_is(store: Path) -> None:
    with ckpt.open(store) as repository:
        info = repository.resolve("t")
    assert info.bytes_new > info.bytes_logical
    shown = run("show", "t").stdout
    assert f"{info.bytes_logical} B, {info.bytes_new} B added to the store\n" in shown


def test_an_operation_shown_as_a_checkpoint_is_pointed_at_its_own_undo() -> None:
    assert run("tag", "a", "t").exit_code == run("tag", "b", "t").exit_code == 0
    shown = run("show", "op:001")
    assert (shown.exit_code, shown.stderr.splitlines()[1]) == (2, "hint: undo it with: ckpt undo op:001")


def test_stats_lists_all_channels_if_it_is_to_say_more(store: Path) -> None:
    with ckpt.open(store) as repository:
        repository.commit("wide", {f"channel {n:02}": "x" * (n + 1) for n in range(12)})
    brief, whole = run("stats").stdout, run("stats", "-v").stdout
    assert ("(other 5)" in brief, "(other" in whole) == (True, False)
    assert [whole.count(f"channel {n:02}") for n in range(12)] == [1] * 12


def test_fsck_names_all_that_needs_what_is_damaged_if_it_is_to_say_more(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem("object", "ab" * 32, "is not there", ("t 1", "t 2", "t 3", "t 4", "t 5"))
    report = FsckReport(checkpoints=5, items=0, objects=9, references=9, problems=[problem])
    monkeypatch.setattr(Repository, "fsck", lambda *_, **__: report)
    assert run("fsck").stdout.splitlines()[1] == "  object abababab is not there; needed by t 1, t 2, t 3, 2 more"
    assert run("fsck", "-v").stdout.splitlines()[1].endswith("; needed by t 1, t 2, t 3, t 4, t 5")


def test_a_name_that_a_thread_and_a_tag_share_is_remarked() -> None:
    remark = "Note: {0} can mean a thread or a tag from now on. Write 'thread:\"{0}\"' or tag:{0}\n"
    assert run("tag", "v1", "t~1").stderr == run("fork", "t", "other").stderr == run("fork", "t", "o k").stderr == ""
    assert run("tag", "t", "t~1").stderr == remark.format("t")
    assert run("fork", "other", "v1", "-n").stderr == ""
    assert run("fork", "other", "v1").stderr == remark.format("v1")
    for name in ("t", "v1"):
        assert run("show", name).exit_code == 3
        assert run("show", f'thread:"{name}"').exit_code == run("show", f"tag:{name}").exit_code == 0


def test_an_operation_quotes_a_name_that_would_not_be_seen_as_one(store: Path) -> None:
    with ckpt.open(store) as repository:
        for n in range(3):
            repository.commit("", {"n": n})
            repository.commit("odd id", {"n": n})
        repository.prune([""], keep_last=2)
        repository.expire("odd id", "1d")
        repository.undo()
        repository.fork("@~1", "t-2", thread="odd id")
        repository.rewind("")
        repository.undo()
        repository.delete("odd id")
        repository.undo()
        texts = [each.text for each in reversed(repository.operations())]
        head = repository.log(thread="")[0].id[:8]
    assert texts[:3] == [
        "prune '' --keep-last 2",
        "expire 'odd id' 1d",
        "Undid op 002: 'odd id' lives as long as before, from now on",
    ]
    assert (texts[3].startswith("fork 'odd id' at "), texts[3].endswith(" as t-2")) == (True, True)
    assert texts[4].startswith("rewind '' -> ")
    assert texts[5:] == [
        f"Undid op 005: '' is back at {head}",
        "delete 'odd id'",
        "Undid op 007: thread 'odd id' is back",
    ]


def test_a_tag_that_is_not_there_is_looked_for_among_the_tags() -> None:
    result = run("show", "tag:nope")
    assert (result.exit_code, result.stderr) == (
        3,
        "error: no tag matches 'tag:nope'\nhint: ckpt tag lists all tags\n",
    )

"""The group: help, errors and exit codes, colours, pager, store discovery, start-up time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import jsonschema
import pytest
from click.testing import CliRunner, Result

import ckpt.errors
from ckpt.addresses import inside_folder
from ckpt.cli import main as main_module
from ckpt.cli import output as output_module
from ckpt.cli.context import Invocation, nearest_store
from ckpt.cli.main import COMMANDS, cli
from ckpt.cli.schemas import SCHEMAS

ROOT = Path(__file__).resolve().parents[2]
GROUPS = {"key", "op"}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make every command that opens the store fail with this error."""

    def repository(_self: Invocation, *, write: bool = False) -> object:
        raise error

    monkeypatch.setattr(Invocation, "repository", repository)


def test_help_needs_no_command_module_and_no_engine() -> None:
    script = (
        "import sys\nfrom ckpt.cli.main import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit: pass\n"
        "print(' '.join(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "ckpt.cli.main" in loaded
    heavy = {
        "sqlite3",
        "sqlite_utils",
        "msgpack",
        "blake3",
        "zstandard",
        "langgraph",
        "ckpt.repository",
        "difflib",
    }
    assert loaded & heavy == set()
    assert not any(name.startswith(("ckpt.cli.commands.", "ckpt.storage", "ckpt.values")) for name in loaded)


def test_help_starts_within_twice_the_time_of_importing_click() -> None:
    def seconds(*arguments: str) -> float:
        null = subprocess.DEVNULL
        process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=null, stderr=null)
        _, process.returncode, used = os.wait4(process.pid, 0)
        assert process.returncode == 0
        return used.ru_utime + used.ru_stime

    pairs = [(seconds("-m", "ckpt", "--help"), seconds("-c", "import click")) for _ in range(11)]
    # The least of each: whatever else the machine does only adds to it.
    ours, clicks = map(min, zip(*pairs, strict=True))
    assert ours / clicks <= 2.0, f"{ours * 1000:.0f} ms against {clicks * 1000:.0f} ms"


def test_the_table_of_commands_says_what_the_commands_say() -> None:
    context = click.Context(cli)
    for name, text in COMMANDS.items():
        found = cli.get_command(context, name)
        assert found is not None
        assert (found.name, found.get_short_help_str(limit=200)) == (name, text)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_two_lengths_of_help(name: str) -> None:
    long, short = run(name, "--help"), run(name, "-h")
    assert (long.exit_code, short.exit_code) == (0, 0)
    assert COMMANDS[name] in short.stdout
    assert "--store" not in short.stdout
    assert len(short.stdout) < len(long.stdout) or name in GROUPS
    if name not in GROUPS:
        assert "--store" in long.stdout
        assert "Examples:" in long.stdout


def test_every_example_is_a_command_line_that_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    import shlex

    stop = ckpt.errors.StoreNotFoundError("stop here")
    raising(monkeypatch, stop)
    monkeypatch.setattr(Invocation, "store_url", lambda self: (_ for _ in ()).throw(stop))
    seen = 0
    for name in COMMANDS:
        examples = getattr(cli.get_command(click.Context(cli), name), "examples", "")
        for line in examples.splitlines():
            words = shlex.split(line.partition(" > ")[0])
            if words[0] != "ckpt" or "init" in words:
                continue
            result = run(*words[1:])
            assert result.exit_code in (0, 10), (line, result.stderr)
            seen += 1
    assert seen > 25


def test_version() -> None:
    assert run("--version").stdout == f"ckpt {ckpt.__version__}\n"


def test_python_dash_m_is_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ckpt", "schema"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, sorted(SCHEMAS))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lgo", "log"),
        ("thread", "threads"),
        ("rewnd", "rewind"),
        ("check", "checkout"),
        ("chekcuot", "checkout"),
    ],
)
def test_an_unknown_command_names_the_nearest(typed: str, meant: str) -> None:
    result = run(typed)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"error: there is no command {typed}\nhint: did you mean {meant}?\n"
    for far in ("xyzzy", "nope", "p", "x" * 10_000):
        assert run(far).stderr.endswith("hint: ckpt --help lists the commands\n")


def test_an_unknown_option_names_one_that_is_close_and_no_other() -> None:
    close, far = run("prune", "--keep-lsat", "2"), run("show", "--bogus")
    assert close.stderr == (
        "error: no such option: --keep-lsat\n"
        "hint: did you mean --keep-last?\n"
        "hint: ckpt prune --help explains the command\n"
    )
    assert far.stderr == "error: no such option: --bogus\nhint: ckpt show --help explains the command\n"


def test_help_knows_the_commands_inside_of_a_command() -> None:
    assert run("help", "op", "log").stdout.startswith("Usage: ckpt op log [OPTIONS]")
    assert run("help", "op").stdout.startswith("Usage: ckpt op ")
    for words, message in (
        (("op", "bogus"), "error: op has no command bogus\nhint: it has log\n"),
        (("log", "show"), "error: log has no command show\nhint: name one command or topic\n"),
        (("nope",), "error: there is no command nope\nhint: ckpt --help lists the commands\n"),
        (("revision",), "error: there is no command revision\nhint: did you mean revisions?\n"),
    ):
        result = run("help", *words)
        assert (result.exit_code, result.stderr) == (2, message)


@pytest.mark.parametrize(
    "line",
    [
        "show --bogus",
        "log -n x",
        "fork a",
        "schema nope",
        "completion tcsh",
        "op bogus",
        "show",
        "rewind",
        "rewind a x",
        "rewind -t a 1 2",
        "delete",
        "delete a -t b",
        "prune --keep-last 1",
        "prune a --all --keep-last 1",
        "gc --grace 14",
        "tag -d a b",
        "show a -- x[[[",
        "show (a)",
        "diff a @~x",
        "--color purple threads",
        "help nope",
        "--ns sub rewind a",
        "--ns sub delete a -y",
        "--ns sub prune a --keep-last 1 -y",
        "--ns sub expire a 1h",
        "log --all -t a",
        "log --all a",
        "show a --writes b",
        "show a --meta -- b",
        "show a --meta --state",
        "diff a --stat --keys",
        "diff a --keys --full",
        "diff a --words --stat",
        "diff a --words --keys",
        *(f"{line} -t a" for line in ("stats", "threads", "fsck", "op log", "undo")),
        *(f"{line} --ns s" for line in ("stats", "threads", "fsck", "op log", "undo")),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_to_do(line: str) -> None:
    result = run(*line.split())
    assert result.exit_code == 2, result.output
    lines = result.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("hint: ")
    assert "Traceback" not in result.stderr


def engine_errors() -> list[ckpt.errors.CkptError]:
    def leaves(kind: type[ckpt.errors.CkptError]) -> list[type[ckpt.errors.CkptError]]:
        public = [child for child in kind.__subclasses__() if child.__module__ == "ckpt.errors"]
        return [kind, *(leaf for child in public for leaf in leaves(child))]

    extra = {
        ckpt.errors.UnstorableValueError: {"path": "a.b"},
        ckpt.errors.AmbiguousRevisionError: {"candidates": ['thread:"acme~1"', 'thread:"acme"~1']},
    }
    made = []
    for kind in leaves(ckpt.errors.CkptError):
        if kind is ckpt.errors.StateTooLargeError:
            made.append(kind(size=2, limit=1, channels={"a": 2}))
        else:
            made.append(kind(f"{kind.__name__} happened", hints=["do this"], **extra.get(kind, {})))
    return made


@pytest.mark.parametrize("error", engine_errors(), ids=lambda error: type(error).__name__)
def test_engine_errors_become_lines_a_code_and_a_document(
    monkeypatch: pytest.MonkeyPatch, error: ckpt.errors.CkptError
) -> None:
    raising(monkeypatch, error)
    plain, as_json = run("threads"), run("threads", "--json")
    assert plain.exit_code == as_json.exit_code == error.exit_code
    assert plain.stdout == as_json.stdout == ""
    assert plain.stderr.startswith(f"error: {error}\n")
    assert all(f"hint: {hint}\n" in plain.stderr for hint in error.hints)
    document = json.loads(as_json.stderr.splitlines()[-1])
    jsonschema.validate(document, SCHEMAS["error"]())
    assert (document["code"], document["exit"], document["message"]) == (
        error.code,
        error.exit_code,
        str(error),
    )
    assert document.get("candidates", []) == list(getattr(error, "candidates", []))


def test_usage_errors_are_documents_too() -> None:
    for arguments in (["show", "--bogus", "--json"], ["--json", "lgo"], ["log", "-n", "x", "--jsonl"]):
        document = json.loads(run(*arguments).stderr.splitlines()[-1])
        jsonschema.validate(document, SCHEMAS["error"]())
        assert document["exit"] == 2


def test_unknown_exceptions_are_internal_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, RuntimeError("broken \x1b[2J inside"))
    result = run("threads")
    assert (result.exit_code, result.stdout) == (70, "")
    assert result.stderr.startswith("error: internal error: RuntimeError: broken \\x1b[2J inside\nhint: ")
    assert "Traceback" not in result.stderr
    assert "Traceback" in run("threads", "--debug").stderr
    assert "\x1b" not in run("threads", "--debug").stderr


def test_interruption_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    result = run("threads")
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [["schema", "log"], ["help", "revisions"], ["--help"]])
def test_a_broken_pipe_ends_quietly_with_141(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ckpt", *arguments],
            cwd=ROOT,
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_schema_is_valid_and_printed(name: str) -> None:
    printed = json.loads(run("schema", name).stdout)
    jsonschema.Draft202012Validator.check_schema(printed)
    assert printed == SCHEMAS[name]() == json.loads(run("schema", name, "--json").stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(shell: str) -> None:
    pytest.importorskip("click.shell_completion")
    result = run("completion", shell)
    assert result.exit_code == 0 or (shell == "bash" and "Bash" in result.output)
    assert "_CKPT_COMPLETE" in result.stdout


@pytest.mark.parametrize("topic", ["revisions", "json", "exit-codes", "environment"])
def test_topics_fit_the_screen(topic: str) -> None:
    text = run("help", topic).stdout
    assert text
    assert max(map(len, text.splitlines())) <= 110


def test_help_of_a_command_is_its_own_help() -> None:
    assert run("help", "log").stdout == run("log", "--help").stdout
    assert "Commands:" in run("help").stdout


def test_help_names_every_exit_code_of_the_engine() -> None:
    text = run("help", "exit-codes").stdout
    codes = {error.exit_code for error in engine_errors()} - {1}
    assert all(f"\n{code:4}   " in f"\n{text}" for code in codes)


def test_the_store_is_found_upwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    with pytest.raises(ckpt.errors.StoreNotFoundError) as caught:
        Invocation().store_url()
    assert [("ckpt init" in hint, "CKPT_CONFIG" in hint) for hint in caught.value.hints] == [(True, False)]
    monkeypatch.setenv("CKPT_CONFIG", "agents.toml")
    with pytest.raises(ckpt.errors.StoreNotFoundError) as caught:
        Invocation().store_url()
    assert "CKPT_CONFIG is set, but only programs read it" in caught.value.hints[1]
    store = tmp_path / ".ckpt" / "store.db"
    store.parent.mkdir()
    store.touch()
    assert Invocation().store_url() == str(store)
    nearer = tmp_path / "a" / ".ckpt" / "store.db"
    nearer.parent.mkdir()
    assert nearest_store(deep) == store
    nearer.touch()
    assert nearest_store(deep) == nearer


def test_the_flag_beats_the_environment_beats_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".ckpt").mkdir()
    (tmp_path / ".ckpt" / "store.db").touch()
    monkeypatch.setenv("CKPT_STORE", "sqlite:///from-environment.db")
    assert Invocation().store_url() == "sqlite:///from-environment.db"
    assert Invocation(store_option="memory://").store_url() == "memory://"
    monkeypatch.setenv("CKPT_STORE", "")
    assert Invocation().store_url() == str(tmp_path / ".ckpt" / "store.db")


def test_a_store_that_is_named_is_the_one_or_it_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with an unset variable in a script: `ckpt --store "$AGENTS" gc` must not work on another store."""
    (tmp_path / ".ckpt").mkdir()
    (tmp_path / ".ckpt" / "store.db").touch()
    for environment in ("", "memory://"):
        monkeypatch.setenv("CKPT_STORE", environment)
        for words in (["threads"], ["init"], ["gc", "--grace", "0s"]):
            result = run("--store", "", *words)
            assert (result.exit_code, "--store is empty" in result.stderr) == (2, True)
    result = run("--store", "named.db", "init", "folder")
    assert (result.exit_code, "give one of them" in result.stderr) == (2, True)
    assert not (tmp_path / "folder").exists()
    assert not (tmp_path / "named.db").exists()
    assert run("init", "folder").exit_code == 0
    assert (tmp_path / "folder" / ".ckpt" / "store.db").exists()


@pytest.mark.parametrize("words", [["threads", "-n", "0"], ["op", "log", "-n", "0"], ["log", "-n", "0"]])
def test_none_at_all_is_no_number_to_ask_for(words: list[str]) -> None:
    assert run(*words).exit_code == 2


def test_a_thread_without_a_name_is_not_made(graph_store: Path) -> None:
    result = run("fork", "support-42", "")
    assert (result.exit_code, "NEW_THREAD is empty" in result.stderr) == (2, True)


def test_a_folder_stands_for_the_store_inside_it(tmp_path: Path) -> None:
    folder = tmp_path / "project" / ".ckpt"
    folder.mkdir(parents=True)
    assert inside_folder(str(folder)) == str(folder / "store.db")
    assert inside_folder(str(tmp_path / "project")) == str(tmp_path / "project")
    (folder / "store.db").touch()
    assert inside_folder(str(tmp_path / "project")) == str(folder / "store.db")
    assert inside_folder("sqlite:///x") == "sqlite:///x"
    assert inside_folder(str(tmp_path / "new" / ".ckpt")) == str(tmp_path / "new" / ".ckpt" / "store.db")
    (tmp_path / ".ckpt").touch()
    assert inside_folder(str(tmp_path / ".ckpt")) == str(tmp_path / ".ckpt")


def test_a_store_named_by_its_folder_is_made_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CKPT_STORE", ".ckpt")
    assert run("init").exit_code == 0
    monkeypatch.delenv("CKPT_STORE")
    assert Invocation().store_url() == str(tmp_path / ".ckpt" / "store.db")


def test_the_thread_option_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Invocation().thread is None
    monkeypatch.setenv("CKPT_THREAD", "odd ~1")
    assert Invocation().thread == "odd ~1"
    assert Invocation(thread_option="").thread == ""
    assert Invocation().revision(None) == "@"


def test_global_options_stand_before_or_after_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []

    def repository(self: Invocation, *, write: bool = False) -> object:
        seen.append((self.thread, self.store_option, self.namespace, self.settings.json, self.settings.utc))
        raise ckpt.errors.StoreNotFoundError("stop")

    monkeypatch.setattr(Invocation, "repository", repository)
    options = ["-t", "a~1", "--store", "s", "--ns", "sub", "--json", "--utc"]
    run(*options, "log")
    run("log", *options)
    assert seen == [("a~1", "s", "sub", True, True)] * 2


def test_nothing_is_confirmed_when_nobody_can_answer() -> None:
    with pytest.raises(ckpt.errors.InvalidInputError, match="not a terminal"):
        Invocation().confirm("Delete?", yes=False)
    Invocation().confirm("Delete?", yes=True)


def test_modules_are_where_the_table_says() -> None:
    folder = Path(main_module.__file__).parent / "commands"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert files == {main_module._MODULES.get(name, name) for name in COMMANDS}
    assert output_module.STYLES

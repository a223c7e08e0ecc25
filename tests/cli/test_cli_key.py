"""`ckpt key rotate`, and the other commands on an encrypted store: the key comes from the environment or a file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from cli_kit import document, run, succeed

import ckpt
from ckpt.cli.main import cli
from ckpt.cli.schemas import SCHEMAS
from ckpt.encryption import rotation

OLD, NEW = "hex:" + "1a" * 32, "hex:" + "2b" * 32


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An encrypted store with two checkpoints, the one that commands find; its key is in the environment."""
    path = tmp_path / "store.db"
    with ckpt.open(path, encryption_key=OLD, actor="ana@laptop") as repository:
        repository.thread("plans").commit({"title": "draft"})
        repository.thread("plans").commit({"title": "final"})
    (tmp_path / "next.key").write_text(NEW + "\n")
    monkeypatch.setenv("CKPT_STORE", str(path))
    monkeypatch.setenv("CKPT_ENCRYPTION_KEY", OLD)
    return path


def test_the_whole_story(store: Path, golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []

    def say(line: str) -> None:
        result = run(*shlex.split(line))
        code = f"(exit {result.exit_code})\n" if result.exit_code else ""
        shown.append(f"$ ckpt {line}\n{result.stdout}{result.stderr}{code}")

    say("show plans title")
    say("key rotate")
    say("key rotate --new-key-file absent.key")
    say("key rotate --new-key-file next.key")
    say("show plans title")
    monkeypatch.delenv("CKPT_ENCRYPTION_KEY")
    say("show plans title")
    say("key rotate --data")
    monkeypatch.setenv("CKPT_ENCRYPTION_KEY_FILE", "next.key")
    say("show plans title")
    say("key rotate --data")
    say("fsck")
    golden("key", "\n".join(shown))


def test_rotation_as_json(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = document("key", "rotate", "--data", "--new-key-file", str(tmp_path / "next.key"))
    jsonschema.validate(found, SCHEMAS["key"](), cls=jsonschema.Draft202012Validator)
    assert (found["new_key"], found["new_data_key"]) == (True, True)
    assert found["records"] > 3
    assert found["frames"] == 2
    monkeypatch.setenv("CKPT_ENCRYPTION_KEY", NEW)
    assert succeed("show", "plans~1", "title") == "draft\n"


def test_a_rotation_that_was_interrupted_goes_on(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(storage: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rotation, "_reseal_frames", interrupted)
        assert run("key", "rotate", "--data").exit_code == 130
    assert succeed("show", "plans", "title") == "final\n"
    found = document("key", "rotate", "--data")
    assert (found["records"], found["frames"]) == (0, 2)


def test_init_makes_an_encrypted_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    succeed("init", "plain-first")
    monkeypatch.setenv("CKPT_ENCRYPTION_KEY", OLD)
    for folder in ("own", "own", "plain-first"):
        succeed("init", folder)
    monkeypatch.delenv("CKPT_ENCRYPTION_KEY")
    for folder in ("own", "plain-first"):
        refused = run("--store", folder, "threads", "--json")
        assert refused.exit_code == 12
        assert json.loads(refused.stderr.splitlines()[-1])["code"] == "WRONG_KEY"


@pytest.mark.parametrize("name", ["CKPT_ENCRYPTION_KEY", "CKPT_ENCRYPTION_KEY_FILE"])
@pytest.mark.parametrize("blank", ["", " \n"])
def test_a_key_that_failed_to_load_makes_no_plain_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, blank: str
) -> None:
    monkeypatch.setenv(name, blank)
    for words in (["init"], ["init", "own"], ["--store", "named.db", "init"]):
        refused = run(*words)
        assert (refused.exit_code, f"{name} is set but empty" in refused.stderr) == (2, True)
    (tmp_path / "none.key").write_text("\n \n")
    monkeypatch.delenv(name)
    monkeypatch.setenv("CKPT_ENCRYPTION_KEY_FILE", "none.key")
    refused = run("init")
    assert (refused.exit_code, "the key file none.key is empty" in refused.stderr) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["none.key"]


def test_where_the_key_comes_from(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CKPT_ENCRYPTION_KEY_FILE", str(tmp_path / "next.key"))
    both = run("threads")
    assert (both.exit_code, "both set" in both.stderr) == (2, True)
    monkeypatch.delenv("CKPT_ENCRYPTION_KEY")
    assert run("threads").exit_code == 12
    for text in (OLD, OLD + "\n", OLD + "\r\n", "\ufeff" + OLD, "\r\n\n" + OLD, "  " + OLD + " \n\n", OLD.upper()):
        (tmp_path / "own.key").write_bytes(text.encode())
        monkeypatch.setenv("CKPT_ENCRYPTION_KEY_FILE", str(tmp_path / "own.key"))
        assert succeed("show", "plans", "title") == "final\n"
    (tmp_path / "own.key").write_bytes(b"\xff\xfesecret")
    unreadable = run("--debug", "threads")
    assert unreadable.exit_code == 2
    assert "it is not text" in unreadable.stderr
    assert "secret" not in unreadable.stderr


def test_a_plain_store_wants_no_key(plain_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = plain_store.read_bytes()
    monkeypatch.setenv("CKPT_ENCRYPTION_KEY", OLD)
    refused = run("key", "rotate", "--data")
    assert refused.exit_code == run("threads").exit_code == 12
    assert "is not encrypted" in refused.stderr
    assert plain_store.read_bytes() == before


def test_examples_parse() -> None:
    import click

    group = cli.get_command(click.Context(cli), "key")
    assert isinstance(group, click.Group)
    examples = getattr(group.commands["rotate"], "examples", "").splitlines()
    assert examples
    for line in examples:
        assert "no key is given" in run(*shlex.split(line)[1:]).stderr

"""Completion in bash itself: what it puts in place of the word, or of that part of the word which it knows of."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_kit import run

import ckpt

ROOT = Path(__file__).resolve().parents[2]
BREAKS = " \t\n\"'@><=;|&(:"
"""Where bash breaks words unless told otherwise."""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ckpt.open(tmp_path / "s.db") as repository:
        for name in ("user:ana", "user:ben", "user:al:1", "a=b@c", "a=b@d", "plain", "with,comma"):
            repository.commit(name, {"a": 1})
        repository.tag("good", "plain")
        repository.tag("good-2", "plain")
    for graph in ("support", "eu:billing", "eu:sales"):
        with ckpt.open(tmp_path / "s.db", graph=graph) as repository:
            repository.commit("t", {"a": 1})
    monkeypatch.setenv("CKPT_STORE", str(tmp_path / "s.db"))
    command = tmp_path / "ckpt"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m ckpt "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def replies(line: str, breaks: str = BREAKS) -> list[str]:
    """Return what bash would offer where the cursor stands at the end of a line."""
    script = (
        f"{run('completion', 'bash').stdout}\n"
        f"COMP_WORDBREAKS={shlex.quote(breaks)} COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}\n"
        '_ckpt_completion ckpt\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return sorted(done.stdout.split("\n")[:-1])


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ckpt log us", ["user:al:1", "user:ana", "user:ben"]),
        ("ckpt log user:", ["al:1", "ana", "ben"]),
        ("ckpt log user:a", ["al:1", "ana"]),
        ("ckpt log user:al:", ["1"]),
        ("ckpt log a=", ["b@c", "b@d"]),
        ("ckpt log a=b@", ["c", "d"]),
        ("ckpt log 'user:a", ["user:al:1", "user:ana"]),
        ("ckpt diff user:ana user:b", ["ben"]),
        ("ckpt log -t user:b", ["ben"]),
        ("ckpt log --thread=user:b", ["ben"]),
        ("ckpt log with", ["with,comma"]),
        ("ckpt log zz", [""]),
        ("ckpt threads --graph ", ["eu:billing", "eu:sales", "support"]),
        ("ckpt --graph eu:s", ["sales"]),
        ("ckpt --graph=eu:", ["billing", "sales"]),
        ("ckpt log --graph support ", ["t"]),
        ("ckpt tag -d go", ["good", "good-2"]),
        ("ckpt rewi", ["rewind"]),
    ],
)
def test_what_is_offered(store: None, line: str, offered: list[str]) -> None:
    assert replies(line) == offered


def test_who_has_taken_the_colon_out_of_the_word_breaks_gets_whole_words(store: None) -> None:
    assert replies("ckpt log user:a", breaks=" \t\n") == ["user:al:1", "user:ana"]


def test_nothing_is_offered_without_a_store(store: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CKPT_STORE", "missing.db")
    for line in ("ckpt log ", "ckpt tag -d ", "ckpt --graph "):
        assert replies(line) == [""]


def test_asked_in_the_way_of_click_it_answers_too(store: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_CKPT_COMPLETE", "bash_complete"), ("COMP_WORDS", "ckpt log user:al"), ("COMP_CWORD", "2")):
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-m", "ckpt"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("plain,user:al:1\n", "")

"""The command line where its streams are closed, full or read by nobody, and where names are no text."""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import ckpt

ROOT = Path(__file__).resolve().parents[2]
SHELL = """
ckpt() {{ "{python}" -m ckpt "$@"; }}
cd {folder}
{line}
"""


def in_shell(folder: Path, line: str) -> tuple[str, str, int]:
    """Run a line of bash, in which `ckpt` is that of this checkout; return what it printed and its exit code."""
    script = SHELL.format(python=sys.executable, folder=folder, line=line)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, env=environment)
    return done.stdout, done.stderr, done.returncode


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = tmp_path / ".ckpt" / "store.db"
    store.parent.mkdir()
    with ckpt.open(store) as repository:
        repository.thread("t").commit({"n": 1})
        repository.thread("t").commit({"n": 2})
    return tmp_path


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_changes_neither_the_exit_code_nor_what_is_done(folder: Path, closed: str) -> None:
    for line, code in (("ckpt threads", 0), ("ckpt log nope", 3), ("ckpt diff t t --exit-code", 0), ("ckpt", 2)):
        assert (in_shell(folder, f"{line} {closed}")[2], line) == (code, line)
    assert in_shell(folder, f"ckpt tag v1 t {closed}")[2] == 0
    assert "v1" in in_shell(folder, "ckpt tag")[0]


@pytest.mark.parametrize("there", ["2>/dev/full", "2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}"])
def test_errors_that_nobody_reads_leave_the_exit_code(folder: Path, there: str) -> None:
    for line, code in (("log nope", 3), ("log nope --json", 3), ("frok", 2), ("threads 'nope*'", 0), ("", 2)):
        assert (in_shell(folder, f"ckpt {line} {there}")[2], line) == (code, line)


@pytest.mark.parametrize("line", ["threads", "threads --json", "--version", "log --help", "tag v1 t"])
def test_a_full_disk_under_the_output_is_told(folder: Path, line: str) -> None:
    _, told, code = in_shell(folder, f"ckpt {line} >/dev/full")
    assert (code, told.splitlines()[0]) == (74, "error: the output cannot be written: No space left on device")
    assert "Exception" not in told
    if "--json" in line:
        assert json.loads(told.splitlines()[-1])["exit"] == 74
    if line.startswith("tag"):
        assert "v1" in in_shell(folder, "ckpt tag")[0]


def test_a_working_directory_that_is_gone_is_told(folder: Path) -> None:
    _, told, code = in_shell(folder, "mkdir gone; cd gone; rmdir ../gone; ckpt threads")
    assert (code, told.splitlines()[0]) == (10, "error: no store here: the working directory does not exist any more")


@pytest.mark.parametrize("name", ["bad\udcff.db", "d\udcff"])
def test_a_name_that_is_not_utf8_is_a_name(tmp_path: Path, name: str) -> None:
    named = shlex.quote(os.fsencode(tmp_path / name).decode("latin-1"))
    for line in ("init", "threads --json", "threads"):
        command = f"ckpt --store {named} {line}".encode("latin-1")
        script = SHELL.format(python=sys.executable, folder=tmp_path, line="LINE").encode().replace(b"LINE", command)
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert done.returncode == 0, done.stderr
        if "json" in line:
            url = json.loads(done.stdout)["store"]["url"]
            assert "%FF" in url
            with ckpt.open(url, create=False) as repository:
                assert repository.thread_names() == []


def test_what_is_no_file_is_no_store(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    _, told, code = in_shell(tmp_path, "ckpt --store pipe threads")
    assert (code, told.splitlines()[0]) == (10, "error: pipe is a device or a pipe, not a store")
    _, told, code = in_shell(tmp_path, f"ckpt --store {'x' * 300} threads")
    assert (code, told.splitlines()[0]) == (2, "error: the path of the store cannot be used: File name too long")


@pytest.mark.parametrize(
    ("typed", "code", "told"), [(b"n\n", 1, "Nothing was changed."), (b"\x04", 130, "error: interrupted")]
)
def test_a_question_that_is_not_answered_with_yes_changes_nothing(
    folder: Path, typed: bytes, code: int, told: str
) -> None:
    terminal, program = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "ckpt", "delete", "t"]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=program, stdout=program, stderr=program, start_new_session=True
    )
    os.close(program)
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, typed)
    assert process.wait(30) == code
    with suppress(OSError):  # Linux ends a terminal that nobody has open with an error
        while part := os.read(terminal, 1000):
            shown += part
    os.close(terminal)
    assert told in shown.decode().splitlines()
    with ckpt.open(folder / ".ckpt" / "store.db", readonly=True) as repository:
        assert repository.thread_names() == ["t"]

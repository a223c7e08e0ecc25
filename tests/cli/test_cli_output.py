"""The output and the pager: colours, columns, encodings, JSON, and when a pager is used."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from script_kit import output_of, python

from ckpt.cli.output import Cell, Output, Settings
from ckpt.cli.pager import Pager, command


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def output(
    monkeypatch: pytest.MonkeyPatch, *, terminal: bool = False, **settings: object
) -> tuple[Output, io.StringIO]:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    return Output(Settings(**{"no_pager": True, **settings})), stream  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("terminal", "choice", "environment", "coloured"),
    [
        (True, "auto", {}, True),
        (False, "auto", {}, False),
        (True, "auto", {"NO_COLOR": "1"}, False),
        (True, "auto", {"NO_COLOR": ""}, True),
        (True, "auto", {"TERM": "dumb"}, False),
        (False, "auto", {"FORCE_COLOR": "1"}, True),
        (False, "auto", {"FORCE_COLOR": "0"}, False),
        (True, "auto", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (False, "always", {"NO_COLOR": "1"}, True),
        (True, "never", {"FORCE_COLOR": "1"}, False),
    ],
)
def test_when_output_is_coloured(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, choice: str, environment: dict[str, str], coloured: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out, stream = output(monkeypatch, terminal=terminal, color=choice)
    out.print(out.style("x", "add"))
    assert ("\x1b[" in stream.getvalue()) == coloured


def test_columns_give_way_where_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out, stream = output(monkeypatch)
    out.table(
        [
            [Cell("id"), Cell("word " * 20), Cell("1.2 kB", right=True)],
            [Cell("x"), Cell("漢字"), Cell("9 B", right=True)],
        ],
        flexible=(1,),
    )
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("…  1.2 kB")
    assert lines[1].endswith("     9 B")
    assert len(lines[0]) == 40


def test_columns_give_way_in_the_order_named(monkeypatch: pytest.MonkeyPatch) -> None:
    row = [Cell("n" * 40), Cell("idle"), Cell("fork of " + "f" * 40)]
    for width, name, origin in [(110, 40, 48), (90, 40, 42), (60, 40, 12), (50, 30, 12), (20, 12, 12)]:
        monkeypatch.setenv("COLUMNS", str(width))
        out, stream = output(monkeypatch)
        out.table([row], flexible=(2, 0))
        shown = stream.getvalue().rstrip("\n").split("  ")
        assert [len(cell) for cell in shown] == [name, 4, origin], width


def test_nothing_is_cut_where_no_width_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    out, stream = output(monkeypatch)
    out.table([[Cell("n" * 150), Cell("idle")]], flexible=(0,))
    assert stream.getvalue() == "n" * 150 + "  idle\n"


def test_an_encoding_that_cannot_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    out = Output(Settings(no_pager=True))
    out.print("a … é")
    out.close()
    assert out.ascii
    assert raw.getvalue() == b"a ... \\xe9\n"


def test_json_is_ascii_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    out, stream = output(monkeypatch, json=True)
    out.document("x/1", {"text": "é\x7f\x9b\u202e\ud800\n"})
    assert stream.getvalue().isascii()
    assert stream.getvalue().count("\n") == 1
    assert "\x7f" not in stream.getvalue()
    assert json.loads(stream.getvalue())["text"] == "é\x7f\x9b\u202e\ud800\n"


def test_raw_opts_out_of_escaping(monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = output(monkeypatch)
    assert out.text("\x1b[31m") == "\\x1b[31m"
    out, _ = output(monkeypatch, raw=True)
    assert out.text("\x1b[31m") == "\x1b[31m"


def test_quiet_keeps_remarks_back_but_not_results(monkeypatch: pytest.MonkeyPatch) -> None:
    out, stream = output(monkeypatch, quiet=True)
    out.note("remark")
    out.print("result")
    assert (stream.getvalue(), sys.stderr.getvalue()) == ("result\n", "")  # type: ignore[attr-defined]


def paged(tmp_path: Path, lines: int, *, height: int) -> tuple[str, str]:
    direct: list[str] = []
    pager = Pager(direct.append, height=height)
    for number in range(lines):
        pager.write(f"line {number} é\n")
    pager.close()
    seen = tmp_path / "seen"
    return "".join(direct), seen.read_text(encoding="utf-8") if seen.exists() else ""


def test_the_pager_sees_only_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"import sys; open({str(tmp_path / 'seen')!r}, 'wb').write(sys.stdin.buffer.read())"
    monkeypatch.setenv("CKPT_PAGER", f'"{sys.executable}" -c "{script}"')
    assert paged(tmp_path, 9, height=10) == ("".join(f"line {n} é\n" for n in range(9)), "")
    assert paged(tmp_path, 30, height=10) == ("", "".join(f"line {n} é\n" for n in range(30)))


@pytest.mark.parametrize("pager", ["", "cat", "/does/not/exist"])
def test_no_pager_is_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pager: str) -> None:
    monkeypatch.setenv("CKPT_PAGER", pager)
    assert paged(tmp_path, 30, height=10)[0].count("\n") == 30


def test_leaving_the_pager_early_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CKPT_PAGER", f'"{sys.executable}" -c "pass"')
    paged(tmp_path, 100_000, height=10)


def test_which_pager(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command() == ["less", "-FRX"]
    monkeypatch.setenv("PAGER", "more")
    assert command() == ["more"]
    monkeypatch.setenv("CKPT_PAGER", "most -s")
    assert command() == ["most", "-s"]
    for shells in ("head -5 | cat", "LESS=x less", "less 'x"):
        monkeypatch.setenv("CKPT_PAGER", shells)
        assert command() == ["sh", "-c", shells]


def test_less_is_told_to_show_colours_unless_it_was_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    for given, wanted in ((None, "FRX"), ("S", "S")):
        monkeypatch.setenv("CKPT_PAGER", f'cat >/dev/null; printf %s "$LESS" > {told}')
        monkeypatch.setenv("LESS", given) if given else monkeypatch.delenv("LESS", raising=False)
        pager = Pager(lambda _: None, height=1)
        pager.write("a line\n")
        pager.write("another\n")
        pager.close()
        assert told.read_text() == wanted


def test_an_interrupt_is_for_the_pager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    left = tmp_path / "left"
    monkeypatch.setenv("CKPT_PAGER", f"cat >/dev/null; sleep 0.6; touch {left}")
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        pager = Pager(lambda _: None, height=1)
        pager.write("a line\n")
        pager.write("another\n")
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        pager.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert left.exists()


def test_a_pager_is_used_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal, settings, wanted in ((True, {}, True), (False, {}, False), (True, {"json": True}, False)):
        out, _ = output(monkeypatch, terminal=terminal, no_pager=False, **settings)
        assert (out._pager is not None) == wanted


def test_remarks_stand_where_they_were_made_when_all_goes_to_one_pipe() -> None:
    script = """
        from ckpt.cli.output import Output, Settings

        out = Output(Settings())
        out.print("result")
        out.note("remark")
        out.print("more")
        out.close()
    """
    process = python(script, stderr=subprocess.STDOUT)
    assert output_of(process) == "result\nremark\nmore\n"


@pytest.mark.parametrize("lines", [2, 30])
def test_remarks_on_a_terminal_follow_what_the_pager_shows(tmp_path: Path, lines: int) -> None:
    script = f"""
        from ckpt.cli.output import Output, Settings

        out = Output(Settings())
        out.note("before")
        for number in range({lines}):
            out.print(f"line {{number}}")
        out.note("after")
        out.close()
    """
    terminal, program = pytest.importorskip("pty").openpty()
    environment = {**os.environ, "CKPT_PAGER": "tac", "LINES": "10"}
    process = python(script, stdout=program, stderr=program, env=environment)
    os.close(program)
    process.communicate(timeout=60)
    shown = os.read(terminal, 10_000).decode().split()
    os.close(terminal)
    numbers = [str(number) for number in range(lines)]
    assert shown[0] == "before"
    assert shown[1:-1:2] == ["line"] * lines
    assert shown[2:-1:2] == (numbers if lines < 10 else numbers[::-1])
    assert shown[-1] == "after"


def test_a_full_disk_does_not_hide_what_is_complained_of() -> None:
    script = """
        from ckpt.cli.output import Output, Settings

        out = Output(Settings())
        out.print("result")
        out.complain("what went wrong")
        out.close()
    """
    with Path("/dev/full").open("w") as full:
        process = python(script, stdout=full)
    _, complained = process.communicate(timeout=60)
    assert complained.startswith("what went wrong\n")
    assert "No space left" in complained
    assert process.returncode != 0

"""The only module that writes: results to stdout, all else to stderr.

Human output is escaped, coloured, cut to the width of the terminal and paged; JSON output is none of
these. Text that came from a store passes `Output.text` before it becomes part of a line.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any, Final, TextIO

import click

from ckpt.cli.escape import escape, escape_lines
from ckpt.cli.format import cut, width_of

STYLES: Final[dict[str, dict[str, Any]]] = {
    "id": {"fg": "magenta", "bold": True},
    "dim": {"dim": True},
    "head": {"fg": "green", "bold": True},
    "waiting": {"fg": "yellow"},
    "failed": {"fg": "red"},
    "tag": {"fg": "cyan"},
    "add": {"fg": "green"},
    "remove": {"fg": "red"},
    "change": {"fg": "yellow"},
    "key": {"bold": True},
    "error": {"fg": "red", "bold": True},
    "hint": {"fg": "cyan"},
}
WIDTH_WITHOUT_TERMINAL: Final = 120
_FLEXIBLE_WIDTH_MIN: Final = 12
_ASCII: Final = str.maketrans({"…": "...", "·": "|", "×": "x", "→": "->", "–": "-"})
_UNICODE_NEEDED: Final = "@○‖×◆│├─╯╮┼┴…·"


class BrokenOutputError(Exception):
    """Whoever read our output has stopped reading."""


class UnwritableOutputError(Exception):
    """What was printed cannot be written, as where a disk is full; the text says why."""


def open_streams() -> None:
    """Give a process that was started without some of its streams others, which nobody reads or writes."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  # until the end


def drop_unwritten() -> None:
    """Drop what cannot be written, over which the interpreter would stumble at its end; the exit code tells."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):  # a test's stdout has no descriptor
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def broken_pipe_ends() -> Iterator[None]:
    """Turn a broken pipe into BrokenOutputError, which click does not take for an error of its own."""
    try:
        yield
    except BrokenPipeError as error:
        raise BrokenOutputError from error


@contextmanager
def _telling_why() -> Iterator[None]:
    try:
        with broken_pipe_ends():
            yield
    except OSError as error:
        raise UnwritableOutputError(error.strerror or str(error)) from error


@dataclass
class Settings:
    """What the global options and the environment ask of the output."""

    json: bool = False
    jsonl: bool = False
    color: str = "auto"
    no_pager: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    utc: bool = False
    ascii: bool = False
    raw: bool = False


@dataclass(frozen=True)
class Cell:
    """One cell of a table: plain text, the name of its style, and whether it stands to the right."""

    text: str
    style: str = ""
    right: bool = False
    bold: int = 0  # how many characters at the beginning are emphasised instead


class Output:
    """Where a command's lines go."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._out: TextIO = sys.stdout
        self._err: TextIO = sys.stderr
        self._color = _wants_color(settings.color, self._out)
        self._color_err = _wants_color(settings.color, self._err)
        self.ascii = settings.ascii or not _encodes(self._out, _UNICODE_NEEDED)
        self.zone: tzinfo | None = UTC if settings.utc else None
        self._pager: Any = None
        self._remarks: list[str] = []
        if self._out.isatty() and not settings.no_pager and not self.json:
            from ckpt.cli.pager import Pager

            self._pager = Pager(self._write, height=shutil.get_terminal_size().lines)

    @property
    def json(self) -> bool:
        """Whether the result is wanted as JSON."""
        return self.settings.json or self.settings.jsonl

    @property
    def width(self) -> int:
        """The columns a line may have."""
        return max(shutil.get_terminal_size().columns, 20) if self._is_bounded else WIDTH_WITHOUT_TERMINAL

    @property
    def _is_bounded(self) -> bool:
        return "COLUMNS" in os.environ or self._out.isatty()

    def text(self, stored: str) -> str:
        """Return text from a store as it may stand in a line."""
        return stored if self.settings.raw else escape(stored)

    def name(self, thread: str) -> str:
        """Return the name of a thread as it may stand in a line; the empty one in quotes, so that it is seen."""
        return self.text(thread or '""')

    def lines(self, stored: str) -> list[str]:
        """Return text from a store as the lines it consists of."""
        return stored.split("\n") if self.settings.raw else escape_lines(stored)

    def style(self, text: str, name: str) -> str:
        """Return `text` in a colour if there are colours; never the only sign of anything."""
        return click.style(text, **STYLES[name]) if text and name and self._color else text

    def print(self, line: str = "") -> None:
        """Write one line of a result for people."""
        line = line.translate(_ASCII) if self.ascii else line
        if self._pager is not None:
            self._pager.write(line + "\n")
        else:
            self._write(line + "\n")

    def table(self, rows: Sequence[Sequence[Cell]], *, flexible: Sequence[int] = (), indent: str = "") -> None:
        """Write rows of cells in columns; the flexible ones give way, in this order, when the terminal is narrow.

        Where nothing says how wide it is, as in a pipe, nothing is cut.
        """
        flexible = flexible if self._is_bounded else ()
        for line in self.columns(rows, flexible=flexible, width=self.width - width_of(indent)):
            self.print(indent + line)

    def columns(self, rows: Sequence[Sequence[Cell]], *, flexible: Sequence[int], width: int) -> list[str]:
        """Return rows of cells as lines of equal columns, two spaces apart."""
        count = max(map(len, rows), default=0)
        widths = [max((width_of(row[i].text) for row in rows if i < len(row)), default=0) for i in range(count)]
        used = [i for i in range(count) if widths[i]]
        for column in flexible:
            if column in used:
                excess = sum(widths[i] + 2 for i in used) - 2 - width
                widths[column] = max(widths[column] - max(excess, 0), min(widths[column], _FLEXIBLE_WIDTH_MIN))
        return ["  ".join(self._cell(row[i], widths[i]) for i in used if i < len(row)).rstrip() for row in rows]

    def note(self, line: str) -> None:
        """Write a remark to stderr, unless the user wants quiet."""
        if not self.settings.quiet:
            self.complain(line)

    def complain(self, line: str, style: str = "", prefix: str = "") -> None:
        """Write a line to stderr, with an optional styled prefix, behind all that was printed before.

        When the pager has some of that, the line follows once the pager is left.
        """
        if prefix and style and self._color_err:
            prefix = click.style(prefix, **STYLES[style])
        if self._pager is not None and self._pager.is_used:
            self._remarks.append(f"{prefix}{line}\n")
        else:
            self._remark(f"{prefix}{line}\n")

    def _remark(self, text: str) -> None:
        # Where both go to one place, they are read in the order written. What cannot be written yet is tried again at
        # the end, where it is reported.
        with suppress(OSError):
            self._out.flush()
        # Where nobody listens, the exit code still tells.
        with suppress(BrokenOutputError, UnwritableOutputError):
            self._emit(self._err, text)

    def document(self, schema: str, content: Mapping[str, object]) -> None:
        """Write the one JSON document of a command."""
        self._json({"schema": schema, **content})

    def records(self, schema: str, store: Mapping[str, object], items: Sequence[object]) -> None:
        """Write a list: one document with `--json`, one record a line with `--jsonl`."""
        if self.settings.jsonl:
            for item in items:
                self._json(item)
        else:
            self.document(schema, {"store": store, "items": items})

    def close(self) -> None:
        """Finish: let the user leave the pager, then write the remarks that waited for that, and flush."""
        if self._pager is not None:
            self._pager.close()
            for remark in self._remarks:
                self._remark(remark)
        with _telling_why():
            self._out.flush()

    def _cell(self, cell: Cell, width: int) -> str:
        shown = cut(cell.text, width)
        space = " " * (width - width_of(shown))
        if cell.bold and self._color:
            shown = self.style(shown[: cell.bold], "id") + self.style(shown[cell.bold :], cell.style)
        else:
            shown = self.style(shown, cell.style)
        return space + shown if cell.right else shown + space

    def _json(self, document: object) -> None:
        # Plain ASCII is valid whatever the encoding of stdout, and holds nothing that steers a terminal.
        self._write(dump_json(document) + "\n")

    def _write(self, text: str) -> None:
        self._emit(self._out, text)

    @staticmethod
    def _emit(stream: TextIO, text: str) -> None:
        encoding = stream.encoding or "utf-8"
        with _telling_why():
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def dump_json(document: object) -> str:
    """Return compact JSON in ASCII, in which not even a delete character stands unescaped."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False)


def _wants_color(choice: str, stream: TextIO) -> bool:
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _encodes(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True

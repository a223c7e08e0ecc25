"""Pages that run: reading the fenced blocks of a Markdown file, running them, comparing what they print.

A `console` block holds commands on lines that begin with `$ `, each followed by its output; a `python` block
may be followed at once by a `text` block with what it prints. The blocks of a page run in their order, in a
directory of their own that holds `.ckpt/store.db`, the work of the demo's agent. Where a page names one of the
`SERVERS`, it gets a new store on a real one. A command without output lines may print what it likes.
`python tests/docs/refresh.py` writes the real output into the pages; a line
`?` stands for output to be filled in.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
WIDTH = 100

SERVERS = {"postgres": "postgresql://agents@db.internal/agents", "redis": "redis://cache.internal"}


def pages() -> list[Path]:
    """Return README.md and every page of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def make_store(path: Path) -> None:
    """Let the demo's agent work on a store."""
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    from three_threads import fill

    fill(path)


def servers_named(text: str) -> list[str]:
    """Return the backends whose server a page has its code use."""
    runs = "\n".join("\n".join(block.lines) for block in blocks(text) if block.language in ("console", "python"))
    return [backend for backend, written in SERVERS.items() if written in runs]


# -- reading ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its lines, and the number of its first line."""

    language: str
    lines: tuple[str, ...]
    line: int
    directly_after: int | None = None
    """The first line of the block that ends right before this one, with nothing but empty lines between."""


_FENCE = re.compile(r"^(`{3,})([\w-]*)\s*$")


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    found: list[Block] = []
    lines = text.splitlines()
    between = True
    number = 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if fence is None:
            between = between or bool(lines[number].strip())
            number += 1
            continue
        start = number + 1
        end = start
        while lines[end].rstrip() != fence.group(1):
            end += 1
        before = found[-1].line if found and not between else None
        found.append(Block(fence.group(2), tuple(lines[start:end]), start + 1, before))
        between = False
        number = end + 1
    return found


@dataclass(frozen=True)
class Step:
    """A command of a console block with the output the page shows; `line` is the command's own."""

    command: str
    shown: tuple[str, ...]
    line: int

    def may_end_with(self, code: int) -> bool:
        """Return whether an exit code is what the page leads one to expect."""
        if any(line.startswith("error:") for line in self.shown):
            return code != 0
        return code == 0 or (code == 1 and "--exit-code" in self.command)


def steps(block: Block) -> Iterator[Step]:
    """Yield the commands of a console block."""
    starts = [index for index, line in enumerate(block.lines) if line.startswith("$ ")]
    if not starts or starts[0] != 0:
        raise AssertionError(f"line {block.line}: a console block begins with a command")
    for start, end in zip(starts, [*starts[1:], len(block.lines)], strict=True):
        command = [block.lines[start].removeprefix("$ ")]
        while command[-1].endswith("\\"):
            command.append(block.lines[start + len(command)].removeprefix("> "))
        shown = block.lines[start + len(command) : end]
        yield Step("\n".join(command), shown, block.line + start)


# -- running ----------------------------------------------------------------------------------------------


class Page:
    """One run of one page, in a directory of its own; `servers` are the URLs for the backends in `SERVERS`."""

    def __init__(self, folder: Path, store: Path, servers: Mapping[str, str] | None = None) -> None:
        self._servers = {SERVERS[backend]: url for backend, url in (servers or {}).items()}
        self.folder = folder / "project"
        (self.folder / ".ckpt").mkdir(parents=True)
        shutil.copy(store, self.folder / ".ckpt" / "store.db")
        self._environment = environment(folder)
        self._module = types.ModuleType("documentation_page")
        self._status = 0

    def shell(self, command: str) -> tuple[str, int]:
        """Run a command line; return what it prints and its exit code."""
        done = subprocess.run(
            ["/bin/sh", "-c", f"(exit {self._status})\n{self._there(command, shlex.quote)}"],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        self._status = done.returncode
        return done.stdout, done.returncode

    def _there(self, text: str, quote: Callable[[str], str]) -> str:
        """Return code with the URLs of servers that are there."""
        for written, url in self._servers.items():
            text = text.replace(written, quote(url))
        return text

    def python(self, block: Block, page: str) -> str:
        """Run a Python block in the page's namespace and directory; return what it prints."""
        source = "\n" * (block.line - 1) + self._there("\n".join(block.lines), str)
        before = Path.cwd()
        printed = io.StringIO()
        sys.modules[self._module.__name__] = self._module
        os.chdir(self.folder)
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(source, page, "exec", dont_inherit=True), vars(self._module))
        finally:
            os.chdir(before)
            del sys.modules[self._module.__name__]
        return printed.getvalue()


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a command: not the user's, with `ckpt` and `python` of this checkout."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for name, arguments in {"ckpt": "-m ckpt", "python": ""}.items():
        script = bin_folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    keep: Mapping[str, str] = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CKPT_", "PYTEST", "COV")) and name not in ("FORCE_COLOR", "PAGER")
    }
    return {
        **keep,
        "PATH": os.pathsep.join([str(bin_folder), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": str(ROOT),
        "PYTHONUTF8": "1",
        "COLUMNS": str(WIDTH),
        "NO_COLOR": "1",
        "TZ": "UTC",
        "HOME": str(folder),
    }


# -- comparing --------------------------------------------------------------------------------------------

_VARYING = [
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "UUID"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "ID"),
    (re.compile(r"\b[0-9a-f]{8}\b(?!-)"), "ID"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?"), "TIME"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "TIME"),
    (re.compile(r"\b(?:now|\d+ (?:s|min|h))(?= |$)"), "AGO"),
    (re.compile(r"\b\d[\d,]*(?:\.\d+)? ?(?:B|kB|MB|GB|bytes)\b"), "SIZE"),
    (re.compile(r"\b\d[\d,]* (?=objects|references|packs)"), "COUNT "),
    (re.compile(r"\b\d[\d,]*(?:\.\d+)?x"), "RATIO"),
    (re.compile(r"\b\d+%"), "SHARE"),
    (re.compile(r"\S+@\S+\.?\S*(?=  )"), "WHO"),
    (re.compile(r"-{3,}"), "RULE"),
    (re.compile(r"\s+"), " "),
]


def normal(line: str) -> str:
    """Return a line without what differs from run to run: ids, times, sizes, widths of columns."""
    for pattern, word in _VARYING:
        line = pattern.sub(word, line)
    return line.strip()


def agrees(shown: tuple[str, ...], printed: str) -> bool:
    """Return whether output is what a page shows; `…` there stands for any text, alone for any lines."""
    pattern = ""
    for line in shown:
        if line.strip() == "…":
            pattern += r"(?:[^\n]*\n)*"
        else:
            pattern += ".*".join(re.escape(part) for part in normal(line).split("…")) + "\n"
    lines = "".join(f"{normal(line)}\n" for line in printed.splitlines())
    return re.fullmatch(pattern, lines) is not None

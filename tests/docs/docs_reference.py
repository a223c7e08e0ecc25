"""The command reference of docs/cli.md, made from the help texts of the commands themselves."""

from __future__ import annotations

import click
from click.testing import CliRunner

from ckpt.cli.main import COMMANDS, cli

BEGIN = "<!-- reference:start -->"
END = "<!-- reference:end -->"
_WIDTH = 88
_GLOBAL = "Global options:"


def written(page: str) -> str:
    """Return a page with the reference between its two marks renewed."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise AssertionError(f"the page has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def reference() -> str:
    """Return a section for each command, then the options that all of them take."""
    parts = []
    for name in COMMANDS:
        text = _help([name])
        parts.append(f"### ckpt {name}\n\n```text\n{_without_global(text)}\n```\n")
        command = cli.get_command(click.Context(cli), name)
        for sub in getattr(command, "commands", {}):
            parts.append(f"### ckpt {name} {sub}\n\n```text\n{_without_global(_help([name, sub]))}\n```\n")
    parts.append(f"### Options of every command\n\n```text\n{_help([])}\n```\n")
    return "\n".join(parts)


def _help(words: list[str]) -> str:
    result = CliRunner().invoke(
        cli, [*words, "--help"], prog_name="ckpt", terminal_width=_WIDTH, max_content_width=_WIDTH
    )
    return str(result.stdout).rstrip()


def _without_global(text: str) -> str:
    """Return a help text without the section that is the same for every command."""
    sections = text.split("\n\n")
    return "\n\n".join(section for section in sections if not section.startswith(_GLOBAL))

"""Completion of thread ids, tags and graphs. Any failure completes nothing: a shell waits for it.

Bash takes `:`, `=` and `@` for the ends of words, and ids hold them. So its script hands over the line as typed, and
gets what follows the last of these.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from click import Context
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

from ckpt.cli.context import Invocation

if TYPE_CHECKING:
    from ckpt.repository import Repository

LIMIT = 200

_BASH: Final = """\
%(complete_func)s() {
    local kind value
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case $kind in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1")
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


def threads(ctx: Context, incomplete: str) -> list[CompletionItem]:
    """Return the thread ids that begin so, as far as a shell can take them literally."""
    return _offered(ctx, incomplete, lambda repository: repository.thread_names())


def tags(ctx: Context, incomplete: str) -> list[CompletionItem]:
    """Return the tags that begin so."""
    return _offered(ctx, incomplete, lambda repository: repository.tag_names())


def graphs(ctx: Context, incomplete: str) -> list[CompletionItem]:
    """Return the names of graphs that begin so."""
    return _offered(ctx, incomplete, lambda repository: [each.name for each in repository.graphs()])


def _offered(ctx: Context, incomplete: str, names: Callable[[Repository], Iterable[str]]) -> list[CompletionItem]:
    invocation = ctx.find_object(Invocation) or Invocation()
    try:
        found = [name for name in names(invocation.repository()) if name.startswith(incomplete) and _plain(name)]
    except Exception:
        return []
    return [CompletionItem(name) for name in found[:LIMIT]]


def _plain(name: str) -> bool:
    # Printed without quotes, so nothing that the shell or the terminal would act on.
    return bool(name) and name.isprintable() and not set(name) & set(" \t\"'\\$`!*?[]{}()<>|&;")


class Bash(BashComplete):
    """Completion for bash, which replaces what click has under this name."""

    name = "bash"
    source_template = _BASH
    _kept = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one to complete, and its beginning."""
        line = os.environ.get("COMP_LINE")
        if line is None:  # asked in click's own way
            return super().get_completion_args()
        words = split_arg_string(line)
        incomplete = words.pop() if words and not line[-1].isspace() else ""
        typed = incomplete.partition("=")[2] if incomplete.startswith("-") else incomplete
        # Inside quotes no character ends a word.
        breaks = set() if set(line.split()[-1]) & set("\"'\\") else set(os.environ.get("COMP_WORDBREAKS", ""))
        end = max((at for at, letter in enumerate(typed, start=1) if letter in breaks), default=0)
        self._kept = typed[:end]
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """Return the line of one completion: its kind, and what stands in place of the last piece of the word."""
        return f"{item.type},{item.value.removeprefix(self._kept)}"


def register() -> None:
    """Make click use what stands here."""
    add_completion_class(Bash)

"""Completion of thread ids. Any failure completes nothing: a shell waits for it."""

from __future__ import annotations

from click import Context
from click.shell_completion import CompletionItem

from ckpt.cli.context import Invocation

LIMIT = 200


def threads(ctx: Context, incomplete: str) -> list[CompletionItem]:
    """Return the thread ids that begin so, as far as a shell can take them literally."""
    names = _names(ctx)
    return [CompletionItem(name) for name in names if name.startswith(incomplete) and _plain(name)][:LIMIT]


def _names(ctx: Context) -> list[str]:
    invocation = ctx.find_object(Invocation) or Invocation()
    try:
        return invocation.repository().thread_names()
    except Exception:
        return []


def _plain(name: str) -> bool:
    # Printed without quotes, so nothing that the shell or the terminal would act on.
    return bool(name) and name.isprintable() and not set(name) & set(" \t\"'\\$`!*?[]{}()<>|&;")

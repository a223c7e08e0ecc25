"""`ckpt diff`: what changed between two checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from ckpt.cli.arguments import revision_argument
from ckpt.cli.command import PATHS, PathCommand
from ckpt.cli.context import Invocation, pass_invocation
from ckpt.cli.paths import parse_path

if TYPE_CHECKING:
    from ckpt.repository import Diff, Repository


@click.command(
    "diff",
    cls=PathCommand,
    short_help="Show what changed between two checkpoints.",
    examples=(
        "ckpt diff support-42\nckpt diff support-42~2 support-42 --stat\n"
        "ckpt diff -t ID @~1 @ --words -- messages"
    ),
)
@revision_argument("revision", required=False, metavar="[REV]")
@revision_argument("other", required=False, metavar="[REV2]")
@click.option("--stat", "form", flag_value="stat", help="Counts and sizes by key.")
@click.option("--keys", "form", flag_value="keys", help="Only the names of the changed keys.")
@click.option("--full", "form", flag_value="full", help="Whole values instead of one line each.")
@click.option("--words", is_flag=True, help="Mark the words that changed in a text.")
@click.option(
    "--context",
    type=click.IntRange(min=0),
    default=3,
    metavar="N",
    help="Unchanged lines round a change. [3]",
)
@click.option("--internal", is_flag=True, help="Include LangGraph's internal channels.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if there are differences.")
@pass_invocation
@click.pass_context
def command(
    ctx: click.Context,
    invocation: Invocation,
    revision: str | None,
    other: str | None,
    form: str | None,
    words: bool,
    context: int,
    internal: bool,
    exit_code: bool,
) -> None:
    """Show what changed from REV to REV2, or from its parent to REV. After --, only these state paths.

    Messages are compared by their id, mappings by key, texts by word or line. Signs: + added, - removed,
    ~ changed, > moved.
    """
    at = invocation.revision(revision)
    repository = invocation.repository()
    wanted = [parse_path(path) for path in ctx.meta[PATHS]]
    first = repository.resolve(at, thread=invocation.thread, namespace=invocation.namespace)
    if other is not None:
        before, after = (
            first,
            repository.resolve(other, thread=invocation.thread, namespace=invocation.namespace),
        )
    else:
        parent = f"id:{first.parents[0]}" if first.parents else None
        before = repository.resolve(parent, thread=first.thread) if parent else None
        after = first
    found = repository.diff(before, after, internal=internal, paths=wanted)
    out = invocation.out
    if invocation.settings.jsonl:
        from ckpt.cli import records

        out.records("ckpt.diff/1", {}, records.diff(found)["changes"])
    elif invocation.json:
        from ckpt.cli import records

        out.document("ckpt.diff/1", records.diff(found))
    else:
        _show(invocation, repository, found, form, words=words, context=context)
    if exit_code and found.changes:
        ctx.exit(1)


def _show(
    invocation: Invocation,
    repository: Repository,
    found: Diff,
    form: str | None,
    *,
    words: bool,
    context: int,
) -> None:
    from ckpt.cli import diffview

    out = invocation.out
    extent = _extent(repository, found)
    if form == "stat":
        diffview.statistics(out, found, extent)
    elif form == "keys":
        diffview.keys_only(out, found)
    else:
        diffview.heading(out, found)
        diffview.by_path(out, found, extent, words=words, everything=form == "full", context=context)


def _extent(repository: Repository, found: Diff) -> Callable[[str], str]:
    return lambda key: ""

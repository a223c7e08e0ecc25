"""`ckpt diff`: what changed between two checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckpt.cli.arguments import revision_argument
from ckpt.cli.command import PATHS, PathCommand
from ckpt.cli.context import Invocation, only_one, pass_invocation, usage
from ckpt.cli.format import short
from ckpt.cli.paths import Path, parse_path

if TYPE_CHECKING:
    from ckpt.cli.diffview import Form
    from ckpt.repository import CheckpointInfo, Diff, Repository


@click.command(
    "diff",
    cls=PathCommand,
    short_help="Show what changed between two checkpoints",
    examples=(
        "ckpt diff support-42\nckpt diff support-42~2 support-42 --stat\nckpt diff -t ID @~1 @ --words -- messages"
    ),
)
@revision_argument("revision", required=False, metavar="[REV]")
@revision_argument("other", required=False, metavar="[REV2]")
@click.option("--stat", is_flag=True, help="Counts and sizes by key.")
@click.option("--keys", is_flag=True, help="Only the names of the changed keys.")
@click.option("--full", is_flag=True, help="Whole values instead of one line each.")
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
    stat: bool,
    keys: bool,
    full: bool,
    words: bool,
    context: int,
    internal: bool,
    exit_code: bool,
) -> None:
    """Show what changed from REV to REV2, or from its parent to REV. After --, only these state paths.

    Messages are compared by their id, mappings by key, texts by word or line. Signs: + added, - removed,
    ~ changed, > moved.
    """
    form = only_one(stat=stat, keys=keys, full=full)
    if words and form in ("stat", "keys"):
        usage(f"--words marks what changed in texts, and --{form} shows none", "leave one of the two away")
    at = invocation.revision(revision)
    repository = invocation.repository()
    wanted = [parse_path(path) for path in ctx.meta[PATHS]]
    before: CheckpointInfo | None
    after = repository.resolve(at, thread=invocation.thread, namespace=invocation.namespace)
    if other is not None:
        before = after
        after = repository.resolve(other, thread=invocation.thread, namespace=invocation.namespace)
    else:
        before = _parent(repository, after)
    found = repository.diff(before, after, internal=internal, paths=wanted)
    same = _unchanged(repository, found, wanted)
    out = invocation.out
    if invocation.settings.jsonl:
        from ckpt.cli import records

        out.records("ckpt.diff/1", {}, records.diff(found)["changes"])
    elif invocation.json:
        from ckpt.cli import records

        out.document("ckpt.diff/1", records.diff(found))
    else:
        from ckpt.cli.diffview import Form

        _show(invocation, repository, found, same, form, Form(words, form == "full", context))
    if exit_code and found.changes.changes:
        ctx.exit(1)


def _parent(repository: Repository, info: CheckpointInfo) -> CheckpointInfo | None:
    from ckpt.errors import RevisionNotFoundError

    if not info.parents:
        return None
    try:
        return repository.resolve(f"id:{info.parents[0]}", thread=info.thread)
    except RevisionNotFoundError:
        raise RevisionNotFoundError(
            f"the parent of {short(info.id)} is no longer there",
            hints=["name the checkpoint to compare with: ckpt diff REV REV2"],
        ) from None


def _show(
    invocation: Invocation,
    repository: Repository,
    found: Diff,
    same: list[Path],
    kind: str | None,
    form: Form,
) -> None:
    from ckpt.cli import diffview
    from ckpt.cli.state import Extent, extent

    out = invocation.out

    def extents(key: str) -> tuple[Extent | None, Extent | None]:
        return extent(repository, found.old, key), extent(repository, found.new, key)

    def fresh(key: str) -> int:
        return repository.diff(found.old, found.new, paths=[(key,)]).changes.bytes_new

    if kind == "stat":
        diffview.statistics(out, found, extents, fresh)
    elif kind == "keys":
        diffview.keys_only(out, found)
    else:
        diffview.heading(out, found)
        diffview.by_path(out, found, extents, form)
        diffview.unchanged(out, same)


def _unchanged(repository: Repository, found: Diff, wanted: list[Path]) -> list[Path]:
    """Return the paths without a change; raise PathNotFoundError for one that exists on neither side."""
    from ckpt.cli.state import part
    from ckpt.errors import PathNotFoundError

    same = []
    for path in wanted:
        if repository.diff(found.old, found.new, paths=[path]).changes.changes:
            continue
        try:
            part(repository, found.new, path)
        except PathNotFoundError:
            if found.old is None:
                raise
            part(repository, found.old, path)
        same.append(path)
    return same

"""`ckpt tag`: names of checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckpt.cli.arguments import revision_argument
from ckpt.cli.command import Command, completing, dry_run_option
from ckpt.cli.context import Invocation, pass_invocation, thread_and_tag, usage
from ckpt.cli.format import short, time_of
from ckpt.cli.output import Cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckpt.repository import Repository
    from ckpt.repository.infos import CheckpointInfo


@click.command(
    "tag",
    cls=Command,
    short_help="List, set or remove names of checkpoints",
    examples="ckpt tag\nckpt tag good support-42~3\nckpt tag -t ID good '@~3'\nckpt tag -d good",
)
@click.argument("name", required=False)
@revision_argument("revision", required=False, metavar="[REV]")
@click.option("-d", "--delete", "removed", metavar="NAME", help="Remove a tag.", shell_complete=completing("tags"))
@dry_run_option
@pass_invocation
def command(invocation: Invocation, name: str | None, revision: str | None, removed: str | None, dry_run: bool) -> None:
    """Name the checkpoint REV, remove a name with -d, or list the names.

    A tag protects its checkpoint from prune. A name is letters, digits and _ . + / - only.
    """
    if removed is not None and name is not None:
        usage("-d takes one name and nothing else", f"write ckpt tag -d {removed}")
    if removed is not None:
        _remove(invocation, removed, dry_run=dry_run)
    elif name is not None:
        _set(invocation, name, revision, dry_run=dry_run)
    else:
        _list(invocation)


def _list(invocation: Invocation) -> None:
    from ckpt.errors import PartlyDoneError

    repository = invocation.repository()
    try:
        tags = list(repository.tags().items())
    except PartlyDoneError as error:
        _tell(invocation, repository, error.done)
        raise
    _tell(invocation, repository, tags)


def _tell(invocation: Invocation, repository: Repository, tags: Sequence[tuple[str, CheckpointInfo]]) -> None:
    from ckpt.cli import records

    out = invocation.out
    if invocation.json:
        items = [{"tag": name, "checkpoint": records.checkpoint(info)} for name, info in tags]
        out.records("ckpt.tags/1", records.store(repository), items)
        return
    if not tags:
        out.note("no tags")
    rows = [
        [
            Cell(out.text(name), "tag"),
            Cell(short(info.id), "id"),
            Cell(f"#{info.step}" if info.step is not None else "", right=True),
            Cell(time_of(info.timestamp, out.zone), "dim"),
            Cell(out.name(info.thread)),
        ]
        for name, info in tags
    ]
    out.table(rows, flexible=(4,))


def _set(invocation: Invocation, name: str, revision: str | None, *, dry_run: bool) -> None:
    from ckpt.cli import records

    wanted = invocation.revision(revision)
    repository = invocation.repository(write=not dry_run)
    info = repository.resolve(wanted, thread=invocation.thread, namespace=invocation.namespace)
    tagged = repository.tag(name, info.spec, dry_run=dry_run)
    info = info if dry_run else tagged
    out = invocation.out
    if invocation.json:
        out.document("ckpt.tag/1", {"dry_run": dry_run, "tag": name, "checkpoint": records.checkpoint(info)})
        return
    step = f" step {info.step}" if info.step is not None else ""
    place = f"{short(info.id)} ({out.name(info.thread)}{step})"
    if dry_run:
        out.print(f"Would tag {place} as {out.text(name)}. Nothing was changed.")
    else:
        out.print(f"Tagged {place} as {out.text(name)}")
        if repository.timeline(name) is not None:
            thread_and_tag(invocation, name)


def _remove(invocation: Invocation, name: str, *, dry_run: bool) -> None:
    invocation.repository(write=not dry_run).untag(name, dry_run=dry_run)
    out = invocation.out
    if invocation.json:
        out.document("ckpt.tag/1", {"dry_run": dry_run, "tag": name, "checkpoint": None})
    elif dry_run:
        out.print(f"Would remove the tag {out.text(name)}. Nothing was changed.")
    else:
        out.print(f"Removed the tag {out.text(name)}")

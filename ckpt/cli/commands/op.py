"""`ckpt op log`: the administrative changes, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckpt.cli.command import Command, short_help_option
from ckpt.cli.context import Invocation, pass_invocation
from ckpt.cli.format import age, short, stamp_of, time_of
from ckpt.cli.output import Cell, Output

if TYPE_CHECKING:
    from ckpt.repository import Operation


@click.group(
    "op",
    short_help="Look at the administrative changes",
    context_settings={"help_option_names": ["--help"]},
    no_args_is_help=True,
)
def command() -> None:
    """Look at the administrative changes: forks, checkouts, tags, deletions and what was undone."""


command.params.append(short_help_option())


@command.command("log", cls=Command, short_help="List the changes, newest first", examples="ckpt op log -n 3")
@click.option("-n", "limit", type=click.IntRange(min=1), default=20, metavar="N", help="At most N changes. [20]")
@pass_invocation
def log(invocation: Invocation, limit: int) -> None:
    """List the administrative changes, newest first. ckpt undo OP takes one back.

    Not one that is undone already, nor one that is final: ckpt gc keeps the way back for as long as its grace. With -v
    the times are exact.
    """
    from ckpt.cli import records

    invocation.require_all_threads("each change says which thread it was made to")
    repository = invocation.repository()
    operations = repository.operations(limit=limit)
    out = invocation.out
    if invocation.json:
        out.records("ckpt.op/1", records.store(repository), [records.operation(each) for each in operations])
        return
    if not operations:
        out.note("no operations yet")
    rows = [
        [
            Cell("op", "dim"),
            Cell(short(each.id, 8), "id"),
            Cell(_when(each, out, exactly=invocation.settings.verbose), "dim"),
            Cell(out.text(each.text) + _mark(each), "dim" if _is_final(each) else ""),
            Cell(out.text(each.actor), "dim"),
        ]
        for each in operations
    ]
    out.table(rows, flexible=(3,))


def _when(operation: Operation, out: Output, *, exactly: bool) -> str:
    stamp = stamp_of(operation.time)
    return time_of(stamp, out.zone) if exactly else age(stamp)


def _mark(operation: Operation) -> str:
    return " (undone)" if operation.undone else " (final)" if _is_final(operation) else ""


def _is_final(operation: Operation) -> bool:
    """Whether the way back is gone; of an undo it never was there."""
    return not operation.undoable and not operation.undone and operation.kind != "undo"

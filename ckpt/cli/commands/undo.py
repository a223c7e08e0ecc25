"""`ckpt undo`: take back an administrative change."""

from __future__ import annotations

import click

from ckpt.cli.command import Command, dry_run_option
from ckpt.cli.context import Invocation, pass_invocation
from ckpt.cli.format import short


@click.command(
    "undo",
    cls=Command,
    short_help="Take back an administrative change",
    examples="ckpt undo\nckpt undo op:3fa1",
)
@click.argument("operation", required=False, metavar="[OP]")
@dry_run_option
@pass_invocation
def command(invocation: Invocation, operation: str | None, dry_run: bool) -> None:
    """Take back the last administrative change, or the one that OP names (see ckpt op log).

    Possible until ckpt gc runs later than its grace (14 days) after the change, and as long as nothing built on
    the change: otherwise it is refused with exit code 4. Undoing twice goes back two changes.
    """
    from ckpt.cli import records

    invocation.require_all_threads("name the change, by what ckpt op log lists: ckpt undo OP")
    repository = invocation.repository(write=not dry_run)
    wanted = operation.removeprefix("op:").lower() if operation else None
    out = invocation.out
    done = repository.undo(wanted, dry_run=dry_run)
    if invocation.json:
        out.document("ckpt.undo/1", {"dry_run": dry_run, "operation": records.operation(done)})
    elif dry_run:
        out.print(f"Would undo op {short(done.id)}: {out.text(done.text)}. Nothing was changed.")
    else:
        out.print(out.text(done.text))

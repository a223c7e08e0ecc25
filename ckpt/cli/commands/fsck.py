"""`ckpt fsck`: look for damage."""

from __future__ import annotations

import click

from ckpt.cli.command import Command
from ckpt.cli.context import Invocation, pass_invocation
from ckpt.cli.format import counted, short

NEEDED_SHOWN = 3
HASHED = ("object", "checkpoint", "item", "directory")
"""The kinds of problems whose ids are digits; others are named by what people have called them."""
DAMAGED = 5


@click.command(
    "fsck",
    cls=Command,
    short_help="Check the store for damage",
    examples="ckpt fsck\nckpt fsck --no-read-data",
)
@click.option(
    "--read-data/--no-read-data",
    default=True,
    help="Read and verify every object, or only the records. [read]",
)
@pass_invocation
@click.pass_context
def command(ctx: click.Context, invocation: Invocation, read_data: bool) -> None:
    """Check every record and every object, and name checkpoints that need what is damaged: up to 3, with -v up to 20.

    What was deleted or pruned is checked, and counted, as long as ckpt gc has not taken it. Exit code 5 if there is
    damage. Nothing is changed.
    """
    from ckpt.cli import records

    invocation.require_all_threads("values are shared, so that all are checked")
    repository = invocation.repository()
    report = repository.fsck(read_data=read_data)
    out = invocation.out
    if invocation.json:
        out.document("ckpt.fsck/1", {"store": records.store(repository), **records.fsck(report)})
    else:
        most = None if invocation.settings.verbose else NEEDED_SHOWN
        checked = [
            counted(report.checkpoints, "checkpoint"),
            *([counted(report.items, "item")] if report.items else []),
            counted(report.objects, "object"),
            counted(report.references, "reference"),
        ]
        found = counted(len(report.problems), "problem") if report.problems else "no problems"
        out.print(f"checked {', '.join(checked)}: {found}")
        for problem in report.problems:
            needed = [out.text(each) for each in problem.needed_by[:most]]
            more = len(problem.needed_by) - len(needed)
            if more > 0:
                needed.append(f"{more:,} more")
            name = short(problem.id) if problem.kind in HASHED else problem.id
            where = f" {out.style(out.text(name), 'failed')}" if name else ""
            by = f"; needed by {', '.join(needed)}" if needed else ""
            out.print(f"  {out.text(problem.kind)}{where} {out.text(problem.message)}{by}")
        if report.problems:
            out.note("hint: what is not named here still loads; copy it, or bring back a backup of the store")
    if report.problems:
        ctx.exit(DAMAGED)

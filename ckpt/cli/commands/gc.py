"""`ckpt gc`: free space and repack."""

from __future__ import annotations

import click

from ckpt.cli.command import Command, dry_run_option
from ckpt.cli.context import Invocation, pass_invocation
from ckpt.cli.format import counted, size


@click.command(
    "gc",
    cls=Command,
    short_help="Free the space of what was dropped, and repack",
    examples="ckpt gc\nckpt gc --grace 0s\nckpt gc -n",
)
@click.option(
    "--grace",
    default="14d",
    metavar="DURATION",
    help="Keep what was dropped more recently: 14d, 2h, 0s. [14d]",
)
@dry_run_option
@pass_invocation
def command(invocation: Invocation, grace: str, dry_run: bool) -> None:
    """Free the space of what delete and prune let go and of what expired, and lay the rest down more tightly.

    Others may go on writing, and it can be interrupted at any time without loss. What was done longer ago than
    the grace, whatever it was, can no longer be undone.
    """
    from ckpt.cli import records
    from ckpt.durations import parse_duration

    invocation.require_all_threads("values are shared, so that all are collected")
    period = parse_duration(grace)
    repository = invocation.repository(write=not dry_run)
    report = repository.gc(grace=period, dry_run=dry_run)
    out = invocation.out
    if invocation.json:
        out.document("ckpt.gc/1", {"store": records.store(repository), **records.gc(report, dry_run=dry_run)})
        return
    threads, objects = counted(report.threads_removed, "thread"), counted(report.objects_removed, "object")
    rewritten = counted(report.packs_rewritten, "pack")
    before, after = size(report.data_before), size(report.data_after)
    if dry_run:
        out.print(f"Would remove {threads} and {objects}, and rewrite {rewritten}. Nothing was changed.")
        out.print(f"{before} of data, some {after} then; the store is {size(report.bytes_before)}")
    else:
        out.print(f"Removed {threads} and {objects}, rewrote {rewritten}")
        store = f"the store was {size(report.bytes_before)} and is {size(report.bytes_after)}"
        out.print(f"{before} of data before, {after} now; {store}")
    if report.threads_restorable:
        threads = counted(report.threads_restorable, "thread")
        out.print(f"Kept for ckpt undo: what was deleted or pruned of {threads} in the last {grace}")
    if report.packs_left:
        left = counted(report.packs_left, "pack")
        out.note(f"{left} with something damaged, or moved by another gc meanwhile, stayed as before: see ckpt fsck")

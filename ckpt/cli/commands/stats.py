"""`ckpt stats`: what the store holds, and how small it is."""

from __future__ import annotations

import click

from ckpt.cli.command import Command
from ckpt.cli.context import Invocation, pass_invocation
from ckpt.cli.format import counted, ratio, share, size
from ckpt.cli.output import Cell

CHANNELS_SHOWN = 8


@click.command(
    "stats",
    cls=Command,
    short_help="Show what the store holds and how small it is",
    examples="ckpt stats --json",
)
@pass_invocation
def command(invocation: Invocation) -> None:
    """Show the number of checkpoints, threads and heads, and their size four ways.

    logical: every checkpoint in full, the sum of the sizes of ckpt threads with what forks share once; unique:
    each distinct piece of that once; stored: compressed, with pending writes and with the ids and hashes of each
    checkpoint, which may be more than tiny values take; on disk: with all indexes and what was deleted or pruned. Of
    this ckpt gc frees about what awaits it; what is kept for undo it leaves until its grace (14 days) is over. Then
    the channels that take most; all of them with -v.
    """
    from ckpt.cli import records

    invocation.require_all_threads("ckpt threads tells the size of each")
    repository = invocation.repository()
    found = repository.stats()
    out = invocation.out
    if invocation.json:
        out.document("ckpt.stats/1", {"store": records.store(repository), **records.stats(found)})
        return
    counts = [
        counted(found.checkpoints, "checkpoint"),
        counted(found.threads, "thread"),
        counted(found.heads, "head"),
        *([counted(found.items, "item")] if found.items else []),
        f"store format {found.format}",
    ]
    out.print(" · ".join(counts))
    stored = f"compression {ratio(found.bytes_unique, found.bytes_stored)}"
    if found.bytes_stored > found.bytes_unique:
        stored = "with the ids and hashes of checkpoints"
    overall = f"overall {ratio(found.bytes_logical, found.bytes_stored)}"
    disk = f"{size(found.bytes_reclaimable)} of it awaiting gc" if found.bytes_reclaimable else "nothing to free"
    if found.bytes_restorable:
        disk += f", {size(found.bytes_restorable)} kept for undo"
    sizes = [
        ("logical", found.bytes_logical, "every checkpoint written in full"),
        ("unique", found.bytes_unique, f"dedup {ratio(found.bytes_logical, found.bytes_unique)}"),
        ("stored", found.bytes_stored, f"{stored}, {overall}"),
        ("on disk", found.bytes_disk, disk),
    ]
    out.table([[Cell(name, "key"), Cell(size(count), right=True), Cell(text)] for name, count, text in sizes])
    channels = sorted(found.channels, key=lambda each: (-each.unique, -each.logical, each.name))
    if not channels:
        return
    total = sum(each.unique for each in (found.metadata, *channels))
    rows = [
        [
            Cell("channel", "dim"),
            *(Cell(name, "dim", right=True) for name in ("logical", "unique", "dedup", "share")),
        ]
    ]
    shown = [each for each in channels if each.logical][:CHANNELS_SHOWN]
    if invocation.settings.verbose:
        shown = channels
    for each in shown:
        rows.append(_row(out.text(each.name), each.logical, each.unique, total))
    rest = [each for each in channels if each not in shown]
    if rest:
        unique = sum(each.unique for each in rest)
        rows.append(_row(f"(other {len(rest)})", sum(each.logical for each in rest), unique, total))
    rows.append(_row("(metadata)", found.metadata.logical, found.metadata.unique, total))
    out.print()
    out.table(rows, flexible=(0,))


def _row(name: str, logical: int, unique: int, total: int) -> list[Cell]:
    return [
        Cell(name, "key"),
        Cell(size(logical), right=True),
        Cell(size(unique), right=True),
        Cell(ratio(logical, unique), right=True),
        Cell(share(unique, total), right=True),
    ]

"""`ckpt graphs`: the graphs that share a store."""

from __future__ import annotations

import click

from ckpt.cli.command import Command
from ckpt.cli.context import Invocation, pass_invocation
from ckpt.cli.output import Cell


@click.command(
    "graphs",
    cls=Command,
    short_help="List the graphs that share the store",
    examples="ckpt graphs\nckpt threads --graph billing",
)
@pass_invocation
def command(invocation: Invocation) -> None:
    """List the graphs that share the store, with how many threads each has.

    A graph does not see the threads, tags and operations of another; --graph NAME says which one a command is
    about. The one without a name is what commands and savers use when none is given. gc, fsck and stats are always
    about the whole store.
    """
    from ckpt.cli import records

    repository = invocation.repository()
    graphs = repository.graphs()
    out = invocation.out
    if invocation.json:
        out.records("ckpt.graphs/1", records.store(repository), [records.graph(each) for each in graphs])
        return
    rows = [[Cell("GRAPH", "dim"), Cell("THREADS", "dim", right=True)]]
    for each in graphs:
        name = Cell(out.text(each.name), "key") if each.name else Cell("(default)", "dim")
        rows.append([name, Cell(f"{each.threads:,}", right=True)])
    out.table(rows, flexible=(0,))

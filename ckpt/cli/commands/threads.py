"""`ckpt threads`: the table of threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckpt.cli.command import Command
from ckpt.cli.context import Invocation, other_graphs, pass_invocation
from ckpt.cli.format import size, time_of
from ckpt.cli.output import Cell

if TYPE_CHECKING:
    from datetime import tzinfo

    from ckpt.repository import ThreadInfo

_STYLES = {"pending": "waiting", "interrupted": "waiting", "error": "failed", "damaged": "failed"}


@click.command(
    "threads",
    cls=Command,
    short_help="List the threads, newest first",
    examples="ckpt threads\nckpt threads 'support-*' --status interrupted",
)
@click.argument("pattern", required=False)
@click.option(
    "--status",
    type=click.Choice(["idle", "pending", "interrupted", "error", "damaged"]),
    help="Only threads in this state.",
)
@click.option(
    "--sort",
    type=click.Choice(["updated", "size", "steps"]),
    default="updated",
    help="What comes first. [updated]",
)
@click.option("-n", "limit", type=click.IntRange(min=1), metavar="N", help="At most N threads.")
@pass_invocation
def command(invocation: Invocation, pattern: str | None, status: str | None, sort: str, limit: int | None) -> None:
    """List the threads whose name matches PATTERN (with * and ?), newest first.

    The columns: name, status, checkpoints, heads if there are several, size as if every checkpoint were
    written in full, those that it shares with a fork too, when it changed last, when it expires if any thread
    does, and where it was forked from.

    A thread is idle when no node is to run next, interrupted when one asks, error when one failed. Else it is pending:
    a run is under way, was paused or broke off before its end, or the thread was rewound. Of a damaged one only the
    name and the number of checkpoints are told.
    """
    from ckpt.cli import records

    invocation.require_all_threads("ckpt threads NAME lists one, ckpt log --subgraphs what is in it")
    repository = invocation.repository()
    threads = [each for each in repository.threads(pattern) if status in (None, each.status)]
    if sort == "size":
        threads.sort(key=lambda each: -each.bytes_logical)
    elif sort == "steps":
        threads.sort(key=lambda each: -each.checkpoints)
    threads = threads[:limit]
    out = invocation.out
    if invocation.json:
        out.records("ckpt.threads/1", records.store(repository), [records.thread(each) for each in threads])
        return
    if not threads:
        out.note("no threads" + (f" match {out.text(pattern)}" if pattern else ""))
        if not repository.thread_names():
            other_graphs(invocation, repository)
        return
    expiring = any(each.expires is not None for each in threads)
    titles = ("THREAD", "STATUS", "CHECKPOINTS", "HEADS", "SIZE", "UPDATED", *(["EXPIRES"] if expiring else []), "")
    heading = [Cell(title, "dim", right=title in ("CHECKPOINTS", "HEADS", "SIZE")) for title in titles]
    rows = [
        [
            Cell(out.name(each.name), "key"),
            Cell(each.status, _STYLES.get(each.status, "")),
            Cell(f"{each.checkpoints:,}", right=True),
            Cell(_unless_damaged(each, f"{each.heads:,}"), right=True),
            Cell(_unless_damaged(each, size(each.bytes_logical)), right=True),
            Cell(time_of(each.updated, out.zone), "dim"),
            *([Cell(_expiry(each, out.zone), "dim")] if expiring else []),
            Cell(f"fork of {out.name(each.forked_from)}" if each.forked_from is not None else "", "dim"),
        ]
        for each in threads
    ]
    out.table([heading, *rows], flexible=(len(titles) - 1, 0))


def _unless_damaged(thread: ThreadInfo, told: str) -> str:
    return told if thread.status != "damaged" else "-"


def _expiry(thread: ThreadInfo, zone: tzinfo | None) -> str:
    return time_of(thread.expires.isoformat(), zone) if thread.expires is not None else "never"

"""`ckpt log`: the graph of a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckpt.cli.arguments import revision_argument
from ckpt.cli.command import Command
from ckpt.cli.context import Invocation, other_graphs, pass_invocation, usage

if TYPE_CHECKING:
    from ckpt.cli.output import Output
    from ckpt.repository import CheckpointInfo, Repository

LENGTH = 1000
"""Characters of a message that are looked at; the line is then cut to the terminal."""


@click.command(
    "log",
    cls=Command,
    short_help="Show the checkpoints of a thread as a graph",
    examples="ckpt log support-42\nckpt log support-42~3 -n 5\nckpt log -t 'odd id' --json\nckpt log --all",
)
@revision_argument("revisions", nargs=-1, metavar="[REV|THREAD]...")
@click.option("--no-graph", is_flag=True, help="Draw no lanes for heads and forks.")
@click.option("--oneline", is_flag=True, help="Only id, step, what changed and names.")
@click.option("--subgraphs", is_flag=True, help="Include the namespaces of subgraphs.")
@click.option("--heads", is_flag=True, help="Include every head of the thread, whatever the revision.")
@click.option("--all", "everything", is_flag=True, help="Show every thread.")
@click.option("-n", "limit", type=click.IntRange(min=1), default=20, metavar="N", help="At most N checkpoints. [20]")
@pass_invocation
def command(
    invocation: Invocation,
    revisions: tuple[str, ...],
    no_graph: bool,
    oneline: bool,
    subgraphs: bool,
    heads: bool,
    everything: bool,
    limit: int,
) -> None:
    """Show checkpoints, newest first: of a thread with all its heads, or the ancestors of a revision.

    Each line: id, step and source, nodes, time, what changed, bytes added to the store, and names. Signs:
    @ where the thread continues, ○ checkpoint, ‖ interrupted, × failed, ◆ tagged.
    """
    from ckpt.cli import records
    from ckpt.cli.graph import children_first
    from ckpt.cli.logview import Entry, draw, merged

    if everything and (revisions or invocation.thread_option is not None):
        usage("--all shows every thread, and one is named as well", "leave one of the two away")
    repository = invocation.repository()
    namespace, newest = invocation.namespace, limit + 1
    if everything:
        # Of each thread so many: what forks share must not use up the limit.
        listed = repository.log_of_each(namespace=namespace, limit=newest, subgraphs=subgraphs)
    else:
        thread, listed = invocation.thread, []
        for revision in revisions or (None,):
            whole = _thread_named(invocation, repository, revision) if revision is not None else None
            if subgraphs and not heads and revision is not None and whole is None:
                usage(
                    f"--subgraphs lists whole threads, and {revision} is a checkpoint with its ancestors",
                    "name the thread alone, or add --heads",
                )
            listed += repository.log(
                revision if whole is None else None,
                thread=thread if whole is None else whole,
                namespace=namespace,
                limit=newest,
                all_heads=heads,
                subgraphs=subgraphs,
            )
    found = merged(listed)
    infos = sorted((info for info, _ in found.values()), key=lambda info: info.checkpoint_id, reverse=True)
    infos = [infos[index] for index in children_first([(info.id, info.parents) for info in infos])]
    more = len(infos) > limit
    out = invocation.out
    plain = oneline or invocation.json
    entries = [
        Entry(
            info,
            repository.changes(info),
            found[info.id][1],
            () if plain else _newest_message(out, repository, info),
        )
        for info in infos[:limit]
    ]
    if invocation.json:
        items = [records.checkpoint(entry.info, entry.changes, entry.threads) for entry in entries]
        out.records("ckpt.log/1", records.store(repository), items)
    elif not entries:
        out.note("no checkpoints")
        if not repository.thread_names():
            other_graphs(invocation, repository)
    else:
        rest = f"earlier checkpoints (-n {limit * 2} to see more)" if more else None
        draw(out, entries, graph=not no_graph, oneline=oneline, more=rest)


def _thread_named(invocation: Invocation, repository: Repository, revision: str) -> str | None:
    """Return the thread that a revision means as a whole, by its name or its head; None for a point in its past."""
    from ckpt.errors import RevisionNotFoundError
    from ckpt.history.revisions import parse

    namespace = invocation.namespace
    try:
        found = repository.resolve(revision, thread=invocation.thread, namespace=namespace)
    except RevisionNotFoundError:
        # All checkpoints of a namespace may be off the thread's current line.
        if not namespace or any(reading.suffixes for reading in parse(revision)):
            raise
        found = repository.resolve(revision, thread=invocation.thread)
        if not repository.log(thread=found.thread, namespace=namespace, limit=1):
            raise
        return found.thread if found.is_current else None
    # A tag or an id names its own namespace; of another one than is listed its head stands for no thread.
    return found.thread if found.is_current and found.namespace == namespace else None


def _newest_message(out: Output, repository: Repository, info: CheckpointInfo) -> tuple[str, ...]:
    if not info.is_current or info.namespace:
        return ()
    from ckpt.cli.state import newest_message
    from ckpt.cli.values import message_text

    message = newest_message(repository, info)
    if message is None:
        return ()
    return (out.text(f"{message.type}: {' '.join(message_text(message)[:LENGTH].split())}"),)

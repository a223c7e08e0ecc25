"""`ckpt fork`: a new thread from any checkpoint."""

from __future__ import annotations

import json

import click

from ckpt.cli.arguments import revision_argument, thread_argument
from ckpt.cli.command import Command, dry_run_option
from ckpt.cli.context import Invocation, pass_invocation
from ckpt.cli.format import counted, short


@click.command(
    "fork",
    cls=Command,
    short_help="Start a new thread from any checkpoint.",
    examples=(
        "ckpt fork support-42#7 support-42-retry\n"
        "ckpt fork support-42 what-if --set ticket.status='\"open\"' -m 'try without the refund'"
    ),
)
@revision_argument("revision", metavar="REV")
@thread_argument("new_thread", metavar="NEW_THREAD")
@click.option(
    "--set", "assignments", multiple=True, metavar="PATH=JSON", help="Set a part of the state; repeatable."
)
@click.option("-m", "note", metavar="NOTE", help="Why, for the operation log.")
@dry_run_option
@pass_invocation
def command(
    invocation: Invocation,
    revision: str,
    new_thread: str,
    assignments: tuple[str, ...],
    note: str | None,
    dry_run: bool,
) -> None:
    """Start the thread NEW_THREAD at REV. Nothing is copied and the original stays as it is.

    A fork of an interrupted head is interrupted as well; a fork of an older checkpoint runs its next nodes
    again. NEW_THREAD is taken verbatim.
    """
    from ckpt.cli import records
    from ckpt.cli.assign import assigned

    repository = invocation.repository(write=not dry_run)
    source = repository.resolve(revision, thread=invocation.thread, namespace=invocation.namespace)
    values = None
    if assignments:
        values = assigned(repository.state(revision, thread=invocation.thread), assignments)
    out = invocation.out
    step = f" step {source.step}" if source.step is not None else ""
    from_text = f"{short(source.id)} ({out.text(source.thread)}{step})"
    if dry_run:
        if any(each.name == new_thread for each in repository.threads()):
            from ckpt.errors import AlreadyExistsError

            raise AlreadyExistsError(f"there is a thread {new_thread} already", hints=["choose another name"])
        if invocation.json:
            out.document("ckpt.fork/1", {"dry_run": True, "from": records.checkpoint(source), "head": None})
        else:
            out.print(f"Would fork {out.text(new_thread)} from {from_text}. Nothing was changed.")
        return
    head = repository.fork(revision, new_thread, thread=invocation.thread, values=values, note=note)
    if invocation.json:
        out.document(
            "ckpt.fork/1",
            {"dry_run": False, "from": records.checkpoint(source), "head": records.checkpoint(head)},
        )
        return
    changed = f", {counted(len(values), 'key')} set" if values else ""
    out.print(
        f"Forked {out.text(new_thread)} from {from_text}: nothing copied{changed}, head {short(head.id)}"
    )
    resume = json.dumps({"configurable": {"thread_id": new_thread}})
    out.print(f"Resume with   {out.text(resume)}")

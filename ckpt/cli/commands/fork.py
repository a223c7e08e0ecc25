"""`ckpt fork`: a new thread from any checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from ckpt.cli.arguments import revision_argument, thread_argument
from ckpt.cli.command import Command, dry_run_option
from ckpt.cli.context import Invocation, pass_invocation, thread_and_tag, usage
from ckpt.cli.format import counted, short
from ckpt.cli.moves import require_root

if TYPE_CHECKING:
    from ckpt.repository import CheckpointInfo, Repository


@click.command(
    "fork",
    cls=Command,
    short_help="Start a new thread from any checkpoint",
    examples=("ckpt fork support-42#7 support-42-retry\nckpt fork support-42 what-if --set ticket.status='\"open\"'"),
)
@revision_argument("revision", metavar="REV")
@thread_argument("new_thread", metavar="NEW_THREAD")
@click.option("--set", "assignments", multiple=True, metavar="PATH=JSON", help="Set a part of the state; repeatable.")
@dry_run_option
@pass_invocation
def command(
    invocation: Invocation,
    revision: str,
    new_thread: str,
    assignments: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Start the thread NEW_THREAD at REV. Nothing is copied and the original stays as it is.

    A fork of an interrupted head is interrupted as well, unless --set gives it other values; a fork of an older
    checkpoint runs its next nodes again. NEW_THREAD is taken verbatim.
    """
    from ckpt.cli import records

    if not new_thread:
        usage("NEW_THREAD is empty", "name the new thread")
    repository = invocation.repository(write=not dry_run)
    source = repository.resolve(revision, thread=invocation.thread, namespace=invocation.namespace)
    require_root(source)
    types = {each.name: each.type for each in repository.channels(source)} if assignments else {}
    values = _values(repository, source, types, assignments) if assignments else None
    out = invocation.out
    step = f" step {source.step}" if source.step is not None else ""
    from_text = f"{short(source.id)} ({out.name(source.thread)}{step})"
    if dry_run:
        if new_thread in repository.thread_names():
            from ckpt.errors import AlreadyExistsError

            raise AlreadyExistsError(f"there is a thread {new_thread!r} already", hints=["choose another name"])
        if invocation.json:
            out.document("ckpt.fork/1", {"dry_run": True, "from": records.checkpoint(source), "head": None})
        else:
            out.print(f"Would fork {out.name(new_thread)} from {from_text}. Nothing was changed.")
        return
    tagged = _is_tag(repository, new_thread)
    head = repository.fork(source.spec, new_thread, values=values)
    if invocation.json:
        out.document(
            "ckpt.fork/1",
            {"dry_run": False, "from": records.checkpoint(source), "head": records.checkpoint(head)},
        )
        return
    changed = f", {counted(len(values), 'key')} set" if values else ""
    if added := [out.text(name) for name in values or () if name not in types]:
        # Most likely mistyped; who adds a channel on purpose loses nothing by being told.
        changed += f" ({', '.join(added)} not there before)"
    out.print(f"Forked {out.name(new_thread)} from {from_text}: nothing copied{changed}, head {short(head.id)}")
    resume = json.dumps({"configurable": {"thread_id": new_thread}})
    out.print(f"Resume with   {out.text(resume)}")
    if tagged:
        thread_and_tag(invocation, new_thread)


def _is_tag(repository: Repository, name: str) -> bool:
    from ckpt.errors import NotFoundError
    from ckpt.history.revisions import is_tag_name

    try:
        return is_tag_name(name) and bool(repository.resolve(f"tag:{name}"))
    except NotFoundError:
        return False


def _values(
    repository: Repository, source: CheckpointInfo, types: Mapping[str, str], assignments: tuple[str, ...]
) -> Mapping[str, object]:
    from ckpt.cli.assign import assigned

    def load(key: str) -> bytes:
        stored = repository.read(source.thread, source.namespace, source.checkpoint_id)
        assert stored is not None
        return repository.load([stored.commit.channels[key]])[0]

    return assigned(types, load, assignments)

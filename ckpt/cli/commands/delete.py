"""`ckpt delete`: drop a thread."""

from __future__ import annotations

import click

from ckpt.cli.arguments import thread_argument
from ckpt.cli.command import Command, dry_run_option, yes_option
from ckpt.cli.context import Invocation, pass_invocation, usage
from ckpt.cli.format import counted


@click.command(
    "delete",
    cls=Command,
    short_help="Delete a thread",
    examples="ckpt delete support-42\nckpt delete -y -t 'odd id'",
)
@thread_argument("thread", required=False)
@dry_run_option
@yes_option
@pass_invocation
def command(invocation: Invocation, thread: str | None, dry_run: bool, yes: bool) -> None:
    """Delete THREAD, taken verbatim, and its tags with it. Threads forked from it keep what they share.

    ckpt undo brings it back until ckpt gc has freed the space. CKPT_THREAD alone never deletes: name the
    thread here or with -t.
    """
    invocation.require_whole_threads()
    name = _only(thread, invocation.thread_option)
    repository = invocation.repository(write=not dry_run)
    found = next(iter(repository.threads(_literally(name))), None)
    out = invocation.out
    if found is None:
        from ckpt.errors import ThreadNotFoundError

        raise ThreadNotFoundError(f"there is no thread {name!r}", hints=["ckpt threads lists them all"])
    tags = repository.tag_names(name)
    parts = [counted(found.checkpoints, "checkpoint"), *([counted(len(tags), "tag")] if tags else [])]
    what = f"{out.name(name)} ({', '.join(parts)})"
    if not dry_run:
        invocation.confirm(lambda: f"Delete the thread {what}?", yes=yes)
        repository.delete(name)
    if invocation.json:
        document = {"dry_run": dry_run, "thread": name, "checkpoints": found.checkpoints, "tags": tags}
        out.document("ckpt.delete/1", document)
    elif dry_run:
        out.print(f"Would delete {what}. Nothing was changed.")
    else:
        out.print(f"Deleted {what}. To undo: ckpt undo")


def _literally(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _only(argument: str | None, option: str | None) -> str:
    if argument is not None and option is not None and argument != option:
        usage("two threads were named", "name one thread, as an argument or with -t")
    name = argument if argument is not None else option
    if name is None:
        usage("no thread was named", "write ckpt delete THREAD, or ckpt delete -t ID")
    return name

"""`ckpt checkout`: continue a thread from an older checkpoint."""

from __future__ import annotations

import click

from ckpt.cli.arguments import revision_argument
from ckpt.cli.command import Command, dry_run_option
from ckpt.cli.context import Invocation, pass_invocation
from ckpt.cli.moves import require_root, show_move


@click.command(
    "checkout",
    cls=Command,
    short_help="Continue a thread from an older checkpoint",
    examples="ckpt checkout support-42#7\nckpt checkout -t ID '@{next:tools}'\nckpt checkout id:f03e",
)
@revision_argument("revision", metavar="REV")
@dry_run_option
@pass_invocation
def command(invocation: Invocation, revision: str, dry_run: bool) -> None:
    """Make REV the point from which its thread continues.

    A new checkpoint with the same state is appended; nothing is lost, and the old tip stays as another head. If the
    thread continues from REV already, nothing is changed: what waits there goes on waiting. If a run moves the
    thread meanwhile, nothing is changed either. It restores state, not the world: resuming runs nodes, tools and
    models again.

    Stop a run that is under way first: it goes on from where it was, and takes the thread back to its own line.
    """
    repository = invocation.repository(write=not dry_run)
    target, tip = repository.resolve_with_head(revision, thread=invocation.thread, namespace=invocation.namespace)
    require_root(target)
    done = None if dry_run else repository.checkout(target.spec, expected_head=tip)
    show_move(invocation, "Checked out", "check out", target, tip, done)

"""`ckpt rewind`: step a thread back."""

from __future__ import annotations

import click

from ckpt.cli.arguments import thread_argument
from ckpt.cli.command import Command, dry_run_option
from ckpt.cli.context import Invocation, pass_invocation, usage
from ckpt.cli.moves import show_move


@click.command(
    "rewind",
    cls=Command,
    short_help="Step a thread back by some checkpoints",
    examples="ckpt rewind support-42\nckpt rewind support-42 2\nckpt rewind -t 'odd id' 2",
)
@thread_argument("words", nargs=-1, metavar="THREAD [N]")
@dry_run_option
@pass_invocation
def command(invocation: Invocation, words: tuple[str, ...], dry_run: bool) -> None:
    """Make the checkpoint N steps back (1 by default) the point from which THREAD continues.

    The same as ckpt checkout THREAD~N, with THREAD taken verbatim; with -t the only argument is N. It appends
    a copy, which is a step too: to go on from there to the one before it, go back 2. It restores state, not the
    world: resuming runs nodes, tools and models again.

    Stop a run that is under way first: it goes on from where it was, and takes the thread back to its own line.
    """
    thread, steps = _arguments(invocation, words)
    invocation.require_whole_threads()
    repository = invocation.repository(write=not dry_run)
    target, tip = repository.resolve_with_head(f"@~{steps}", thread=thread)
    done = None if dry_run else repository.rewind(thread, steps, expected_head=tip)
    show_move(invocation, "Rewound", "rewind", target, tip, done)


def _arguments(invocation: Invocation, words: tuple[str, ...]) -> tuple[str, int]:
    named = invocation.thread_option
    if named is None and len(words) < 2 and invocation.thread is not None and all(map(_is_number, words)):
        named = invocation.thread
    rest = words
    if named is None:
        if not words:
            usage("no thread was named", "write ckpt rewind THREAD [N], or give the thread with -t")
        named, rest = words[0], words[1:]
    if len(rest) > 1 or not all(map(_is_number, rest)):
        usage(
            f"{' '.join(rest)} is not a number of checkpoints",
            "write ckpt rewind THREAD [N], or ckpt rewind -t ID [N]",
        )
    steps = int(rest[0]) if rest else 1
    if steps < 1:
        usage("0 checkpoints back is where the thread stands", "write the number of checkpoints to go back")
    return named, steps


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 9

"""`ckpt help`: topics that no single command explains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckpt.cli.command import Command
from ckpt.cli.context import Invocation, pass_invocation
from ckpt.cli.topics import TOPICS

if TYPE_CHECKING:
    from ckpt.errors import CkptError


@click.command(
    "help",
    cls=Command,
    short_help="Explain a topic or a command",
    examples="ckpt help revisions\nckpt help log\nckpt help op log",
)
@click.argument("words", nargs=-1, metavar="[TOPIC]")
@pass_invocation
@click.pass_context
def command(ctx: click.Context, invocation: Invocation, words: tuple[str, ...]) -> None:
    """Explain TOPIC: revisions, json, exit-codes, environment, git, or a command."""
    from ckpt.cli.main import cli

    assert ctx.parent is not None
    if words in [(topic,) for topic in TOPICS]:
        for line in TOPICS[words[0]].strip("\n").split("\n"):
            invocation.out.print(line)
        return
    found: click.Command = cli
    context = ctx.parent
    for number, word in enumerate(words, start=1):
        known = found.list_commands(context) if isinstance(found, click.Group) else []
        inner = found.get_command(context, word) if isinstance(found, click.Group) else None
        if inner is None:
            raise _nothing(words[:number], known)
        found, context = inner, click.Context(inner, context, word)
    click.echo(found.get_help(context))


def _nothing(words: tuple[str, ...], known: list[str]) -> CkptError:
    from ckpt.cli.errors import unknown_command
    from ckpt.errors import InvalidInputError

    if len(words) == 1:
        return unknown_command(words[0], [*TOPICS, *known])
    hint = f"it has {', '.join(known)}" if known else "name one command or topic"
    return InvalidInputError(f"{' '.join(words[:-1])} has no command {words[-1]}", hints=[hint])

"""`ckpt help`: topics that no single command explains."""

from __future__ import annotations

import click

from ckpt.cli.command import Command
from ckpt.cli.context import Invocation, pass_invocation
from ckpt.cli.topics import TOPICS


@click.command(
    "help",
    cls=Command,
    short_help="Explain a topic or a command.",
    examples="ckpt help revisions\nckpt help log",
)
@click.argument("topic", required=False)
@pass_invocation
@click.pass_context
def command(ctx: click.Context, invocation: Invocation, topic: str | None) -> None:
    """Explain TOPIC: revisions, json, exit-codes, environment, or a command."""
    from ckpt.cli.errors import unknown_command
    from ckpt.cli.main import COMMANDS, cli

    assert ctx.parent is not None
    if topic is None:
        click.echo(cli.get_help(ctx.parent))
    elif topic in TOPICS:
        for line in TOPICS[topic].strip("\n").split("\n"):
            invocation.out.print(line)
    elif topic in COMMANDS:
        found = cli.get_command(ctx, topic)
        assert found is not None
        click.echo(found.get_help(click.Context(found, ctx.parent, topic)))
    else:
        raise unknown_command(topic, [*TOPICS, *COMMANDS])

"""`ckpt completion`: the script that teaches a shell to complete."""

from __future__ import annotations

import click

from ckpt.cli.command import Command
from ckpt.cli.context import Invocation, pass_invocation

SHELLS = ("bash", "zsh", "fish")


@click.command(
    "completion",
    cls=Command,
    short_help="Print the completion script of a shell",
    examples='eval "$(ckpt completion bash)"\nckpt completion fish > ~/.config/fish/completions/ckpt.fish',
)
@click.argument("shell", type=click.Choice(SHELLS))
@pass_invocation
def command(invocation: Invocation, shell: str) -> None:
    """Print a script for SHELL; once it is loaded, commands, options, thread ids, tags and graphs complete."""
    from click.shell_completion import get_completion_class

    from ckpt.cli.completion import register
    from ckpt.cli.main import COMPLETE_VARIABLE, cli

    register()
    found = get_completion_class(shell)
    assert found is not None
    for line in found(cli, {}, "ckpt", COMPLETE_VARIABLE).source().rstrip("\n").split("\n"):
        invocation.out.print(line)

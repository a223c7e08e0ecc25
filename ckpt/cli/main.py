"""`ckpt`: the group of all commands, and the one place where errors become exit codes.

A command's module is imported when it runs; `ckpt --help` needs only the table below. So nothing that is
imported from here may import the engine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, NoReturn

import click

from ckpt.cli.command import GlobalOption, global_options, short_help_option
from ckpt.cli.context import Invocation
from ckpt.cli.output import broken_pipe_ends, drop_unwritten, open_streams
from ckpt.cli.topics import TOPICS

# Every command with the line that `ckpt --help` shows; tests compare it with the command itself.
COMMANDS: Final[dict[str, str]] = {
    "init": "Make a store in this folder",
    "graphs": "List the graphs that share the store",
    "threads": "List the threads, newest first",
    "log": "Show the checkpoints of a thread as a graph",
    "show": "Show one checkpoint: its metadata and state",
    "diff": "Show what changed between two checkpoints",
    "fork": "Start a new thread from any checkpoint",
    "checkout": "Continue a thread from an older checkpoint",
    "rewind": "Step a thread back by some checkpoints",
    "tag": "List, set or remove names of checkpoints",
    "delete": "Delete a thread",
    "expire": "Say how long a thread lives",
    "undo": "Take back an administrative change",
    "op": "Look at the administrative changes",
    "prune": "Drop old checkpoints and keep the newest",
    "gc": "Free the space of what was dropped, and repack",
    "stats": "Show what the store holds and how small it is",
    "fsck": "Check the store for damage",
    "key": "Change the keys of an encrypted store",
    "schema": "Print the JSON Schema of an output",
    "completion": "Print the completion script of a shell",
    "help": "Explain a topic or a command",
}
_MODULES: Final = {"help": "help_topics"}

COMPLETE_VARIABLE: Final = "_CKPT_COMPLETE"
"""Set by the script of a shell that asks for completions."""


class Main(click.Group):
    """The group; loads a command's module when it is asked for."""

    def __init__(self) -> None:
        version = click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_show_version,
            help="Show the version.",
        )  # fmt: skip
        super().__init__(
            name="ckpt",
            params=[version, short_help_option(), *global_options()],
            help="The history of LangGraph agents: look at it, compare it, fork it, go back in it.",
            epilog=f"ckpt COMMAND --help explains a command, ckpt help TOPIC one of {', '.join(TOPICS)}.",
            context_settings={"help_option_names": ["--help"], "max_content_width": 100},
            no_args_is_help=True,
        )

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"ckpt.cli.commands.{_MODULES.get(cmd_name, cmd_name)}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for an unknown one, name the nearest."""
        name = str(args[0])
        if name not in COMMANDS and not ctx.resilient_parsing:
            from ckpt.cli.errors import unknown_command

            raise unknown_command(name, list(COMMANDS))
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands first: they are what the reader looks for."""
        self.format_commands(ctx, formatter)
        with formatter.section("Options"):
            formatter.write_dl(
                record for param in self.get_params(ctx) if (record := param.get_help_record(ctx)) is not None
            )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse; a help text that nobody reads to its end is no failure."""
        with broken_pipe_ends():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, as above."""
        with broken_pipe_ends():
            return super().invoke(ctx)

    def main(  # type: ignore[override]  # always ends the process, as a console script must
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        **extra: Any,
    ) -> NoReturn:
        """Run the command line and exit with a code of `ckpt help exit-codes`."""
        arguments = list(sys.argv[1:] if args is None else args)
        invocation = Invocation()
        open_streams()
        if COMPLETE_VARIABLE in os.environ:
            from ckpt.cli.completion import register

            register()
        code = 0
        try:
            try:
                extra.pop("standalone_mode", None)
                result = super().main(
                    arguments,
                    prog_name or "ckpt",
                    complete_var,
                    standalone_mode=False,
                    obj=invocation,
                    **extra,
                )
                code = result if isinstance(result, int) else 0
            finally:
                invocation.close()
        except BaseException as error:
            from ckpt.cli.errors import report

            code = report(error, invocation, arguments)
        drop_unwritten()
        sys.exit(code)


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        import ckpt

        click.echo(f"ckpt {ckpt.__version__}")
        ctx.exit()


cli: Final = Main()


def main() -> NoReturn:
    """Run `ckpt`, as the console script and `python -m ckpt` do."""
    cli.main()


__all__ = ["COMMANDS", "GlobalOption", "Main", "cli", "main"]

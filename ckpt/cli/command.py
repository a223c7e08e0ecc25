"""The click classes of every command: global options before or after the command's name, two lengths of help.

`-h` answers with usage, arguments and options; `--help` adds the text, the global options and examples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from ckpt.cli.context import Invocation


class GlobalOption(click.Option):
    """An option that every command takes; its value goes to the invocation, not to the command."""


def _on_settings(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def store(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
        if value:
            setattr(ctx.ensure_object(Invocation).settings, name, value)

    return store


def _on_invocation(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def store(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
        if value is not None:
            setattr(ctx.ensure_object(Invocation), name, value)

    return store


def completing(kind: str) -> Callable[[click.Context, click.Parameter, str], list[Any]]:
    """Return what completes to the names of a kind: `threads`, `tags` or `graphs`; it is imported when needed."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[Any]:
        from ckpt.cli import completion

        found: list[Any] = getattr(completion, kind)(ctx, incomplete)
        return found

    return complete


def global_options() -> list[click.Parameter]:
    """Return fresh copies of the options that every command takes."""

    # The names keep clear of those of the commands' own arguments.
    def flag(*names: str, field: str, text: str) -> click.Parameter:
        return GlobalOption(
            [*names, f"global_{field}"],
            is_flag=True,
            expose_value=False,
            callback=_on_settings(field),
            help=text,
        )

    def value(*names: str, field: str, metavar: str, text: str, **extra: Any) -> click.Parameter:
        callback = _on_invocation(field)
        declared = [*names, f"global_{field}"]
        return GlobalOption(declared, metavar=metavar, expose_value=False, callback=callback, help=text, **extra)

    return [
        value(
            "--store",
            field="store_option",
            metavar="URL",
            text="The store: a file or URL. [CKPT_STORE, else the nearest .ckpt/ upwards]",
        ),
        value(
            "--graph",
            field="graph_option",
            metavar="NAME",
            text="The graph, where several share the store. [CKPT_GRAPH, else the default one]",
            shell_complete=completing("graphs"),
        ),
        value(
            "-t",
            "--thread",
            field="thread_option",
            metavar="ID",
            text="The thread that @, @~2, #7 are relative to; never parsed. [CKPT_THREAD]",
            shell_complete=completing("threads"),
        ),
        value("--ns", field="namespace", metavar="NS", text="The namespace (subgraph). [root]"),
        flag("--json", field="json", text="Print one JSON document."),
        flag("--jsonl", field="jsonl", text="Print one JSON record a line."),
        GlobalOption(
            ["--color", "global_color"],
            type=click.Choice(["auto", "always", "never"]),
            expose_value=False,
            callback=_on_settings("color"),
            help="When to colour. [auto; NO_COLOR, FORCE_COLOR]",
        ),
        flag("--ascii", field="ascii", text="Draw with ASCII characters only."),
        flag("--utc", field="utc", text="Show times in UTC instead of local time."),
        flag("--no-pager", field="no_pager", text="Never use a pager. [CKPT_PAGER, PAGER]"),
        flag("--raw", field="raw", text="Do not escape control characters in stored text."),
        flag("-q", "--quiet", field="quiet", text="No remarks on stderr."),
        flag("-v", "--verbose", field="verbose", text="Say more, in op log, stats and fsck."),
        flag("--debug", field="debug", text="Show the traceback of an internal error."),
    ]


def _short_help(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        formatter = ctx.make_formatter()
        command = ctx.command
        command.format_usage(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text(command.get_short_help_str(limit=200))
        _write_options(command, ctx, formatter, full=False)
        if isinstance(command, click.Group):
            command.format_commands(ctx, formatter)
        click.echo(formatter.getvalue().rstrip("\n"))
        ctx.exit()


def short_help_option() -> click.Option:
    """Return the `-h` option."""
    return click.Option(
        ["-h"], is_flag=True, is_eager=True, expose_value=False, callback=_short_help, help="Show short help."
    )


def _write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter, *, full: bool) -> None:
    groups: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        # Newer versions of click list the arguments, too, which the line of usage has.
        if record is not None and isinstance(param, click.Option):
            groups[isinstance(param, GlobalOption)].append(record)
    for shared, title in ((False, "Options"), (True, "Global options")):
        if groups[shared] and (full or not shared):
            with formatter.section(title):
                formatter.write_dl(groups[shared])


class Command(click.Command):
    """A command of `ckpt`."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        kwargs["context_settings"] = {"help_option_names": ["--help"], **kwargs.get("context_settings", {})}
        super().__init__(*args, **kwargs)
        self.params += [short_help_option(), *global_options()]
        self.examples = examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, then the global ones, then the examples."""
        _write_options(self, ctx, formatter, full=True)
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples.strip().splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line.strip()}\n")


class PathCommand(Command):
    """A command whose arguments after `--` are state paths; they arrive in `ctx.meta[PATHS]`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take away what follows the first `--` before click forgets where it stood."""
        paths: list[str] = []
        if "--" in args:
            at = args.index("--")
            args, paths = args[:at], args[at + 1 :]
        ctx.meta[PATHS] = tuple(paths)
        return super().parse_args(ctx, args)


PATHS: Final = "ckpt.cli.paths"

dry_run_option = click.option("-n", "--dry-run", is_flag=True, help="Say what would happen and change nothing.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")

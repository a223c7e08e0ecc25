"""Turn every way a command can end into lines on stderr and an exit code.

What happened and why on the `error:` line, what to do on `hint:` lines; with `--json` one more line, the
last, is a `ckpt.error/1` document. An unknown exception is a bug of ours and says so, without a traceback
unless `--debug` is given.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Final

import click

from ckpt.cli.context import Invocation
from ckpt.cli.escape import escape
from ckpt.cli.output import BrokenOutputError, Output, UnwritableOutputError, dump_json
from ckpt.errors import CkptError, InvalidInputError

INTERNAL: Final = 70
UNWRITABLE: Final = 74
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
LENGTH_MAX: Final = 100
"""Letters of a mistyped word that is compared with those that are known."""

# Kept apart from the names of `ckpt.errors`, which belong to the engine.
CODES: Final[Mapping[int, str]] = {
    2: "USAGE",
    INTERNAL: "INTERNAL",
    UNWRITABLE: "UNWRITABLE",
    INTERRUPTED: "INTERRUPTED",
}


def report(error: BaseException, invocation: Invocation, arguments: Sequence[str]) -> int:
    """Say what went wrong and return the exit code."""
    if isinstance(error, SystemExit):
        return _exit_code(error)
    if isinstance(error, BrokenOutputError | BrokenPipeError):
        return BROKEN_PIPE
    out = Output(invocation.settings)
    as_json = invocation.json or _asks_for_json(arguments)
    if isinstance(error, OSError):
        error = _of_stdout() or error
    if isinstance(error, UnwritableOutputError):
        message = f"the output cannot be written: {error}"
        hints = ["if the command changes something, that is done: look with ckpt op log"]
        _complain(out, as_json, UNWRITABLE, CODES[UNWRITABLE], message, hints, {})
        return UNWRITABLE
    if isinstance(error, CkptError):
        _complain(out, as_json, error.exit_code, error.code, str(error), error.hints, _facts(error))
        return error.exit_code
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        out.complain(error.message)
        return 2
    if isinstance(error, click.UsageError):
        hints = [f"{error.ctx.command_path} --help explains the command"] if error.ctx else []
        message = error.format_message().replace("is not a valid integer range", "is not a whole number")
        if isinstance(error, click.NoSuchOption):
            message = f"no such option: {error.option_name}"
            near = nearest(error.option_name, error.possibilities or ())
            hints[:0] = [f"did you mean {near}?"] if near is not None else []
        _complain(out, as_json, 2, CODES[2], _lower_first(message), hints, {})
        return 2
    if isinstance(error, click.ClickException):
        _complain(out, as_json, error.exit_code, "ERROR", _lower_first(error.format_message()), (), {})
        return error.exit_code
    if isinstance(error, click.Abort | KeyboardInterrupt):
        _complain(out, as_json, INTERRUPTED, CODES[INTERRUPTED], "interrupted", (), {})
        return INTERRUPTED
    if invocation.settings.debug:
        for line in "".join(traceback.format_exception(error)).rstrip("\n").split("\n"):
            out.complain(escape(line))
    _complain(
        out,
        as_json,
        INTERNAL,
        CODES[INTERNAL],
        f"internal error: {type(error).__name__}: {error}",
        ["this is a bug in ckpt, not in what you did; please report it with the output of --debug"],
        {},
    )
    return INTERNAL


def unknown_command(name: str, known: Sequence[str]) -> InvalidInputError:
    """Return the error for a command that does not exist, with the nearest one as a hint."""
    near = nearest(name, known)
    hint = f"did you mean {near}?" if near is not None else "ckpt --help lists the commands"
    return InvalidInputError(f"there is no command {name}", hints=[hint])


def nearest(typed: str, known: Sequence[str]) -> str | None:
    """Return the known word of which `typed` is the beginning or a slip of the fingers, or None."""
    word = typed.lstrip("-")
    if len(word) > LENGTH_MAX:
        return None
    slips = {each: 0 if each.lstrip("-").startswith(word) else _slips(word, each.lstrip("-")) for each in known}
    near = min(slips, key=lambda each: slips[each], default=None)
    return near if near is not None and len(word) > 1 and slips[near] <= (1 if len(word) < 6 else 2) else None


def _slips(typed: str, meant: str) -> int:
    """Return how many letters were left out, put in, replaced, or swapped with the next one."""
    before: list[int] = []
    row = list(range(len(meant) + 1))
    for i, letter in enumerate(typed, start=1):
        before, above, row = row, before, [i]
        for j, wanted in enumerate(meant, start=1):
            least = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if above and j > 1 and typed[i - 2] == wanted and letter == meant[j - 2]:
                least = min(least, above[j - 2] + 1)
            row.append(least)
    return row[-1]


def _complain(
    out: Output,
    as_json: bool,
    exit_code: int,
    code: str,
    message: str,
    hints: Sequence[str],
    facts: Mapping[str, object],
) -> None:
    out.complain(escape(message), "error", "error: ")
    for hint in hints:
        out.complain(escape(hint), "hint", "hint: ")
    if as_json:
        document = {
            "schema": "ckpt.error/1", "code": code, "exit": exit_code, "message": message,
            "hints": list(hints), **facts,
        }  # fmt: skip
        out.complain(dump_json(document))


def _facts(error: CkptError) -> dict[str, object]:
    candidates = getattr(error, "candidates", None)
    return {"candidates": list(candidates)} if candidates else {}


def _asks_for_json(arguments: Sequence[str]) -> bool:
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in own or "--jsonl" in own


def _lower_first(message: str) -> str:
    # click writes sentences, and choices one a line; our errors are fragments after a colon.
    text = " ".join(message.split()).rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _exit_code(error: SystemExit) -> int:
    return error.code if isinstance(error.code, int) else 0 if error.code is None else 1


def _of_stdout() -> UnwritableOutputError | None:
    """Return the error of stdout, where it has one: click writes to it as well."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return UnwritableOutputError(error.strerror or str(error))
    return None

"""The arguments that commands share: revisions, checked before a store is opened, and thread names.

Both complete to the thread ids of the store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ckpt.cli.command import completing

F = TypeVar("F", bound=Callable[..., Any])


def thread_argument(name: str, **options: Any) -> Callable[[F], F]:
    """Declare an argument that is a thread id, verbatim."""
    return click.argument(name, shell_complete=completing("threads"), **options)


def revision_argument(name: str, **options: Any) -> Callable[[F], F]:
    """Declare an argument that is a revision; a malformed one raises RevisionSyntaxError."""
    return click.argument(name, shell_complete=completing("threads"), callback=_checked, **options)


def _checked(_ctx: click.Context, _param: click.Parameter, value: Any) -> Any:
    from ckpt.history.revisions import parse

    for each in value if isinstance(value, tuple) else (value,):
        if each is not None:
            parse(each)
    return value

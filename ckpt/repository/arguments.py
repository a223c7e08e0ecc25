"""What the public methods demand of their arguments' kinds, before anything is read or written.

Costs the same whatever the argument holds: values are looked at by whoever serializes them. A text is checked by
`ckpt.history.keys.check_text`.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from operator import index
from typing import Any, TypeVar

from ckpt.errors import InvalidInputError
from ckpt.history.keys import check_text
from ckpt.repository.infos import CheckpointInfo

_T = TypeVar("_T")

_TEXT_ONLY = {str}


def check_mapping(what: str, given: object) -> None:
    """Raise InvalidInputError unless it is a mapping."""
    # For a dict, which it mostly is, asking the abstract class would cost a multiple.
    if type(given) is not dict and not isinstance(given, Mapping):
        raise InvalidInputError(f"{what} is a {type(given).__name__}, not a mapping", hints=["give a dict"])


def check_texts(given: Mapping[str, object]) -> None:
    """Raise InvalidInputError unless all are strings, each given with what it is."""
    if {*map(type, given.values())} != _TEXT_ONLY:
        for what, each in given.items():
            check_text(what, each)


def check_names(what: str, given: Mapping[Any, object], known: Collection[str]) -> None:
    """Raise InvalidInputError for a name in a mapping that is not among those known."""
    if unknown := sorted(map(str, given.keys() - set(known))):
        raise InvalidInputError(f"{what}: {unknown[0]!r} is not known", hints=[f"known are {', '.join(sorted(known))}"])


def check_count(what: str, given: object, *, least: int) -> None:
    """Raise InvalidInputError unless it is a whole number that is not too small; True is none, and neither is 5.0."""
    if not isinstance(given, int) or isinstance(given, bool):
        raise InvalidInputError(f"{what} is a {type(given).__name__}, not an int", hints=["give a whole number"])
    if given < least:
        raise InvalidInputError(f"{what} is {given}; it must be {least} or more")


def checked_limit(given: Any) -> int | None:
    """Return how many results are wanted at the most, None for all, or raise InvalidInputError."""
    if given is None:
        return None
    try:
        limit = -1 if isinstance(given, bool) else index(given)
    except TypeError:
        limit = -1
    if limit < 0:
        raise InvalidInputError(
            f"limit={given!r} is no number of results", hints=["give an int from 0 on, or None for no limit"]
        )
    return min(limit, sys.maxsize)


def check_place(thread: object, namespace: object) -> None:
    """Raise InvalidInputError unless a thread, which may be None, and a namespace are named by texts."""
    if thread is not None and not isinstance(thread, str):
        check_text("the name of a thread", thread)
    if not isinstance(namespace, str):
        check_text("a namespace", namespace)


def check_info(given: object) -> None:
    """Raise InvalidInputError unless it is the description of a checkpoint."""
    if not isinstance(given, CheckpointInfo):
        raise InvalidInputError(
            f"a checkpoint is given as a {type(given).__name__}, not as a CheckpointInfo",
            hints=["give what resolve(revision) returns"],
        )


def several(given: Iterable[_T], what: str) -> list[_T]:
    """Return what was given as a list, or raise InvalidInputError for a plain string and for what is no collection."""
    if isinstance(given, str | bytes):
        raise InvalidInputError(f"{what} takes a list, not one string", hints=[f"write [{given!r}]"])
    if not isinstance(given, Iterable):
        raise InvalidInputError(f"{what} is a {type(given).__name__}, not a list", hints=["give a list"])
    return list(given)

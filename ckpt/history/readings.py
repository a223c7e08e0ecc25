"""What a revision can mean: an anchor to start from, and suffixes that walk from there.

Plain immutable values. `ckpt.history.revisions` reads and writes them as text; `ckpt.repository` finds the
checkpoint. A value that could not be written as text cannot be made: the constructors refuse it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias

from ckpt.errors import RevisionSyntaxError

NUMBER_MAX: Final = 999_999_999
SUFFIXES_MAX: Final = 32
ID_PREFIX_LENGTH_MIN: Final = 4
ID_PREFIX: Final = re.compile(r"[0-9a-f]{4,64}")
OPERATION_PREFIX: Final = re.compile(r"[0-9a-f]{1,64}")

Unit: TypeAlias = Literal["s", "min", "h", "d", "w"]
_UNIT_SECONDS: Final[dict[str, int]] = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class ThreadName:
    """The head of the thread of exactly this name; any string."""

    name: str


@dataclass(frozen=True, slots=True)
class TagName:
    """The checkpoint that carries this tag."""

    name: str


@dataclass(frozen=True, slots=True)
class IdPrefix:
    """The checkpoint whose id begins so: 4 to 64 lower-case hex digits."""

    prefix: str

    def __post_init__(self) -> None:
        require(ID_PREFIX.fullmatch(self.prefix), self.prefix, "an id is 4 to 64 hex digits")


@dataclass(frozen=True, slots=True)
class CheckpointName:
    """The checkpoint with exactly this LangGraph `checkpoint_id`; any string."""

    checkpoint_id: str


@dataclass(frozen=True, slots=True)
class OperationPrefix:
    """The administrative operation whose id begins so: 1 to 64 lower-case hex digits. Takes no suffix."""

    prefix: str

    def __post_init__(self) -> None:
        require(OPERATION_PREFIX.fullmatch(self.prefix), self.prefix, "an operation id is hex digits")


@dataclass(frozen=True, slots=True)
class Relative:
    """The head of the thread given elsewhere (`-t`, an argument): `@`, also written `HEAD`."""


@dataclass(frozen=True, slots=True)
class Ancestor:
    """`~N`: the N-th ancestor along first parents; `~0` is the checkpoint itself."""

    distance: int = 1

    def __post_init__(self) -> None:
        require(0 <= self.distance <= NUMBER_MAX, f"~{self.distance}", "the number is too large")


@dataclass(frozen=True, slots=True)
class Parent:
    """`^N`: the N-th parent, counted from 1."""

    number: int = 1

    def __post_init__(self) -> None:
        require(1 <= self.number <= NUMBER_MAX, f"^{self.number}", "parents are counted from 1")


@dataclass(frozen=True, slots=True)
class AtStep:
    """`#N`: the nearest ancestor-or-self at LangGraph step N; `#-1` is the input."""

    step: int

    def __post_init__(self) -> None:
        require(abs(self.step) <= NUMBER_MAX, f"#{self.step}", "the number is too large")


@dataclass(frozen=True, slots=True)
class EarlierHead:
    """`@{N}`: where the thread's head was N moves ago."""

    distance: int

    def __post_init__(self) -> None:
        require(0 <= self.distance <= NUMBER_MAX, f"@{{{self.distance}}}", "the number is too large")


@dataclass(frozen=True, slots=True)
class BeforeNode:
    """`@{next:NODE}`: the nearest ancestor-or-self that runs NODE next."""

    node: str


@dataclass(frozen=True, slots=True)
class InRun:
    """`@{run:ID}`: the nearest ancestor-or-self made by this run."""

    run_id: str


@dataclass(frozen=True, slots=True)
class WithId:
    """`@{id:8c1f}`: the checkpoint of the same thread whose id begins so, in any namespace and on any line.

    It is looked for in the thread, wherever the walk has come to there: after a thread's name the head does not matter.
    """

    prefix: str

    def __post_init__(self) -> None:
        require(ID_PREFIX.fullmatch(self.prefix), f"@{{id:{self.prefix}}}", "an id is 4 to 64 hex digits")


@dataclass(frozen=True, slots=True)
class Ago:
    """`@{2h ago}`: the nearest ancestor-or-self that is at least this old. Units: s, min, h, d, w."""

    count: int
    unit: Unit

    def __post_init__(self) -> None:
        require(0 <= self.count <= 999_999, f"@{{{self.count}{self.unit} ago}}", "the number is too large")

    def moment(self, now: datetime) -> datetime:
        """Return the moment meant when it is `now`, or the earliest that a datetime can hold."""
        try:
            return now - timedelta(seconds=self.count * _UNIT_SECONDS[self.unit])
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class AtTime:
    """`@{2026-01-31T10:00Z}`: the nearest ancestor-or-self not newer than this (aware) moment."""

    moment: datetime

    def __post_init__(self) -> None:
        aware = self.moment.tzinfo is not None
        require(aware, str(self.moment), "a time needs Z or an offset such as +02:00")


Anchor: TypeAlias = ThreadName | TagName | IdPrefix | CheckpointName | OperationPrefix | Relative
Suffix: TypeAlias = Ancestor | Parent | AtStep | EarlierHead | BeforeNode | InRun | WithId | Ago | AtTime


@dataclass(frozen=True, slots=True)
class Reading:
    """One thing a revision can mean: start at the anchor, then apply the suffixes from left to right."""

    anchor: Anchor
    suffixes: tuple[Suffix, ...] = ()

    def __post_init__(self) -> None:
        require(len(self.suffixes) <= SUFFIXES_MAX, "…", f"more than {SUFFIXES_MAX} suffixes")
        bare_operation = not (self.suffixes and isinstance(self.anchor, OperationPrefix))
        require(bare_operation, "op:…", "an operation takes no suffix")


def quote(text: str) -> str:
    """Return a JSON string for `text` in which everything that does not print is escaped.

    Unlike `json.dumps`, two surrogates that stand side by side without being a pair come back as two.
    """
    quoted = ['"']
    previous_high = False
    for char in text:
        code = ord(char)
        if char in '"\\':
            quoted.append("\\" + char)
        elif previous_high and 0xDC00 <= code <= 0xDFFF:
            quoted.append(char)  # escaping it as well would make readers join the two into one character
        elif char.isprintable():
            quoted.append(char)
        else:
            quoted.append(json.dumps(char)[1:-1])
        previous_high = 0xD800 <= code <= 0xDBFF
    quoted.append('"')
    return "".join(quoted)


def require(condition: object, text: str, why: str) -> None:
    """Raise the error of a malformed revision unless `condition` holds."""
    if not condition:
        raise malformed(text, why)


def malformed(text: str, why: str, hints: Sequence[str] = ()) -> RevisionSyntaxError:
    """Return the error for a revision that cannot be read: what, why, and what to write instead."""
    message = f"cannot read the revision {quote(text)}: {why}"
    return RevisionSyntaxError(message, hints=[*hints, "ckpt help revisions explains the syntax"])

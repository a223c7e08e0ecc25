"""Interrupts at chosen moments: what a handler of signals raises, wherever Python lets it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Literal


class Interrupted(Exception):
    """What the handler of a program's own raises, to give up on a call that takes too long."""


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Have a handler of signals raise Interrupted after so many seconds."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def interrupt_at(
    moment: int,
    call: Callable[[], object],
    inside: tuple[str, ...],
    kind: type[BaseException] = KeyboardInterrupt,
    *,
    each: Literal["call", "line"] = "call",
) -> int | None:
    """Raise `kind` at the `moment`-th entry of a function of the files whose names begin with one of `inside`.

    With `each="line"` it is the `moment`-th line of them. Returns how many there were, and None when it was raised.
    """
    seen = 0

    def trace(frame: FrameType, event: str, _argument: object) -> object:
        nonlocal seen
        code = frame.f_code
        # What is raised in a generator expression that is given up half-way reaches nobody.
        if code.co_name == "<genexpr>" or not Path(code.co_filename).name.startswith(inside):
            return None
        if event == each:
            seen += 1
            if seen == moment:
                sys.settrace(None)
                raise kind
        return trace if each == "line" else None

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        call()
    except kind:
        return None
    finally:
        sys.settrace(before)
    return seen

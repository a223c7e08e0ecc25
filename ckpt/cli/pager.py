"""Show long output through the user's pager, and only when it is longer than the screen.

Lines are kept until they would scroll; then a pager is started and receives the rest as it comes. A pager
that cannot be started, or that is left early, is no error.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Final

DEFAULT: Final = "less -FRX"
_SHELLS: Final = frozenset("|&;<>()$`\\\"'*?[#~=%")
"""What means something to a shell."""


class Pager:
    """Collect lines; `close` must be called at the end, also after an error."""

    def __init__(self, write: Callable[[str], None], *, height: int) -> None:
        self._write = write
        self._room = max(height - 1, 1)
        self._waiting: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._decided = False

    @property
    def is_used(self) -> bool:
        """Whether it was given any line."""
        return self._decided or bool(self._waiting)

    def write(self, line: str) -> None:
        """Take one line that ends with a newline."""
        if self._decided:
            self._send(line)
            return
        self._waiting.append(line)
        if len(self._waiting) > self._room:
            self._decide(start=True)

    def close(self) -> None:
        """Print what is still waiting, or wait until the user leaves the pager."""
        if not self._decided:
            self._decide(start=False)
        if self._process is not None:
            with suppress(OSError):
                self._pipe(self._process).close()
            # Ctrl-C is for the pager, which mostly goes on; the terminal is its own until it ends.
            while True:
                with suppress(KeyboardInterrupt):
                    self._process.wait()
                    return

    def _decide(self, *, start: bool) -> None:
        self._decided = True
        if start:
            self._process = _start()
        for line in self._waiting:
            self._send(line)
        self._waiting.clear()

    def _send(self, line: str) -> None:
        if self._process is None:
            self._write(line)
            return
        with suppress(OSError):  # the user has seen enough
            self._pipe(self._process).write(line.encode("utf-8", "backslashreplace"))

    @staticmethod
    def _pipe(process: subprocess.Popen[bytes]) -> IO[bytes]:
        assert process.stdin is not None
        return process.stdin


def command() -> list[str]:
    """Return the pager's command line, one for a shell where it takes one to read it; empty for none."""
    chosen = os.environ.get("CKPT_PAGER")
    if chosen is None:
        chosen = os.environ.get("PAGER") or DEFAULT
    if _SHELLS & set(chosen):
        return ["sh", "-c", chosen]
    words = chosen.split()
    return [] if words == ["cat"] else words


def _start() -> subprocess.Popen[bytes] | None:
    words = command()
    if not words:
        return None
    # As git has it: without -R, less shows colours as garbage.
    environment = {"LESSCHARSET": "utf-8", "LESS": "FRX", **os.environ}
    try:
        return subprocess.Popen(words, stdin=subprocess.PIPE, env=environment)
    except OSError:
        return None

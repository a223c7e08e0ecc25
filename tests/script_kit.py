"""Python in a process of its own, which can import ckpt."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def python(script: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    """Start a script, with pipes to talk to it."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=_ROOT,
        text=True,
        **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},  # type: ignore[call-overload]
    )


def output_of(process: subprocess.Popen[str], *, timeout: float = 60) -> str:
    """Return what a process printed, which must end well."""
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return out

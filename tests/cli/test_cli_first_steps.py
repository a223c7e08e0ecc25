"""What who is new types first, and what the answer says."""

from __future__ import annotations

import pytest
from cli_kit import run, succeed

NEW = [
    (("completion",), 2, "missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish"),
    (("log", "hello"), 3, "hint: there are no threads yet"),
    (("thread",), 2, "hint: did you mean threads?"),
]


@pytest.mark.parametrize(("typed", "code", "words"), NEW)
def test_an_error_says_what_to_do(typed: tuple[str, ...], code: int, words: str) -> None:
    succeed("init")
    result = run(*typed)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr
    assert "\\n" not in result.stderr

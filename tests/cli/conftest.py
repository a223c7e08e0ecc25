"""What the tests of the command line share: a still environment, and golden files.

`pytest tests/cli --update-golden` writes the golden files anew; read the difference before committing it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"

_PLACEHOLDERS = [
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "u"),
    (re.compile(r"\b\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(\.\d+)?"), "t"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,64}\b"), "h"),
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden files of the command line anew"
    )


def normalised(text: str) -> str:
    """Replace what differs from run to run by placeholders of the same width, numbered as they appear."""
    for pattern, letter in _PLACEHOLDERS:
        seen: dict[str, int] = {}

        def placeholder(found: re.Match[str], letter: str = letter, seen: dict[str, int] = seen) -> str:
            number = seen.setdefault(found[0], len(seen)) if letter == "h" else 0
            return f"<{letter}{number or ''}".ljust(len(found[0]) - 1, "-") + ">"

        text = pattern.sub(placeholder, text)
    return text


@pytest.fixture(autouse=True)
def still_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fix width and zone, forget the user's settings, and stand in an empty folder."""
    for name in (
        "CKPT_STORE",
        "CKPT_THREAD",
        "CKPT_PAGER",
        "PAGER",
        "NO_COLOR",
        "FORCE_COLOR",
        "TERM",
        "LINES",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare text with the golden file of this name, or write it."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        found = normalised(text)
        if request.config.getoption("--update-golden", default=False):
            path.write_text(found, encoding="utf-8")
        assert path.exists(), f"{path} is missing; run pytest tests/cli --update-golden"
        assert found == path.read_text(encoding="utf-8")

    return check

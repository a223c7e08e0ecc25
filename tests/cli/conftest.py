"""What the tests of the command line share: a still environment, stores, and golden files.

`pytest tests/cli --update-golden` writes the golden files anew; read the difference before committing it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli_kit import copied, write_graph_store, write_plain_store, write_shared_store

from ckpt.cli import context
from ckpt.cli import format as fmt

GOLDEN = Path(__file__).parent / "golden"

# What differs from run to run becomes a placeholder of the same width, so that columns can be compared.
_PLACEHOLDERS = [
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "u"),
    (re.compile(r"\b\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(\.\d+)?"), "t"),
    (re.compile(r"\b\d{2}:\d{2}:\d{2}\b"), "t"),
    (re.compile(r"\b[\d,]+(\.\d)? [kM]?B\b"), "s"),
    (re.compile(r"\b[\d,]+\.\dx"), "x"),
    (re.compile(r"\b\d+%"), "p"),
    (re.compile(r"(?<![0-9a-f])[0-9a-f]{8,64}(?![0-9a-f])"), "h"),
]
_SETTINGS = (
    "CKPT_STORE", "CKPT_CONFIG", "CKPT_GRAPH", "CKPT_THREAD", "CKPT_PAGER", "PAGER", "NO_COLOR", "FORCE_COLOR", "TERM",
    "LINES", "CKPT_ENCRYPTION_KEY", "CKPT_ENCRYPTION_KEY_FILE",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files of the command line anew")


def normalised(text: str) -> str:
    """Replace what differs from run to run; ids are numbered as they appear."""
    for pattern, letter in _PLACEHOLDERS:
        seen: dict[str, int] = {}

        def placeholder(found: re.Match[str], letter: str = letter, seen: dict[str, int] = seen) -> str:
            number = seen.setdefault(found[0], len(seen)) if letter == "h" else 0
            return f"<{letter}{number or ''}".ljust(len(found[0]) - 1, "-") + ">"

        text = pattern.sub(placeholder, text)
    return text


@pytest.fixture(autouse=True)
def still_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Fix width and zone, forget the user's settings, and stand in an empty folder."""
    for name in _SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("TZ", "UTC")
    if hasattr(time, "tzset"):
        time.tzset()
    monkeypatch.chdir(tmp_path)
    yield
    monkeypatch.undo()
    if hasattr(time, "tzset"):
        time.tzset()


class Stores:
    """Where the stores are that all tests copy, and when they were made."""

    def __init__(self, folder: Path) -> None:
        self.made = datetime.now(UTC)
        self.graph, self.plain, self.shared = folder / "graph.db", folder / "plain.db", folder / "shared.db"
        write_graph_store(self.graph)
        write_plain_store(self.plain)
        write_shared_store(self.shared)


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return Stores(tmp_path_factory.mktemp("stores"))


@pytest.fixture
def today(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock of the output when the stores were made, and be somebody."""
    monkeypatch.setattr(fmt, "now", lambda: stores.made)
    monkeypatch.setattr(context, "actor", lambda: "ana@laptop")


@pytest.fixture
def graph_store(stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what a LangGraph graph wrote; the one that commands find."""
    return copied(stores.graph, tmp_path, monkeypatch)


@pytest.fixture
def plain_store(stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what the framework-free API wrote; the one that commands find."""
    return copied(stores.plain, tmp_path, monkeypatch)


@pytest.fixture
def shared_store(stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a store that two graphs share; the one that commands find."""
    return copied(stores.shared, tmp_path, monkeypatch)


@pytest.fixture
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, str], None]:
    """Compare text with the golden file of this name, or write it."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        found = normalised(text.replace(str(tmp_path), "/tmp"))
        if request.config.getoption("--update-golden", default=False):
            path.write_text(found, encoding="utf-8")
        assert path.exists(), f"{path} is missing; run pytest tests/cli --update-golden"
        assert found == path.read_text(encoding="utf-8")

    return check

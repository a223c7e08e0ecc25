"""What the command line imports while it works: no class of the user, nothing of LangGraph."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_kit import SUPPORT

ROOT = Path(__file__).resolve().parents[2]
RunApart = Callable[..., "subprocess.CompletedProcess[str]"]

CANARY = """
import dataclasses, enum, pathlib
pathlib.Path(__file__).with_name("woken").touch()

@dataclasses.dataclass
class Bird:
    name: str

class Tone(enum.Enum):
    HIGH = 1
"""
WRITE = """
from typing import Any, TypedDict
import canary_module as c
from cli_kit import CkptSaver, place
from langgraph.graph import START, StateGraph

class Cage(TypedDict):
    bird: Any
    tone: Any
    cage: Any

birds = {"bird": c.Bird("x"), "tone": c.Tone.HIGH, "cage": {"birds": [c.Bird("y")], "size": 1}}
with CkptSaver("birds.db") as saver:
    builder = StateGraph(Cage)
    builder.add_node("sing", lambda state: {"bird": c.Bird("z")})
    builder.add_edge(START, "sing")
    builder.compile(checkpointer=saver).invoke(birds, place("graph"))
    thread = saver.repository.thread("plain")
    thread.commit({"size": 1})
    thread.commit(birds)
"""
RUN = """
import sys
from ckpt.cli.main import cli
try:
    cli.main(sys.argv[1:])
finally:
    print(*sorted(sys.modules), file=sys.stderr)
"""


def run_apart(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in a process of its own, which then says what it has imported."""
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    environment.setdefault("PYTHONPATH", str(ROOT))
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        capture_output=True, text=True, encoding="utf-8", check=True, env=environment,
    )  # fmt: skip


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    return set(done.stderr.splitlines()[-1].split())


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with instances of classes whose module leaves this trace when it is imported."""
    (tmp_path / "canary_module.py").write_text(CANARY)
    places = [ROOT, ROOT / "tests" / "cli", tmp_path]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, places)))
    subprocess.run([sys.executable, "-W", "ignore", "-c", WRITE], check=True)
    trace = tmp_path / "woken"
    trace.unlink()
    monkeypatch.setenv("CKPT_STORE", "birds.db")
    return trace


def test_no_class_of_the_user_is_imported(canary: Path) -> None:
    lines = [
        ["log"], ["show", "graph", "--internal"], ["show", "plain", "bird", "cage"], ["diff", "graph"],
        ["diff", "plain", "--full"], ["show", "graph", "--json"], ["show", "plain", "--json"], ["stats"],
        ["fork", "graph", "g2", "--set", "cage.size=2", "--set", 'cage.birds[0].name="w"'], ["threads"],
        ["fork", "plain", "p2", "--set", 'cage.birds[0].name="w"'], ["rewind", "graph"], ["rewind", "plain"],
        ["diff", "plain~1", "p2"], ["show", "g2", "cage"], ["prune", "--all", "--keep-last", "1", "-y"],
        ["fsck"], ["gc", "--grace", "0s"],
    ]  # fmt: skip
    for line in lines:
        roots = {name.partition(".")[0] for name in imported(run_apart(*line))}
        assert roots & {"langgraph", "langchain_core", "pydantic", "canary_module"} == set(), line
        assert not canary.exists(), line
    shown = run_apart("show", "g2", "cage").stdout
    assert "canary_module.Bird" in shown
    assert '"w"' in shown


def test_langgraph_is_not_imported_for_its_own_store(graph_store: Path) -> None:
    done = run_apart("log")
    assert SUPPORT in done.stdout
    heavy = {"langgraph", "langchain_core", "pydantic", "sqlite_utils", "ckpt.langgraph", "asyncio"}
    assert "ckpt.repository" in imported(done)
    assert imported(done) & heavy == set()


def test_a_command_that_needs_no_store_opens_none() -> None:
    assert not any(name.startswith(("ckpt.repository", "ckpt.storage")) for name in imported(run_apart("schema")))

"""Every example runs on its own, and says what it is there to show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from stores import SHARED, store_url

from ckpt.repository import open_repository

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"

SHOWN = {
    "quickstart": [
        r"the last was 'What do you know about me\?'",
        r"^three steps back the thread had 4 messages$",
        r"^agent: You have said 3 things; the last was 'I take it back'\.$",
        r"^heads: \[\d+, \d+\]$",
    ],
    "branching": [
        r"^base +0\.25 +0  The shop sells mugs\.$",
        r"^words-12 +0\.\d\d +\d+  ",
        r"^best: words-12$",
    ],
    "human_in_the_loop": [
        r"^payment waits: Pay 120 EUR\?$",
        r"^payment-what-if: answered no, now refused$",
        r"^payment: answered yes, now paid$",
        r"^status differs: paid and refused$",
    ],
    "framework_free": [
        r"^now: .*Order\(number='A-1', total=Decimal\('9\.50'\)\)",
        r"^fork: \['ask somebody'\]$",
        r"^rewound: \['search', 'compare'\]$",
        r"^undone: \['search', 'compare', 'buy'\]$",
        r"^not stored: socket\.handle$",
    ],
    "yaml_config": [
        r"^refused: path needs the variable TRIPS_STORE, which is not set$",
        r"^type: sqlite$",
        r"^waits: Where to, Ana\?$",
        r"^done: Booked: Ana to Lisbon$",
    ],
    "memory": [
        r"^friday: 'tea=oolong' -> city: Lisbon, tea: oolong$",
        r"^  \{'likes': 'lapsang'\}$",
        r"^on monday it was lapsang$",
        r"^what-if differs: city: \{'likes': 'Lisbon'\} -> None$",
        r"^friday: 'tea' -> city: Lisbon$",
        r"^deleted, and still known to history: \[None, ",
    ],
    "demo": [
        r"^  waiting +approve \{'approve': 'refund'",
        r"^\$ ckpt --store store\.db log support-42",
        r"^@ +[0-9a-f]{8} .* support-42$",
        r"^  ~ \.status \"open\" -> \"refunded\"$",
        r"^Forked support-42-no from [0-9a-f]{8} \(support-42 step \d+\)",
        r"^  agent +I may not refund this myself",
        r"^Rewound support-43 to ",
        r"^Undid op ",
        r"^\d+ checkpoints · 3 threads",
        r"^The two threads of part 1 took [\d,]+ bytes on CkptSaver\.$",
        r"^On LangGraph's SqliteSaver the same run took [\d,]+, \d\d\.\d times as many",
        r"^Removed ",
    ],
}

ON_EACH_STORE = [
    r"^  to A: I want my money back, please\.$",
    r"^  A: +waits: \{'approve': 'refund'",
    r"^  to B: Command\(resume='yes'\)$",
    r"^  B: +Refund issued, reference R-881\.",
    r"^  A: +You are welcome\.",
    r"^support-42 +idle +16 ",
    r"^@ +[0-9a-f]{8}  #14 loop .* support-42$",
    r'^  "status": "refunded",$',
    r'^  ~ \.status "open" -> "refunded"$',
    r"^Forked support-42-no from [0-9a-f]{8} \(support-42 step 8\)",
    r"^Checked out support-42 to [0-9a-f]{8} \(step 10\)",
    # The threads of the run before are deleted, but can still be brought back.
    r"^(17|34) checkpoints · 2 threads · 3 heads",
    r"^checked (17|34) checkpoints, .*: no problems$",
    r"^Removed 0 threads and 0 objects, ",
]
# Tested by tests of their own, or part of others.
APART = {"support_agent", "shared_stores", "fastapi_app", "three_threads"}


def run(example: str, folder: Path, *arguments: str) -> str:
    """Run an example where nothing of this checkout lies; return what it prints, stderr included."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CKPT_")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "TMPDIR": str(folder), "COLUMNS": "110"}
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{example}.py", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("example", SHOWN)
def test_an_example_shows_what_it_is_for(example: str, tmp_path: Path) -> None:
    printed = run(example, tmp_path)
    assert not missing(SHOWN[example], printed), printed
    assert list(tmp_path.iterdir()) == [], "it left something behind"


def test_the_threads_to_look_around_in_are_where_the_command_line_looks(tmp_path: Path) -> None:
    assert "ckpt log support-42" in run("three_threads", tmp_path)
    with open_repository(tmp_path / ".ckpt" / "store.db") as repository:
        status = {info.name: info.status for info in repository.threads()}
    assert status == {"wholesale-7": "idle", "support-42": "idle", "support-43": "interrupted"}


def missing(patterns: list[str], printed: str) -> list[str]:
    return [pattern for pattern in patterns if not re.search(pattern, printed, re.M)]


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == APART | set(SHOWN)


@pytest.mark.parametrize("backend", SHARED)
def test_two_processes_continue_one_thread(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    # Without a store the example makes a file and removes it.
    stores = [] if backend == "sqlite" else [store_url(backend, request)]
    for _ in range(2 if backend == "redis" else 1):
        printed = run("shared_stores", tmp_path, *stores)
        assert not missing(ON_EACH_STORE, printed), printed
        assert list(tmp_path.iterdir()) == [], "it left something behind"


def test_the_two_savers_of_the_demo_hold_the_same_conversations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    from langgraph.checkpoint.sqlite import SqliteSaver
    from support_agent import build, talk

    from ckpt.langgraph import CkptSaver

    states = []
    with (
        CkptSaver(tmp_path / "store.db") as ours,
        SqliteSaver.from_conn_string(str(tmp_path / "langgraph.db")) as theirs,
    ):
        for saver in (ours, theirs):
            graph = build(saver)
            talk(graph, "t", ["Where is A-1?", "I want my money back.", "Thanks"], lambda who, text: None)
            states.append(graph.get_state({"configurable": {"thread_id": "t"}}).values)
    assert states[0] == states[1]
    assert len(states[0]["messages"]) == 12

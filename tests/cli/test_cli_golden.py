"""What every command prints on real stores, kept in `golden/`.

A golden file holds a short session: each command line, what it printed, and its exit code if that is not 0.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_kit import run

from ckpt.cli.main import COMMANDS

GRAPH: dict[str, list[str]] = {
    "threads": ["threads", "threads '*-43'", "threads --status interrupted --sort size -n 5", "threads none"],
    "log": ["log support-42", "log support-43 --ascii", "log support-42~3 -n 2", "log --oneline"],
    "log-lanes": [
        "rewind support-42 3",
        "fork support-42~2 retry",
        "tag good support-42~1",
        "log",
        "log --no-graph -n 3",
    ],
    "log-subgraphs": ["log support-42 --subgraphs"],
    "show": ["show support-42", "show support-43", "show support-42 'messages[-1].content' ticket"],
    "show-parts": [
        "show support-43 --writes",
        "show support-43 --state --internal",
        "show support-42 --meta",
        "show support-42 -- messages[1] ticket.status",
        "show support-42 ticket.nothing",
        "show support-42 nothing",
    ],
    "diff": [
        "diff support-42~2",
        "diff support-42~4 support-42 --stat",
        "diff support-42~4 support-42 --keys",
        "diff support-42~3 -- ticket notes",
        "diff support-42~6",
        "diff support-42 support-43 --exit-code --internal",
    ],
    "fork": [
        "fork support-42~2 retry -n",
        "fork support-42~2 retry --set ticket.status='\"open\"' --set notes[0]=1",
        "diff support-42~2 retry --words",
        "op log",
        "fork support-42 retry",
    ],
    "checkout": [
        "checkout 'support-42@{next:tools}' -n",
        "checkout 'support-42@{next:tools}'",
        "checkout support-42#2 -t support-42",
        "checkout support-42",
        "checkout support-43 -n",
        "checkout support-43",
        "op log",
        "log support-42 -n 4",
    ],
    "rewind": [
        "rewind support-42 2 -n",
        "rewind support-42 2",
        "rewind -t support-43",
        "rewind support-42 99",
        "threads --status pending",
    ],
    "undo": ["undo -n", "rewind support-42", "undo -n", "undo", "undo", "op log"],
    "op": [
        "op log",
        "delete -y support-43",
        "tag v1 support-42",
        "undo op:002",
        "op log -n 2",
        "gc --grace 0s",
        "op log",
        "undo op:001",
    ],
    "tag": [
        "tag",
        "tag good support-42~1 -n",
        "tag good support-42~1",
        "tag -t support-43 now",
        "tag",
        "tag good support-42",
        "show tag:good ticket.status",
        "tag -d now -n",
        "tag -d now",
        "tag -d now",
    ],
    "delete": [
        "delete support-43",
        "delete support-43 -n",
        "delete support-43 -y",
        "delete support-43 -y",
        "tag good support-42",
        "tag better support-42~1",
        "delete support-42 -n",
        "delete support-42 -y",
        "tag",
        "undo",
        "tag",
    ],
    "expire": [
        "expire support-43 36500d -n",
        "expire support-43 36500d",
        "threads",
        "expire support-42 never",
        "threads",
        "undo",
        "undo",
        "threads",
        "op log",
        "expire support-44 1h",
        "expire support-43 soon",
        "expire support-43 30",
        "expire support-43",
    ],
    "prune-within": [
        "prune --all -n",
        "prune --all --keep-within 1h -n",
        "prune support-42 --keep-within 1h --keep-last 3 -y",
        "prune support-42 --keep-within soon -y",
    ],
    "prune": [
        "tag good support-42~3",
        "prune --all --keep-last 2 -n",
        "tag -d good",
        "prune support-42 --keep-last 2 -y",
        "log support-42",
        "gc --grace 0s",
        "log support-42",
    ],
    "gc": ["delete -y support-42", "gc -n", "gc --grace 0s", "threads"],
    "stats": ["stats"],
    "fsck": ["fsck", "fsck --no-read-data"],
    "ambiguous": ["tag support-42 support-43", "show support-42", "show suport-42", "log -t suport-42"],
}
PLAIN: dict[str, list[str]] = {
    "plain": ["threads", "log", "log plans", "show plans", "op log", "stats"],
    "plain-diff": [
        "diff plans",
        "diff plans --words",
        "diff plans --stat",
        "diff plans --context 0 -- letter",
        "diff plans~2 plans --full -- steps title",
        "diff plans-b plans -- title",
    ],
}

SHARED: list[str] = [
    "graphs",
    "threads",
    "threads --graph billing",
    "--graph billing log inv-1",
    "show inv-1",
    "fork inv-1 plans --graph billing",
    "op log --graph billing",
    "op log",
    "threads --graph none",
    "graphs",
    "fsck",
]


def session(lines: list[str]) -> str:
    shown: list[str] = []
    for line in lines:
        result = run(*shlex.split(line))
        shown.append(f"$ ckpt {line}\n{result.stdout}{result.stderr}")
        if result.exit_code:
            shown.append(f"(exit {result.exit_code})\n")
        shown.append("\n")
    return "".join(shown).rstrip("\n") + "\n"


@pytest.mark.usefixtures("today", "graph_store")
@pytest.mark.parametrize("name", GRAPH)
def test_on_a_store_of_a_graph(name: str, golden: Callable[[str, str], None]) -> None:
    golden(name, session(GRAPH[name]))


@pytest.mark.usefixtures("today", "plain_store")
@pytest.mark.parametrize("name", PLAIN)
def test_on_a_store_of_the_api(name: str, golden: Callable[[str, str], None]) -> None:
    golden(name, session(PLAIN[name]))


@pytest.mark.usefixtures("today", "shared_store")
def test_on_a_store_that_graphs_share(golden: Callable[[str, str], None]) -> None:
    golden("graphs", session(SHARED))


def test_init(golden: Callable[[str, str], None], tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    lines = ["threads", "init", "init", "threads", "init other", "--store plain.db init", "stats", "fsck"]
    golden("init", session(lines))
    assert (tmp_path / ".ckpt" / "store.db").exists()


def test_every_command_that_looks_at_a_store_has_a_golden_file() -> None:
    seen = {shlex.split(line)[0] for lines in (*GRAPH.values(), *PLAIN.values(), SHARED) for line in lines}
    assert (seen | {"init"}) - {"--graph"} == set(COMMANDS) - {"schema", "completion", "help", "key"}

"""Without a framework: the history of plain Python values.

Values come back equal in value and type, or `commit` says which one it cannot store.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import ckpt
from ckpt.errors import UnstorableValueError


@dataclass
class Order:
    """Any dataclass that can be imported again, or that `types` names, can be stored."""

    number: str
    total: Decimal


with (
    tempfile.TemporaryDirectory() as folder,
    ckpt.open(Path(folder) / "store.db", types=[Order]) as repository,
):
    thread = repository.thread("planner")
    plan = {"tasks": ["search", "compare"], "seen": {1, 2}, "order": Order("A-1", Decimal("9.50"))}
    thread.commit(plan)
    thread.commit({**plan, "tasks": ["search", "compare", "buy"], "at": datetime(2026, 3, 1, tzinfo=UTC)})

    print("now:", thread.state())
    print("before:", thread.state("@~1")["tasks"])

    other = thread.fork("planner-b", "@~1", values={"tasks": ["ask somebody"]})
    print("fork:", other.state()["tasks"])

    difference = repository.diff("planner", "planner-b")
    for change in difference.changes.changes:
        print("  ", change.op, list(change.path))

    thread.rewind()
    print("rewound:", thread.state()["tasks"])
    repository.undo()
    print("undone:", thread.state()["tasks"])

    try:
        thread.commit({"socket": {"handle": object()}})
    except UnstorableValueError as error:
        print("not stored:", error.path)

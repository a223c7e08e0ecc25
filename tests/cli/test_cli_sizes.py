"""How large a key is said to be: the items of what has items, and nothing of what has none."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict

import pytest
from cli_kit import document, place, succeed
from langgraph.graph import START, StateGraph

import ckpt
from ckpt.langgraph import CkptSaver

VALUES: dict[str, tuple[Any, Any, str]] = {
    "list": ([1], [1, 2], "1 -> 2 items"),
    "tuple": ((1,), (1, 2), "1 -> 2 items"),
    "set": ({"x", "y"}, {"x", "y", "z", "u"}, "2 -> 4 items"),
    "frozenset": (frozenset({1}), frozenset(), "1 -> 0 items"),
    "deque": (deque([1]), deque([1, 2]), "1 -> 2 items"),
    "dict": ({"a": 1}, {"a": 1, 2: 3, (4,): 5, "d": 6}, "1 -> 4 keys"),
    "ordered": (OrderedDict(a=1), OrderedDict(a=1, b=2), "1 -> 2 keys"),
    "counter": (Counter("a"), Counter("abc"), "1 -> 3 keys"),
    "moment": (datetime(2026, 1, 1), datetime(2026, 1, 2), ""),
    "number": (1, 2, ""),
}
OWN = {"list", "tuple", "set", "frozenset", "dict", "ordered", "counter", "moment", "number"}
LANGGRAPH = {"list", "set", "frozenset", "deque", "moment", "number"}


class Keys(TypedDict, total=False):
    list: Any
    set: Any
    frozenset: Any
    deque: Any
    moment: Any
    number: Any


def _heads(line: str) -> dict[str, str]:
    headings = [line for line in succeed(*line.split()).splitlines() if line and not line.startswith(" ")][1:]
    return {name: extent.strip() for name, _, extent in (each.partition(" ") for each in headings)}


@pytest.mark.parametrize("writer", ["own", "langgraph"])
def test_what_has_items_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    monkeypatch.setenv("CKPT_STORE", str(tmp_path / "s.db"))
    names = OWN if writer == "own" else LANGGRAPH
    old, new = ({name: VALUES[name][side] for name in names} for side in (0, 1))
    if writer == "own":
        with ckpt.open(tmp_path / "s.db") as repository:
            repository.commit("t", old)
            repository.commit("t", new)
    else:
        with CkptSaver(tmp_path / "s.db") as saver:
            builder = StateGraph(Keys)
            builder.add_node("a", lambda state: new)
            builder.add_edge(START, "a")
            builder.compile(checkpointer=saver).invoke(old, place("t"))
    assert _heads("diff t~1 t") == {name: VALUES[name][2] for name in names}
    [head, *_] = document("log", "t")["items"]
    changed = {each["key"]: (each["add"], each["change"], each["remove"]) for each in head["changed"]}
    assert changed["set"] == (2, 0, 0)
    assert changed["frozenset"] == (0, 0, 1)

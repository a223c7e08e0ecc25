"""A graph written in YAML, its store included: an interrupted run is finished by another process's opening of it.

The file says what the graph does and, under `checkpointer`, where its threads are kept; the secret part, here only
the store's place, comes from the environment. The program knows no store by name.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import yaml
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from ckpt.config import load
from ckpt.langgraph import CkptSaver, get_checkpointer

GRAPH = """\
name: trips
checkpointer:
  type: sqlite
  path: ${TRIPS_STORE}
  max_checkpoint_size: 1000000
nodes:
  greet: {say: "Hello {name}"}
  ask: {ask: "Where to, {name}?", into: place}
  book: {say: "Booked: {name} to {place}"}
"""


def build(document: dict[str, Any], saver: CkptSaver | None) -> Any:
    """Return the graph of a document: its nodes, one after the other."""

    def node(does: dict[str, str]) -> Any:
        def run(state: dict[str, str]) -> dict[str, str]:
            if "ask" in does:
                return state | {does["into"]: interrupt(does["ask"].format(**state))}
            return state | {"said": does["say"].format(**state)}

        return run

    builder = StateGraph(dict)
    before = START
    for name, does in document["nodes"].items():
        builder.add_node(name, node(does))
        builder.add_edge(before, name)
        before = name
    return builder.compile(checkpointer=saver, name=document["name"])


def turn(path: Path, given: Any) -> dict[str, Any]:
    """Open the store as the file says, run the graph on one thread, and close it again."""
    saver = get_checkpointer(path)
    assert saver is not None
    with saver:
        graph = build(yaml.safe_load(path.read_text(encoding="utf-8")), saver)
        result: dict[str, Any] = graph.invoke(given, {"configurable": {"thread_id": "trip-7"}})
    return result


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "trips.yaml"
    path.write_text(GRAPH, encoding="utf-8")

    try:
        get_checkpointer(path)
    except ValueError as error:
        print("refused:", str(error).rpartition(": ")[2])

    os.environ["TRIPS_STORE"] = str(Path(folder) / "trips.db")
    print("type:", load(path).type)
    print("waits:", turn(path, {"name": "Ana"})["__interrupt__"][0].value)
    print("done:", turn(path, Command(resume="Lisbon"))["said"])

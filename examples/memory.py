"""Long-term memory for a LangGraph agent: it remembers, can be asked what it knew when, and can be branched.

Needs `pip install '.[langgraph]' langgraph` from a checkout; no model and no key.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TypedDict

from langgraph.graph import START, StateGraph
from langgraph.store.base import BaseStore

import ckpt
from ckpt.langgraph import CkptSaver, CkptStore


class State(TypedDict):
    user: str
    said: str
    answer: str


def agent(state: State, store: BaseStore) -> dict[str, str]:
    """Remember what somebody likes, and answer with all that is known of them."""
    namespace = ("users", state["user"])
    what, _, value = state["said"].partition("=")
    if value:
        store.put(namespace, what, {"likes": value})
    else:
        store.delete(namespace, what)
    known = sorted(f"{item.key}: {item.value['likes']}" for item in store.search(namespace))
    return {"answer": ", ".join(known) or "nothing"}


builder = StateGraph(State)
builder.add_node("agent", agent)
builder.add_edge(START, "agent")

with tempfile.TemporaryDirectory() as folder, ckpt.open(Path(folder) / "store.db") as repository:
    # Saver and store share one file, and each value is stored once for both.
    store = CkptStore(repository)
    graph = builder.compile(checkpointer=CkptSaver(repository), store=store)

    def say(thread: str, said: str) -> None:
        config = {"configurable": {"thread_id": thread}}
        answer = graph.invoke({"user": "ana", "said": said}, config)["answer"]
        print(f"{thread}: {said!r} -> {answer}")

    say("monday", "tea=lapsang")
    say("monday", "city=Lisbon")
    say("friday", "tea=oolong")

    print("history of tea, newest first:")
    history = store.history(("users", "ana"), "tea")
    for version in history:
        print(f"  {version.value}")
    then = store.get(("users", "ana"), "tea", as_of=history[-1].when)
    print("on monday it was", then.value["likes"] if then is not None else None)

    branch = store.fork("what-if", as_of=history[-1].moment)
    branch.put(("users", "ana"), "tea", {"likes": "none at all"})
    for change in branch.diff(store):
        print(f"what-if differs: {change.key}: {change.old} -> {change.new}")

    say("friday", "tea")
    print("deleted, and still known to history:", [version.value for version in store.history(("users", "ana"), "tea")])

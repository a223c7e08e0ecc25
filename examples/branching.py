"""A branching experiment: fork one thread into variants, run each, compare them in a table.

The fork takes no time and no space, so a hundred variants of a long conversation cost what they add.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TypedDict

from langgraph.graph import END, START, StateGraph

from ckpt.langgraph import CkptSaver


class State(TypedDict, total=False):
    """A text, how it is to be summed up, and the result."""

    text: str
    words_max: int
    summary: str
    score: float


def research(state: State) -> State:
    return {"text": "The shop sells mugs. Mugs break. Broken mugs are refunded. Refunds take a day. " * 5}


def summarize(state: State) -> State:
    return {"summary": " ".join(state["text"].split()[: state.get("words_max", 4)])}


def judge(state: State) -> State:
    kept = set(state["summary"].split())
    return {"score": len(kept) / len(set(state["text"].split())) - 0.01 * len(state["summary"].split())}


builder = StateGraph(State)
builder.add_sequence([research, summarize, judge])
builder.add_edge(START, "research")
builder.add_edge("judge", END)

with (
    tempfile.TemporaryDirectory() as folder,
    CkptSaver(Path(folder) / "store.db") as saver,
):
    graph = builder.compile(checkpointer=saver)
    repository = saver.repository
    graph.invoke({"words_max": 4}, {"configurable": {"thread_id": "base"}})

    # Everything up to the summary is shared; each variant changes one value and runs from there.
    for words in (2, 8, 12, 40):
        repository.fork("base@{next:summarize}", f"words-{words}")
        config = {"configurable": {"thread_id": f"words-{words}"}}
        config = graph.update_state(config, {"words_max": words}, as_node="research")
        graph.invoke(None, config)

    print(f"{'thread':<10} {'score':>6}  {'new bytes':>9}  summary")
    shared = {info.id for info in repository.log(thread="base")}
    for thread in sorted(repository.threads(), key=lambda thread: thread.name):
        values = graph.get_state({"configurable": {"thread_id": thread.name}}).values
        own = [info for info in repository.log(thread=thread.name) if info.id not in shared]
        added = sum(info.bytes_new for info in own)
        print(f"{thread.name:<10} {values['score']:>6.2f}  {added:>9}  {values['summary'][:50]}")

    scores = {
        thread.name: graph.get_state(saver.config(thread.name)).values["score"] for thread in repository.threads()
    }
    repository.tag("best", max(scores, key=lambda name: scores[name]))
    print("best:", repository.tags()["best"].thread)

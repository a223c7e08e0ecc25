"""Human in the loop: a run waits for a person, is forked while it waits, and both answers are tried.

A fork of an interrupted thread is interrupted as well, so that each copy can be answered on its own.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from ckpt.langgraph import CkptSaver


class State(TypedDict, total=False):
    """A payment and what became of it."""

    amount: int
    status: str


def propose(state: State) -> State:
    return {"status": "proposed"}


def approve(state: State) -> State:
    answer = interrupt(f"Pay {state['amount']} EUR?")
    return {"status": "paid" if answer == "yes" else "refused"}


builder = StateGraph(State)
builder.add_sequence([propose, approve])
builder.add_edge(START, "propose")
builder.add_edge("approve", END)

with tempfile.TemporaryDirectory() as folder:
    store = Path(folder) / "store.db"

    with CkptSaver(store) as saver:
        graph = builder.compile(checkpointer=saver)
        graph.invoke({"amount": 120}, {"configurable": {"thread_id": "payment"}})

    # Another process, another day: who waits, and for what?
    with CkptSaver(store) as saver:
        graph = builder.compile(checkpointer=saver)
        for thread in saver.repository.threads():
            if thread.status == "interrupted":
                question = graph.get_state(saver.config(thread.name)).interrupts[0].value
                print(f"{thread.name} waits: {question}")

        saver.repository.fork("payment", "payment-what-if")
        for name, answer in {"payment-what-if": "no", "payment": "yes"}.items():
            result = graph.invoke(Command(resume=answer), {"configurable": {"thread_id": name}})
            print(f"{name}: answered {answer}, now {result['status']}")

        difference = saver.repository.diff(
            saver.repository.resolve("payment"), saver.repository.resolve("payment-what-if")
        )
        for change in difference.changes.changes:
            print(".".join(map(str, change.path)), "differs:", change.old, "and", change.new)

"""Something to look around in: three threads of the demo's agent, in `.ckpt/store.db` of the folder you are in.

Prints the commands to begin with. The pages of docs/ show what these threads look like.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_core.messages import HumanMessage
from support_agent import build, talk

from ckpt.langgraph import CkptSaver

CONVERSATION = ["Hello, my order A-1001 arrived broken.", "I want my money back, please.", "Thank you!"]
WHOLESALE = [f"Where is my order A-{number}?" for number in range(3001, 3031)]
INTERRUPTED = ["Where is my order A-2001?", "It is broken. I want my money back."]


def fill(store: Path) -> None:
    """Let the agent work on a store: a long thread, one with an approval, one that waits for it."""
    with CkptSaver(store) as saver:
        graph = build(saver)
        talk(graph, "wholesale-7", WHOLESALE, lambda who, text: None)
        talk(graph, "support-42", CONVERSATION, lambda who, text: None)
        talk(graph, "support-43", INTERRUPTED[:1], lambda who, text: None)
        turn: Any = {"messages": [HumanMessage(INTERRUPTED[1], id="support-43-1")]}
        graph.invoke(turn, {"configurable": {"thread_id": "support-43"}})


if __name__ == "__main__":
    fill(Path(".ckpt/store.db"))
    print("Try: ckpt threads, ckpt log support-42, ckpt show support-43")

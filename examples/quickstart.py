"""Quick start: give an existing LangGraph program a history that can be forked, rewound and compared.

Only the three marked lines concern `ckpt`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from ckpt.langgraph import CkptSaver  # 1


def agent(state: MessagesState) -> dict[str, list[AIMessage]]:
    said = [message.text for message in state["messages"] if message.type == "human"]
    return {"messages": [AIMessage(f"You have said {len(said)} things; the last was {said[-1]!r}.")]}


builder = StateGraph(MessagesState)
builder.add_node("agent", agent)
builder.add_edge(START, "agent")
builder.add_edge("agent", END)

with (
    tempfile.TemporaryDirectory() as folder,
    CkptSaver(Path(folder) / "store.db") as saver,  # 2
):
    graph = builder.compile(checkpointer=saver)  # 3
    config = {"configurable": {"thread_id": "support-42"}}
    for text in ["Hello", "I am Ana", "What do you know about me?"]:
        result = graph.invoke({"messages": [("human", text)]}, config)
        print("agent:", result["messages"][-1].text)

    # A revision names a checkpoint wherever LangGraph takes a config: three steps are one turn of this graph.
    earlier = graph.get_state(saver.config("support-42~3"))
    print("three steps back the thread had", len(earlier.values["messages"]), "messages")

    # Go back one turn and say something else. What was there stays as another head.
    saver.repository.rewind("support-42", 3)
    result = graph.invoke({"messages": [("human", "I take it back")]}, config)
    print("agent:", result["messages"][-1].text)
    print("heads:", [head.step for head in saver.repository.log(thread="support-42") if head.is_head])

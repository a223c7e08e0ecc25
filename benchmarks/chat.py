"""A tool-calling agent over a model that makes its words up: human, tool call, tool output, answer.

The messages carry what real ones do (ids, tool calls, usage, the model's name), because a saver stores that
too.

Not here: how long the conversations are (`workloads`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.graph.message import _messages_delta_reducer

from benchmarks.text import Writer


class _Messages(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


class _DeltaMessages(TypedDict):
    messages: Annotated[list[AnyMessage], DeltaChannel(_messages_delta_reducer)]


class Model:
    """A model without tools, in short exchanges."""

    asked = (40, 250)
    answered = (100, 500)

    def __init__(self, seed: str) -> None:
        self.writer = Writer(seed)
        self._tokens = 0

    def ask(self) -> HumanMessage:
        """Return what the person says next."""
        return HumanMessage(self.writer.prose(self.writer.size(*self.asked)), id=self.writer.identifier())

    def reply(self, messages: Sequence[AnyMessage]) -> AIMessage:
        """Return the model's next message: an answer, or a call of a tool."""
        return self._say(self.writer.prose(self.writer.size(*self.answered)))

    def output(self) -> ToolMessage:
        """Return the output of the tool that the model called last."""
        raise NotImplementedError("this model calls no tool")

    def _say(self, content: str, **fields: Any) -> AIMessage:
        tokens = len(content) // 4 + 20
        self._tokens += tokens
        return AIMessage(
            content,
            id=f"run-{self.writer.identifier()}",
            response_metadata={
                "model_name": "made-up-words-1",
                "finish_reason": "tool_calls" if "tool_calls" in fields else "stop",
            },
            usage_metadata={
                "input_tokens": self._tokens,
                "output_tokens": tokens,
                "total_tokens": self._tokens + tokens,
            },
            **fields,
        )


class Search(Model):
    """A model that looks something up, by a tool that returns 1 to 3 KB, before each of its answers."""

    asked = (80, 600)
    answered = (300, 1_700)

    def reply(self, messages: Sequence[AnyMessage]) -> AIMessage:
        if isinstance(messages[-1], ToolMessage):
            return super().reply(messages)
        self._call = "call_" + self.writer.identifier().replace("-", "")[:24]
        arguments = {"query": " ".join(self.writer.words(8)), "limit": self.writer.random.randint(5, 50)}
        return self._say(self.writer.sentence(), tool_calls=[{"name": "search", "args": arguments, "id": self._call}])

    def output(self) -> ToolMessage:
        return self._returns(self._hits(self.writer.size(500, 2_600)))

    def _returns(self, content: Any) -> ToolMessage:
        return ToolMessage(content, tool_call_id=self._call, name="search", id=self.writer.identifier())

    def _hits(self, characters: int) -> str:
        hits: list[str] = []
        while sum(map(len, hits)) < characters:
            title = " ".join(self.writer.words(5))
            path = "/".join([*self.writer.words(3), str(self.writer.random.randint(1, 99_999))])
            address = f"https://example.org/{path}"
            hits.append(f"{len(hits) + 1}. {title}\n   {address}\n   {self.writer.prose(300)}\n")
        return "\n".join(hits)


class Images(Search):
    """A model whose tools return a base64 image of 50 to 400 KB, or 10 to 60 KB of text, every third time
    each.
    """

    _turn = 0

    def output(self) -> ToolMessage:
        self._turn += 1
        if self._turn % 10 in (1, 4, 7):
            image = self.writer.image(self.writer.size(37_500, 300_000))
            text = {"type": "text", "text": self.writer.prose(200)}
            return self._returns([text, {"type": "image", "base64": image, "mime_type": "image/png"}])
        if self._turn % 10 in (2, 5, 8):
            return self._returns(self.writer.code(self.writer.size(10_000, 60_000)))
        return super().output()


def converse(
    saver: BaseCheckpointSaver[str],
    thread: str,
    model: Model,
    *,
    turns: int,
    first: Sequence[AnyMessage] = (),
    delta: bool = False,
) -> None:
    """Talk for `turns` turns on one thread, beginning with the messages `first`, if any."""

    def agent(state: Any) -> dict[str, Any]:
        return {"messages": [model.reply(state["messages"])]}

    def tools(state: Any) -> dict[str, Any]:
        return {"messages": [model.output()]}

    def route(state: Any) -> str:
        return "tools" if getattr(state["messages"][-1], "tool_calls", None) else END

    builder = StateGraph(_DeltaMessages if delta else _Messages)
    builder.add_node("agent", agent)
    builder.add_node("tools", tools)
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", route, ["tools", END])
    builder.add_edge("tools", "agent")
    graph = builder.compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": thread}}
    for turn in range(turns):
        said: Any = {"messages": [*(first if turn == 0 else ()), model.ask()]}
        graph.invoke(said, config, durability="sync")

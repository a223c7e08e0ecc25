"""The agent of the demo: an order desk with tools, an approval by a person, and a model made of rules.

The graph is an ordinary LangGraph program; only the chat model is fake, so that it runs without a network and
says the same in every run. Nothing here knows about `ckpt`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolCall, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, interrupt

POLICY = (
    "Damaged goods are refunded in full within 30 days of delivery. A photo is welcome but not needed. "
    "Refunds above 50 EUR need the approval of a person. Shipping is refunded too when a parcel came late. "
    "Opened software, gift cards and made-to-measure goods are excluded. The money goes back the way it came."
)
SYSTEM = f"You answer customers of a small shop. Be brief. The policy: {POLICY}"


class State(MessagesState):
    """The conversation and what is known about the case."""

    ticket: dict[str, Any]


@tool
def lookup_order(order: str) -> str:
    """Look up an order."""
    events = [
        {"at": f"2026-03-{day:02}T0{day % 9}:15:00Z", "event": event, "place": f"hub {day * 7 % 31}"}
        for day, event in enumerate(["packed", "handed over", "sorted", "in transit", "delivered"], start=2)
    ]
    items = [{"sku": f"MUG-{n}", "name": "stoneware mug", "quantity": n, "price": 14.5} for n in (1, 2, 4)]
    return json.dumps({"order": order, "status": "delivered", "items": items, "events": events})


@tool
def search_policy(topic: str) -> str:
    """Search the shop's policy."""
    return POLICY


@tool
def refund(order: str, amount: float) -> str:
    """Pay money back."""
    return f"Refund R-881 of {amount:.2f} EUR for {order} is booked."


TOOLS = {each.name: each for each in (lookup_order, search_policy, refund)}


def answer(messages: Sequence[BaseMessage]) -> AIMessage:
    """Return what the model says: the same conversation always gets the same answer, with the same ids."""
    digest = hashlib.sha256(repr([(m.type, m.content) for m in messages]).encode()).hexdigest()[:12]

    def call(name: str, **args: Any) -> AIMessage:
        made = ToolCall(name=name, args=args, id=f"call-{digest}", type="tool_call")
        return AIMessage("", id=f"ai-{digest}", tool_calls=[made])

    def say(text: str) -> AIMessage:
        return AIMessage(text, id=f"ai-{digest}")

    last = messages[-1]
    said = " ".join(str(m.content) for m in messages if isinstance(m, HumanMessage))
    orders = re.findall(r"A-\d+", said)
    order = orders[-1] if orders else "unknown"
    match last:
        case ToolMessage(name="lookup_order"):
            return say(f"Order {order} was delivered on 6 March. How can I help?")
        case ToolMessage(name="search_policy"):
            return call("refund", order=order, amount=101.5)
        case ToolMessage(name="refund", status="error"):
            return say("I may not refund this myself; a colleague will write to you today.")
        case ToolMessage(name="refund"):
            return say("Refund issued, reference R-881. The money is on its way.")
    text = str(last.content).lower()
    if "money back" in text:
        return call("search_policy", topic="refund")
    if re.search(r"a-\d+", text):
        return call("lookup_order", order=order)
    return say("You are welcome. Write again whenever you need something.")


class RuleModel(BaseChatModel):
    """A chat model that follows `answer`."""

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **options: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=answer(messages))])

    @property
    def _llm_type(self) -> str:
        return "rules"


def build(checkpointer: BaseCheckpointSaver[Any]) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Return the compiled agent: it calls tools until it has an answer; a refund waits for an approval."""
    model = RuleModel()

    def agent(state: State) -> dict[str, Any]:
        return {"messages": [model.invoke([SystemMessage(SYSTEM), *state["messages"]])]}

    def tools(state: State) -> dict[str, Any]:
        outputs = [TOOLS[call["name"]].invoke(call) for call in state["messages"][-1].tool_calls]
        # Ids of their own making would differ from run to run.
        return {"messages": [message.model_copy(update={"id": message.tool_call_id}) for message in outputs]}

    def approve(state: State) -> Command[Any]:
        call = state["messages"][-1].tool_calls[0]
        if interrupt({"approve": call["name"], **call["args"]}) == "yes":
            return Command(goto="tools", update={"ticket": {**state["ticket"], "status": "refunded"}})
        declined = ToolMessage("declined", name="refund", tool_call_id=call["id"], status="error", id="no")
        ticket = {**state["ticket"], "status": "escalated"}
        return Command(goto="agent", update={"messages": [declined], "ticket": ticket})

    builder = StateGraph(State)
    builder.add_node("agent", agent)
    builder.add_node("approve", approve, destinations=("tools", "agent"))
    builder.add_node("tools", tools)
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", _next, ["approve", "tools", END])
    builder.add_edge("tools", "agent")
    return builder.compile(checkpointer=checkpointer)


def _next(state: State) -> str:
    calls = state["messages"][-1].tool_calls
    if not calls:
        return END
    return "approve" if calls[0]["name"] == "refund" else "tools"


Say = Callable[[str, str], None]


def talk(
    graph: CompiledStateGraph[Any, Any, Any, Any],
    thread: str,
    texts: Sequence[str],
    say: Say,
    *,
    first: int = 0,
) -> None:
    """Lead a conversation from its turn `first` on; whoever is asked for an approval says yes."""
    config: RunnableConfig = {"configurable": {"thread_id": thread}}
    for number, text in enumerate(texts, start=first):
        say("customer", text)
        turn: dict[str, Any] = {"messages": [HumanMessage(text, id=f"{thread}-{number}")]}
        if number == 0:
            turn["ticket"] = {"status": "open", "customer": f"C-{1900 + len(thread)}"}
        result = graph.invoke(turn, config)
        while "__interrupt__" in result:
            say("waiting", f"approve {result['__interrupt__'][0].value}?")
            say("manager", "yes")
            result = graph.invoke(Command(resume="yes"), config)
        say("agent", result["messages"][-1].text)

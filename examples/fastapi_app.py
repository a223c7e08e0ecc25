"""A web service on `ckpt`: FastAPI and PostgreSQL, with an agent that waits for approvals.

    pip install '.[langgraph,postgres]' langgraph fastapi uvicorn
    export CKPT_STORE=postgresql://agents@localhost/agents
    uvicorn --app-dir examples --workers 4 fastapi_app:app

Any worker, on any machine, continues what another one began. `ckpt threads` in the same environment lists it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command
from pydantic import BaseModel, Field
from support_agent import build

from ckpt.errors import CkptError, ConflictError, InvalidInputError, NotFoundError, StoreUnavailableError
from ckpt.langgraph import CkptSaver

STATUS: dict[type[CkptError], int] = {
    NotFoundError: 404,
    ConflictError: 409,
    InvalidInputError: 422,
    StoreUnavailableError: 503,
}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Open one saver for all requests of this process, and close it when the process ends."""
    async with CkptSaver(os.environ["CKPT_STORE"]) as saver:
        yield {"saver": saver, "graph": build(saver)}


app = FastAPI(title="Support desk", lifespan=lifespan)


class Message(BaseModel):
    """What the customer says."""

    text: str


class Approval(BaseModel):
    """What the manager says."""

    answer: Literal["yes", "no"]


class Start(BaseModel):
    """Where a fork begins: so many checkpoints before the current one."""

    steps_back: int = Field(0, ge=0)


class Turn(BaseModel):
    """What a run came to: the agent's answer, or what it waits for."""

    thread: str
    answer: str | None = None
    waits_for: dict[str, Any] | None = None


def config(thread: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread}}


async def run(request: Request, thread: str, given: Any) -> Turn:
    result = await request.state.graph.ainvoke(given, config(thread))
    if waiting := result.get("__interrupt__"):
        return Turn(thread=thread, waits_for=waiting[0].value)
    return Turn(thread=thread, answer=result["messages"][-1].text)


async def known(request: Request, thread: str) -> None:
    """Refuse a thread that is not there: a run would begin it."""
    if await request.state.saver.aget_tuple(config(thread)) is None:
        raise NotFoundError(f"there is no thread {thread}")


@app.exception_handler(CkptError)
async def explain(request: Request, error: CkptError) -> JSONResponse:
    status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)
    return JSONResponse({"code": error.code, "message": str(error)}, status)


@app.post("/threads", status_code=201)
async def start(request: Request, message: Message) -> Turn:
    """Begin a thread. The service makes up its name, since who can choose names can read other people's threads."""
    ticket = {"status": "open", "customer": "C-1910"}
    return await run(request, str(uuid4()), {"messages": [HumanMessage(message.text)], "ticket": ticket})


@app.post("/threads/{thread}/messages")
async def say(request: Request, thread: str, message: Message) -> Turn:
    await known(request, thread)
    return await run(request, thread, {"messages": [HumanMessage(message.text)]})


@app.post("/threads/{thread}/approval")
async def resume(request: Request, thread: str, approval: Approval) -> Turn:
    await known(request, thread)
    return await run(request, thread, Command(resume=approval.answer))


# The engine's own calls are synchronous; FastAPI runs a function that is not `async` on a thread.
@app.get("/threads/{thread}/history")
def history(request: Request, thread: str, limit: int = 20) -> list[dict[str, Any]]:
    """List checkpoints, newest first."""
    found = request.state.saver.repository.log(thread=thread, limit=limit)
    return [{"id": info.id[:8], "step": info.step, "status": info.status, "next": info.next} for info in found]


@app.post("/threads/{thread}/forks", status_code=201)
def fork(request: Request, thread: str, start: Start) -> dict[str, Any]:
    """Begin another thread from a checkpoint of this one; nothing is copied."""
    name = str(uuid4())
    head = request.state.saver.repository.fork(f"@~{start.steps_back}", name, thread=thread)
    return {"thread": name, "step": head.step, "status": head.status, "next": head.next}

"""Sweeping in the background, as code written for LangGraph's stores starts and stops it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future
from threading import enumerate as all_threads
from typing import Any

import pytest
from langgraph.store.base import TTLConfig
from langgraph.store.postgres import AsyncPostgresStore, PostgresStore
from langgraph.store.sqlite import AsyncSqliteStore, SqliteStore

from ckpt.errors import InvalidInputError
from ckpt.langgraph import CkptStore

ANA = ("users", "ana")
SOON = 0.001
"""Minutes: 60 milliseconds."""

TTL: TTLConfig = {"default_ttl": SOON, "refresh_on_read": False}


def sweepers() -> int:
    return sum(thread.name == "ckpt-ttl-sweeper" for thread in all_threads())


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert sweepers() == 0


def swept(store: CkptStore, key: str) -> bool:
    """Wait until an item was deleted, for as long as that may take on a busy machine."""
    for _ in range(500):
        if store.history(ANA, key)[0].deleted:
            return True
        time.sleep(0.01)
    return False


def test_it_sweeps_though_nobody_writes(store_url: str) -> None:
    with CkptStore(store_url, ttl=TTL) as store:
        store.put(ANA, "k", {"n": 1})
        store.put(ANA, "ever", {"n": 2}, ttl=None)
        future = store.start_ttl_sweeper(SOON)  # type: ignore[arg-type]
        assert isinstance(future, Future)
        assert swept(store, "k")
        store.put(ANA, "l", {"n": 3})
        assert swept(store, "l")
        assert not future.done()
        assert [item.key for item in store.search(ANA)] == ["ever"]
        assert store.stop_ttl_sweeper(timeout=5)
        assert future.result(timeout=0) is None


def test_it_is_started_once_and_again_after_it_was_stopped() -> None:
    with CkptStore("memory://", ttl={**TTL, "sweep_interval_minutes": 5}) as store:
        assert store.stop_ttl_sweeper()
        first = store.start_ttl_sweeper()
        assert store.start_ttl_sweeper() is first and sweepers() == 1
        assert first.cancel() and first.cancelled()
        second = store.start_ttl_sweeper()
        assert second is not first and not second.done()
        assert store.stop_ttl_sweeper() and store.stop_ttl_sweeper()
        assert second.done() and not second.cancelled()
        third = store.start_ttl_sweeper()
    assert third.done()


def test_without_a_configuration_there_is_nothing_to_wait_for() -> None:
    with CkptStore("memory://") as store:
        assert store.start_ttl_sweeper().result(timeout=0) is None
        assert sweepers() == 0
        assert store.stop_ttl_sweeper()


async def test_all_of_it_may_be_awaited(caplog: pytest.LogCaptureFixture) -> None:
    async with CkptStore("memory://", ttl=TTL) as store:
        await store.aput(ANA, "k", {"n": 1})
        task = await store.start_ttl_sweeper(SOON)
        assert await asyncio.to_thread(swept, store, "k")
        assert not task.done()
        assert await store.stop_ttl_sweeper(timeout=5) is True
        assert await task is None  # type: ignore[func-returns-value]
        task = await store.start_ttl_sweeper(SOON)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert store.start_ttl_sweeper(SOON) is not task
    assert caplog.record_tuples == []


def test_a_loop_may_be_gone_before_its_store(caplog: pytest.LogCaptureFixture) -> None:
    store = CkptStore("memory://", ttl=TTL)

    async def start() -> None:
        await store.start_ttl_sweeper(5)

    asyncio.run(start())
    store.close()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_fork_is_swept_by_itself() -> None:
    with CkptStore("memory://", ttl=TTL) as store:
        store.put(ANA, "k", {"n": 1})
        with store.fork("fork") as fork:
            fork.start_ttl_sweeper(SOON)
            assert swept(fork, "k")
        assert not store.history(ANA, "k")[0].deleted


@pytest.mark.parametrize("interval", [0, -1, float("nan"), [5], True])
def test_an_interval_must_be_one(interval: Any) -> None:
    with CkptStore("memory://", ttl=TTL) as store, pytest.raises(InvalidInputError, match="sweep_interval_minutes"):
        store.start_ttl_sweeper(interval)


@pytest.mark.parametrize("peer", [PostgresStore, SqliteStore, AsyncPostgresStore, AsyncSqliteStore])
@pytest.mark.parametrize("name", ["start_ttl_sweeper", "stop_ttl_sweeper"])
def test_it_is_called_as_theirs(peer: type, name: str) -> None:
    theirs, ours = (inspect.signature(getattr(each, name)).parameters.values() for each in (peer, CkptStore))
    assert [(each.name, each.kind, each.default) for each in ours] == [
        (each.name, each.kind, each.default) for each in theirs
    ]

"""Calls of many tasks that are made together: how few they become, and that nobody sees a difference."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from memory_kit import DIMS, aembed

from ckpt.errors import InvalidInputError, StoreUnavailableError, UnstorableValueError
from ckpt.langgraph import CkptStore
from ckpt.langgraph.shared import WORKERS
from ckpt.langgraph.together import Together
from ckpt.repository import Put

ANA = ("users", "ana")
NONE: frozenset[str] = frozenset()


class Gate:
    """A `run` that holds its first calls until it is opened, and takes note of what each call was given."""

    def __init__(self, fails: Callable[[Sequence[str]], BaseException | None] = lambda jobs: None) -> None:
        self.calls: list[list[str]] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.fails = fails

    def __call__(self, jobs: Sequence[str]) -> None:
        self.calls.append(list(jobs))
        self.entered.release()
        assert self.open.wait(30)
        if (error := self.fails(jobs)) is not None:
            raise error


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def several(
    pool: ThreadPoolExecutor,
    gate: Gate,
    jobs: Iterable[str],
    *,
    weight: int = 1,
    claims: Callable[[str], frozenset[str]] = lambda job: NONE,
) -> list[Future[None]]:
    """Submit a first job, and the rest while it is under way; let all end."""
    together = Together(gate, lambda: pool, at_once=1)
    first = together.submit("first", 1)
    assert gate.entered.acquire(timeout=30)
    futures = [first, *(together.submit(job, weight, claims(job)) for job in jobs)]
    gate.open.set()
    for future in futures:
        future.exception(30)
    return futures


def test_what_comes_meanwhile_is_one_call(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    several(pool, gate, "abc")
    assert gate.calls == [["first"], ["a", "b", "c"]]


def test_as_many_as_may_are_at_it_at_once(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    together = Together(gate, lambda: pool, at_once=3)
    futures = []
    for job in "abc":
        futures.append(together.submit(job, 1))
        assert gate.entered.acquire(timeout=30)
    futures += [together.submit(job, 1) for job in "defg"]
    assert gate.calls == [["a"], ["b"], ["c"]]
    gate.open.set()
    for future in futures:
        future.result(30)
    assert sorted(job for call in gate.calls[3:] for job in call) == list("defg")
    assert gate.calls[3] == list("defg")


def test_jobs_with_a_claim_in_common_follow_each_other(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    several(pool, gate, ["a1", "b1", "a2", "c1", "a3"], claims=lambda job: frozenset(job[0]))
    assert gate.calls == [["first"], ["a1", "b1"], ["a2", "c1"], ["a3"]]


def test_too_many_operations_are_not_one_call(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    several(pool, gate, "abcde", weight=100)
    assert gate.calls == [["first"], ["a", "b"], ["c", "d"], ["e"]]
    gate = Gate()
    several(pool, gate, "ab", weight=1000)
    assert gate.calls == [["first"], ["a"], ["b"]]


def test_each_has_its_own_error(pool: ThreadPoolExecutor) -> None:
    gate = Gate(lambda jobs: InvalidInputError("b is bad") if "b" in jobs else None)
    futures = several(pool, gate, "abc")
    assert gate.calls == [["first"], ["a", "b", "c"], ["a"], ["b"], ["c"]]
    assert [type(future.exception()) for future in futures] == [type(None), type(None), InvalidInputError, type(None)]


def test_what_may_have_been_done_is_not_done_again(pool: ThreadPoolExecutor) -> None:
    gate = Gate(lambda jobs: StoreUnavailableError("the answer was lost") if "b" in jobs else None)
    futures = several(pool, gate, "abc")
    assert gate.calls == [["first"], ["a", "b", "c"]]
    assert [type(future.exception()) for future in futures] == [type(None)] + [StoreUnavailableError] * 3


def test_who_is_interrupted_leaves_nobody_waiting(pool: ThreadPoolExecutor) -> None:
    gate = Gate(lambda jobs: SystemExit() if "b" in jobs else None)
    futures = several(pool, gate, "abc")
    assert [type(future.exception()) for future in futures] == [type(None)] + [SystemExit] * 3


def test_what_is_cancelled_before_it_is_begun_is_not_run(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    together = Together(gate, lambda: pool, at_once=1)
    first = together.submit("first", 1)
    assert gate.entered.acquire(timeout=30)
    left, gone = together.submit("left", 1), together.submit("gone", 1)
    assert gone.cancel()
    assert not first.cancel()
    gate.open.set()
    left.result(30)
    assert gate.calls == [["first"], ["left"]]


def test_a_pool_that_takes_no_more_is_no_end(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    gate.open.set()
    shut = ThreadPoolExecutor(1)
    shut.shutdown()
    pools = iter([shut, pool])
    together = Together(gate, lambda: next(pools), at_once=1)
    with pytest.raises(RuntimeError):
        together.submit("refused", 1)
    together.submit("taken", 1).result(30)
    assert gate.calls == [["taken"]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_waits_for_none_of_its_parents_calls(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    together = Together(gate, lambda: pool, at_once=1)
    first = together.submit("first", 1)
    assert gate.entered.acquire(timeout=30)
    together.in_child()
    gate.open.set()
    first.result(30)
    together.submit("child", 1).result(30)
    assert gate.calls == [["first"], ["child"]]


# -- of a store ------------------------------------------------------------------------------------------------


class Held:
    """Calls of a method of a memory, the first of which are held until they are let go."""

    def __init__(self, store: CkptStore, name: str, monkeypatch: pytest.MonkeyPatch, first: int = 1) -> None:
        self.calls = 0
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self._method = getattr(store.memory, name)
        self._left = threading.Semaphore(first)
        monkeypatch.setattr(store.memory, name, self)

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        if self._left.acquire(blocking=False):
            self.entered.release()
            assert self.open.wait(30)
        return self._method(*args, **options)

    async def holds(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=30)


async def begun(calls: Iterable[Any]) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(call) for call in calls]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def all_reading(store: CkptStore, held: Held) -> list[asyncio.Task[Any]]:
    """Have as many calls read as may at the same time, all of which are held."""
    tasks: list[asyncio.Task[Any]] = []
    for _ in range(WORKERS - 1):
        tasks += await begun([store.aget(ANA, "k0")])
        await held.holds()
    return tasks


async def test_puts_at_the_same_time_are_two_transactions(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with CkptStore(store_url) as store:
        held = Held(store, "apply", monkeypatch)
        first = asyncio.create_task(store.aput(ANA, "k0", {"n": 0}))
        await held.holds()
        rest = await begun(store.aput((*ANA, str(n % 3)), f"k{n}", {"n": n}) for n in range(1, 60))
        held.open.set()
        await asyncio.gather(first, *rest)
        assert held.calls == 2
        assert {item.value["n"] for item in store.search(("users",), limit=100)} == set(range(60))
        moments = {store.history((*ANA, str(n % 3)), f"k{n}")[0].moment for n in range(1, 60)}
        assert len(moments) == 1


async def test_every_version_of_an_item_is_kept(store_url: str) -> None:
    async with CkptStore(store_url) as store:
        await asyncio.gather(*(store.aput(ANA, f"k{n % 2}", {"n": n}) for n in range(20)))
        for key in (0, 1):
            versions = await store.ahistory(ANA, f"k{key}")
            assert [version.value["n"] for version in reversed(versions) if version.value] == list(range(key, 20, 2))


async def test_a_put_that_is_refused_is_refused_alone(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with CkptStore(store_url) as store:
        held = Held(store, "apply", monkeypatch)
        first = asyncio.create_task(store.aput(ANA, "first", {"n": 0}))
        await held.holds()
        odd: Any = {"n": object()}
        rest = await begun(
            [store.aput(ANA, "a", {"n": 1}), store.aput(ANA, "odd", odd), store.adelete(ANA, "gone"),
             store.aput(ANA, "b", {"n": 2}, ttl=-1), store.aput(ANA, "c", {"n": 3})]
        )  # fmt: skip
        held.open.set()
        ended = await asyncio.gather(first, *rest, return_exceptions=True)
        assert [type(end) for end in ended] == [
            type(None), type(None), UnstorableValueError, type(None), InvalidInputError, type(None)
        ]  # fmt: skip
        assert {item.key: item.value["n"] for item in store.search(ANA)} == {"first": 0, "a": 1, "c": 3}
        assert len(store.history(ANA, "a")) == 1


async def test_reads_at_the_same_time_are_one(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with CkptStore(store_url, index={"dims": DIMS, "embed": aembed, "fields": ["text"]}) as store:
        store.memory.apply([Put(ANA, f"k{n}", {"n": n}) for n in range(30)])
        await store.aput(("texts",), "tea", {"text": "tea with milk"})
        held = Held(store, "read", monkeypatch, first=WORKERS - 1)
        first = await all_reading(store, held)
        gets = await begun(store.aget(ANA, f"k{n}") for n in range(35))
        twice = await begun(store.aget(ANA, "k1") for _ in range(2))
        search = await begun([store.asearch(ANA, limit=7)])
        query = await begun([store.asearch(("texts",), query="tea", limit=1)])
        listed = await begun([store.alist_namespaces()])
        held.open.set()
        assert [item.value["n"] for item in await asyncio.gather(*first)] == [0] * (WORKERS - 1)
        found = await asyncio.gather(*gets)
        assert [item.value["n"] if item is not None else None for item in found] == [*range(30), *[None] * 5]
        one, other = await asyncio.gather(*twice)
        assert one == other
        assert one.value is not other.value
        assert len(await search[0]) == 7
        assert (await query[0])[0].score is not None
        assert await listed[0] == [("texts",), ANA]
        # One for gets and the search, one for the query, which may take long, and one for what came after it.
        assert held.calls - (WORKERS - 1) == 3


async def test_a_read_of_what_is_damaged_fails_alone(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with CkptStore(store_url) as store:
        store.memory.apply([Put(ANA, f"k{n}", {"n": n}) for n in range(3)])
        held = Held(store, "read", monkeypatch, first=WORKERS - 1)
        first = await all_reading(store, held)
        load = store.memory.load

        def damaged(entries: Sequence[Any]) -> Any:
            if any(entry is not None and entry.key == "k1" for entry in entries):
                raise InvalidInputError("k1 cannot be read")
            return load(entries)

        monkeypatch.setattr(store.memory, "load", damaged)
        rest = await begun(store.aget(ANA, f"k{n}") for n in range(3))
        held.open.set()
        ended = await asyncio.gather(*first, *rest, return_exceptions=True)
        assert [isinstance(end, InvalidInputError) for end in ended] == [False] * WORKERS + [True, False]


async def test_a_put_that_was_cancelled_while_it_waited_is_not_made(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with CkptStore(store_url) as store:
        held = Held(store, "apply", monkeypatch)
        first = asyncio.create_task(store.aput(ANA, "first", {"n": 0}))
        await held.holds()
        gone, other = await begun([store.aput(ANA, "gone", {"n": 1}), store.aput(ANA, "other", {"n": 2})])
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        held.open.set()
        await asyncio.gather(first, other)
        assert {item.key for item in store.search(ANA)} == {"first", "other"}


def test_tasks_of_several_event_loops(store_url: str) -> None:
    with CkptStore(store_url) as store:

        async def some(loop: int) -> None:
            await asyncio.gather(*(store.aput(ANA, f"{loop}-{n}", {"n": n}) for n in range(30)))
            found = await asyncio.gather(*(store.aget(ANA, f"{loop}-{n}") for n in range(30)))
            assert [item.value["n"] for item in found if item is not None] == list(range(30))

        with ThreadPoolExecutor(3) as loops:
            list(loops.map(lambda loop: asyncio.run(some(loop)), range(3)))
        assert len(store.search(ANA, limit=200)) == 90

"""Calls of many tasks that are made together: how few they become, and that nobody sees a difference."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import GetOp, PutOp
from memory_kit import DIMS, aembed

from ckpt.errors import InvalidInputError, StoreUnreachableError, UnstorableValueError
from ckpt.langgraph import CkptStore
from ckpt.langgraph.shared import WORKERS
from ckpt.langgraph.together import Together
from ckpt.repository import Put

ANA = ("users", "ana")


class Wish:
    """A job that is told by its name, of which the first letter is what it claims."""

    def __init__(self, name: str, size: int = 1, error: Exception | None = None) -> None:
        self.name = name
        self.claims = {name[0]} if name[1:].isdigit() else set[str]()
        self.prepared = 0
        self._size, self._error = size, error

    def prepare(self) -> int:
        self.prepared += 1
        if self._error is not None:
            raise self._error
        return self._size


class Gate:
    """A `run` that holds its calls until it is opened, and takes note of what each call was given."""

    def __init__(self, fails: Callable[[Sequence[str]], BaseException | None] = lambda names: None) -> None:
        self.calls: list[list[str]] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.fails = fails

    def __call__(self, jobs: Sequence[Wish]) -> None:
        names = [job.name for job in jobs]
        self.calls.append(names)
        self.entered.release()
        assert self.open.wait(30)
        if (error := self.fails(names)) is not None:
            raise error


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def several(pool: Executor, gate: Gate, jobs: Iterable[Wish]) -> list[Future[None]]:
    """Submit a first job, and the rest while it is under way; let all end."""
    together: Together[Wish] = Together(lambda: pool)
    first = together.submit(gate, Wish("first"))
    assert gate.entered.acquire(timeout=30)
    futures = [first, *(together.submit(gate, job) for job in jobs)]
    gate.open.set()
    for future in futures:
        future.exception(30)
    return futures


def errors(futures: Iterable[Future[None]]) -> list[type]:
    return [type(future.exception(30)) for future in futures]


def test_what_comes_meanwhile_is_one_call(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    several(pool, gate, map(Wish, "abc"))
    assert gate.calls == [["first"], ["a", "b", "c"]]


def test_all_threads_are_at_it_first() -> None:
    gate = Gate()
    with ThreadPoolExecutor(2) as pool:
        together: Together[Wish] = Together(lambda: pool)
        for name in "ab":
            together.submit(gate, Wish(name))
            assert gate.entered.acquire(timeout=30)
        rest = [together.submit(gate, Wish(name)) for name in "cdefg"]
        gate.open.set()
        for future in rest:
            future.result(30)
    assert gate.calls == [["a"], ["b"], list("cdefg")]


def test_jobs_with_a_claim_in_common_follow_each_other(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    several(pool, gate, map(Wish, ["a1", "b1", "a2", "c1", "a3"]))
    assert gate.calls == [["first"], ["a1", "b1"], ["a2", "c1"], ["a3"]]


def test_a_call_has_bounds(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    several(pool, gate, [Wish(name, 3 << 20) for name in "abcde"])
    assert gate.calls == [["first"], ["a", "b"], ["c", "d"], ["e"]]
    gate = Gate()
    several(pool, gate, [Wish(f"job {number}") for number in range(300)])
    assert [len(call) for call in gate.calls] == [1, 256, 44]


def test_what_is_wrong_with_one_alone_ends_it_alone(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    futures = several(pool, gate, [Wish("a"), Wish("b", error=InvalidInputError("b is bad")), Wish("c")])
    assert gate.calls == [["first"], ["a", "c"]]
    assert errors(futures) == [type(None), type(None), InvalidInputError, type(None)]


def test_each_has_its_own_error(pool: ThreadPoolExecutor) -> None:
    bad = {"b": InvalidInputError("b is bad"), "d": InvalidInputError("d is bad")}
    gate = Gate(lambda names: next((bad[name] for name in names if name in bad), None))
    futures = several(pool, gate, map(Wish, "abcd"))
    assert gate.calls == [["first"], ["a", "b", "c", "d"], ["a"], ["b"], ["c"], ["d"]]
    assert [future.exception() for future in futures] == [None, None, bad["b"], None, bad["d"]]
    assert bad["d"].__context__ is None


def test_what_may_have_been_done_is_not_done_again(pool: ThreadPoolExecutor) -> None:
    lost = StoreUnreachableError("the answer was lost", hints=["look before doing it again"])
    gate = Gate(lambda names: lost if "b" in names else None)
    futures = several(pool, gate, map(Wish, "abc"))
    assert gate.calls == [["first"], ["a", "b", "c"]]
    assert errors(futures) == [type(None)] + [StoreUnreachableError] * 3
    told = [error for future in futures[1:] if (error := future.exception()) is not None]
    assert len(set(map(id, told))) == 3
    assert all(
        isinstance(error, StoreUnreachableError) and error.hints == lost.hints and error.__cause__ is lost
        for error in told
    )


def test_who_is_interrupted_leaves_nobody_waiting(pool: ThreadPoolExecutor) -> None:
    gate = Gate(lambda names: SystemExit() if "b" in names else None)
    assert errors(several(pool, gate, map(Wish, "abc"))) == [type(None)] + [SystemExit] * 3
    assert len(gate.calls) == 2


def test_what_is_cancelled_before_it_is_begun_is_not_run(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    together: Together[Wish] = Together(lambda: pool)
    first = together.submit(gate, Wish("first"))
    assert gate.entered.acquire(timeout=30)
    gone = Wish("gone")
    left, cancelled = together.submit(gate, Wish("left")), together.submit(gate, gone)
    assert cancelled.cancel()
    assert not first.cancel()
    gate.open.set()
    left.result(30)
    assert gate.calls == [["first"], ["left"]]
    assert not gone.prepared


class NoThread(ThreadPoolExecutor):
    """One that can start no thread at first, but keeps what it was given: as the real one does."""

    failures = 1

    def submit(self, *given: Any, **options: Any) -> Any:
        future = super().submit(*given, **options)
        if self.failures:
            self.failures -= 1
            raise RuntimeError("can't start new thread")
        return future


def test_a_pool_that_takes_nothing_is_no_end(pool: ThreadPoolExecutor) -> None:
    shut = ThreadPoolExecutor(1)
    shut.shutdown()
    pools: Iterator[Executor] = iter([shut, pool, pool])
    gate = Gate()
    gate.open.set()
    together: Together[Wish] = Together(lambda: next(pools))
    with pytest.raises(RuntimeError):
        together.submit(gate, Wish("refused"))
    together.submit(gate, Wish("taken")).result(30)
    together.submit(gate, Wish("too")).result(30)
    assert gate.calls == [["taken"], ["too"]]


def test_who_cannot_have_a_thread_is_told_so_or_served(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    gate.open.set()
    with NoThread(1) as short:
        together: Together[Wish] = Together(lambda: short)
        try:
            served = together.submit(gate, Wish("first"))
        except RuntimeError:
            assert gate.calls == []
        else:
            served.result(30)
        several_more = [together.submit(gate, Wish(name)) for name in "ab"]
        for future in several_more:
            future.result(30)
    assert [name for call in gate.calls for name in call if name != "first"] == ["a", "b"]


def test_others_have_their_turn_on_the_threads() -> None:
    gate = Gate()
    seen: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        together: Together[Wish] = Together(lambda: pool)
        together.submit(gate, Wish("first"))
        assert gate.entered.acquire(timeout=30)
        other = pool.submit(lambda: seen.extend(name for call in gate.calls for name in call))
        last = [together.submit(gate, Wish(name)) for name in "ab"][-1]
        gate.open.set()
        other.result(30)
        last.result(30)
    assert seen == ["first"]


def test_a_pool_is_shut_down_though_others_go_on() -> None:
    pools = [ThreadPoolExecutor(1)]
    together: Together[Wish] = Together(lambda: pools[-1])
    over = threading.Event()

    def refill(jobs: Sequence[Wish]) -> None:
        time.sleep(0.001)
        if not over.is_set():
            together.submit(refill, Wish("again"))

    together.submit(refill, Wish("first"))
    time.sleep(0.02)
    pools.append(ThreadPoolExecutor(1))
    ending = threading.Thread(target=pools[0].shutdown)
    ending.start()
    ending.join(20)
    ended = not ending.is_alive()
    over.set()
    pools[1].shutdown()
    assert ended


def test_a_forked_process_waits_for_none_of_its_parents_calls(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    together: Together[Wish] = Together(lambda: pool)
    first = together.submit(gate, Wish("first"))
    assert gate.entered.acquire(timeout=30)
    together.submit(gate, Wish("parent"))
    together.in_child()  # as it is called in a forked process, which has none of these threads
    child = together.submit(gate, Wish("child"))
    gate.open.set()
    child.result(30)
    first.result(30)
    assert ["child"] in gate.calls


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
    for _ in range(WORKERS):
        tasks += await begun([store.aget(ANA, "k0")])
        await held.holds()
    return tasks


async def test_puts_at_the_same_time_are_two_transactions(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with CkptStore(store_url) as store:
        held = Held(store, "write", monkeypatch)
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
        held = Held(store, "write", monkeypatch)
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
        held = Held(store, "read", monkeypatch, first=WORKERS)
        first = await all_reading(store, held)
        gets = await begun(store.aget(ANA, f"k{n}") for n in range(35))
        twice = await begun(store.aget(ANA, "k1") for _ in range(2))
        search = await begun([store.asearch(ANA, limit=7)])
        query = await begun([store.asearch(("texts",), query="tea", limit=1)])
        listed = await begun([store.alist_namespaces()])
        held.open.set()
        assert [item.value["n"] for item in await asyncio.gather(*first)] == [0] * WORKERS
        found = await asyncio.gather(*gets)
        assert [item.value["n"] if item is not None else None for item in found] == [*range(30), *[None] * 5]
        one, other = await asyncio.gather(*twice)
        assert one == other
        assert one.value is not other.value
        assert len(await search[0]) == 7
        assert (await query[0])[0].score is not None
        assert await listed[0] == [("texts",), ANA]
        # One for all gets, and one for each of the others, which may take long.
        assert held.calls - WORKERS == 4


async def test_a_read_of_what_is_damaged_fails_alone(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with CkptStore(store_url) as store:
        store.memory.apply([Put(ANA, f"k{n}", {"n": n}) for n in range(3)])
        held = Held(store, "read", monkeypatch, first=WORKERS)
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
        assert [isinstance(end, InvalidInputError) for end in ended] == [False] * (WORKERS + 1) + [True, False]


async def test_a_put_that_was_cancelled_while_it_waited_is_not_made(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with CkptStore(store_url) as store:
        held = Held(store, "write", monkeypatch)
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


async def test_a_batch_that_gets_and_puts_has_its_results_in_order(store_url: str) -> None:
    async with CkptStore(store_url) as store:
        store.memory.apply([Put(ANA, f"k{n}", {"n": n}) for n in range(40)])
        batches = [
            [GetOp(ANA, f"k{n}"), PutOp(ANA, f"k{n}", {"n": -n}), GetOp(ANA, f"k{n + 1}")] for n in range(0, 40, 2)
        ]
        for n, results in enumerate(await asyncio.gather(*map(store.abatch, batches))):
            assert [result and result.value["n"] for result in results if not isinstance(result, list)] == [
                2 * n, None, 2 * n + 1
            ]  # fmt: skip


async def test_sweeping_in_passing_fails_no_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with CkptStore(tmp_path / "a.db", ttl={"sweep_interval_minutes": 1}) as store:
        store._swept = -1e9
        pool = store._shared.pool()
        submit = pool.submit

        def refusing(call: Any, *given: Any) -> Any:
            if call == store._sweep_quietly:
                raise RuntimeError("can't start new thread")
            return submit(call, *given)

        monkeypatch.setattr(pool, "submit", refusing)
        await asyncio.gather(*(store.aput(ANA, f"k{n}", {"n": n}) for n in range(5)))
        store._swept = -1e9
        store.put(ANA, "k0", {"n": 5})
        assert [len(store.history(ANA, f"k{n}")) for n in range(5)] == [2, 1, 1, 1, 1]


def test_a_store_that_nobody_needs_is_gone(tmp_path: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        store = CkptStore(tmp_path / "a.db")
        store.put(ANA, "k", {"n": 1})
        gone, storage = (weakref.ref(store), weakref.ref(store.repository)), store.repository.storage
        del store
        assert [each() for each in gone] == [None, None]
    finally:
        gc.enable()
    storage.close()  # its connections would be warned of

"""Event loops and threads: no deadlock, no blocked loop, no state that is neither old nor new."""

from __future__ import annotations

import asyncio
import gc
import inspect
import random
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from saver_kit import Calls, aput, config, ids, put, values

from ckpt.langgraph import CkptSaver


def in_thread(work: Any) -> Any:
    """Run work in another thread and return or raise what it did."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append((True, work()))
        except BaseException as error:
            result.append((False, error))

    worker = threading.Thread(target=run)
    worker.start()
    worker.join(30)
    assert not worker.is_alive(), "the call did not return"
    worked, value = result[0]
    if not worked:
        raise value
    return value


def test_sync_calls_inside_a_running_loop(saver: Any) -> None:
    async def run() -> None:
        put(saver, "t", "1", {"a": 1})
        await aput(saver, "t", "2", {"a": 2}, parent="1")
        saver.put_writes(config("t", "2"), [("ch", 1)], "task")
        assert values(saver, "t") == {"a": 2}
        assert ids(saver.list(config("t"))) == ["2", "1"]
        listed = [found async for found in saver.alist(config("t"))]
        assert ids(listed) == ["2", "1"]
        for found in saver.list(config("t")):
            assert (await saver.aget_tuple(found.config)).checkpoint == found.checkpoint
        saver.delete_thread("t")
        assert await saver.aget_tuple(config("t")) is None

    asyncio.run(asyncio.wait_for(run(), 30))


@pytest.mark.parametrize("url", ["memory://", "file", "sqlite"])
def test_from_conn_string_with_and_async_with(tmp_path: Path, url: str) -> None:
    address = {"memory://": url, "file": str(tmp_path / "a"), "sqlite": f"sqlite:///{tmp_path}/b"}[url]
    with CkptSaver.from_conn_string(address) as saver:
        saver.setup()
        put(saver, "t", "1", {"a": 1})

    async def run() -> None:
        async with CkptSaver.from_conn_string(address) as saver:
            await saver.setup()
            await saver.setup()
            if url != "memory://":
                assert (await saver.aget_tuple(config("t"))).checkpoint["channel_values"] == {"a": 1}
            await aput(saver, "t", "2", {"a": 2}, parent="1")
            assert in_thread(lambda: values(saver, "t")) == {"a": 2}
            in_thread(lambda: put(saver, "t", "3", {"a": 3}, parent="2"))
            assert (await saver.aget_tuple(config("t"))).checkpoint["channel_values"] == {"a": 3}

    asyncio.run(run())


def test_setup_is_optional_idempotent_and_awaitable(saver: Any) -> None:
    put(saver, "t", "1", {"a": 1})
    saver.setup()
    saver.setup()
    assert inspect.isawaitable(saver.setup())
    assert values(saver, "t") == {"a": 1}


def test_one_saver_from_two_event_loops_at_once(saver: Any) -> None:
    meeting = threading.Barrier(2)

    async def run(thread: str) -> list[str]:
        meeting.wait(30)
        for n in range(1, 16):
            parent = f"{n - 1:02}" if n > 1 else None
            await aput(saver, thread, f"{n:02}", {"n": n}, parent=parent)
            await saver.aput_writes(config(thread, f"{n:02}"), [("ch", n)], "task")
        return [found.checkpoint["id"] async for found in saver.alist(config(thread))]

    found: dict[str, list[str]] = {}

    def loop(thread: str) -> None:
        found[thread] = asyncio.run(run(thread))

    workers = [threading.Thread(target=loop, args=(name,)) for name in ("t", "u")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    expected = [f"{n:02}" for n in range(15, 0, -1)]
    assert found == {"t": expected, "u": expected}


def test_many_awaited_at_once(saver: Any) -> None:
    async def run() -> None:
        await asyncio.gather(
            *(aput(saver, f"t{n % 5}", f"{n:03}", {"n": n}) for n in range(60)),
            *(saver.aput_writes(config(f"t{n % 5}", f"{n:03}"), [("ch", n)], "task") for n in range(60)),
        )
        found = await asyncio.gather(*(saver.aget_tuple(config(f"t{n % 5}", f"{n:03}")) for n in range(60)))
        assert [each.checkpoint["channel_values"] for each in found] == [{"n": n} for n in range(60)]
        assert [each.pending_writes for each in found] == [[("task", "ch", n)] for n in range(60)]

    asyncio.run(run())


def test_threads_sharing_one_saver(saver: Any, make_saver: Any) -> None:
    failures: list[BaseException] = []

    def work(thread: str) -> None:
        try:
            for n in range(1, 13):
                put(saver, thread, f"{n:02}", {"n": [thread] * n}, parent=f"{n - 1:02}" if n > 1 else None)
                saver.put_writes(config(thread, f"{n:02}"), [("ch", n)], "task")
                assert values(saver, thread) == {"n": [thread] * n}
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert failures == []
    cold = make_saver()
    assert len(list(cold.list(None))) == 96
    for thread in range(8):
        assert values(cold, f"t{thread}") == {"n": [f"t{thread}"] * 12}


def test_many_new_threads_at_one_moment(saver: Any, make_saver: Any) -> None:
    """The moment of creation is the only time at which writers of different threads meet."""
    for attempt in range(10):
        meeting = threading.Barrier(8)
        failures: list[BaseException] = []

        def begin(number: int, meeting: threading.Barrier, failures: list[BaseException], attempt: int) -> None:
            try:
                meeting.wait(30)
                text = [f"text {number} {n} " * 30 for n in range(40)]
                put(saver, f"{attempt}-{number}", "1", {"text": text})
                saver.put_writes(config(f"{attempt}-{number}", "1"), [("ch", text[::-1])], "task")
            except BaseException as error:
                failures.append(error)

        workers = [threading.Thread(target=begin, args=(n, meeting, failures, attempt)) for n in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert failures == []
    cold = make_saver()
    for attempt in range(10):
        for number in range(8):
            text = [f"text {number} {n} " * 30 for n in range(40)]
            found = cold.get_tuple(config(f"{attempt}-{number}"))
            assert found.checkpoint["channel_values"] == {"text": text}
            assert found.pending_writes == [("task", "ch", text[::-1])]


def test_an_async_list_may_be_left_and_interleaved(saver: Any) -> None:
    async def run() -> None:
        for n in range(1, 6):
            await aput(saver, "t", str(n), {"n": n}, parent=str(n - 1) if n > 1 else None)
        seen = []
        async for found in saver.alist(config("t")):
            seen.append(found.checkpoint["id"])
            await aput(saver, "t", f"9-{len(seen)}", parent=found.checkpoint["id"])
            if len(seen) == 3:
                break
        assert seen == ["5", "4", "3"]
        await asyncio.wait_for(saver.adelete_thread("t"), 30)
        assert [found async for found in saver.alist(config("t"))] == []

    asyncio.run(run())
    gc.collect()


def test_cancelling_leaves_the_old_or_the_new_state_and_a_usable_saver(saver: Any) -> None:
    generator = random.Random(11)
    big = [generator.randbytes(2_000) for _ in range(300)]

    async def run() -> None:
        await aput(saver, "t", "000", {"n": 0, "big": []})
        head = 0
        cancelled = 0
        for n in range(1, 31):
            given = {"n": n, "big": [*big, n]}
            task = asyncio.ensure_future(aput(saver, "t", f"{n:03}", given, parent=f"{head:03}"))
            for _ in range(n % 4):
                await asyncio.sleep(0)
            if (delay := (None, 0, 0.0005, 0.002, 0.01)[n % 5]) is not None:
                await asyncio.sleep(delay)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                cancelled += 1
            found = await asyncio.wait_for(saver.aget_tuple(config("t")), 30)
            state = found.checkpoint["channel_values"]
            assert state["n"] in range(head, n + 1)
            assert state["big"] == ([] if state["n"] == 0 else [*big, state["n"]])
            head = state["n"]
        assert cancelled
        await aput(saver, "t", "999", {"n": 999}, parent=f"{head:03}")
        assert (await saver.aget_tuple(config("t"))).checkpoint["channel_values"] == {"n": 999}
        for call in (saver.aget_tuple, saver.adelete_thread):
            task = asyncio.ensure_future(call(config("t") if call == saver.aget_tuple else "other"))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.wait_for(saver.aput_writes(config("t", "999"), [("ch", 1)], "task"), 30)

    asyncio.run(run())
    assert values(saver, "t") == {"n": 999}


def test_uuid4_is_never_called(api: Calls, make_saver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> uuid.UUID:
        raise AssertionError("uuid.uuid4() was called")

    monkeypatch.setattr(uuid, "uuid4", refuse)
    other = make_saver()
    put(api, "t", "1", {"a": [1]}, metadata={"run_id": "r"})
    put(other, "t", "2", {"a": [1, 2]}, parent="1")
    api.put_writes(config("t", "2"), [("ch", 1)], "task")
    assert ids(api.list(None)) == ["2", "1"]
    api.get_delta_channel_history(config=config("t"), channels=["a"])
    api.saver.get_next_version(None, None)
    api.copy_thread("t", "u")
    api.prune(["u"])
    api.delete_for_runs(["r"])
    api.delete_thread("t")
    assert values(api, "u") == {"a": [1, 2]}


def test_the_loop_keeps_turning_while_a_large_state_is_put(saver: Any) -> None:
    generator = random.Random(5)
    words = [generator.randbytes(5).hex() for _ in range(4_000)]
    large = [{"id": n, "text": " ".join(generator.choices(words, k=1_800))} for n in range(2_000)]
    assert sum(len(each["text"]) for each in large) > 35_000_000
    longest: list[float] = []

    async def heartbeat() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest[-1] = max(longest[-1], now - last)
            last = now

    async def run() -> None:
        beating = asyncio.ensure_future(heartbeat())
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: aput(saver, "async", "1", {"large": large}),
            lambda: saver.aput_writes(config("async", "1"), [("ch", [*large, {"id": -1, "text": "another"}])], "task"),
        ]
        for call in calls:
            longest.append(0.0)
            await asyncio.sleep(0.01)
            started = time.perf_counter()
            await call()
            took = time.perf_counter() - started
            # A call that runs on the loop's own thread would stop it for as long as it takes.
            assert 0 < longest[-1] < max(0.75 * took, 0.06), (longest, took)
        beating.cancel()

    asyncio.run(run())


def test_what_was_cancelled_never_comes_after_what_was_begun_later(saver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, released = threading.Event(), threading.Event()
    write = saver.repository.put_writes

    def slow(thread: str, *arguments: Any) -> None:
        if thread == "t" and not entered.is_set():
            entered.set()
            assert released.wait(30)
        write(thread, *arguments)

    async def run() -> None:
        for thread in ("t", "u"):
            await aput(saver, thread, "1", {"a": 1})
        monkeypatch.setattr(saver.repository, "put_writes", slow)
        first = asyncio.create_task(saver.aput_writes(config("t", "1"), [("__error__", "old")], "task"))
        await asyncio.to_thread(entered.wait, 30)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        second = asyncio.create_task(saver.aput_writes(config("t", "1"), [("__error__", "new")], "task"))
        # Another thread is none of its business.
        await asyncio.wait_for(saver.aput_writes(config("u", "1"), [("__error__", "other")], "task"), 30)
        assert not second.done()
        released.set()
        await second
        found = await saver.aget_tuple(config("t"))
        assert [value for _, _, value in found.pending_writes] == ["new"]

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_serde_sees_the_context_of_who_awaits(make_saver: Callable[..., CkptSaver]) -> None:
    tenant: ContextVar[str] = ContextVar("tenant")

    class Watching(JsonPlusSerializer):
        def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
            seen.append(("dump", tenant.get()))
            return super().dumps_typed(obj)

        def loads_typed(self, data: tuple[str, bytes]) -> Any:
            seen.append(("load", tenant.get()))
            return super().loads_typed(data)

    async def one(saver: Any, name: str) -> None:
        tenant.set(name)
        await aput(saver, name, "1", {"a": [name]})
        await saver.aput_writes(config(name, "1"), [("a", name)], "task")
        assert (await saver.aget_tuple(config(name))).pending_writes == [("task", "a", name)]
        assert [found.checkpoint["id"] async for found in saver.alist(config(name))] == ["1"]

    async def run() -> None:
        saver = make_saver(serde=Watching())
        await asyncio.gather(*(one(saver, name) for name in ("acme", "umbrella")))

    seen: list[tuple[str, str]] = []
    asyncio.run(asyncio.wait_for(run(), 60))
    assert set(seen) == {(act, name) for act in ("dump", "load") for name in ("acme", "umbrella")}

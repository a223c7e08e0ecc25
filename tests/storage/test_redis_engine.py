"""The engine on a Redis store: hostile names, several processes, collecting while others write, commands per call."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from redis_kit import CountingClient, Proxy, keys_of
from redis_server import Server, cluster

import ckpt
from ckpt.errors import IntegrityError, StoreUnavailableError
from ckpt.langgraph import CkptSaver
from ckpt.repository import Repository
from ckpt.storage.redis import RedisStorage

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = [
    "*", "?", "[a-z]*", "plain", "plain*", "{ckpt}:meta", "}:records", "a:b", "a", "\x00", "plain\x00", "\ud800",
    "\udfff lone", "'; FLUSHALL", "\r\nFLUSHALL\r\n", "L" * 65_536, "L" * 65_535 + "M",
]  # fmt: skip


def put(saver: CkptSaver, thread: str, checkpoint_id: str, values: dict[str, Any], parent: str | None = None) -> None:
    config: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
    if parent is not None:
        config["configurable"]["checkpoint_id"] = parent
    versions: Any = {name: uuid4().hex for name in values}
    checkpoint: Any = {
        "v": 4,
        "id": checkpoint_id,
        "ts": "2026-01-31T12:00:00+00:00",
        "channel_values": values,
        "channel_versions": versions,
        "versions_seen": {},
        "updated_channels": None,
    }
    saver.put(config, checkpoint, {"source": "loop", "step": 1, "parents": {}}, versions)


def values(saver: CkptSaver, thread: str) -> Any:
    found = saver.get_tuple({"configurable": {"thread_id": thread}})
    return found and found.checkpoint["channel_values"]


def content(number: int, name: str) -> dict[str, Any]:
    # LangGraph's serializer replaces lone surrogates in text, so those are stored as bytes.
    encoded = name.encode("utf-8", "surrogatepass")
    return {"n": number, "text": encoded.decode("utf-8", "replace"), "list": [number, encoded]}


def test_hostile_names_and_texts_come_back_and_stay_apart(server: Server) -> None:
    with CkptSaver(server.url) as saver:
        for number, name in enumerate(HOSTILE):
            put(saver, name, "1", content(number, name))
            saver.put_writes({"configurable": {"thread_id": name, "checkpoint_id": "1"}}, [("ch", number)], f"t{name}")
    with CkptSaver(server.url) as saver, redis.Redis(port=server.port) as client:
        for number, name in enumerate(HOSTILE):
            assert values(saver, name) == content(number, name)
        for gone in ("*", "?", "plain*", "}:records"):
            saver.delete_thread(gone)
        assert [name for name in HOSTILE if values(saver, name) is None] == ["*", "?", "plain*", "}:records"]
        assert set(client.keys("*")) <= {key.encode() for key in keys_of("ckpt").values()}
        assert saver.repository.fsck().problems == []


_WRITER = """
import sys, ckpt
url, thread, writer, count = sys.argv[1:]
with ckpt.open(url) as repository:
    for step in range(int(count)):
        own = {"writer": writer, "step": step, "messages": [f"{writer} {n} " * 9 for n in range(step)]}
        print(repository.commit(thread, own).checkpoint_id, flush=True)
"""


def writers(url: str, threads: list[str], count: int) -> list[subprocess.Popen[str]]:
    return [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, url, thread, f"w{number}", str(count)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, thread in enumerate(threads)
    ]


def acknowledged(processes: list[subprocess.Popen[str]]) -> list[list[str]]:
    found = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return found


def test_processes_that_write_at_once_lose_nothing(server: Server) -> None:
    found = acknowledged(writers(server.url, ["one", "one", "two"], 40))
    with ckpt.open(server.url, create=False) as repository:
        stored = {info.checkpoint_id for thread in ("one", "two") for info in repository.log(thread=thread)}
        assert stored == {name for each in found for name in each}
        assert len(stored) == 120
        assert repository.fsck().problems == []


def test_a_thread_begun_in_one_process_goes_on_in_another(server: Server) -> None:
    acknowledged(writers(server.url, ["talk"], 5))
    with ckpt.open(server.url) as repository:
        repository.fork("talk", "other")
        assert repository.state("talk")["step"] == 4
        repository.commit("talk", {"step": "here"})
        acknowledged(writers(server.url, ["other"], 2))
        assert (repository.state("talk")["step"], repository.state("other")["step"]) == ("here", 1)


def test_collecting_while_others_write_loses_nothing(server: Server) -> None:
    with ckpt.open(server.url) as repository:
        processes = writers(server.url, ["a", "b"], 60)
        turn = 0
        while turn < 5 or any(process.poll() is None for process in processes):
            repository.commit("passing", {"turn": turn, "text": ["gone soon " * 50, str(turn)]})
            repository.delete("passing")
            repository.gc(grace=timedelta(0))
            turn += 1
        found = acknowledged(processes)
        for thread, names in zip("ab", found, strict=True):
            assert {info.checkpoint_id for info in repository.log(thread=thread)} == set(names)
        assert repository.gc(grace=timedelta(0)).bytes_after <= repository.storage.usage().disk
        assert repository.fsck().problems == []
        assert repository.storage.verify() == []


def test_a_connection_lost_between_two_steps_loses_no_run(server: Server) -> None:
    proxy = Proxy(server.port)
    with CkptSaver(proxy.url) as saver:
        parent = None
        for number in range(30):
            proxy.lose = ("", "a", "q")[number % 3]
            put(saver, "t", f"{number:03}", {"n": list(range(number))}, parent)
            parent = f"{number:03}"
        assert values(saver, "t") == {"n": list(range(29))}
        proxy.lose = ""
        assert len(list(saver.list({"configurable": {"thread_id": "t"}}))) == 30
        assert saver.repository.fsck().problems == []
    proxy.close()


def test_a_flushed_server_never_reads_as_an_empty_one(server: Server) -> None:
    with CkptSaver(server.url) as saver, redis.Redis(port=server.port) as client:
        put(saver, "t", "1", {"n": 1})
        client.flushall()
        with pytest.raises(IntegrityError):
            values(saver, "t")
        with pytest.raises(IntegrityError):
            values(saver, "never")
        with pytest.raises(IntegrityError):
            put(saver, "t", "2", {"n": 2}, "1")
        assert client.keys("*") == []


def test_a_full_server_refuses_checkpoints_and_can_still_be_collected(server: Server) -> None:
    with CkptSaver(server.url) as saver, redis.Redis(port=server.port) as client:
        for number in range(50):
            put(saver, "t", f"{number:03}", {"text": f"text {number} " * 99}, f"{number - 1:03}" if number else None)
        client.config_set("maxmemory", 1_000_000)
        try:
            with pytest.raises(StoreUnavailableError, match="maxmemory"):
                put(saver, "t", "050", {"text": "no"}, "049")
            assert values(saver, "t") == {"text": "text 49 " * 99}
            before = saver.repository.storage.usage()
            saver.repository.gc(grace=timedelta(0))
            assert saver.repository.storage.usage().frames < before.frames
        finally:
            client.config_set("maxmemory", 0)
        put(saver, "t", "050", {"text": "yes"}, "049")
        assert values(saver, "t") == {"text": "yes"}
        assert len(list(saver.list({"configurable": {"thread_id": "t"}}))) == 51
        assert saver.repository.fsck().problems == []


def test_a_put_is_one_command(server: Server) -> None:
    with CountingClient(server.url) as client, closing(Repository(RedisStorage(client))) as repository:
        saver = CkptSaver(repository)
        for number in range(10):
            client.sent.clear()
            put(saver, "t", f"{number:03}", {"n": number, "text": f"text {number} " * 99}, f"{number - 1:03}")
            puts = [command[0] for command in client.sent]
            client.sent.clear()
            config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": f"{number:03}"}}
            saver.put_writes(config, [("ch", f"written {number} " * 99)], f"task {number}")
            writes = [command[0] for command in client.sent]
        assert (puts, writes) == (["EVALSHA"], ["EVALSHA"])


def test_the_engine_runs_on_a_cluster() -> None:
    with cluster() as url:
        for prefix in ("one", "two", "three"):
            with ckpt.open(f"{url}?key_prefix={prefix}") as repository:
                for number in range(20):
                    repository.commit("t", {"n": number, "prefix": prefix})
                repository.fork("t", "u")
                repository.gc(grace=timedelta(0))
                assert repository.fsck().problems == []
        for prefix in ("one", "two", "three"):
            with ckpt.open(f"{url}?key_prefix={prefix}", create=False) as repository:
                assert repository.state("u") == {"n": 19, "prefix": prefix}

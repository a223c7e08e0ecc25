"""A Redis store when connections break, memory runs out, keys vanish, or a holder of the lock dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import redis
from interrupt_kit import Interrupted, interrupt_at
from redis_kit import CountingClient, keys_of, proxied
from redis_server import Server, cluster, running

from ckpt.errors import (
    ConflictError,
    IntegrityError,
    NotAStoreError,
    StoreLockedError,
    StoreUnavailableError,
    StoreUnreachableError,
)
from ckpt.storage import redis as redis_storage
from ckpt.storage import redis_client
from ckpt.storage import redis_scripts as scripts
from ckpt.storage.base import Batch, Frame, Place, RecordChangedError, StoredFrame
from ckpt.storage.redis import RedisStorage
from ckpt.storage.redis_client import Argument
from ckpt.storage.redis_lua import LEASE_MS
from ckpt.testing.fixtures import LAST, add, at_once, object_key

ROOT = Path(__file__).resolve().parents[2]
INSIDE = ("redis", "contextlib", "client", "connection", "retry", "resp", "base", "socket", "threading")
"""Our files, and those of redis-py and of Python that they go through."""


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    with redis.Redis(port=shared.port) as client:
        client.flushall()
        yield shared
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")


@pytest.fixture
def storage(server: Server) -> Iterator[RedisStorage]:
    with closing(RedisStorage(server.url)) as storage:
        yield storage


# -- connections ----------------------------------------------------------------------------------------


def test_an_idle_connection_that_was_killed_is_replaced(storage: RedisStorage, client: redis.Redis) -> None:
    for turn in range(5):
        value = b"%d" % turn
        storage.publish(Batch(records={b"a": value}))
        client.client_kill_filter(_type="normal", skipme=True)
        assert storage.read([b"a"]) == [value]
        client.client_kill_filter(_type="normal", skipme=True)


def test_connections_killed_all_the_time_lose_nothing_and_repeat_nothing(
    storage: RedisStorage, client: redis.Redis
) -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 0:
            while len(done) < 4:
                client.client_kill_filter(_type="normal", skipme=True)
                time.sleep(0.02)
            return
        try:
            for _ in range(50):
                add(storage, b"sum", number)
                (frame,) = storage.publish(Batch(frames=[Frame(0, b"%d" % number, ())]))
                assert storage.load([frame]) == {frame: StoredFrame(0, b"%d" % number)}
        finally:
            done.append(number)

    at_once(5, work)
    assert storage.read([b"sum"]) == [b"500"]
    assert len(storage.scan_frames(0, 1000)) == 200


@pytest.mark.parametrize("fate", ["q", "a", "qa", "aq", "aa", "qqa"])
def test_a_publish_whose_answer_is_lost_is_applied_once(server: Server, storage: RedisStorage, fate: str) -> None:
    with proxied(server.port) as proxy, closing(RedisStorage(proxy.url)) as shaky:
        shaky.publish(Batch(records={b"a": b"0"}))
        proxy.lose = fate
        batch = Batch(
            {b"a": b"0"}, {b"a": b"1", b"gone": None}, [Frame(0, b"one", (object_key(1),)), Frame(-1, b"two", ())]
        )
        first, second = shaky.publish(batch)
        assert proxy.lose == ""
        assert storage.read([b"a"]) == [b"1"]
        assert [number for number, _, _ in storage.scan_frames(0, 9)] == [first, second]
        assert storage.locate([object_key(1)]) == {object_key(1): Place(first, 0)}
        assert shaky.publish(Batch(frames=[Frame(second, b"three", ())])) == [second + 1]


def test_a_lost_conflict_is_still_a_conflict(server: Server, storage: RedisStorage) -> None:
    with proxied(server.port) as proxy, closing(RedisStorage(proxy.url)) as shaky:
        storage.publish(Batch(records={b"a": b"theirs"}))
        shaky.read([])
        proxy.lose = "aq"
        with pytest.raises(RecordChangedError) as caught:
            shaky.publish(Batch({b"a": None}, {b"a": b"ours"}))
        assert caught.value.current == {b"a": b"theirs"}
    assert storage.read([b"a"]) == [b"theirs"]


def test_a_read_is_repeated_as_often_as_a_write(server: Server, storage: RedisStorage) -> None:
    with proxied(server.port) as proxy, closing(RedisStorage(proxy.url)) as shaky:
        storage.publish(Batch(records={b"a": b"1"}))
        for fate in ("q", "a", "aqqa"):
            shaky.epoch()
            proxy.lose = fate
            assert shaky.read([b"a"]) == [b"1"]
            assert proxy.lose == ""
        shaky.epoch()
        proxy.lose = "aqaqa"
        with pytest.raises(StoreUnavailableError, match="cannot be reached"):
            shaky.read([b"a"])
        assert proxy.lose == ""
        assert shaky.read([b"a"]) == [b"1"]


@pytest.mark.parametrize("fate", ["q", "a", "qa"])
def test_the_end_of_an_exclusive_write_is_applied_once(server: Server, storage: RedisStorage, fate: str) -> None:
    storage.publish(Batch(records={b"a": b"1"}, frames=[Frame(0, b"old", (object_key(1),))]))
    before = storage.epoch()
    with proxied(server.port) as proxy, closing(RedisStorage(proxy.url)) as shaky:
        with shaky.exclusive() as session:
            (number,) = session.write(Batch(records={b"a": b"2"}, frames=[Frame(0, b"new", (object_key(1),))]))
            proxy.lose = fate
        assert proxy.lose == ""
    assert storage.read([b"a"]) == [b"2"]
    assert storage.locate([object_key(1)]) == {object_key(1): Place(number, 0)}
    assert storage.epoch() == before + 1
    storage.publish(Batch(records={b"a": b"3"}))


def test_a_request_that_arrives_after_its_repetition_changes_nothing(server: Server) -> None:
    with CountingClient(server.url) as client, closing(RedisStorage(client)) as storage:
        first = storage.publish(Batch(records={b"a": b"1"}, frames=[Frame(0, b"f", ())]))
        request = client.sent[-1]
        # Read by the server twice, as when it comes over a connection that was given up.
        assert client.execute_command(*request) == [b"ok", b"%d" % first[0]]
        storage.publish(Batch(records={b"a": b"2"}))
        assert client.execute_command(*request) == [b"stale"]
        assert storage.read([b"a"]) == [b"2"]
        assert len(storage.scan_frames(0, 9)) == 1


def test_a_server_that_is_down_is_said_to_be() -> None:
    with running() as server:
        storage = RedisStorage(server.url)
        storage.publish(Batch(records={b"a": b"1"}))
        server.stop()
        with pytest.raises(StoreUnavailableError, match="cannot be reached") as reading:
            storage.read([b"a"])
        assert [hint for hint in reading.value.hints if "not known" in hint] == []
        with pytest.raises(StoreUnavailableError, match="cannot be reached") as writing:
            storage.publish(Batch(records={b"a": b"2"}))
        assert any("not known" in hint for hint in writing.value.hints)
        begun = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="cannot be reached"):
            RedisStorage(server.url)
        # Who opens is told at once, which a command line begins with.
        assert time.monotonic() - begun < 5
        storage.close()


def test_a_server_that_comes_back_in_time_is_waited_for() -> None:
    with (
        running("--appendonly", "yes", "--appendfsync", "always") as server,
        closing(RedisStorage(server.url)) as storage,
    ):
        storage.publish(Batch(records={b"a": b"1"}))
        calls = (
            (lambda: storage.read([b"a"]), [b"1"]),
            (lambda: storage.publish(Batch({b"a": b"1"}, {b"a": b"2"})), []),
            (lambda: storage.view([b"a"], [(b"", LAST)]), ([b"2"], [[(b"a", b"2")]])),
        )
        for call, answer in calls:
            server.stop()
            back = Thread(target=lambda: (time.sleep(0.3), server.start()))
            back.start()
            assert call() == answer
            back.join()


def test_a_primary_that_became_a_replica_is_looked_for_again(storage: RedisStorage, client: redis.Redis) -> None:
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreUnavailableError, match="replica"):
        storage.publish(Batch(records={b"a": b"1"}))
    back = Thread(target=lambda: (time.sleep(0.3), client.execute_command("REPLICAOF", "NO", "ONE")))
    back.start()
    storage.publish(Batch(records={b"a": b"2"}))
    back.join()
    assert storage.read([b"a"]) == [b"2"]


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """Have a server say nothing, as one whose machine is paused; its connections do not break."""
    assert server._process is not None
    server._process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server._process.send_signal(signal.SIGCONT)


def test_a_server_that_says_nothing_is_given_up_after_the_second_time() -> None:
    with running() as server, closing(RedisStorage(f"{server.url}?socket_timeout=0.5")) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
        calls: tuple[tuple[Callable[[], object], bool], ...] = (
            (lambda: storage.read([b"a"]), False),
            (lambda: storage.publish(Batch(records={b"a": b"2"})), True),
        )
        for call, unsettled in calls:
            begun = time.monotonic()
            with stopped(server), pytest.raises(StoreUnreachableError, match="Timeout") as caught:
                call()
            assert 0.9 < time.monotonic() - begun < 1.9
            assert any("not known" in hint for hint in caught.value.hints) == unsettled
        with stopped(server):
            writing = Thread(target=lambda: storage.publish(Batch(records={b"a": b"3"})))
            writing.start()
            time.sleep(0.7)
        writing.join()
        assert storage.read([b"a"]) == [b"3"]


def test_a_holder_whose_server_says_nothing_does_not_wait_once_more_to_let_go() -> None:
    with running() as server, closing(RedisStorage(f"{server.url}?socket_timeout=0.5")) as storage:
        begun = time.monotonic()
        with pytest.raises(StoreUnreachableError), storage.exclusive() as session, stopped(server):
            session.read([b"a"])
        assert time.monotonic() - begun < 1.9


def test_a_node_of_a_cluster_that_says_nothing_is_given_up_as_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    servers: list[Server] = []
    start = Server.start

    def noted(self: Server) -> bool:
        servers.append(self)
        return start(self)

    monkeypatch.setattr(Server, "start", noted)
    with cluster() as url, closing(RedisStorage(f"{url}?socket_timeout=0.5")) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
        with redis.RedisCluster.from_url(url) as client:
            port = client.get_node_from_key(keys_of("ckpt")["meta"]).port
        begun = time.monotonic()
        with stopped(next(each for each in servers if each.port == port)), pytest.raises(StoreUnreachableError):
            storage.read([b"a"])
        assert time.monotonic() - begun < 4
        assert storage.read([b"a"]) == [b"1"]


def test_a_server_that_runs_a_long_script_is_waited_for(
    server: Server, storage: RedisStorage, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.publish(Batch(records={b"a": b"1"}))
    client.config_set("lua-time-limit", 50)

    def run() -> None:
        with redis.Redis(port=server.port) as other, suppress(redis.ResponseError):
            other.eval("while true do end", 0)

    def run_on() -> Thread:
        runs = Thread(target=run)
        runs.start()
        time.sleep(0.3)
        return runs

    try:
        runs = run_on()
        killed = Thread(target=lambda: (time.sleep(3), client.script_kill()))
        killed.start()
        begun = time.monotonic()
        storage.publish(Batch({b"a": b"1"}, {b"a": b"2"}))
        assert time.monotonic() - begun > 2.5
        killed.join()
        runs.join()
        runs = run_on()
        monkeypatch.setattr(redis_client, "_WAIT_SECONDS", 0.3)
        with pytest.raises(StoreUnavailableError, match="running a script") as caught:
            storage.publish(Batch({b"a": b"2"}, {b"a": b"3"}))
        assert caught.value.hints == ("wait for it to end, or end it: redis-cli SCRIPT KILL",)
        client.script_kill()
        runs.join()
    finally:
        with suppress(redis.ResponseError):
            client.script_kill()
        client.config_set("lua-time-limit", 5000)
    assert storage.read([b"a"]) == [b"2"]


def test_a_server_that_cannot_save_is_said_to_be(tmp_path: Path) -> None:
    server = Server(tmp_path)
    in_the_way = tmp_path / "dump.rdb"
    try:
        with closing(RedisStorage(server.url)) as storage, redis.Redis(port=server.port) as client:
            # A server that is to save nothing goes on when it cannot.
            client.config_set("save", "3600 1000000")
            storage.publish(Batch(records={b"a": b"1"}))
            in_the_way.mkdir()

            def saved(status: str) -> None:
                client.bgsave()
                while client.info("persistence")["rdb_last_bgsave_status"] != status:
                    time.sleep(0.01)

            saved("err")
            changes: list[Callable[[], object]] = [
                lambda: storage.publish(Batch(records={b"a": b"2"})),
                storage.exclusive().__enter__,
            ]
            for change in changes:
                with pytest.raises(StoreUnavailableError, match="cannot save to its disk") as caught:
                    change()
                assert caught.value.message.endswith("; nothing was written")
                assert caught.value.hints[0].startswith("free space on the server's disk")
            assert storage.read([b"a"]) == [b"1"]
            in_the_way.rmdir()
            saved("ok")
            storage.publish(Batch(records={b"a": b"3"}))
            assert storage.read([b"a"]) == [b"3"]
    finally:
        server.stop()


# -- few connections --------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3])
def test_calls_wait_for_a_connection_when_all_are_in_use(server: Server, most: int) -> None:
    url = f"{server.url}?max_connections={most}"
    clients = [
        redis.Redis.from_url(url),
        redis.Redis(connection_pool=redis.BlockingConnectionPool.from_url(server.url, max_connections=most, timeout=1)),
    ]
    for number, given in enumerate((url, *clients)):
        with closing(RedisStorage(given, key_prefix=f"p{number}")) as storage:
            at_once(8, lambda number: [add(storage, b"sum", number) for _ in range(20)])
            assert storage.read([b"sum"]) == [b"560"]
    for client in clients:
        client.close()


def test_calls_wait_for_a_connection_of_a_cluster() -> None:
    with cluster() as url, redis.RedisCluster.from_url(url, max_connections=1) as client:
        for prefix in "abc":  # over several slots, so over several nodes
            for given in (f"{url}?max_connections=1", client):
                with closing(RedisStorage(given, key_prefix=prefix)) as storage:
                    storage.publish(Batch(records={b"sum": b"0"}))
                    at_once(8, lambda number: [add(storage, b"sum", number) for _ in range(10)])
                    assert storage.read([b"sum"]) == [b"280"]


@pytest.mark.parametrize("pool", [redis.ConnectionPool, redis.BlockingConnectionPool])
def test_connections_that_never_become_free_are_said_to_be_in_use(
    server: Server, pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis.Redis(connection_pool=pool.from_url(server.url, max_connections=1)) as client:
        client.connection_pool.timeout = 0.1
        storage = RedisStorage(client)
        monkeypatch.setattr(redis_client, "_WAIT_SECONDS", 0.3)
        with client.client():  # which has a connection of the pool to itself
            for call in (storage.epoch, lambda: storage.publish(Batch(records={b"a": b"1"}))):
                begun = time.monotonic()
                with pytest.raises(StoreUnavailableError, match="all connections were in use") as caught:
                    call()
                assert 0.25 < time.monotonic() - begun < 10
                # Nothing was sent, and the server is not what is wrong.
                assert caught.value.hints == ("raise max_connections",)
        assert storage.read([b"a"]) == [None]


def test_an_interrupt_anywhere_costs_no_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_client, "_WAIT_SECONDS", 0.3)
    with closing(RedisStorage(f"{server.url}?max_connections=1")) as storage:
        for kind in (KeyboardInterrupt, Interrupted):
            for moment in range(1, 1000):
                name = f"{kind.__name__} {moment}".encode()
                batch = Batch({name: None}, {name: b"1"})
                ended = interrupt_at(moment, lambda batch=batch: storage.publish(batch), INSIDE, kind)  # type: ignore[misc]
                assert storage.read([name]) in ([None], [b"1"])
                if ended is not None:
                    break
            else:
                pytest.fail("it never ended")
        storage.publish(Batch(records={b"a": b"1"}))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_is_another_sender_before_any_of_its_threads_begins(storage: RedisStorage) -> None:
    storage.publish(Batch(records={b"a": b"1"}))
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, f"{storage._handle} {len(storage._senders)}".encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    handle, senders = os.read(reading, 100).decode().split()
    assert (handle != storage._handle, senders, len(storage._senders)) == (True, "0", 1)


def test_a_write_under_the_name_of_another_process_is_refused(storage: RedisStorage, server: Server) -> None:
    for number in range(3):
        storage.publish(Batch(records={b"a": b"%d" % number}))
    with closing(RedisStorage(server.url)) as copied:
        copied._handle = storage._handle  # as in a copy of the process that was not made by os.fork
        with pytest.raises(StoreUnavailableError, match="a copy of this process writes under its name"):
            copied.publish(Batch(records={b"a": b"late"}))
    assert storage.read([b"a"]) == [b"2"]


def test_a_forked_child_has_connections_and_batches_of_its_own(storage: RedisStorage) -> None:
    storage.publish(Batch(records={b"sum": b"0"}))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for _ in range(50):
                add(storage, b"sum", 1)
            status = 0
        finally:
            os._exit(status)
    for _ in range(50):
        add(storage, b"sum", 1)
    assert os.waitpid(child, 0)[1] == 0
    assert storage.read([b"sum"]) == [b"100"]


# -- keys that vanish -------------------------------------------------------------------------------------


def fill(storage: RedisStorage) -> None:
    storage.publish(Batch(records={b"a": b"1"}, frames=[Frame(0, b"f", (object_key(1),))]))


def test_a_flushed_server_is_noticed_by_every_call(storage: RedisStorage, client: redis.Redis) -> None:
    fill(storage)
    client.flushall()
    calls = (
        storage.epoch,
        lambda: storage.read([b"a"]),
        lambda: storage.view([b"a"], []),
        lambda: storage.scan(b"", LAST),
        lambda: storage.locate([object_key(1)]),
        lambda: storage.load([1]),
        lambda: storage.scan_index(b"", 1),
        lambda: storage.scan_frames(0, 1),
        storage.usage,
        lambda: storage.publish(Batch(records={b"b": b"2"})),
        lambda: storage.exclusive().__enter__(),
    )
    for call in calls:
        with pytest.raises(IntegrityError, match="not the one that was opened"):
            call()
    assert client.keys("*") == []
    assert storage.verify() != []


def test_a_store_that_replaced_another_is_not_taken_for_it(
    server: Server, storage: RedisStorage, client: redis.Redis
) -> None:
    fill(storage)
    client.flushall()
    with closing(RedisStorage(server.url)) as new:
        fill(new)
        with pytest.raises(IntegrityError, match="not the one that was opened"):
            storage.publish(Batch(records={b"b": b"2"}))
        assert new.scan(b"", LAST) == [(b"a", b"1")]


@pytest.mark.parametrize("name", ["meta", "records", "frames", "index"])
def test_a_store_that_lost_one_of_its_keys_is_refused(
    server: Server, storage: RedisStorage, client: redis.Redis, name: str
) -> None:
    fill(storage)
    client.delete(keys_of("ckpt")[name])
    for call in (lambda: storage.read([b"x"]), lambda: storage.publish(Batch(records={b"b": b"2"}))):
        with pytest.raises(IntegrityError):
            call()
    assert len(storage.verify()) == 1
    if name == "meta":
        with pytest.raises(IntegrityError, match="'meta'"):
            RedisStorage(server.url)
        with pytest.raises(IntegrityError, match="'meta'"):
            RedisStorage(server.url, create=False)
        assert client.exists(keys_of("ckpt")["meta"]) == 0


def test_a_part_that_is_missing_is_noticed(storage: RedisStorage, client: redis.Redis) -> None:
    storage.publish(Batch(records={b"%d" % n: b"" for n in range(9)}, frames=[Frame(0, b"f", ())] * 3))
    client.zremrangebyrank(keys_of("ckpt")["records"], 3, 3)
    with pytest.raises(IntegrityError, match="'records'"):
        storage.read([b"5"])


def test_a_key_that_another_program_overwrote_is_named(
    server: Server, storage: RedisStorage, client: redis.Redis
) -> None:
    fill(storage)
    client.set(keys_of("ckpt")["records"], "mine")
    for call in (lambda: storage.read([b"a"]), lambda: storage.publish(Batch(records={b"b": b"2"}))):
        with pytest.raises(NotAStoreError):
            call()
    with pytest.raises(NotAStoreError, match="records"):
        RedisStorage(server.url)


def test_an_eviction_policy_that_loses_keys_is_told_by_verify(storage: RedisStorage, client: redis.Redis) -> None:
    fill(storage)
    assert storage.verify() == []
    for policy in ("allkeys-lru", "allkeys-lfu", "allkeys-random"):
        client.config_set("maxmemory-policy", policy)
        (sentence,) = storage.verify()
        assert policy in sentence


def test_what_the_store_counts_of_itself_is_compared_by_verify(storage: RedisStorage, client: redis.Redis) -> None:
    fill(storage)
    meta = keys_of("ckpt")["meta"]
    for name, told in (("frame_bytes", "the frames hold"), ("objects", "the index holds")):
        assert storage.verify() == []
        client.hincrby(meta, name, 1)
        (sentence,) = storage.verify()
        assert told in sentence
        client.hincrby(meta, name, -1)


@pytest.mark.parametrize("age", [3500, 3700])
def test_who_wrote_last_is_remembered_for_an_hour(
    server: Server, storage: RedisStorage, client: redis.Redis, age: int
) -> None:
    """So that a batch that is sent again, as its answer was lost, is told apart from a new one."""
    fill(storage)
    done = keys_of("ckpt")["done"]
    seconds, _ = client.time()
    client.hset(done, mapping={f"sender {number}": f"1 {seconds - age} " for number in range(1100)})
    before = client.hlen(done)
    for _ in range(3):
        with closing(RedisStorage(server.url)) as other:
            other.publish(Batch(records={b"b": b"2"}))
    # Each new one looks at twenty, which it draws: of those that are new as well there are few.
    removed = before + 3 - client.hlen(done)
    assert 50 <= removed <= 60 if age > 3600 else removed == 0


# -- memory -----------------------------------------------------------------------------------------------


def test_a_full_server_refuses_what_adds_and_writes_no_half(storage: RedisStorage, client: redis.Redis) -> None:
    numbers = storage.publish(
        Batch(records={b"a": b"1", b"b": b"1"}, frames=[Frame(0, bytes(50_000), (object_key(n),)) for n in range(4)])
    )
    before = (storage.epoch(), storage.scan(b"", LAST), storage.scan_frames(0, 9), storage.usage())
    client.config_set("maxmemory", 1_000_000)
    for batch in (
        Batch(frames=[Frame(0, b"x", (object_key(9),))]),
        Batch(records={b"a": b"2"}),
        Batch(records={b"a": None, b"c": b"3"}, frames=[Frame(0, b"x", ())]),
    ):
        with pytest.raises(StoreUnavailableError, match="maxmemory; nothing was written"):
            storage.publish(batch)
    assert (storage.epoch(), storage.scan(b"", LAST), storage.scan_frames(0, 9), storage.usage()) == before
    # What frees memory goes on: removals, and a collector, also one that writes a little to free more.
    storage.publish(Batch({b"a": b"1"}, {b"a": None}))
    with storage.exclusive() as session:
        (new,) = session.write(Batch(frames=[Frame(0, b"packed", (object_key(0),))]))
        session.forget([object_key(1)])
        session.drop(numbers)
    assert storage.scan(b"", LAST) == [(b"b", b"1")]
    assert storage.scan_frames(0, 9) == [(new, 0, 6)]
    assert storage.locate([object_key(0), object_key(1)])[object_key(0)] == Place(new, 0)
    client.config_set("maxmemory", 0)
    storage.publish(Batch(records={b"a": b"2"}))
    assert storage.read([b"a"]) == [b"2"]


# -- having the store to oneself --------------------------------------------------------------------------

_HOLDER = """
import sys, time
from ckpt.storage.base import Batch
from ckpt.storage.redis import RedisStorage
storage = RedisStorage(sys.argv[1])
with storage.exclusive() as session:
    session.write(Batch(records={b"a": b"half"}))
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_holder_that_dies_keeps_writers_for_ten_seconds_at_most(
    server: Server, storage: RedisStorage, client: redis.Redis
) -> None:
    storage.publish(Batch(records={b"a": b"1"}))
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, server.url], stdout=subprocess.PIPE, cwd=ROOT, env=os.environ
    )
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == b"held\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lock = keys_of("ckpt")["lock"]
    assert 0 < client.pttl(lock) <= LEASE_MS <= 10_000
    started = time.monotonic()
    client.pexpire(lock, 300)
    storage.publish(Batch({b"a": b"1"}, {b"a": b"2"}))
    assert 0.1 < time.monotonic() - started < 5
    assert storage.read([b"a"]) == [b"2"]


def test_an_interrupt_behind_taking_the_lock_gives_it_back(
    storage: RedisStorage, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = storage._link.write

    def interrupted(script: scripts.Script, *arguments: Argument) -> tuple[str, list[Any]]:
        answer = write(script, *arguments)
        if script is scripts.LOCK:
            assert client.exists(keys_of("ckpt")["lock"]) == 1
            raise Interrupted
        return answer

    monkeypatch.setattr(storage._link, "write", interrupted)
    with pytest.raises(Interrupted), storage.exclusive():
        pass
    assert client.exists(keys_of("ckpt")["lock"]) == 0


def test_a_holder_renews_its_lock_with_every_call(storage: RedisStorage, client: redis.Redis) -> None:
    lock = keys_of("ckpt")["lock"]
    with storage.exclusive() as session:
        calls = (
            session.epoch,
            lambda: session.read([b"a"]),
            lambda: session.scan(b"", LAST),
            lambda: session.locate([object_key(1)]),
            lambda: session.load([1]),
            lambda: session.scan_index(b"", 1),
            lambda: session.scan_frames(0, 1),
        )
        for call in calls[1:]:
            client.pexpire(lock, 1000)
            call()
            assert client.pttl(lock) > 5000
    assert client.exists(lock) == 0


@pytest.mark.parametrize("others", ["nobody", "a writer", "another holder"])
def test_a_holder_that_lost_its_lock_applies_nothing(
    server: Server, storage: RedisStorage, client: redis.Redis, others: str
) -> None:
    storage.publish(Batch(records={b"a": b"1", b"b": b"1"}))
    with closing(RedisStorage(server.url)) as other:
        with pytest.raises(ConflictError, match="held for too long"), storage.exclusive() as session:
            session.write(Batch(records={b"a": b"mine", b"b": None}))
            client.delete(keys_of("ckpt")["lock"])
            if others == "a writer":
                other.publish(Batch(records={b"c": b"theirs"}))
            elif others == "another holder":
                context = other.exclusive()
                context.__enter__().write(Batch(records={b"c": b"theirs"}))
        if others == "another holder":
            # The loser did not take the lock of the other away.
            assert client.exists(keys_of("ckpt")["lock"]) == 1
            context.__exit__(None, None, None)
        wanted = [(b"a", b"1"), (b"b", b"1")] + ([(b"c", b"theirs")] if others != "nobody" else [])
        assert other.scan(b"", LAST) == wanted


def test_a_reader_with_a_lost_lock_is_told_at_once(storage: RedisStorage, client: redis.Redis) -> None:
    with pytest.raises(ConflictError), storage.exclusive() as session:
        client.delete(keys_of("ckpt")["lock"])
        session.read([b"a"])


def test_waiting_for_the_lock_ends(server: Server, storage: RedisStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_storage, "_LOCK_SECONDS_MAX", 0.2)
    with closing(RedisStorage(server.url)) as other, other.exclusive():
        with pytest.raises(StoreLockedError, match="locked"):
            storage.publish(Batch(records={b"a": b"1"}))
        with pytest.raises(StoreLockedError, match="locked"), storage.exclusive():
            pass
    storage.publish(Batch(records={b"a": b"2"}))


def test_what_the_server_remembers_of_senders_is_bounded(storage: RedisStorage, client: redis.Redis) -> None:
    done = keys_of("ckpt")["done"]
    client.hset(done, mapping={f"old.{n}": "1 1 7" for n in range(1100)})
    for _ in range(5):
        with closing(RedisStorage(storage.url)) as handle:
            handle.publish(Batch(records={b"a": b"1"}))
    assert 1005 - 100 <= client.hlen(done) <= 1105 - 90

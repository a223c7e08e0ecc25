"""A store that goes back in time while it is open: what was lost is lost, and what is written later is whole.

A transaction of the caller's is rolled back, or a server comes back without the last that it was told. Nothing that
this process believes to be stored from before may then be relied on: no object, no pack that goes on where frames
are gone.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import timedelta

import psycopg
import psycopg_pool
import pytest
import redis
import redis_server
from network_kit import pgbouncer
from postgres_server import Server, schema_of

import ckpt
from ckpt.encryption import rotate, rotation
from ckpt.encryption.storage import EncryptedStorage
from ckpt.errors import ConflictError
from ckpt.history.records import ThreadRecord
from ckpt.langgraph import CkptStore
from ckpt.repository import Repository, remove_short
from ckpt.repository.gc import Collector
from ckpt.repository.mark import Packs
from ckpt.repository.remove import Remover
from ckpt.repository.tags import Tag
from ckpt.repository.timeline import Timeline
from ckpt.storage.base import Batch, StoredFrame
from ckpt.storage.postgres import PostgresStorage

SETTINGS = {"listen_addresses": "", "synchronous_commit": "off", "wal_writer_delay": "10s", "max_connections": "20"}
HEADS = ("kept", "lost", "again", "new")


def words(seed: int, count: int = 900) -> str:
    """Return text that is stored in several pieces, the same for the same seed."""
    drawn = random.Random(seed)
    return " ".join("".join(drawn.choices("abcdefgh", k=6)) for _ in range(count))


def before(repository: Repository) -> None:
    """Write what stays."""
    repository.thread("kept").commit({"prompt": words(0), "log": [words(n, 60) for n in range(8)]})


def lost(repository: Repository) -> None:
    """Write what will be gone: to the thread that stays, and to another, which begins alike."""
    repository.thread("kept").commit({"prompt": words(0), "log": [words(n, 60) for n in range(12)], "doc": words(1)})
    repository.thread("lost").commit({"prompt": words(0), "doc": words(2)})


def after(repository: Repository) -> dict[str, object]:
    """Write the same values again, and new ones; return what the threads should hold."""
    states: dict[str, object] = {
        "again": {"doc": words(1), "other": words(2)},
        "lost": {"prompt": words(0), "doc": words(2), "more": words(3, 40)},
        "kept": {"prompt": words(0), "log": [words(n, 60) for n in range(14)], "doc": words(1)},
        "new": {"prompt": words(0), "log": [words(n, 60) for n in range(12)]},
    }
    for _ in range(2):
        for name, state in states.items():
            repository.thread(name).commit(state)
    return states


def require_whole(url: str, states: dict[str, object]) -> None:
    """Look with the eyes of another process."""
    with ckpt.open(url) as repository:
        assert {name: repository.thread(name).state() for name in HEADS} == states
        assert repository.fsck().problems == []


# -- transactions of the caller's -------------------------------------------------------------------------


@pytest.fixture
def connection(postgres_dsn: str, postgres_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    PostgresStorage(postgres_url).close()
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        yield connection


Connection = psycopg.Connection[tuple[object, ...]]


def test_the_epoch_is_the_same_however_it_is_asked_for(postgres_url: str) -> None:
    with closing(PostgresStorage(postgres_url)) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
        later = storage.epoch()
    with closing(PostgresStorage(postgres_url, ahead=b"a")) as storage:
        assert storage.epoch() == storage.epoch() == later
        storage.publish(Batch({b"a": b"1", b"b": None}, {b"a": b"2", b"b": b"2"}, epoch=later))


def test_a_transaction_is_rolled_back(connection: Connection, postgres_url: str) -> None:
    with Repository(PostgresStorage(connection, schema=schema_of(postgres_url))) as repository:
        before(repository)
        with connection.transaction(force_rollback=True):
            lost(repository)
            assert repository.thread("lost").state()["doc"] == words(2)
        assert [thread.name for thread in repository.threads()] == ["kept"]
        states = after(repository)
    require_whole(postgres_url, states)


def test_a_savepoint_is_rolled_back_in_a_transaction_that_is_committed(
    connection: Connection, postgres_url: str
) -> None:
    with Repository(PostgresStorage(connection, schema=schema_of(postgres_url))) as repository:
        with connection.transaction():
            before(repository)
            with connection.transaction(force_rollback=True):
                lost(repository)
            states = after(repository)
        assert repository.thread("new").state() == states["new"]
    require_whole(postgres_url, states)


def test_what_was_seen_in_a_transaction_is_not_relied_on_behind_it(connection: Connection, postgres_url: str) -> None:
    """Seen and not written: what another object of this process wrote into the same transaction."""
    schema = schema_of(postgres_url)
    with (
        Repository(PostgresStorage(connection, schema=schema)) as repository,
        Repository(PostgresStorage(connection, schema=schema)) as other,
    ):
        before(repository)
        with connection.transaction(force_rollback=True):
            lost(other)
            assert repository.thread("lost").state()["doc"] == words(2)
        states = after(repository)
    require_whole(postgres_url, states)


def test_a_memory_in_a_transaction_that_is_rolled_back(connection: Connection, postgres_url: str) -> None:
    with Repository(PostgresStorage(connection, schema=schema_of(postgres_url))) as repository:
        store = CkptStore(repository)
        with connection.transaction(force_rollback=True):
            store.put(("notes",), "a", {"text": words(1)})
        store.put(("notes",), "b", {"text": words(1)})
    with CkptStore(postgres_url) as store:
        assert [(item.key, item.value) for item in store.search(("notes",))] == [("b", {"text": words(1)})]


# -- servers that lose the last they were told -------------------------------------------------------------


def crash(server: Server) -> None:
    """End a server as a power cut does, and start it again."""
    noted = server.folder / "data" / "postmaster.pid"
    os.kill(int(noted.read_text().split()[0]), signal.SIGQUIT)
    deadline = time.monotonic() + 20
    while noted.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    server.stop()
    server.start()


def live_through(
    store: str | Repository, settle: Callable[[], object], go_back: Callable[[], object]
) -> dict[str, object]:
    with ckpt.open(store) if isinstance(store, str) else store as repository:
        before(repository)
        settle()
        lost(repository)
        go_back()
        # The test would show nothing if nothing had been lost.
        assert [thread.name for thread in repository.threads()] == ["kept"]
        return after(repository)


@pytest.fixture
def forgetful() -> Iterator[Server]:
    """A PostgreSQL that has what it was told last in memory alone."""
    server = Server(SETTINGS)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def flush(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def test_postgresql_crashes_with_commits_that_are_not_waited_for(forgetful: Server) -> None:
    url = forgetful.url
    require_whole(url, live_through(url, lambda: flush(url), lambda: crash(forgetful)))


def test_postgresql_crashes_behind_a_pooler_that_connects_again(forgetful: Server) -> None:
    with pgbouncer(forgetful.url, pool_mode="transaction", server_login_retry=1) as bouncer:
        states = live_through(bouncer.url, lambda: flush(forgetful.url), lambda: crash(forgetful))
    require_whole(forgetful.url, states)


def kill_a_backend(url: str) -> None:
    """Have PostgreSQL recover as when one of its processes is killed: it is the same server, and was never started."""
    with psycopg.connect(url, autocommit=True) as connection:
        started = connection.execute("SELECT pg_postmaster_start_time()").fetchone()
        os.kill(connection.info.backend_pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            while True:
                connection.execute("SELECT 1")
    deadline = time.monotonic() + 20
    while True:
        try:
            with psycopg.connect(url) as connection:
                assert connection.execute("SELECT pg_postmaster_start_time()").fetchone() == started
                return
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_one_backend_of_postgresql_is_killed(forgetful: Server) -> None:
    """Through a pool that replaces dead connections by itself, nothing else tells of it."""
    url = forgetful.url
    check = psycopg_pool.ConnectionPool.check_connection
    with psycopg_pool.ConnectionPool(url, min_size=1, open=True, check=check) as pool:
        states = live_through(Repository(PostgresStorage(pool)), lambda: flush(url), lambda: kill_a_backend(url))
    require_whole(url, states)


def test_redis_comes_back_with_its_last_snapshot() -> None:
    with redis_server.running("--save", "3600 1000000") as server, closing(redis.Redis.from_url(server.url)) as client:

        def go_back() -> None:
            server.stop()
            assert server.start()

        require_whole(server.url, live_through(server.url, client.save, go_back))


def follow(replica: redis.Redis, primary: redis.Redis) -> None:
    """Make a server the replica of another and wait until it has all that this has."""
    host, port = (primary.connection_pool.connection_kwargs[name] for name in ("host", "port"))
    replica.replicaof(host, port)
    deadline = time.monotonic() + 20
    while replica.info("replication").get("master_link_status") != "up":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert primary.wait(1, 20_000) == 1


def test_redis_is_replaced_and_comes_back_in_the_place_of_its_replacement() -> None:
    with (
        redis_server.running("--repl-diskless-sync-delay", "0") as server,
        redis_server.running("--repl-diskless-sync-delay", "0") as other,
        closing(redis.Redis.from_url(server.url)) as first,
        closing(redis.Redis.from_url(other.url)) as second,
    ):
        run = first.info("server")["run_id"]

        def part() -> None:
            follow(second, first)
            second.replicaof("NO", "ONE")

        def go_back() -> None:
            follow(first, second)
            first.replicaof("NO", "ONE")
            assert first.info("server")["run_id"] == run

        require_whole(server.url, live_through(server.url, part, go_back))


def test_a_collection_is_given_up_when_the_thread_it_removes_is_alive_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with redis_server.running("--save", "3600 1000000") as server, closing(redis.Redis.from_url(server.url)) as client:
        settled = Collector._settled_packs

        def go_back(self: Collector) -> Packs:
            server.stop()
            assert server.start()
            return settled(self)

        with ckpt.open(server.url) as repository:
            before(repository)
            client.save()
            repository.delete("kept")
            monkeypatch.setattr(Collector, "_settled_packs", go_back)
            with pytest.raises(ConflictError, match="started again"):
                repository.gc(grace=timedelta(0))
            monkeypatch.undo()
        with ckpt.open(server.url) as repository:
            assert repository.thread("kept").state()["prompt"] == words(0)
            repository.gc(grace=timedelta(0))
            assert repository.fsck().problems == []
            assert repository.thread("kept").state()["prompt"] == words(0)


def test_keys_are_rotated_once_more_when_what_was_sealed_anew_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    key = bytes(range(32))
    with redis_server.running("--save", "3600 1000000") as server, closing(redis.Redis.from_url(server.url)) as client:
        with ckpt.open(server.url, encryption_key=key) as repository:
            before(repository)
        records, frames = rotation._reseal_records, rotation._reseal_frames
        crashes: list[bool] = []

        def saved_before(storage: EncryptedStorage) -> int:
            if not crashes:
                client.save()
            return records(storage)

        def gone_behind(storage: EncryptedStorage) -> int:
            if not crashes:
                crashes.append(True)
                server.stop()
                assert server.start()
            return frames(storage)

        monkeypatch.setattr(rotation, "_reseal_records", saved_before)
        monkeypatch.setattr(rotation, "_reseal_frames", gone_behind)
        rotate(server.url, key, data=True)
        assert crashes == [True]
        with ckpt.open(server.url, encryption_key=key) as repository:
            assert repository.thread("kept").state()["prompt"] == words(0)
            assert repository.fsck().problems == []


def test_keys_are_rotated_from_the_beginning_when_frames_that_were_sealed_anew_are_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their numbers are given out again, to frames of others, on which nothing may be chained."""
    key = bytes(range(32))
    with (
        redis_server.running("--save", "3600 1000000") as server,
        closing(redis.Redis.from_url(server.url)) as client,
        ckpt.open(server.url, encryption_key=key) as repository,
    ):
        states: dict[str, object] = {}
        for count in range(1, 13):
            states["kept"] = {"log": [words(n, 60) for n in range(count)]}
            repository.thread("kept").commit(states["kept"])
        move = rotation._Frames._move
        steps = 0

        def go_back(self: rotation._Frames, old: Mapping[int, StoredFrame]) -> None:
            nonlocal steps
            steps += 1
            if steps == 2:
                client.save()
            if steps == 4:
                server.stop()
                assert server.start()
                for n in range(6):
                    states[f"new-{n}"] = {"doc": words(100 + n, 200)}
                    repository.thread(f"new-{n}").commit(states[f"new-{n}"])
            move(self, old)

        monkeypatch.setattr(rotation, "_FRAMES_AT_ONCE", 3)
        monkeypatch.setattr(rotation._Frames, "_move", go_back)
        rotate(server.url, key, data=True)
        assert steps > 4
        with ckpt.open(server.url, encryption_key=key) as other:
            assert {name: other.thread(name).state() for name in states} == states
            assert other.fsck().problems == []


def test_a_thread_that_is_alive_again_keeps_its_checkpoints_and_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long one, whose rows are removed in steps: the server forgets before the first that it was deleted."""
    with redis_server.running("--save", "3600 1000000") as server, closing(redis.Redis.from_url(server.url)) as client:
        going_with = Remover._going_with

        def go_back(self: Remover, thread: ThreadRecord, timeline: Timeline) -> Iterator[tuple[Tag, int | None]]:
            found = list(going_with(self, thread, timeline))
            server.stop()
            assert server.start()
            return iter(found)

        with ckpt.open(server.url) as repository:
            for n in range(5):
                repository.thread("kept").commit({"n": n})
            repository.tag("good", "kept~2")
            client.save()
            repository.delete("kept")
            monkeypatch.setattr(remove_short, "ROWS_MAX", 4)
            monkeypatch.setattr(Remover, "_going_with", go_back)
            repository.gc(grace=timedelta(0))
        with ckpt.open(server.url) as other:
            held = [other.state(f"id:{info.id}", thread="kept") for info in other.log(thread="kept")]
            assert held == [{"n": n} for n in reversed(range(5))]
            assert other.state("tag:good") == {"n": 2}
            assert other.fsck().problems == []


def test_a_backup_is_put_back_into_the_tables_of_an_open_store(connection: Connection, postgres_url: str) -> None:
    schema = schema_of(postgres_url)
    tables = ("meta", "record", "frame")

    def run(*statements: str) -> None:
        with connection.transaction():
            for statement in statements:
                connection.execute(statement.encode())

    def back_up() -> None:
        run(*(f"CREATE TEMP TABLE kept_{table} AS TABLE {schema}.{table}" for table in tables))

    def put_back() -> None:
        run(
            f"TRUNCATE {', '.join(f'{schema}.{table}' for table in tables)} RESTART IDENTITY",
            *(f"INSERT INTO {schema}.{table} OVERRIDING SYSTEM VALUE TABLE kept_{table}" for table in tables),
            f"SELECT setval(pg_get_serial_sequence('{schema}.frame', 'number'), (SELECT max(number) FROM kept_frame))",
        )

    require_whole(postgres_url, live_through(postgres_url, back_up, put_back))

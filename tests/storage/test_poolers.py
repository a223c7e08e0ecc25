"""A PostgreSQL store behind a PgBouncer that has few server connections and gives each statement another one."""

from __future__ import annotations

import operator
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypedDict

import psycopg
import psycopg_pool
import pytest
from interrupt_kit import Interrupted, alarm
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from network_kit import PgBouncer, pgbouncer
from postgres_server import postgres_schema, schema_of
from postgres_wire import wire_to

import ckpt
from ckpt.errors import StoreUnavailableError
from ckpt.langgraph import CkptSaver, CkptStore
from ckpt.repository import Repository, gc
from ckpt.storage.base import Batch, Frame, Storage
from ckpt.storage.postgres import PostgresStorage
from ckpt.storage.postgres_exchange import Owned
from ckpt.testing import StorageContract
from ckpt.testing.fixtures import add, at_once

CONNECTIONS = 3
Admin = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(scope="module")
def bouncer(postgres_dsn: str) -> Iterator[PgBouncer]:
    sizes = {"default_pool_size": CONNECTIONS, "min_pool_size": CONNECTIONS}
    with pgbouncer(postgres_dsn, pool_mode="transaction", **sizes) as running:
        yield running


@pytest.fixture
def pooled_url(bouncer: PgBouncer) -> Iterator[str]:
    with postgres_schema(bouncer.url) as url:
        yield url


class TestBehindPgBouncer(StorageContract):
    @pytest.fixture(autouse=True)
    def database(self, pooled_url: str) -> None:
        self.url = pooled_url

    def open_storage(self, location: Path) -> Storage:
        return PostgresStorage(self.url)


def test_statements_of_one_connection_are_run_by_several(bouncer: PgBouncer) -> None:
    """What all tests here rely on."""
    backends: set[tuple[Any, ...]] = set()
    deadline = time.monotonic() + 10
    with psycopg.connect(bouncer.url, autocommit=True, prepare_threshold=None) as connection:
        # PgBouncer opens those that are missing from time to time.
        while len(backends) < CONNECTIONS and time.monotonic() < deadline:
            backends.update(connection.execute("SELECT pg_backend_pid()").fetchall())
    assert len(backends) == CONNECTIONS


def test_nothing_is_prepared_by_name(bouncer: PgBouncer, pooled_url: str) -> None:
    with wire_to(bouncer.url) as lent, closing(PostgresStorage(lent.url, schema=schema_of(pooled_url))) as storage:
        for number in range(30):
            add(storage, b"sum", number)
        with storage._source.lend() as connection:
            assert isinstance(connection, Owned) and not connection.direct
        parsed = [request for request in lent.requests if request.startswith(b"P")]
        assert len(parsed) > 30 and [request for request in parsed if request[5:6] != b"\x00"] == []


def test_a_pool_that_prepares_statements_may_be_passed_in(bouncer: PgBouncer, pooled_url: str) -> None:
    with psycopg_pool.ConnectionPool(bouncer.url, min_size=1, kwargs={"prepare_threshold": 0}) as pool:
        storage = PostgresStorage(pool, schema=schema_of(pooled_url))
        at_once(6, lambda number: [add(storage, b"sum", number) for _ in range(10)])
        with storage.exclusive() as session:
            session.write(Batch({b"sum": b"150"}, {b"sum": b"151"}))
        assert storage.read([b"sum"]) == [b"151"]


# -- LangGraph --------------------------------------------------------------------------------------------


class Chat(TypedDict):
    texts: Annotated[list[str], operator.add]


def chat(saver: CkptSaver) -> Any:
    """A graph that answers twice, and asks a person in between."""
    builder = StateGraph(Chat)
    builder.add_node("think", lambda state: {"texts": [state["texts"][-1][::-1] * 20]})
    builder.add_node("ask", lambda state: {"texts": [interrupt("may I?")]})
    builder.add_edge(START, "think")
    builder.add_edge("think", "ask")
    builder.add_edge("ask", END)
    return builder.compile(checkpointer=saver)


def talk(graph: Any, thread: str, turns: int) -> None:
    config = {"configurable": {"thread_id": thread}}
    for turn in range(turns):
        graph.invoke({"texts": [f"{thread} {turn}"]}, config)
        graph.invoke(Command(resume=f"yes {turn}"), config)


def said(thread: str, turns: int) -> list[str]:
    return [
        text for turn in range(turns) for text in (f"{thread} {turn}", f"{thread} {turn}"[::-1] * 20, f"yes {turn}")
    ]


def test_eight_threads_run_graphs_while_the_store_is_collected(pooled_url: str) -> None:
    with CkptSaver(pooled_url) as saver, closing(ckpt.open(pooled_url)) as repository:
        graph = chat(saver)
        talk(graph, "gone", 2)
        repository.delete("gone")
        working = set(range(8))

        def work(number: int) -> None:
            if number in working:
                try:
                    talk(graph, f"t{number}", 3)
                finally:
                    working.discard(number)
            else:
                while working:
                    repository.gc(grace=timedelta(0))

        at_once(9, work)
    with CkptSaver(pooled_url) as saver:
        graph = chat(saver)
        for number in range(8):
            config = {"configurable": {"thread_id": f"t{number}"}}
            assert graph.get_state(config).values["texts"] == said(f"t{number}", 3)
            assert len(list(graph.get_state_history(config))) == 12
        assert sorted(thread.name for thread in saver.repository.threads()) == [f"t{number}" for number in range(8)]
        assert saver.repository.fsck().problems == []


def test_a_collector_gets_by_with_the_one_connection_that_is_left(
    postgres_dsn: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who wait for the collector hold all others, of a pool and of a pooler alike."""
    packed = gc._packed
    with (
        closing(ckpt.open(postgres_url)) as other,
        psycopg_pool.ConnectionPool(postgres_dsn, min_size=1, max_size=1, timeout=2) as pool,
    ):
        thread = other.thread("t")
        for turn in range(3):
            thread.commit({"text": f"{turn} " * 500})

        def late(*arguments: Any) -> Any:
            # What the collector has to read while it has the store to itself.
            thread.commit({"late": [f"{number} " * 500 for number in range(9)]})
            return packed(*arguments)

        monkeypatch.setattr(gc, "_packed", late)
        Repository(PostgresStorage(pool, schema=schema_of(postgres_url))).gc(grace=timedelta(0))
        assert other.fsck().problems == []
        assert thread.state()["late"][8] == "8 " * 500


def test_pgvector_ranks_through_it(postgres_dsn: str, bouncer: PgBouncer) -> None:
    name = f"d_{secrets.token_hex(6)}"
    url = bouncer.url.replace("/postgres?", f"/{name}?")

    def embed(texts: Any) -> list[list[float]]:
        return [[float(text.count(letter)) for letter in "abcdefgh"] for text in texts]

    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        if admin.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchone() is None:
            pytest.skip("NO PGVECTOR on this PostgreSQL server, its tests did not run")
        admin.execute(f"CREATE DATABASE {name}".encode())
        try:
            for _ in range(2):
                with CkptStore(url, index={"dims": 8, "embed": embed, "fields": ["text"]}) as store:
                    for number, letter in enumerate("abcdefgh"):
                        store.put(("n",), letter, {"text": letter * (number + 1)})
                    for letter in "adh":
                        assert [item.key for item in store.search(("n",), query=letter, limit=1)] == [letter]
                    store.repository.gc(grace=timedelta(0))
            with psycopg.connect(url, autocommit=True) as connection:
                assert connection.execute("SELECT count(*) FROM ckpt.ckpt_embedding").fetchone() == (8,)
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


# -- what goes wrong --------------------------------------------------------------------------------------


def test_nothing_is_lost_or_done_twice_when_the_server_ends_connections(
    pooled_url: str, bouncer: PgBouncer, admin: Admin
) -> None:
    with closing(PostgresStorage(pooled_url)) as storage:
        stop = threading.Event()
        ended = 0

        def work(number: int) -> None:
            nonlocal ended
            if number == 4:
                try:
                    for _ in range(5):
                        time.sleep(0.05)
                        ended += admin.execute(
                            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                            " WHERE application_name = %s AND pid <> pg_backend_pid()",
                            (schema_of(pooled_url),),
                        ).rowcount
                finally:
                    stop.set()
                return
            while not stop.is_set() or sums[number] <= 5:
                add(storage, b"%d" % number, 1)
                sums[number] += 1

        sums = [0] * 4
        at_once(5, work)
        assert storage.read([b"%d" % number for number in range(4)]) == [b"%d" % total for total in sums]
        assert min(sums) > 5
        assert ended > 0


def test_a_pooler_that_restarts_is_waited_for(postgres_dsn: str) -> None:
    with (
        pgbouncer(postgres_dsn, pool_mode="transaction") as own,
        postgres_schema(own.url) as url,
        closing(PostgresStorage(url)) as storage,
    ):
        storage.publish(Batch(records={b"a": b"1"}))
        own.stop()
        later = threading.Timer(0.3, own.start)
        later.start()
        (number,) = storage.publish(Batch({b"a": b"1"}, {b"a": b"2"}, [Frame(0, b"f", ())]))
        later.join()
        assert storage.read([b"a"]) == [b"2"]
        assert [row[0] for row in storage.scan_frames(0, 9)] == [number]


def test_an_interrupted_write_is_given_up_behind_the_pooler_too(pooled_url: str) -> None:
    with closing(PostgresStorage(pooled_url)) as storage, closing(PostgresStorage(pooled_url)) as other:
        with other.exclusive() as session:
            with alarm(0.3), pytest.raises(Interrupted):
                storage.publish(Batch(records={b"a": b"interrupted"}))
            session.raise_epoch()
        storage.publish(Batch(records={b"b": b"1"}))
        assert storage.read([b"a", b"b"]) == [None, b"1"]


def test_a_reader_does_without_the_servers_word_where_options_are_refused(pooled_url: str) -> None:
    with closing(ckpt.open(pooled_url)) as repository:
        repository.thread("t").commit({"n": 1})
    with closing(ckpt.open(pooled_url, readonly=True)) as repository:
        assert repository.thread("t").state() == {"n": 1}
        with pytest.raises(StoreUnavailableError, match="read-only"):
            repository.thread("t").commit({"n": 2})


def test_a_pooler_that_is_full_says_so(postgres_dsn: str) -> None:
    with pgbouncer(postgres_dsn, pool_mode="transaction", max_client_conn=1) as own:
        with psycopg.connect(own.url), pytest.raises(StoreUnavailableError) as caught:
            PostgresStorage(own.url)
        assert "max_client_conn" in caught.value.message


# -- statement mode ---------------------------------------------------------------------------------------


def test_in_statement_mode_a_store_is_used_and_neither_made_nor_collected(postgres_dsn: str, postgres_url: str) -> None:
    with pgbouncer(postgres_dsn, pool_mode="statement", default_pool_size=CONNECTIONS) as own:
        url = f"{own.url}&schema={schema_of(postgres_url)}"
        calls: list[Callable[[], object]] = [lambda: ckpt.open(url)]
        for _ in range(2):
            for call in calls:
                with pytest.raises(StoreUnavailableError, match="statement pooling mode") as caught:
                    call()
                assert "pool_mode = transaction" in caught.value.hints[0]
            ckpt.open(postgres_url).close()
            repository = ckpt.open(url)
            calls = [lambda repository=repository: repository.gc(grace=timedelta(0))]  # type: ignore[misc]
        with closing(repository):
            at_once(4, lambda number: repository.thread(f"t{number}").commit({"n": number}))
            repository.fork("t1", "f")
            repository.delete("t2")
            assert sorted(thread.name for thread in repository.threads()) == ["f", "t0", "t1", "t3"]
            assert repository.thread("f").state() == {"n": 1}
            assert repository.fsck().problems == []

"""What PostgreSQL comparing the vectors spares, and that a search does without whatever is missing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from threading import Barrier, Thread
from typing import Any

import psycopg
import pytest
from langgraph.store.base import PutOp
from psycopg.pq import TransactionStatus
from vector_kit import ANA, INDEX, TABLE, Watched, fill, kept, name, new_database, new_role, packed, rows, run

import ckpt
from ckpt.errors import StoreUnavailableError
from ckpt.langgraph import CkptStore
from ckpt.repository import Repository
from ckpt.storage.postgres import PostgresStorage
from ckpt.storage.postgres_sql import Session
from ckpt.storage.postgres_vectors import PostgresVectors

WIDE = 512


@pytest.fixture
def database(postgres_dsn: str) -> Iterator[str]:
    """A database that nobody has used the extension in."""
    with new_database(postgres_dsn) as url:
        yield url


def embed_wide(texts: Sequence[str]) -> list[list[float]]:
    """Vectors that do not compress, of a size that shows in what is sent."""
    return [[random.Random(f"{text} {at}").gauss(0, 1) for at in range(WIDE)] for text in texts]


WIDE_INDEX: Any = {"dims": WIDE, "embed": embed_wide, "fields": ["text"]}


# -- what it spares -----------------------------------------------------------------------------------


def test_the_second_search_sends_no_vectors(database: str) -> None:
    with CkptStore(database, index=WIDE_INDEX) as store:
        for start in range(0, 400, 50):
            store.batch([PutOp(ANA, f"{number}", {"text": f"text {number}"}) for number in range(start, start + 50)])

    def search() -> tuple[Watched, list[str]]:
        storage = Watched(database)
        with closing(storage), CkptStore(Repository(storage), index=WIDE_INDEX) as store:
            storage.trips = 0
            found = [item.key for item in store.search(ANA, query="text 7", limit=2)]
        return storage, found

    first, found = search()
    assert found[0] == "7"
    assert kept(database) == 400
    second, again = search()
    assert again == found
    vectors = 400 * 4 * WIDE
    assert first.bytes > 0.8 * vectors > 4 * second.bytes
    assert second.trips < first.trips


def test_a_long_process_asks_once_what_the_server_has(database: str) -> None:
    storage = Watched(database)
    with closing(storage), CkptStore(Repository(storage), index=INDEX) as store:
        fill(store)
        for _ in range(2):
            store.search(ANA, query="text 1")
        before = storage.trips
        for number in range(3):
            store.search(ANA, query=f"text {number}")
        # The memory's records, and the comparison; values are remembered.
        assert storage.trips - before == 6
        store.put(ANA, "new", {"text": "another text"})
        store.search(ANA, query="another text")
        assert kept(database) == 6


def test_a_store_without_an_index_asks_for_nothing(database: str) -> None:
    with CkptStore(database) as store:
        fill(store)
        store.search(ANA, query="text 1")
        store.repository.gc(grace=timedelta(0))
    assert kept(database) is None
    assert rows(database, "SELECT 1 FROM pg_extension WHERE extname = 'vector'") == []


# -- collecting ---------------------------------------------------------------------------------------


def test_a_collection_removes_what_no_search_asks_for(database: str) -> None:
    with CkptStore(database, index=INDEX) as store, CkptStore(database, index=INDEX, graph="other") as other:
        fill(store)
        other.put(ANA, "o", {"text": "of another graph"})
        fork = store.fork("fork")
        for each in (store, other):
            each.search(ANA, query="text 1")
        store.put(ANA, "0", {"text": "replaced"})
        store.delete(ANA, "1")
        fork.delete(ANA, "1")
        store.search(ANA, query="text 1")
        assert kept(database) == 7
        for _ in range(2):
            assert store.repository.gc(grace=timedelta(0), dry_run=True) and kept(database) == 7
        for _ in range(2):
            store.repository.gc(grace=timedelta(0))
            # `text 0` is still found in the fork; `text 1` nowhere.
            assert kept(database) == 6
        assert [item.key for item in fork.search(ANA, query="text 0", limit=1)] == ["0"]
        assert [item.key for item in store.search(ANA, query="replaced", limit=1)] == ["0"]
        assert store.repository.fsck().problems == []
        fork.memory.drop()
        store.repository.gc(grace=timedelta(0))
        assert kept(database) == 5


def test_the_table_counts_in_the_size_of_the_store(database: str) -> None:
    with CkptStore(database, index=WIDE_INDEX) as store:
        fill(store, 100)
        before = store.repository.storage.usage().disk
        store.search(ANA, query="text 1")
        assert store.repository.storage.usage().disk - before > 100 * 4 * WIDE


# -- what may be missing --------------------------------------------------------------------------------


def test_the_table_may_be_dropped_at_any_time(database: str) -> None:
    with CkptStore(database, index=INDEX) as store:
        fill(store)
        for _ in range(3):
            assert store.search(ANA, query="text 2", limit=1)[0].key == "2"
            assert kept(database) == 5
            run(database, f"DROP TABLE {TABLE}")
        store.repository.gc(grace=timedelta(0))
        assert store.repository.fsck().problems == []
        store.search(ANA, query="text 2")
        run(database, "DROP EXTENSION vector CASCADE")
        for _ in range(2):
            assert store.search(ANA, query="text 2", limit=1)[0].key == "2"
    with CkptStore(database, index=INDEX) as store:
        assert store.search(ANA, query="text 2", limit=1)[0].key == "2"


def test_a_table_of_others_is_left_alone(database: str) -> None:
    with CkptStore(database, index=INDEX) as store:
        fill(store)
        run(database, f"CREATE EXTENSION vector; CREATE TABLE {TABLE} (id bytea); INSERT INTO {TABLE} VALUES ('x')")
        for _ in range(2):
            assert store.search(ANA, query="text 2", limit=1)[0].key == "2"
        store.repository.gc(grace=timedelta(0))
    assert rows(database, f"SELECT * FROM {TABLE}") == [(b"x",)]


def test_the_extension_may_be_anywhere(database: str) -> None:
    run(database, 'CREATE SCHEMA "odd %s name"; CREATE EXTENSION vector SCHEMA "odd %s name"')
    with ckpt.open(f"{database}&schema=odd%20%25t") as repository, CkptStore(repository, index=INDEX) as store:
        fill(store)
        for _ in range(2):
            assert store.search(ANA, query="text 2", limit=1)[0].key == "2"
        assert rows(database, 'SELECT count(*) FROM "odd %t".ckpt_embedding') == [(5,)]
        store.repository.gc(grace=timedelta(0))


def test_who_may_not_create_the_extension_does_without(database: str) -> None:
    with new_role(database) as (role, url):
        run(database, f"CREATE SCHEMA ckpt; GRANT ALL ON SCHEMA ckpt TO {role}")
        storage = Watched(url)
        with closing(storage), CkptStore(Repository(storage), index=INDEX) as store:
            fill(store)
            assert store.search(ANA, query="text 2", limit=1)[0].key == "2"
            before = storage.trips
            assert store.search(ANA, query="text 3", limit=1)[0].key == "3"
            # It was asked once; vectors and values are remembered.
            assert storage.trips - before == 1
        assert kept(database) is None
        with psycopg.connect(url, autocommit=True) as connection:
            with CkptStore(Repository(PostgresStorage(connection)), index=INDEX) as store:
                assert store.search(ANA, query="text 2", limit=1)[0].key == "2"
            assert connection.info.transaction_status == TransactionStatus.IDLE


def test_who_may_not_look_does_without(database: str) -> None:
    with CkptStore(database, index=INDEX) as store, new_role(database) as (role, url):
        fill(store)
        run(database, f"GRANT USAGE ON SCHEMA ckpt TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA ckpt TO {role}")
        store.search(ANA, query="text 1")
        storage = Watched(url)
        with closing(storage), CkptStore(Repository(storage), index=INDEX) as looking:
            for _ in range(2):
                assert looking.search(ANA, query="text 3", limit=1)[0].key == "3"
            before = storage.trips
            looking.search(ANA, query="text 1")
            assert storage.trips - before == 1


def test_a_server_that_went_away_is_asked_again(database: str) -> None:
    with closing(PostgresStorage(database)) as storage:
        lend, gone = storage._lend, [True]

        def lend_or_fail(call: Callable[[Session], Any]) -> Any:
            if gone:
                raise StoreUnavailableError("the server went away") from psycopg.OperationalError("so it is")
            return lend(call)

        ranking = PostgresVectors(lend_or_fail, '"ckpt"', readonly=False)
        vectors = {name(1): packed([1.0, 0.0])}
        assert not ranking.add(vectors)
        for call in (lambda: ranking.nearest([1.0, 0.0], [name(1)], 1), lambda: ranking.names(b"", 1)):
            with pytest.raises(StoreUnavailableError, match="went away"):
                call()
        gone.clear()
        assert ranking.add(vectors)
        assert ranking.nearest([1.0, 0.0], [name(1)], 1) == ([(name(1), 1.0)], set())


def test_who_may_only_look_uses_what_is_there(database: str) -> None:
    with CkptStore(database, index=INDEX) as store, new_role(database) as (role, url):
        fill(store)
        store.search(ANA, query="text 1")
        run(database, f"GRANT USAGE ON SCHEMA ckpt TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA ckpt TO {role}")
        store.put(ANA, "5", {"text": "text 5"})
        storage = Watched(url)
        with closing(storage), CkptStore(Repository(storage), index=INDEX) as looking:
            for _ in range(2):
                for number in range(6):
                    assert looking.search(ANA, query=f"text {number}", limit=1)[0].key == f"{number}"
            before = storage.trips
            looking.search(ANA, query="text 1")
            assert storage.trips - before == 2
        assert kept(database) == 5


def test_a_store_open_for_reading_only_adds_nothing(database: str) -> None:
    with CkptStore(database, index=INDEX) as store, ckpt.open(database, readonly=True) as repository:
        fill(store)
        reading = CkptStore(repository, index=INDEX)
        for expected in (None, 5):
            for number in range(5):
                assert reading.search(ANA, query=f"text {number}", limit=1)[0].key == f"{number}"
            assert kept(database) == expected
            store.search(ANA, query="text 1")


def test_in_the_callers_transaction_nothing_is_added(database: str) -> None:
    with CkptStore(database, index=INDEX) as store:
        fill(store)
    for expected in (None, 6, 6):
        with CkptStore(database, index=INDEX) as store:
            store.put(ANA, "new", {"text": f"not searched for, {expected}"})
        with psycopg.connect(database) as connection:
            connection.execute("SELECT 1")
            store = CkptStore(Repository(PostgresStorage(connection)), index=INDEX)
            for _ in range(2):
                assert store.search(ANA, query="text 2", limit=1)[0].key == "2"
            assert connection.info.transaction_status == TransactionStatus.INTRANS
        assert kept(database) == expected
        with CkptStore(database, index=INDEX) as store:
            store.search(ANA, query="text 2")
            store.repository.gc(grace=timedelta(0))


def test_an_encrypted_store_keeps_no_vectors_to_be_seen(database: str) -> None:
    with CkptStore(database, index=INDEX, encryption_key=bytes(range(32))) as store:
        fill(store)
        for _ in range(2):
            assert store.search(ANA, query="text 2", limit=1)[0].key == "2"
        assert store.repository.storage.ranking is None
    assert kept(database) is None


def test_the_first_use_by_many_at_once(database: str) -> None:
    vectors = {name(number): packed([1.0, float(number)]) for number in range(50)}
    storages = [PostgresStorage(database, pool_size=2) for _ in range(24)]
    together = Barrier(len(storages))

    def use(storage: PostgresStorage) -> None:
        together.wait()
        storage.ranking.add(vectors)

    threads = [Thread(target=use, args=(storage,)) for storage in storages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for storage in storages:
        assert storage.ranking.nearest([1.0, 0.0], list(vectors), 1) == ([(name(0), pytest.approx(1.0))], set())
        # Nobody has concluded that there is nothing to be had.
        storage.ranking.add({name(99): packed([1.0, 1.0])})
        assert storage.ranking.names(name(50), 10) == [name(99)]
        storage.ranking.remove([name(99)])
        storage.close()

"""Who has a PostgreSQL store to itself, who waits for that, and for how long the others wait for both."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from postgres_server import schema_of

from ckpt.errors import ConflictError, StoreLockedError
from ckpt.storage import postgres, postgres_sql
from ckpt.storage.base import Batch
from ckpt.storage.postgres import PostgresStorage


@pytest.fixture
def storage(postgres_url: str) -> Iterator[PostgresStorage]:
    with closing(PostgresStorage(postgres_url)) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
        yield storage


@pytest.fixture
def other(storage: PostgresStorage, postgres_url: str) -> Iterator[PostgresStorage]:
    """Another process, which does not wait for ever."""
    with closing(PostgresStorage(f"{postgres_url}&options=-c%20lock_timeout%3D10s")) as other:
        yield other


def test_a_holder_that_says_nothing_loses_the_store(
    storage: PostgresStorage, other: PostgresStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a program that is stopped (SIGSTOP), or paused with the machine it is on."""
    monkeypatch.setattr(postgres_sql, "IDLE_SECONDS", 0.5)
    with pytest.raises(ConflictError, match="held for too long") as caught, storage.exclusive() as session:
        session.write(Batch(records={b"a": b"2", b"b": b"2"}))
        assert other.publish(Batch({b"b": None}, {b"b": b"1"})) == []
        session.read([b"a"])
    assert caught.value.hints == ("nothing was applied: do it again",)
    assert storage.read([b"a", b"b"]) == [b"1", b"1"]
    with storage.exclusive() as session:
        session.write(Batch(records={b"a": b"3"}))
    assert other.read([b"a"]) == [b"3"]


def test_a_holder_that_says_nothing_before_it_ends_has_written_nothing(
    storage: PostgresStorage, other: PostgresStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_sql, "IDLE_SECONDS", 0.5)
    with pytest.raises(ConflictError, match="held for too long"), storage.exclusive() as session:
        session.write(Batch(records={b"a": b"2"}))
        other.publish(Batch(records={b"b": b"1"}))
    assert storage.read([b"a", b"b"]) == [b"1", b"1"]


def test_what_bounds_a_holder_is_gone_with_its_transaction(storage: PostgresStorage) -> None:
    settings = ("lock_timeout", "idle_in_transaction_session_timeout")
    with storage._source.lend() as connection:
        before = [connection.execute(f"SHOW {name}".encode()).fetchone() for name in settings]
    with storage.exclusive() as session:
        session.write(Batch(records={b"a": b"2"}))
    with storage._source.lend() as connection:
        assert [connection.execute(f"SHOW {name}".encode()).fetchone() for name in settings] == before


def test_in_a_transaction_of_the_callers_nothing_is_bounded(
    storage: PostgresStorage, postgres_dsn: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_sql, "IDLE_SECONDS", 0.2)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection, connection.transaction():
        with PostgresStorage(connection, schema=schema_of(postgres_url)).exclusive() as session:
            session.write(Batch(records={b"a": b"2"}))
            time.sleep(0.5)
        time.sleep(0.5)
    assert storage.read([b"a"]) == [b"2"]


def test_who_waits_for_an_open_transaction_lets_others_through(
    storage: PostgresStorage,
    other: PostgresStorage,
    postgres_dsn: str,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres_sql, "WAIT_SECONDS", 0.2)
    monkeypatch.setattr(postgres, "WAIT_SECONDS", 0.2)
    ended = threading.Event()

    def alone() -> None:
        with storage.exclusive() as session:
            session.write(Batch(records={b"a": b"3"}))
        ended.set()

    with psycopg.connect(postgres_dsn, autocommit=True) as connection, connection.transaction():
        PostgresStorage(connection, schema=schema_of(postgres_url)).publish(Batch(records={b"a": b"2"}))
        waiting = threading.Thread(target=alone, daemon=True)
        waiting.start()
        time.sleep(0.1)
        for number in range(20):
            other.publish(Batch(records={b"n": b"%d" % number}))
            time.sleep(0.02)
        assert not ended.is_set()
    waiting.join(10)
    assert ended.is_set()
    assert storage.read([b"a", b"n"]) == [b"3", b"19"]


def test_an_open_transaction_is_not_waited_for_without_end(
    storage: PostgresStorage, postgres_dsn: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_sql, "WAIT_SECONDS", 0.1)
    monkeypatch.setattr(postgres, "_LOCK_SECONDS_MAX", 0)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection, connection.transaction():
        PostgresStorage(connection, schema=schema_of(postgres_url)).publish(Batch(records={b"a": b"2"}))
        with pytest.raises(StoreLockedError, match="locked by another process") as caught, storage.exclusive():
            pass
        assert "pg_stat_activity" in caught.value.hints[1]
    with storage.exclusive() as session:
        assert session.read([b"a"]) == [b"2"]


def test_a_writer_with_a_lock_timeout_of_its_own_is_told_that_the_store_is_locked(
    storage: PostgresStorage, postgres_url: str
) -> None:
    with closing(PostgresStorage(f"{postgres_url}&options=-c%20lock_timeout%3D100ms")) as hasty:
        with storage.exclusive(), pytest.raises(StoreLockedError):
            hasty.publish(Batch(records={b"a": b"2"}))
        hasty.publish(Batch(records={b"a": b"3"}))
    assert storage.read([b"a"]) == [b"3"]

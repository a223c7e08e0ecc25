"""Interrupts of calls on a PostgreSQL store: no connection is lost, none is left at work, nothing is half-done."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import Any

import psycopg
import psycopg_pool
import pytest
from interrupt_kit import Interrupted, alarm, interrupt_at
from postgres_server import schema_of
from psycopg.pq import TransactionStatus

from ckpt.errors import StoreUnavailableError
from ckpt.storage import postgres_pool
from ckpt.storage.base import Batch, Frame
from ckpt.storage.postgres import PostgresStorage

ALL = (b"", b"\xff" * 1101)
INSIDE = ("postgres", "contextlib", "cursor", "transaction", "connection", "_connection")
"""Our files, and those of psycopg and of Python that they go through."""
SIZE = 3
PROMPT = 15.0
"""Seconds in which an interrupt that waits for nothing is settled, however busy the machine is."""
Admin = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_pool, "_WAIT_SECONDS", 1.0)
    monkeypatch.setattr(postgres_pool, "_LOOK_SECONDS", 0.2)
    # Far more than a busy machine holds anything up: who waits in vain is found out.
    monkeypatch.setattr(postgres_pool, "_CANCEL_SECONDS", 3 * PROMPT)


def batch(name: str) -> Batch:
    """Return a batch that can be applied only once."""
    return Batch({name.encode(): None}, {name.encode(): b"of " + name.encode()}, [Frame(0, name.encode(), ())])


def at_work(admin: Admin, schema: str) -> list[tuple[object, ...]]:
    """Return the connections of a store that stay in a statement or in a transaction.

    A server takes a moment to see that a connection was closed.
    """
    deadline = time.monotonic() + 5
    while True:
        found = admin.execute(
            "SELECT state, query FROM pg_stat_activity WHERE application_name = %s AND state <> 'idle'", (schema,)
        ).fetchall()
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.001)


def check_all_usable(storage: PostgresStorage) -> None:
    with ExitStack() as stack:
        lent = [stack.enter_context(storage._source.lend()) for _ in range(SIZE)]
        assert len({connection.info.backend_pid for connection in lent}) == SIZE
        for connection in lent:
            assert connection.execute("SELECT 7").fetchone() == (7,)
    assert storage._source._pool.get_stats()["pool_size"] < SIZE  # type: ignore[attr-defined]


def write_alone(storage: PostgresStorage, name: str) -> None:
    with storage.exclusive() as session:
        session.write(batch(name))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Interrupted])
@pytest.mark.parametrize("write", [lambda storage, name: storage.publish(batch(name)), write_alone])
def test_an_interrupt_anywhere_in_a_write_leaves_all_or_nothing(
    postgres_url: str, admin: Admin, write: Callable[[PostgresStorage, str], object], kind: type[BaseException]
) -> None:
    outcomes, done = set(), 0
    with closing(PostgresStorage(postgres_url, pool_size=SIZE)) as storage:
        for moment in range(1, 2000):
            name = f"k{moment:04}"
            ended = interrupt_at(moment, lambda name=name: write(storage, name), INSIDE, kind)  # type: ignore[misc]
            assert at_work(admin, schema_of(postgres_url)) == [], moment
            written = storage.read([name.encode()]) == [f"of {name}".encode()]
            if ended is not None:
                assert written
                break
            outcomes.add(written)
            done += written
            storage.publish(batch(f"next {moment}"))
            done += 1
            assert len(storage.scan_frames(0, 9999)) == done, moment
            check_all_usable(storage)
        else:
            pytest.fail("it never ended")
    assert outcomes == {True, False}


def test_an_interrupt_at_any_line_of_what_is_sent_takes_no_time(postgres_url: str, admin: Admin) -> None:
    """Whether the statement is prepared already, in a new connection, or not; the server may have nothing to answer."""
    for warm in (False, True):
        for moment in range(1, 1000):
            with closing(PostgresStorage(postgres_url, pool_size=SIZE)) as storage:
                if warm:
                    storage.publish(batch(f"before {moment}"))
                name, begun = f"{warm} {moment}", time.monotonic()
                write = partial(storage.publish, batch(name))
                ended = interrupt_at(moment, write, ("postgres_exchange",), Interrupted, each="line")
                assert time.monotonic() - begun < PROMPT, (warm, moment)
                assert at_work(admin, schema_of(postgres_url)) == [], moment
            if ended is not None:
                break
        else:
            pytest.fail("it never ended")


def test_an_interrupt_before_the_server_has_read_all_takes_no_time(postgres_url: str, admin: Admin) -> None:
    much = Batch(records={b"much": b"x" * (1 << 25)})
    with closing(PostgresStorage(postgres_url, pool_size=SIZE)) as storage:
        storage.publish(batch("before"))
        with storage._source.lend() as connection:
            server = connection.info.backend_pid
        os.kill(server, signal.SIGSTOP)
        goes_on = threading.Timer(0.6, os.kill, (server, signal.SIGCONT))
        goes_on.start()
        begun = time.monotonic()
        with pytest.raises(Interrupted), alarm(0.3):
            storage.publish(much)
        assert time.monotonic() - begun < PROMPT
        goes_on.join()
        assert at_work(admin, schema_of(postgres_url)) == []
        check_all_usable(storage)


def test_an_interrupt_anywhere_in_a_read_costs_no_connection(postgres_url: str, admin: Admin) -> None:
    with closing(PostgresStorage(postgres_url, pool_size=SIZE)) as storage:
        for moment in range(1, 1000):
            ended = interrupt_at(moment, lambda: storage.view([b"k"], [ALL]), INSIDE)
            assert at_work(admin, schema_of(postgres_url)) == [], moment
            if ended is not None:
                return
            storage.publish(Batch(records={b"k": b"%d" % moment}))
            assert storage.read([b"k"]) == [b"%d" % moment]
            check_all_usable(storage)
    pytest.fail("it never ended")


def test_an_interrupt_anywhere_in_opening_leaves_no_connection(postgres_url: str, admin: Admin) -> None:
    PostgresStorage(postgres_url).close()
    for moment in range(1, 1000):
        opened: list[PostgresStorage] = []
        ended = interrupt_at(moment, lambda: opened.append(PostgresStorage(postgres_url)), INSIDE)  # noqa: B023
        for storage in opened:
            storage.close()
        gc.collect()
        deadline = time.monotonic() + 5
        while count := admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", (schema_of(postgres_url),)
        ).fetchone():
            if count == (0,):
                break
            assert time.monotonic() < deadline, moment
        if ended is not None:
            return
    pytest.fail("it never ended")


@pytest.mark.parametrize(
    ("count", "look", "later", "inside"),
    [(SIZE, 0.01, 0.03, INSIDE), (1, 0.02, 0.01, ("postgres_pool",))],
    ids=["all come back", "the one at hand does"],
)
def test_an_interrupt_anywhere_in_waiting_for_a_connection_costs_none(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, count: int, look: float, later: float, inside: tuple[str, ...]
) -> None:
    """All are in use, and so many come back while the next user waits for the pool."""
    monkeypatch.setattr(postgres_pool, "_LOOK_SECONDS", look)
    with closing(PostgresStorage(postgres_url, pool_size=SIZE)) as storage:
        for moment in range(1, 1000):
            with ExitStack() as kept:
                given_back = ExitStack()
                for number in range(SIZE):
                    (given_back if number < count else kept).enter_context(storage._source.lend())
                back = threading.Timer(later, given_back.close)
                back.start()
                with monkeypatch.context() as patient:
                    patient.setattr(postgres_pool, "_WAIT_SECONDS", PROMPT)
                    ended = interrupt_at(moment, lambda: storage.read([b"k"]), inside)
                back.join()
            check_all_usable(storage)
            if ended is not None:
                return
    pytest.fail("it never ended")


def test_what_was_interrupted_in_the_middle_is_never_written(
    postgres_dsn: str, postgres_url: str, admin: Admin
) -> None:
    """The server waits for a lock when the signal comes; when it gets the lock, nobody wants the write any more."""
    schema = schema_of(postgres_url)
    with (
        closing(PostgresStorage(postgres_url, pool_size=SIZE)) as own,
        psycopg_pool.ConnectionPool(postgres_url.partition("&schema=")[0], min_size=1, max_size=1) as pool,
        psycopg.connect(postgres_dsn) as connection,
    ):
        own.publish(Batch(records={b"a": b"0"}))
        for storage in (own, PostgresStorage(pool, schema=schema), PostgresStorage(connection, schema=schema)):
            for turn in range(2):
                with psycopg.connect(postgres_dsn) as blocker:
                    blocker.execute(f"SELECT 1 FROM {schema}.record WHERE key = 'a' FOR UPDATE".encode())
                    with pytest.raises(Interrupted), alarm(0.2):
                        storage.publish(Batch({b"a": b"0"}, {b"a": b"given up", b"b": b"given up"}))
                    assert at_work(admin, schema) == []
                assert storage.scan(*ALL) == [(b"a", b"0")], turn
        check_all_usable(own)
        assert connection.info.transaction_status == TransactionStatus.IDLE
        assert not connection.autocommit
        with pool.connection() as lent:
            assert not lent.autocommit


def test_interrupts_at_any_time_cost_no_connection(postgres_url: str, admin: Admin) -> None:
    with closing(PostgresStorage(postgres_url, pool_size=SIZE)) as storage:
        acknowledged, interrupts, slowest = 0, 0, 0.0
        end = time.monotonic() + 4 * PROMPT
        while interrupts < 300 and time.monotonic() < end:
            begun = time.monotonic()
            with suppress(Interrupted), alarm(0.001 + interrupts % 17 / 2000):
                # Python may drop what a handler raises, in a finalizer for instance: then the next turn comes.
                while time.monotonic() < begun + 0.1:
                    try:
                        storage.publish(Batch(records={b"n": b"%d" % (acknowledged + 1)}))
                        acknowledged += 1
                    except (Interrupted, StoreUnavailableError) as error:
                        # psycopg takes what is raised while it reads a timeout for what is wrong with the timeout.
                        assert isinstance(error, Interrupted) or "bad value for connect_timeout" in str(error)
                        interrupts += 1
                        break
            slowest = max(slowest, time.monotonic() - begun)
        assert interrupts > 50
        assert slowest < PROMPT
        (value,) = storage.read([b"n"])
        assert int(value or 0) - acknowledged in (0, 1)
        check_all_usable(storage)
        assert at_work(admin, schema_of(postgres_url)) == []


def test_who_waits_for_a_pool_that_is_closed_hears_of_it(postgres_url: str) -> None:
    storage = PostgresStorage(postgres_url, pool_size=2)
    errors: list[BaseException] = []

    def read() -> None:
        try:
            storage.read([b"a"])
        except StoreUnavailableError as error:
            errors.append(error)

    with storage._source.lend(), storage._source.lend():
        reader = threading.Thread(target=read)
        reader.start()
        while not storage._source._pool.get_stats()["requests_waiting"]:  # type: ignore[attr-defined]
            time.sleep(0.001)
        storage.close()
        reader.join(10)
    assert ["closed" in str(error) for error in errors] == [True]

"""The pool of a PostgreSQL store: what is lent and what is not, also in a forked process, and what is sent."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg
import pytest
from postgres_server import schema_of
from psycopg.adapt import Dumper, Loader
from psycopg.pq import TransactionStatus
from script_kit import python

from ckpt.errors import StoreUnavailableError
from ckpt.storage import postgres_pool
from ckpt.storage.base import Batch, Frame, StoredFrame, without_incarnation
from ckpt.storage.postgres import PostgresStorage
from ckpt.storage.postgres_arrays import bigint_array, bytea_array
from ckpt.storage.postgres_exchange import Connection, Owned, run
from ckpt.storage.postgres_pool import Lost, OwnPool
from ckpt.testing.fixtures import at_once


class Connecting:
    """Connects as often as it is allowed to."""

    def __init__(self, dsn: str, allowed: int = 99) -> None:
        self.dsn, self.allowed, self.count = dsn, allowed, 0

    def __call__(self) -> Connection:
        if self.count >= self.allowed:
            raise psycopg.OperationalError("sorry, too many clients already")
        self.count += 1
        return Owned.connect(self.dsn, autocommit=True)


@pytest.fixture
def connecting(postgres_dsn: str) -> Connecting:
    return Connecting(postgres_dsn)


@pytest.fixture
def pool(connecting: Connecting) -> Iterator[OwnPool]:
    with closing(OwnPool(connecting, 3)) as pool:
        yield pool


def test_what_is_left_in_a_transaction_or_broken_off_is_not_lent_as_it_is(
    pool: OwnPool, connecting: Connecting
) -> None:
    with pool.lend() as first:
        first.execute("BEGIN")
    with pool.lend() as one, pool.lend() as two, pool.lend() as three:
        assert {each.info.transaction_status for each in (one, two, three)} == {TransactionStatus.IDLE}
    with pytest.raises(psycopg.errors.UndefinedTable), pool.lend() as refused:
        refused.execute("SELECT * FROM nonesuch")
    assert not refused.closed
    for error in (ZeroDivisionError, KeyboardInterrupt, Lost):
        with pytest.raises(error), pool.lend() as broken:
            raise error
        assert broken.closed
    with pool.lend() as usable:
        assert usable.execute("SELECT 7").fetchone() == (7,)


def test_a_pool_that_has_lost_connections_is_replaced(pool: OwnPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after interrupts between taking a connection and the first line that could give it back."""
    monkeypatch.setattr(postgres_pool, "_WAIT_SECONDS", 0.4)
    monkeypatch.setattr(postgres_pool, "_LOOK_SECONDS", 0.1)
    with pool.lend(), pool.lend() as held:
        before = pool._pool
        assert before is not None
        before.getconn()
        with pool.lend() as one, pool.lend() as two:
            assert len({each.info.backend_pid for each in (held, one, two)}) == 3
        now = pool._pool
        assert now is not before
        with pool.lend(), pool.lend(), pytest.raises(psycopg.OperationalError, match="all 3 were in use"), pool.lend():
            pass
        # All are in somebody's hands.
        assert pool._pool is now
    assert held.closed


def test_the_one_at_hand_is_made_again_when_it_is_lost(pool: OwnPool, connecting: Connecting) -> None:
    with pool.lend() as first:
        pid = first.info.backend_pid
    del first
    hand = pool._at_hand()
    assert hand is not None
    del hand
    with pool.lend() as second, pool.lend() as third, pool.lend() as fourth:
        assert len({pid, *(each.info.backend_pid for each in (second, third, fourth))}) == 4
    with pool.lend() as again:
        assert again is second


def test_who_calls_alone_has_one_connection_and_begins_no_threads(pool: OwnPool, connecting: Connecting) -> None:
    threads = {*threading.enumerate()}
    for number in range(20):
        with pool.lend() as connection:
            assert connection.execute("SELECT %s::int", (number,)).fetchone() == (number,)
    assert connecting.count == 1
    assert {*threading.enumerate()} <= threads


def test_the_one_at_hand_serves_who_waits_for_a_pool_that_can_have_none(
    pool: OwnPool, connecting: Connecting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_pool, "_LOOK_SECONDS", 0.1)
    connecting.allowed = 1
    used = []

    def use() -> None:
        with pool.lend() as connection:
            used.append(connection)

    with pool.lend() as held:
        waiting = threading.Thread(target=use)
        waiting.start()
        while pool._pool is None or not pool._pool.get_stats().get("requests_waiting"):
            time.sleep(0.001)
    waiting.join(10)
    assert used == [held]


def test_many_threads_share_few_connections(pool: OwnPool, connecting: Connecting) -> None:
    begin = time.monotonic()

    def use(number: int) -> None:
        for turn in range(100):
            with pool.lend() as connection:
                assert connection.execute(f"SELECT {number * turn}".encode()).fetchone() == (number * turn,)

    at_once(16, use)
    assert connecting.count <= 3
    # Nobody was forgotten until he looked again by himself, a second later.
    assert time.monotonic() - begin < 30


def test_the_one_at_hand_is_replaced_when_it_is_old(pool: OwnPool, monkeypatch: pytest.MonkeyPatch) -> None:
    with pool.lend() as first:
        pass
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3601)
    with pool.lend() as last:
        assert last is first
    assert first.closed
    with pool.lend() as another:
        assert another.execute("SELECT 7").fetchone() == (7,)


def test_a_server_that_takes_no_more_connections_serves_with_those_there_are(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(PostgresStorage(postgres_url)) as storage:
        pool = storage._source
        assert isinstance(pool, OwnPool)
        monkeypatch.setattr(pool, "_connect", Connecting("", allowed=0))
        with pool.lend():
            monkeypatch.setattr("ckpt.storage.postgres._RECOVER_SECONDS", 0.2)
            with pytest.raises(StoreUnavailableError, match="too many clients") as refused:
                storage.publish(Batch(records={b"a": b"1"}))
            assert "disk, memory or connections" in refused.value.hints[0]
        held = threading.Event()

        def hold() -> None:
            with pool.lend():
                held.set()
                time.sleep(0.3)

        monkeypatch.setattr("ckpt.storage.postgres._RECOVER_SECONDS", 10.0)
        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(10)
        storage.publish(Batch(records={b"a": b"2"}))
        holder.join()
        assert storage.read([b"a"]) == [b"2"]


def test_a_pool_that_is_closed_closes_what_comes_back(connecting: Connecting) -> None:
    pool = OwnPool(connecting, 3)
    with pool.lend() as lent:
        with pool.lend() as idle:
            pass
        pool.close()
        assert (idle.closed, lent.closed) == (True, False)
    assert lent.closed
    with pytest.raises(psycopg.OperationalError, match="closed"), pool.lend():
        pass


_KILLED = """
import logging, sys, threading
from contextlib import ExitStack, suppress
import psycopg, psycopg_pool
from ckpt.storage.postgres import PostgresStorage
if sys.argv[3] == "set up":
    logging.basicConfig(format="logged %(name)s: %(message)s")
storage = PostgresStorage(sys.argv[1], pool_size=4)
with ExitStack() as stack, psycopg.connect(sys.argv[2], autocommit=True) as admin:
    lent = [stack.enter_context(storage._source.lend()) for _ in range(4)]
    for connection in lent:
        admin.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        with suppress(psycopg.OperationalError):
            connection.execute("SELECT pg_sleep(30)")
storage.epoch()
storage.close()
if sys.argv[3] == "another's":
    with psycopg_pool.ConnectionPool(sys.argv[2], min_size=1, max_size=1) as pool, pool.connection() as connection:
        connection.close()
"""


@pytest.mark.parametrize("logging", ["not set up", "set up", "another's"])
def test_what_psycopg_logs_of_our_connections_is_printed_by_nobody_who_was_not_told_to(
    postgres_dsn: str, postgres_url: str, logging: str
) -> None:
    process = python(_KILLED, postgres_url, postgres_dsn, logging)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    if logging == "set up":
        lines = said.splitlines()
        assert len(lines) == 3
        assert all(line.startswith("logged psycopg.pool: discarding closed connection: <ckpt") for line in lines)
    elif logging == "another's":
        assert said.startswith("discarding closed connection: <psycopg.Connection")
        assert "ckpt" not in said
    else:
        assert said == ""


# -- forks ---------------------------------------------------------------------------------------------


def in_child(act: Callable[[], bool]) -> int:
    """Return the exit code of a forked child: 0 when `act` says yes there."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if act() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_uses_connections_of_its_own(postgres_url: str) -> None:
    with closing(PostgresStorage(postgres_url)) as storage:
        storage.publish(Batch(records={b"who": b"parent"}))
        with storage._source.lend() as held:

            def act() -> bool:
                storage.publish(Batch({b"who": b"parent"}, {b"who": b"child"}))
                with storage._source.lend() as own:
                    other = own.info.backend_pid != held.info.backend_pid
                storage.close()
                return other

            assert in_child(act) == 0
            assert held.execute("SELECT 1").fetchone() == (1,)
        assert storage.read([b"who"]) == [b"child"]


def test_a_connection_passed_in_does_not_go_into_a_child(postgres_dsn: str, postgres_url: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        storage = PostgresStorage(connection, schema=schema_of(postgres_url))

        def act() -> bool:
            with pytest.raises(StoreUnavailableError) as caught:
                storage.epoch()
            return bool(caught.value.hints)

        assert in_child(act) == 0
        assert without_incarnation(storage.epoch())[1] == 1


# -- what is sent ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values", [[], [b""], [None], [b"a", None, b"\x00\xff" * 3000, b""], [None] * 5, [bytes([n]) for n in range(256)]]
)
def test_an_array_of_bytes_arrives_as_it_was(postgres_dsn: str, values: list[bytes | None]) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        assert run(connection, "SELECT $1, cardinality($1)", (bytea_array(values),)) == [(values, len(values))]


@pytest.mark.parametrize("values", [[], [0], [-1, 2**63 - 1, -(2**63), 7]])
def test_an_array_of_numbers_arrives_as_it_was(postgres_dsn: str, values: list[int]) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        assert run(connection, "SELECT $1", (bigint_array(values),)) == [(values,)]


class _Wrong(Dumper):
    def dump(self, obj: object) -> bytes:
        return b"wrong"


class _WrongLoader(Loader):
    def load(self, data: object) -> str:
        return "wrong"


def test_what_a_caller_taught_his_connection_is_neither_used_nor_changed(postgres_dsn: str, postgres_url: str) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        for kind in (bytes, list, int):
            connection.adapters.register_dumper(kind, _Wrong)
        for name in ("bytea", "int8", "text"):
            connection.adapters.register_loader(name, _WrongLoader)
        storage = PostgresStorage(connection, schema=schema_of(postgres_url))
        (number,) = storage.publish(Batch({b"a": None}, {b"a": b"1"}, [Frame(0, b"f", (bytes(16),))]))
        assert storage.read([b"a"]) == [b"1"]
        assert storage.load([number]) == {number: StoredFrame(0, b"f")}
        assert connection.execute("SELECT 7::bigint").fetchone() == ("wrong",)

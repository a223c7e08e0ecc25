"""A PostgreSQL store whose connections break, and whose server goes away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import psycopg_pool
import pytest
from postgres_server import Server, schema_of, unavailable
from postgres_wire import Cut, Wire, counted, wire_to

from ckpt.errors import StoreUnavailableError
from ckpt.storage.base import (
    CHAINED,
    UNSETTLED,
    Batch,
    EpochChangedError,
    Frame,
    Place,
    RecordChangedError,
    StoredFrame,
)
from ckpt.storage.postgres import PostgresStorage
from ckpt.storage.postgres_exchange import Owned

ALL = (b"", b"\xff" * 1101)


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


@pytest.fixture
def wire(postgres_dsn: str) -> Iterator[Wire]:
    with wire_to(postgres_dsn) as wire:
        yield wire


@pytest.fixture
def storage(wire: Wire, postgres_url: str) -> Iterator[PostgresStorage]:
    """A store at the other end of the wire."""
    with closing(PostgresStorage(wire.url, schema=schema_of(postgres_url))) as storage:
        yield storage


def kill_all(dsn: str, url: str) -> None:
    """End every connection of a store, as a server that restarts, or a pooler that tidies up."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", (schema_of(url),)
        )
    time.sleep(0.05)


# -- round trips ---------------------------------------------------------------------------------------


def test_each_call_is_one_round_trip(wire: Wire, storage: PostgresStorage) -> None:
    (first,) = storage.publish(Batch(records={b"a": b"0"}, frames=[Frame(0, b"f", (key(1),))]))
    batches = [
        Batch({b"a": b"0", b"b": None}, {b"a": b"1", b"b": b"2"}, epoch=storage.epoch()),
        Batch(
            {b"a": b"1"},
            {b"a": b"2", b"b": None},
            [Frame(0, b"o", (key(1),), optional=True), Frame(first, b"g", (key(2),)), Frame(CHAINED, b"h", (key(3),))],
        ),
    ]
    calls: dict[str, Callable[[], object]] = {
        "publish": lambda: storage.publish(batches.pop(0)),
        "publish frames": lambda: storage.publish(batches.pop(0)),
        "epoch": storage.epoch,
        "read": lambda: storage.read([b"%d" % number for number in range(2000)]),
        "view": lambda: storage.view([b"a", b"b"], [(b"a", b"b"), (b"c", b"d"), ALL]),
        "scan": lambda: storage.scan(*ALL),
        "locate": lambda: storage.locate([key(number) for number in range(2000)]),
        "load": lambda: storage.load([first, first + 3, 987_654]),
        "fetch": lambda: storage.fetch([key(number) for number in range(20)]),
        "fetch many": lambda: storage.fetch([key(number) for number in range(2000)]),
        "scan_index": lambda: storage.scan_index(b"", 100),
        "scan_frames": lambda: storage.scan_frames(0, 100),
        "usage": storage.usage,
    }
    assert {name: counted(wire, call) for name, call in calls.items()} == dict.fromkeys(calls, 1)
    assert batches == []


def test_a_lost_race_is_one_round_trip_or_two(wire: Wire, storage: PostgresStorage) -> None:
    """One unless something was written before the difference was found."""
    storage.publish(Batch(records={b"a": b"1", b"b": b"1"}))

    def lose(expected: dict[bytes, bytes | None]) -> None:
        with pytest.raises(RecordChangedError):
            storage.publish(Batch(expected, dict.fromkeys(expected, b"9")))

    assert counted(wire, lambda: lose({b"a": b"0", b"b": b"1"})) == 1
    assert counted(wire, lambda: lose({b"a": b"1", b"b": b"0"})) == 2


def named(requests: list[bytes]) -> list[bytes]:
    """Return the requests that prepare a statement under a name: a Parse message begins with it."""
    return [request for request in requests if request.startswith(b"P") and request[5:6] != b"\x00"]


def use(storage: PostgresStorage) -> None:
    for turn in range(20):
        storage.publish(Batch(records={b"a": b"%d" % turn}, frames=[Frame(0, b"f", (key(turn),))]))
        storage.read([b"a"])
        storage.load([turn])
    with storage.exclusive() as session:
        session.write(Batch(records={b"b": b"1"}))


def test_one_statement_is_prepared_on_a_direct_connection_and_nothing_else_left(
    wire: Wire, storage: PostgresStorage
) -> None:
    use(storage)
    (prepared,) = named(wire.requests)
    assert b"ckpt_publish" in prepared
    assert len([request for request in wire.requests if request.startswith(b"P")]) > 40
    assert [request for request in wire.requests if b"LISTEN" in request or b"SET SESSION" in request] == []


def test_preparing_costs_no_trip(wire: Wire, postgres_url: str) -> None:
    schema = schema_of(postgres_url)
    PostgresStorage(wire.url, schema=schema).close()
    for _ in range(3):
        with closing(PostgresStorage(wire.url, schema=schema, create=False)) as storage:
            trips = [counted(wire, lambda: storage.publish(Batch(records={b"a": b"1"}))) for _ in range(3)]
            assert trips == [1, 1, 1]
    assert len(named(wire.requests)) == 3


def test_what_was_prepared_and_is_gone_is_noticed(wire: Wire, storage: PostgresStorage) -> None:
    storage.publish(Batch(records={b"a": b"1"}))
    with storage._source.lend() as connection:
        connection.execute("DEALLOCATE ALL", prepare=False)
    storage.publish(Batch({b"a": b"1"}, {b"a": b"2"}))
    with pytest.raises(RecordChangedError):
        storage.publish(Batch({b"a": b"1"}, {b"a": b"3"}))
    assert storage.read([b"a"]) == [b"2"]
    assert len(named(wire.requests)) == 1


def test_a_name_that_is_taken_is_left_alone(wire: Wire, storage: PostgresStorage) -> None:
    """As behind a pooler that passes on the server's own number, where another process has prepared the statement."""
    storage.publish(Batch(records={b"a": b"1"}))
    with storage._source.lend() as connection:
        assert isinstance(connection, Owned) and connection.direct
        connection.prepared = {}
    storage.publish(Batch({b"a": b"1"}, {b"a": b"2"}))
    assert storage.read([b"a"]) == [b"2"]
    with storage._source.lend() as connection:
        assert isinstance(connection, Owned) and not connection.direct


def test_what_can_be_done_meanwhile_is_done_before_the_answer(postgres_dsn: str, postgres_url: str) -> None:
    before, after = {b"a": b"1", b"b": b"1"}, {b"a": b"2", b"b": b"2"}
    with closing(PostgresStorage(postgres_url)) as storage, psycopg.connect(postgres_dsn) as other:
        storage.publish(Batch(dict.fromkeys(before), before, epoch=storage.epoch()))
        other.execute(f"SELECT FROM {schema_of(postgres_url)}.record FOR UPDATE")
        called = threading.Event()
        batch = Batch(before, after, epoch=storage.epoch(), meanwhile=called.set)
        thread = threading.Thread(target=storage.publish, args=(batch,))
        thread.start()
        assert called.wait(20)
        thread.join(0.2)
        assert thread.is_alive()
        other.rollback()
        thread.join(20)
        assert storage.read([b"a", b"b"]) == [b"2", b"2"]


def test_what_fails_meanwhile_leaves_nothing_behind(storage: PostgresStorage) -> None:
    before, after = {b"a": b"1", b"b": b"1"}, {b"a": b"2", b"b": b"2"}
    storage.publish(Batch(dict.fromkeys(before), before, epoch=storage.epoch()))
    with pytest.raises(ZeroDivisionError):
        storage.publish(Batch(before, after, epoch=storage.epoch(), meanwhile=lambda: 1 // 0 and None))
    # Whether it was applied is open, as after any interrupt; not so whether it was applied in part.
    now = storage.read([b"a", b"b"])
    assert now in ([b"1", b"1"], [b"2", b"2"])
    storage.publish(Batch({b"a": now[0]}, {b"a": b"3"}))
    assert storage.read([b"a", b"b"]) == [b"3", now[1]]


def test_each_statement_may_run_on_another_connection(postgres_dsn: str, postgres_url: str) -> None:
    """What a pooler in transaction mode does: the pool hands out a connection that was never seen before."""
    with (
        psycopg_pool.NullConnectionPool(postgres_dsn, max_size=4) as pool,
        closing(PostgresStorage(pool, schema=schema_of(postgres_url))) as storage,
    ):
        (number,) = storage.publish(Batch({b"a": None}, {b"a": b"1"}, [Frame(0, b"f", (key(1),))]))
        with storage.exclusive() as session:
            session.write(Batch({b"a": b"1"}, {b"a": b"2"}))
        with pytest.raises(RecordChangedError):
            storage.publish(Batch({b"a": b"1"}, {b"a": b"3"}))
        assert storage.view([b"a"], [ALL]) == ([b"2"], [[(b"a", b"2")]])
        assert storage.locate([key(1)]) == {key(1): Place(number, 0)}
        assert storage.load([number]) == {number: StoredFrame(0, b"f")}


# -- connections that die ------------------------------------------------------------------------------


def test_dead_idle_connections_are_replaced(postgres_dsn: str, postgres_url: str) -> None:
    with closing(PostgresStorage(postgres_url)) as storage:
        holding = threading.Barrier(6)

        def use(number: int) -> None:
            with storage.exclusive() if number < 0 else storage._source.lend():
                holding.wait(10)

        workers = [threading.Thread(target=use, args=(number,)) for number in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for turn in range(3):
            kill_all(postgres_dsn, postgres_url)
            assert storage.read([b"a"]) == [b"%d" % (turn - 1) if turn else None]
            kill_all(postgres_dsn, postgres_url)
            storage.publish(Batch(records={b"a": b"%d" % turn}))
            kill_all(postgres_dsn, postgres_url)
            with storage.exclusive() as session:
                assert session.read([b"a"]) == [b"%d" % turn]


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_read_whose_answer_is_lost_is_repeated(wire: Wire, storage: PostgresStorage, cut: Cut) -> None:
    storage.publish(Batch(records={b"a": b"1"}))
    wire.cuts.append((b".record WHERE", cut))
    assert storage.read([b"a"]) == [b"1"]
    assert wire.cuts == []


BATCHES = {
    "records and frames": Batch(
        {b"a": b"0", b"new": None},
        {b"a": b"1", b"new": b"n", b"old": None},
        [
            Frame(0, b"known", (key(1),), optional=True),
            Frame(0, b"same", (key(2),)),
            Frame(CHAINED, b"more", (key(3), key(1))),
            Frame(0, b"fresh", (key(4),), optional=True),
            Frame(0, b"known", (key(1),)),
        ],
    ),
    "records only": Batch({b"a": b"0"}, {b"a": b"1", b"new": b"n"}),
    "nothing expected": Batch({}, {b"a": b"1"}, [Frame(0, b"same", (key(2),))]),
    "frames only": Batch({}, {}, [Frame(0, b"same", (key(2),)), Frame(CHAINED, b"same", ())]),
    "a step": Batch({b"a": b"0", b"new": None}, {b"a": b"1", b"new": b"n"}, [Frame(0, b"same", (key(2),))]),
    "removal": Batch({b"old": b"o"}, {b"old": None}),
}


@pytest.mark.parametrize("cut", ["before", "after"])
@pytest.mark.parametrize("name", BATCHES)
def test_a_publish_whose_answer_is_lost_is_applied_once(
    wire: Wire, storage: PostgresStorage, postgres_url: str, cut: Cut, name: str
) -> None:
    storage.publish(Batch(records={b"a": b"0", b"old": b"o"}, frames=[Frame(0, b"first", (key(1),))]))
    # The same bytes as in the batch, stored by somebody else just before.
    with closing(PostgresStorage(postgres_url)) as other:
        other.publish(Batch(frames=[Frame(0, b"same", (key(9),))]))
        before = len(other.scan_frames(0, 99))
        batch = BATCHES[name]
        wire.cuts.append((b"ckpt_publish", cut))
        numbers = storage.publish(batch)
        assert wire.cuts == []
        assert other.read(list(batch.records)) == list(batch.records.values())
        written = [number for number in numbers if number]
        assert len(other.scan_frames(0, 99)) == before + len(written)
        loaded = other.load(written)
        previous = 0
        for number, frame in zip(numbers, batch.frames, strict=True):
            if number:
                assert loaded[number] == StoredFrame(previous if frame.previous == CHAINED else 0, frame.data)
            previous = number
        assert [bool(number) for number in numbers] == [
            frame.data != b"known" or not frame.optional for frame in batch.frames
        ]
        assert storage.publish(Batch(records={b"z": b"1"}, frames=[Frame(0, b"z", ())]))[0] > max(numbers, default=0)


def test_a_conflict_is_told_also_when_the_answer_was_lost(
    wire: Wire, storage: PostgresStorage, postgres_url: str
) -> None:
    storage.publish(Batch(records={b"a": b"0"}))
    for cut in ("before", "after"):
        wire.cuts.append((b"ckpt_publish", cut))
        with pytest.raises(RecordChangedError) as caught:
            storage.publish(Batch({b"a": b"7", b"b": None}, {b"a": b"8", b"b": b"1"}))
        assert caught.value.current == {b"a": b"0", b"b": None}
        wire.cuts.append((b"ckpt_publish", cut))
        with pytest.raises(EpochChangedError):
            storage.publish(Batch({b"a": b"0"}, {b"a": b"8"}, epoch=storage.epoch() - 1))
    assert storage.scan(*ALL) == [(b"a", b"0")]


def test_another_who_wrote_half_of_the_same_is_not_taken_for_us(
    wire: Wire, storage: PostgresStorage, postgres_url: str
) -> None:
    """Two writers make the same name; the one whose request was lost must hear that the other has it."""
    ours = Batch({b"name": None, b"t7": None}, {b"name": b"7", b"t7": b"ours"}, [Frame(0, b"big", (key(1),))])
    theirs = Batch({b"name": None, b"t7": None}, {b"name": b"7", b"t7": b"theirs"}, [Frame(0, b"big", (key(1),))])
    with closing(PostgresStorage(postgres_url)) as other:
        original = storage._source.recover

        def recover(deadline: float) -> bool:
            other.publish(theirs)
            return original(deadline)

        storage._source.recover = recover  # type: ignore[method-assign]
        wire.cuts.append((b"ckpt_publish", "before"))
        with pytest.raises(RecordChangedError) as caught:
            storage.publish(ours)
        assert caught.value.current == {b"name": b"7", b"t7": b"theirs"}


def test_who_was_applied_and_then_overtaken_hears_that_it_was_applied(
    wire: Wire, storage: PostgresStorage, postgres_url: str
) -> None:
    storage.publish(Batch(records={b"t": b"0"}))
    with closing(PostgresStorage(postgres_url)) as other:
        original = storage._source.recover

        def recover(deadline: float) -> bool:
            other.publish(Batch({b"t": b"1"}, {b"t": b"2"}))
            return original(deadline)

        storage._source.recover = recover  # type: ignore[method-assign]
        wire.cuts.append((b"ckpt_publish", "after"))
        (number,) = storage.publish(Batch({b"t": b"0"}, {b"t": b"1", b"c": b"ours"}, [Frame(0, b"f", (key(1),))]))
        assert storage.load([number]) == {number: StoredFrame(0, b"f")}
        assert storage.read([b"t", b"c"]) == [b"2", b"ours"]
        assert len(storage.scan_frames(0, 9)) == 1


def test_a_server_still_at_it_is_waited_for(wire: Wire, storage: PostgresStorage, postgres_dsn: str) -> None:
    storage.publish(Batch(records={b"a": b"0"}))
    table = f"{storage._schema}.record"
    with psycopg.connect(postgres_dsn) as blocker:
        blocker.execute(f"SELECT 1 FROM {table} WHERE key = 'a' FOR UPDATE".encode())
        wire.cuts.append((b"ckpt_publish", "during"))
        result: list[list[int]] = []
        batch = Batch({b"a": b"0"}, {b"a": b"1"}, [Frame(0, b"f", (key(1),))])
        writer = threading.Thread(target=lambda: result.append(storage.publish(batch)))
        writer.start()
        writer.join(0.5)
        assert writer.is_alive()
        blocker.rollback()
        writer.join(20)
    assert [list(storage.load(numbers)) for numbers in result] == result
    assert len(storage.scan_frames(0, 9)) == 1


def test_a_request_that_arrives_after_it_was_given_up_is_still_ours(
    wire: Wire, storage: PostgresStorage, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server begins with the lost request only when the store has been asked for it and had nothing."""
    storage.publish(Batch(records={b"a": b"0"}))
    batch = Batch({b"a": b"0"}, {b"a": b"1"}, [Frame(0, b"f", (key(1),))])
    found: list[list[int] | None] = []
    settled = PostgresStorage._settled
    with closing(PostgresStorage(postgres_url)) as late:

        def look(self: PostgresStorage, *arguments: Any) -> list[int] | None:
            found.append(settled(self, *arguments))
            if len(found) == 1:
                late.publish(batch)
            return found[-1]

        monkeypatch.setattr(PostgresStorage, "_settled", look)
        wire.cuts.append((b"ckpt_publish", "before"))
        (number,) = storage.publish(batch)
        assert found == [None, [number]]
        assert storage.load([number]) == {number: StoredFrame(0, b"f")}
        assert len(storage.scan_frames(0, 9)) == 1


@pytest.mark.parametrize("cut", ["before", "after"])
def test_an_exclusive_writer_whose_commit_is_lost_learns_what_became_of_it(
    wire: Wire, storage: PostgresStorage, cut: Cut
) -> None:
    storage.publish(Batch(records={b"a": b"0"}))
    epoch = storage.epoch()
    wire.cuts.append((b"COMMIT\x00", cut))

    def work() -> None:
        with storage.exclusive() as session:
            session.write(Batch({b"a": b"0"}, {b"a": b"1"}))

    if cut == "after":
        work()
        assert (storage.read([b"a"]), storage.epoch()) == ([b"1"], epoch + 1)
    else:
        with pytest.raises(StoreUnavailableError):
            work()
        assert (storage.read([b"a"]), storage.epoch()) == ([b"0"], epoch)


def test_an_exclusive_writer_that_loses_its_connection_has_written_nothing(
    postgres_dsn: str, postgres_url: str
) -> None:
    with closing(PostgresStorage(postgres_url)) as storage:
        storage.publish(Batch(records={b"a": b"0"}))
        with pytest.raises(StoreUnavailableError), storage.exclusive() as session:
            session.write(Batch({b"a": b"0"}, {b"a": b"1"}))
            kill_all(postgres_dsn, postgres_url)
            session.write(Batch(records={b"b": b"1"}))
        assert storage.scan(*ALL) == [(b"a", b"0")]


def test_writers_go_on_while_backends_are_killed(postgres_dsn: str, postgres_url: str) -> None:
    done = threading.Event()

    def kill() -> None:
        while not done.wait(0.1):
            kill_all(postgres_dsn, postgres_url)

    killer = threading.Thread(target=kill)
    with closing(PostgresStorage(postgres_url)) as storage:
        killer.start()
        counts = [0] * 4

        def write(number: int) -> None:
            last = 0
            for turn in range(60):
                old = b"%d" % (turn - 1) if turn else None
                batch = Batch({b"%d" % number: old}, {b"%d" % number: b"%d" % turn})
                batch.frames = [Frame(last, b"%d/%d" % (number, turn), (key(1000 * number + turn),))]
                (last,) = storage.publish(batch)
                counts[number] += 1
                time.sleep(0.005)

        writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(120)
        done.set()
        killer.join()
        assert counts == [60] * 4
        assert storage.scan(*ALL) == [(b"%d" % number, b"59") for number in range(4)]
        # Never twice: one frame for each publish, each on top of the one before.
        assert len(storage.scan_frames(0, 999)) == 240


# -- a server that goes away -----------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of the test's own."""
    try:
        server = Server()
    except (ImportError, OSError) as error:
        unavailable(f"{type(error).__name__}: {error}")
    try:
        server.start()
        yield server
    finally:
        server.remove()


def test_a_restart_loses_no_run_and_a_server_that_stays_away_is_named(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(PostgresStorage(server.url)) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
        server.stop()
        back = threading.Timer(1.0, server.start)
        back.start()
        storage.publish(Batch({b"a": b"1"}, {b"a": b"2"}))
        back.join()
        assert storage.read([b"a"]) == [b"2"]
        server.stop()
        monkeypatch.setattr("ckpt.storage.postgres._RECOVER_SECONDS", 0.5)
        calls: list[Callable[[], object]] = [
            lambda: storage.publish(Batch({b"a": b"2"}, {b"a": b"2"})),
            lambda: storage.read([b"a"]),
            lambda: storage.publish(Batch(records={b"a": b"3"})),
            lambda: storage.exclusive().__enter__(),
            lambda: PostgresStorage(server.url),
        ]
        for call in calls:
            begin = time.monotonic()
            with pytest.raises(StoreUnavailableError, match="connection to server") as caught:
                call()
            # Only the first had a connection, on which it may have been heard.
            assert (UNSETTLED in caught.value.hints) is (call is calls[0])
            assert caught.value.hints[0] != UNSETTLED
            assert time.monotonic() - begin < 10
        server.start()
        assert storage.read([b"a"]) == [b"2"]

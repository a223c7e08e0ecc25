"""A PostgreSQL store in use: what is passed in, many writers, the index of objects."""

from __future__ import annotations

import secrets
import threading
import time
from contextlib import closing
from itertools import product
from typing import Any

import psycopg
import psycopg_pool
import pytest
from postgres_server import schema_of
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row, namedtuple_row
from script_kit import output_of, python

from ckpt.errors import InvalidInputError, StoreUnavailableError
from ckpt.storage.base import Batch, EpochChangedError, Frame, Place, RecordChangedError, Storage, StoredFrame
from ckpt.storage.memory import MemoryStorage
from ckpt.storage.postgres import PostgresStorage
from ckpt.testing.fixtures import add, at_once

ALL = (b"", b"\xff" * 1101)
Admin = psycopg.Connection[tuple[Any, ...]]


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


# -- what is passed in -----------------------------------------------------------------------------------


def use(storage: PostgresStorage) -> None:
    """Do some of everything."""
    (number,) = storage.publish(Batch({b"a": None}, {b"a": b"1"}, [Frame(0, b"f", (key(1),))]))
    with pytest.raises(RecordChangedError) as caught:
        storage.publish(Batch({b"a": None, b"x": None}, {b"a": b"9"}))
    assert caught.value.current == {b"a": b"1", b"x": None}
    # All that is compared is written too: the first that has changed, one behind what is written already, the epoch.
    for batch in (
        Batch({b"a": b"7", b"x": None}, {b"a": b"9", b"x": b"9"}),
        Batch({b"a": b"1", b"x": b"7"}, {b"a": b"9", b"x": b"9"}),
        Batch({b"A": None, b"a": b"7"}, {b"A": b"9", b"a": b"9"}),
    ):
        with pytest.raises(RecordChangedError) as caught:
            storage.publish(batch)
        assert caught.value.current == {b"a": b"1"} | dict.fromkeys(batch.expected.keys() - {b"a"})
    with pytest.raises(EpochChangedError) as overtaken:
        storage.publish(Batch({b"a": b"1"}, {b"a": b"9"}, [Frame(0, b"g", (key(2),))], epoch=0))
    assert overtaken.value.epoch == storage.epoch()
    assert storage.view([b"a"], [ALL]) == ([b"1"], [[(b"a", b"1")]])
    assert storage.load([number]) == {number: StoredFrame(0, b"f")}
    assert storage.locate([key(1), key(2)]) == {key(1): Place(number, 0)}
    with storage.exclusive() as session:
        session.write(Batch({b"a": b"1"}, {b"a": b"2"}))
        assert storage.usage().objects == 1
    with pytest.raises(ZeroDivisionError), storage.exclusive() as session:
        session.write(Batch({b"a": b"2"}, {b"a": b"3"}))
        raise ZeroDivisionError
    assert storage.read([b"a"]) == [b"2"]
    assert storage.verify() == []
    storage.compact()


@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize("factory", [psycopg.rows.tuple_row, dict_row, namedtuple_row])
def test_a_connection_is_used_and_left_as_it_was(
    postgres_dsn: str, postgres_url: str, admin: Admin, autocommit: bool, factory: Any
) -> None:
    with psycopg.connect(
        postgres_dsn,
        autocommit=autocommit,
        row_factory=factory,
        cursor_factory=psycopg.ClientCursor,
        prepare_threshold=0,
    ) as connection:
        storage = PostgresStorage(connection, schema=schema_of(postgres_url))
        use(storage)
        assert connection.info.transaction_status == TransactionStatus.IDLE
        assert (connection.autocommit, connection.row_factory) == (autocommit, factory)
        assert connection.prepare_threshold == 0
        storage.close()
        with pytest.raises(StoreUnavailableError, match="closed"):
            storage.epoch()
        assert not connection.closed
        assert connection.execute("SELECT 7 AS seven").fetchone() == ({"seven": 7} if factory is dict_row else (7,))
    # What was done was committed, not left in a transaction.
    assert admin.execute(f"SELECT value FROM {schema_of(postgres_url)}.record".encode()).fetchall() == [(b"2",)]


def test_an_open_transaction_takes_part_in_all_that_is_done(postgres_dsn: str, postgres_url: str, admin: Admin) -> None:
    schema = schema_of(postgres_url)
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute("SELECT 1")
        use(PostgresStorage(connection, schema=schema))
        assert connection.info.transaction_status == TransactionStatus.INTRANS
        assert admin.execute("SELECT to_regnamespace(%s)", (schema,)).fetchone() == (None,)
        connection.rollback()
        assert admin.execute("SELECT to_regnamespace(%s)", (schema,)).fetchone() == (None,)
        connection.execute("SELECT 1")
        storage = PostgresStorage(connection, schema=schema)
        storage.publish(Batch(records={b"a": b"1"}))
        connection.commit()
        assert admin.execute(f"SELECT value FROM {schema}.record".encode()).fetchall() == [(b"1",)]


def test_a_transaction_that_does_not_see_others_is_refused(postgres_dsn: str, postgres_url: str) -> None:
    PostgresStorage(postgres_url).close()
    with psycopg.connect(postgres_dsn) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        storage = PostgresStorage(connection, schema=schema_of(postgres_url))
        connection.execute("SELECT 1")
        with pytest.raises(InvalidInputError, match="does not see"):
            storage.publish(Batch(records={b"a": b"1"}))
        assert storage.read([b"a"]) == [None]
        connection.rollback()
        storage.publish(Batch(records={b"a": b"2"}))
        connection.execute("SELECT 1")
        with pytest.raises(InvalidInputError, match="does not see"):
            storage.publish(Batch(records={b"a": b"3"}))
        connection.rollback()
        assert storage.read([b"a"]) == [b"2"]


def test_a_step_in_a_transaction_that_does_not_see_others_is_refused(postgres_dsn: str, postgres_url: str) -> None:
    with psycopg.connect(postgres_dsn) as connection, closing(PostgresStorage(postgres_url)) as other:
        other.publish(Batch(records={b"a": b"0", b"b": b"0"}))
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        storage = PostgresStorage(connection, schema=schema_of(postgres_url))
        connection.execute("SELECT 1")
        step = Batch({b"a": b"0", b"b": b"0"}, {b"a": b"1", b"b": b"1"}, epoch=storage.epoch())
        with pytest.raises(InvalidInputError, match="does not see"):
            storage.publish(step)
        connection.rollback()
        assert other.read([b"a", b"b"]) == [b"0", b"0"]


def test_a_transaction_that_has_failed_is_to_be_rolled_back_first(postgres_dsn: str, postgres_url: str) -> None:
    PostgresStorage(postgres_url).close()
    with psycopg.connect(postgres_dsn) as connection:
        storage = PostgresStorage(connection, schema=schema_of(postgres_url))
        calls = (
            lambda: storage.read([b"a"]),
            lambda: storage.publish(Batch(records={b"a": b"1"})),
            lambda: storage.exclusive().__enter__(),
            lambda: PostgresStorage(connection, schema=schema_of(postgres_url)),
        )
        for call in calls:
            with pytest.raises(psycopg.errors.DivisionByZero):
                connection.execute("SELECT 1 / 0")
            with pytest.raises(InvalidInputError, match=r"transaction .* has failed") as caught:
                call()
            assert "roll it back" in caught.value.hints[0]
            connection.rollback()
            assert storage.read([b"a"]) == [None]


def test_a_connection_in_pipeline_mode_is_refused(postgres_dsn: str, postgres_url: str, admin: Admin) -> None:
    schema = schema_of(postgres_url)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        with connection.pipeline(), pytest.raises(InvalidInputError, match="pipeline mode"):
            PostgresStorage(connection, schema=schema)
        assert admin.execute("SELECT to_regnamespace(%s)", (schema,)).fetchone() == (None,)
        storage = PostgresStorage(connection, schema=schema)
        for call in (storage.epoch, lambda: storage.publish(Batch(records={b"a": b"1"}))):
            with connection.pipeline(), pytest.raises(InvalidInputError, match="pipeline mode"):
                call()
        assert storage.read([b"a"]) == [None]


def test_a_pool_that_is_not_open_is_said_to_be(postgres_dsn: str, postgres_url: str) -> None:
    with psycopg_pool.ConnectionPool(postgres_dsn, min_size=1, max_size=1) as pool:
        storage = PostgresStorage(pool, schema=schema_of(postgres_url))
    never = psycopg_pool.ConnectionPool(postgres_dsn, open=False)
    for call in (storage.epoch, lambda: PostgresStorage(never, schema=schema_of(postgres_url))):
        with pytest.raises(StoreUnavailableError, match="pool that was passed in is not open"):
            call()


def test_a_connection_is_used_by_one_call_at_a_time(postgres_dsn: str, postgres_url: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        storage = PostgresStorage(connection, schema=schema_of(postgres_url))
        at_once(8, lambda number: [add(storage, b"sum", number) for _ in range(10)])
        assert storage.read([b"sum"]) == [b"280"]


def test_a_connection_that_is_dead_is_not_ours_to_replace(postgres_dsn: str, postgres_url: str, admin: Admin) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        storage = PostgresStorage(connection, schema=schema_of(postgres_url))
        admin.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        time.sleep(0.05)
        for _ in range(2):
            with pytest.raises(StoreUnavailableError) as caught:
                storage.publish(Batch(records={b"a": b"1"}))
            assert "pass in a pool" in caught.value.hints[0]


@pytest.mark.parametrize("options", [{}, {"autocommit": True}, {"row_factory": dict_row}])
def test_a_pool_is_used_and_left_open(
    postgres_dsn: str, postgres_url: str, admin: Admin, options: dict[str, Any]
) -> None:
    with psycopg_pool.ConnectionPool(postgres_dsn, min_size=2, max_size=4, kwargs=options) as pool:
        storage = PostgresStorage(pool, schema=schema_of(postgres_url))
        use(storage)
        for _ in range(2):
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND backend_type = 'client backend' AND query LIKE %s",
                (f"%{schema_of(postgres_url)}%",),
            )
            time.sleep(0.05)
            assert storage.read([b"a"]) == [b"2"]
        storage.close()
        pool.check()
        with pool.connection() as connection:
            assert connection.autocommit is options.get("autocommit", False)
            assert connection.execute("SELECT 1").fetchone() is not None
    with pytest.raises(StoreUnavailableError):
        PostgresStorage(pool, schema=schema_of(postgres_url))


# -- many writers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_the_servers_default_isolation_changes_nothing(postgres_url: str, level: str) -> None:
    options = f"&options=-c%20default_transaction_isolation%3D{level.replace(' ', '%5C%20')}"
    with closing(PostgresStorage(postgres_url + options)) as storage:
        use(storage)
        at_once(6, lambda number: [add(storage, b"sum", number) for _ in range(10)])
        assert storage.read([b"sum"]) == [b"150"]


def test_thirty_two_writers_do_not_wait_for_each_other(postgres_dsn: str, postgres_url: str) -> None:
    """One of them stands still in the middle of its transaction; only who wants the same record waits."""
    with closing(PostgresStorage(postgres_url, pool_size=40)) as storage:
        for number in range(32):
            storage.publish(Batch(records={b"%d" % number: b"0"}))
        with psycopg.connect(postgres_dsn) as slow:
            still = PostgresStorage(slow, schema=schema_of(postgres_url))
            slow.execute("SELECT 1")
            still.publish(Batch({b"0": b"0"}, {b"0": b"slow", b"new": b"x"}, [Frame(0, b"s", (key(1), key(2)))]))

            def write(number: int) -> None:
                batch = Batch({b"%d" % number: b"0"}, {b"%d" % number: b"1"})
                batch.frames = [Frame(0, b"f", (key(2), key(1), key(number)))]
                storage.publish(batch)

            at_once(31, lambda number: write(number + 1))
            slow.commit()
        assert storage.read([b"0", b"1", b"31", b"new"]) == [b"slow", b"1", b"1", b"x"]
        located = storage.locate([key(1), key(2)])
        assert {storage.load([place.frame])[place.frame].data for place in located.values()} <= {b"s", b"f"}


def test_an_absence_that_was_only_looked_at_holds_too(postgres_url: str) -> None:
    """Each writes one record if the other is absent: never both."""
    with closing(PostgresStorage(postgres_url)) as storage:
        for turn in range(30):
            keys = [b"%d/a" % turn, b"%d/b" % turn]

            def write(number: int, keys: list[bytes] = keys) -> bool:
                try:
                    storage.publish(Batch({keys[1 - number]: None}, {keys[number]: b"x"}))
                except RecordChangedError:
                    return False
                return True

            assert sorted(at_once(2, write)) == [False, True]
            assert sorted(storage.read(keys), key=str) == sorted([None, b"x"], key=str)


def test_who_is_overtaken_leaves_no_trace(postgres_url: str, admin: Admin) -> None:
    """Rows that are not changed keep the number of the transaction that wrote them, which tells whose they are."""
    rows = f"SELECT key, value, xmin::text FROM {schema_of(postgres_url)}.record ORDER BY key".encode()
    with closing(PostgresStorage(postgres_url)) as storage:
        storage.publish(Batch(records={b"a": b"1", b"b": b"1"}))
        before = admin.execute(rows).fetchall()
        for expected in ({b"a": b"1", b"b": b"2"}, {b"a": b"2", b"b": b"1"}, {b"a": b"1", b"c": b"1"}):
            with pytest.raises(RecordChangedError):
                storage.publish(Batch(expected, dict.fromkeys(expected, b"9"), [Frame(0, b"f", (key(1),))]))
        with pytest.raises(EpochChangedError):
            storage.publish(Batch({b"a": b"1"}, {b"a": b"9"}, epoch=7))
        assert admin.execute(rows).fetchall() == before
        assert storage.scan_frames(0, 9) == []


def test_who_only_compares_a_record_holds_up_those_who_write_it_and_nobody_else(
    postgres_dsn: str, postgres_url: str
) -> None:
    schema = schema_of(postgres_url)
    with closing(PostgresStorage(postgres_url)) as storage, psycopg.connect(postgres_dsn) as connection:
        storage.publish(Batch(records={b"h": b"1", b"i": b"1"}))
        connection.execute("SELECT 1")
        PostgresStorage(connection, schema=schema).publish(Batch({b"h": b"1", b"a": None}, {b"a": b"1"}))
        for expected in ({b"h": b"1", b"b": None}, {b"h": b"1", b"i": b"1", b"x": None}):
            storage.publish(Batch(expected, {b"b": b"1"}))
        with pytest.raises(RecordChangedError):
            storage.publish(Batch({b"h": b"2", b"c": None}, {b"c": b"1"}))
        writer = threading.Thread(target=lambda: storage.publish(Batch({b"h": b"1"}, {b"h": b"2"})))
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        connection.commit()
        writer.join(10)
        assert storage.read([b"a", b"b", b"c", b"h", b"x"]) == [b"1", b"1", None, b"2", None]


def test_two_who_write_the_same_records_in_one_step_never_both_succeed(postgres_url: str) -> None:
    """Each compares and writes two records; who is second has written the first of them, or waits for it."""
    with closing(PostgresStorage(postgres_url)) as storage:
        values: dict[bytes, bytes | None] = {b"a": None, b"b": None}
        for turn in range(40):
            given = [dict.fromkeys(values, b"%d/%d" % (turn, number)) for number in range(3)]
            # One of them believes something else of the second record.
            beliefs = [values, values, {**values, b"b": b"wrong"}]

            def write(
                number: int, beliefs: list[dict[bytes, bytes | None]] = beliefs, given: list[Any] = given
            ) -> bool:
                try:
                    storage.publish(Batch(beliefs[number], given[number]))
                except RecordChangedError:
                    return False
                return True

            written = at_once(3, write)
            assert sorted(written) == [False, False, True]
            assert not written[2]
            values = given[written.index(True)]
            assert storage.read([b"a", b"b"]) == list(values.values())


def test_writers_of_the_same_records_in_any_order_all_end(postgres_url: str) -> None:
    with closing(PostgresStorage(postgres_url)) as storage:
        keys = [b"%d" % number for number in range(20)]

        def write(number: int) -> None:
            for turn in range(10):
                order = keys[number:] + keys[:number]
                storage.publish(Batch(records=dict.fromkeys(order, b"%d/%d" % (number, turn))))

        at_once(8, write)
        assert len(set(storage.read(keys))) == 1


def test_two_processes_share_a_store(postgres_url: str) -> None:
    script = (
        "import sys\nfrom ckpt.storage.postgres import PostgresStorage\nfrom ckpt.testing.fixtures import add\n"
        "storage = PostgresStorage(sys.argv[1])\n[add(storage, b'sum', int(sys.argv[2])) for _ in range(100)]\n"
        "storage.close()"
    )
    writers = [python(script, postgres_url, amount) for amount in (1, 1000)]
    for writer in writers:
        output_of(writer, timeout=120)
    with closing(PostgresStorage(postgres_url)) as storage:
        assert storage.read([b"sum"]) == [b"100100"]


# -- the index of objects ------------------------------------------------------------------------------------


def test_who_stored_an_object_at_the_same_time_changes_nothing_that_is_read(postgres_url: str) -> None:
    with closing(PostgresStorage(postgres_url)) as storage:
        same = [key(number) for number in range(50)]
        at_once(8, lambda number: storage.publish(Batch(frames=[Frame(0, b"%d" % number, tuple(same))])))
        located = storage.locate(same)
        assert located.keys() == set(same)
        assert len({place.frame for place in located.values()}) == 1
        assert sorted(storage.scan_index(b"", 99)) == sorted(located.items())
        with storage.exclusive() as session:
            session.forget(same[:10])
        assert storage.locate(same).keys() == set(same[10:])
        assert [found for found, _ in storage.scan_index(b"", 99)] == same[10:]


@pytest.mark.parametrize("count", [1, 3, 4, 500, 501, 1200])
def test_what_is_fetched_is_what_is_located_and_loaded(postgres_url: str, count: int) -> None:
    """Of few keys and of many; chains meet, and some objects are listed by several frames."""
    with closing(PostgresStorage(postgres_url)) as storage:
        last = 0
        for start in range(0, 1500, 50):
            keys = tuple(key(number) for number in range(start, start + 50))
            behind = last if start % 200 else 0
            _, last = storage.publish(Batch(frames=[Frame(0, b"lone", ()), Frame(behind, b"%d" % start, keys)]))
        with storage.exclusive() as session:
            session.write(Batch(frames=[Frame(last, b"again", (key(3), key(703), key(3)))]))
        asked = [key(number * 37 % 1500) for number in range(count)] + [key(9999)]
        known = [last - 2]
        places, frames, where = storage.fetch(asked, known)
        assert places == storage.locate(asked)
        lie: dict[bytes, Place] = {}
        for number, (_, data) in sorted(frames.items()):
            there = range(int(data), int(data) + 50) if data.isdigit() else (3, 703)
            lie |= {key(each): Place(number, at) for at, each in enumerate(there)}
        assert where is not None
        every = [key(number) for number in (*range(1500), 9999)]
        for some in (every[700:704], every):
            assert where.find(some) == {each: lie[each] for each in some if each in lie}
        assert len(places) == count
        assert frames == storage.load({place.frame for place in places.values()}, known)
        assert {frame.data for frame in frames.values()}.isdisjoint({b"lone"})


def test_an_index_of_many_objects_is_read_in_order(postgres_url: str) -> None:
    keys = [secrets.token_bytes(16) for _ in range(3000)]
    with closing(PostgresStorage(postgres_url)) as storage:
        for start in range(0, 3000, 100):
            storage.publish(Batch(frames=[Frame(0, b"f", tuple(keys[start : start + 100]))]))
        found: list[bytes] = []
        while page := storage.scan_index(found[-1] if found else b"", 700):
            assert len(page) == min(700, 3000 - len(found))
            found += [each for each, _ in page]
        assert found == sorted(keys)


def test_an_index_whose_keys_lie_close_together_is_read_in_order(postgres_url: str) -> None:
    keys = [bytes(16), b"\x00" * 15 + b"\x01", b"\x7f" * 16, *(b"\xff" * 14 + b"%02d" % number for number in range(90))]
    with closing(PostgresStorage(postgres_url)) as storage:
        storage.publish(Batch(frames=[Frame(0, b"f", tuple(reversed(keys)))]))
        for limit in (1, 7, 1000):
            found: list[bytes] = []
            while page := storage.scan_index(found[-1] if found else b"", limit):
                found += [each for each, _ in page]
            assert found == keys


def test_what_is_forgotten_stays_forgotten_whatever_comes_next(postgres_url: str) -> None:
    with closing(PostgresStorage(postgres_url)) as storage:
        one, two = storage.publish(Batch(frames=[Frame(0, b"1", (key(1), key(2))), Frame(0, b"2", (key(3), key(4)))]))
        with storage.exclusive() as session:
            session.forget([key(1), key(3)])
            (new,) = session.write(Batch(frames=[Frame(0, b"n", (key(3),))]))
            session.drop([one])
            assert session.locate([key(1), key(3)]) == {key(3): Place(new, 0)}
            session.forget([key(4)])
        assert storage.scan_index(b"", 9) == [(key(3), Place(new, 0))]
        epoch = storage.epoch()
        with storage.exclusive() as session:
            session.forget([key(1), key(9)])
            session.drop([one])
        assert storage.epoch() == epoch
        with storage.exclusive() as session:
            session.forget([key(3)])
        assert storage.epoch() == epoch + 1
        assert storage.scan_index(b"", 9) == []
        assert set(storage.load([two, new])) == {two, new}


def test_what_amcheck_finds_is_told(postgres_dsn: str, admin: Admin) -> None:
    """With stand-ins under amcheck's names: they complain of one table and one index."""
    database = f"d_{secrets.token_hex(4)}"
    admin.execute(f"CREATE DATABASE {database}".encode())
    try:
        url = postgres_dsn.replace("/postgres?", f"/{database}?")
        with psycopg.connect(url, autocommit=True) as inside:
            inside.execute(
                b"""
                CREATE SCHEMA "am check";
                CREATE FUNCTION "am check".verify_heapam(relation regclass, OUT msg text) RETURNS SETOF text
                LANGUAGE sql AS $$ SELECT 'a torn page' WHERE relation::text LIKE '%frame' $$;
                CREATE FUNCTION "am check".bt_index_check(index regclass, heapallindexed boolean) RETURNS void
                LANGUAGE plpgsql AS $$ BEGIN
                    IF index::text LIKE '%record_pkey' THEN
                        RAISE EXCEPTION 'item order invariant violated' USING ERRCODE = 'index_corrupted';
                    END IF;
                END $$;
                INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
                VALUES (999999, 'amcheck', 10, '"am check"'::regnamespace, true, '1.3');
                """
            )
        with closing(PostgresStorage(url)) as storage:
            storage.publish(Batch(records={b"a": b"1"}))
            found = storage.verify()
            assert sorted(found) == ['"ckpt".frame: a torn page', '"ckpt".record: item order invariant violated']
            assert storage.read([b"a"]) == [b"1"]
    finally:
        admin.execute(f"DROP DATABASE {database} WITH (FORCE)".encode())


# -- steps -----------------------------------------------------------------------------------------------

OLD, NEW, OTHER = b"old", b"new", b"other"
RECORDS = {
    "new": (None, None),
    "changed": (OLD, OLD),
    "not there": (None, OLD),
    "there already": (OLD, None),
    "another": (OTHER, OLD),
}
"""What stands under a key, and what is expected there."""


def outcome(storage: Storage, batch: Batch) -> object:
    """Publish; return what went wrong, or what is in the frames then, and what stands under the keys."""
    try:
        frames: object = [frame.data for number in storage.publish(batch) for frame in storage.load([number]).values()]
    except RecordChangedError as error:
        frames = error.current
    except EpochChangedError as error:
        frames = error.epoch == storage.epoch()
    places = storage.locate([key for frame in batch.frames for key in frame.keys])
    located = {key: (storage.load([frame])[frame].data, position) for key, (frame, position) in places.items()}
    return frames, storage.read(list(batch.records)), located


@pytest.mark.parametrize("first", RECORDS)
@pytest.mark.parametrize("second", RECORDS)
def test_a_step_does_what_the_seam_says(first: str, second: str, postgres_url: str) -> None:
    """In memory, which is the plainest statement of it, all batches go one way."""
    frames = {"none": [], "free": [(1, 2)], "taken": [(8,)], "partly": [(3, 9, 3)], "many": [range(100, 700)]}
    with closing(PostgresStorage(postgres_url)) as storage, closing(MemoryStorage()) as plain:
        for each in (storage, plain):
            each.publish(Batch(frames=[Frame(0, b"before", (key(8), key(9)))]))
        for case, ((name, numbers), stale) in enumerate(product(frames.items(), (False, True))):
            a, b = b"%da" % case, b"%db" % case
            found: list[object] = []
            for each in (storage, plain):
                there = {a: RECORDS[first][0], b: RECORDS[second][0]}
                each.publish(Batch(records={at: value for at, value in there.items() if value is not None}))
                epoch = each.epoch() + stale
                made = [Frame(0, name.encode(), tuple(map(key, of))) for of in numbers]
                expected = {a: RECORDS[first][1], b: RECORDS[second][1]}
                found.append(outcome(each, Batch(expected, dict.fromkeys((a, b), NEW), made, epoch)))
            assert found[0] == found[1], (name, stale)

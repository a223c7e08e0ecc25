"""What `Session.settled` tells of a batch whose answer was lost: whether it was applied, whatever else was written.

The batches that are asked for are never sent: what stands in the store was written by others, alike in part.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from postgres_server import schema_of

from ckpt.storage.base import CHAINED, Batch, Frame
from ckpt.storage.postgres import PostgresStorage

KEY = bytes(16)
RECORDS = {b"t": b"1", b"c": b"ours"}


@pytest.fixture
def storage(postgres_url: str) -> Iterator[PostgresStorage]:
    with closing(PostgresStorage(postgres_url)) as storage:
        yield storage


def settled(storage: PostgresStorage, batch: Batch, floor: int = 0) -> list[int] | None:
    return storage._lend(lambda session: storage._settled(session, batch, floor))


def frame(data: bytes, previous: int = 0, *, optional: bool = False) -> Frame:
    return Frame(previous, data, (data.ljust(16),), optional)


def test_what_one_transaction_wrote_was_applied(storage: PostgresStorage) -> None:
    (base,) = storage.publish(Batch(frames=[frame(b"base")]))
    batch = Batch({}, RECORDS, [frame(b"a", base), frame(b"b", CHAINED), frame(b"base", optional=True)])
    numbers = storage.publish(batch)
    assert numbers[2] == 0
    assert settled(storage, batch, base) == numbers
    assert settled(storage, Batch({}, RECORDS), base) == []
    assert settled(storage, Batch(frames=batch.frames), base) == numbers


def test_frames_from_before_it_was_sent_are_those_of_another(storage: PostgresStorage) -> None:
    batch = Batch(frames=[frame(b"a")])
    (number,) = storage.publish(batch)
    assert settled(storage, batch, number - 1) == [number]
    assert settled(storage, batch, number) is None


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [frame(b"a")],
        [frame(b"a"), frame(b"x", CHAINED)],
        [frame(b"a", 7), frame(b"b", CHAINED)],
        [frame(b"b"), frame(b"a", CHAINED)],
        [frame(b"a"), frame(b"b")],
        [frame(b"a"), frame(b"b", CHAINED), frame(b"b", CHAINED)],
    ],
    ids=["none", "one", "another", "behind another", "in another order", "not chained", "twice"],
)
def test_frames_that_are_like_ours_and_not_ours(storage: PostgresStorage, frames: list[Frame]) -> None:
    storage.publish(Batch({}, RECORDS, frames))
    assert settled(storage, Batch({}, RECORDS, [frame(b"a"), frame(b"b", CHAINED)])) is None


def test_frames_and_records_that_two_wrote(storage: PostgresStorage) -> None:
    storage.publish(Batch(records=RECORDS))
    storage.publish(Batch(frames=[frame(b"a")]))
    assert settled(storage, Batch({}, RECORDS, [frame(b"a")])) is None
    # And what each of them wrote was applied.
    assert settled(storage, Batch({}, RECORDS)) == []
    assert settled(storage, Batch(frames=[frame(b"a")])) is not None


def test_of_two_that_wrote_the_same_frames_the_one_with_our_record(storage: PostgresStorage) -> None:
    one = Batch(records={b"t": b"1"}, frames=[frame(b"a")])
    two = Batch(records={b"u": b"1"}, frames=[frame(b"a")])
    numbers = [storage.publish(each) for each in (one, two)]
    assert [settled(storage, each) for each in (one, two)] == numbers
    assert settled(storage, Batch(records={b"v": b"1"}, frames=[frame(b"a")])) is None


def test_one_record_of_ours_beside_one_that_is_not(storage: PostgresStorage) -> None:
    """Written by the same transaction: it was another's. By a later one: somebody went on from ours."""
    batch = Batch({}, RECORDS, [frame(b"a")])
    (number,) = storage.publish(Batch({}, {b"t": b"1", b"c": b"theirs"}, [frame(b"a")]))
    assert settled(storage, batch) is None
    storage.publish(Batch(records={b"c": b"later"}))
    assert settled(storage, batch) == [number]
    # What was removed since, or never written, tells the same: that it is not known to be ours.
    storage.publish(Batch(records={b"c": None}))
    assert settled(storage, batch) is None


def test_a_removal_was_applied_if_nothing_is_left(storage: PostgresStorage) -> None:
    removal = Batch({}, {b"t": None, b"c": None})
    assert settled(storage, removal) == []
    storage.publish(Batch(records={b"t": b"1"}))
    assert settled(storage, removal) is None
    assert settled(storage, Batch({b"t": b"1"})) is None


def test_a_removal_beside_what_was_written(storage: PostgresStorage) -> None:
    batch = Batch({}, {b"t": b"1", b"c": None})
    storage.publish(Batch(records={b"t": b"1", b"c": b"not removed"}))
    assert settled(storage, batch) is None
    storage.publish(batch)
    assert settled(storage, batch) == []


def test_an_exclusive_writer_that_was_undone_leaves_no_epoch_that_comes_again(
    postgres_dsn: str, postgres_url: str
) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        storage = PostgresStorage(connection, schema=schema_of(postgres_url))
        epochs = [storage.epoch()]
        with connection.transaction():
            for _ in range(2):
                with connection.transaction(force_rollback=True), storage.exclusive() as session:
                    session.write(Batch(frames=[frame(b"undone")]))
                    session.raise_epoch()
                    epochs.append(session.epoch())
                epochs.append(storage.epoch())
        # The first call behind the transaction notices that it is over.
        storage.epoch()
        epochs.append(storage.epoch())
        storage.close()
    outside, _, first, _, second, behind = epochs
    assert len({outside, first, second, behind}) == 4

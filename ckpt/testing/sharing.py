"""The part of the contract that is about sharing: durability, other handles, many writers, and being exclusive."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from ckpt.storage.base import (
    CHAINED,
    Batch,
    EpochChangedError,
    Frame,
    Place,
    RecordChangedError,
    Storage,
    StoredFrame,
)
from ckpt.testing.fixtures import LAST, StorageFixtures, add, at_once, object_key


class SharingContract(StorageFixtures):
    """What holds when several threads, handles or processes use one store."""

    # -- durability and other handles -----------------------------------------------------------------

    def test_what_was_published_outlives_its_writer(self, storage: Storage, tmp_path: Path) -> None:
        (number,) = storage.publish(Batch(records={b"a": b"1"}, frames=[Frame(0, b"f", (object_key(1),))]))
        other = self.reopen(storage, tmp_path)
        if other is not storage:
            storage.close()
        with closing(other):
            assert other.read([b"a"]) == [b"1"]
            assert other.locate([object_key(1)]) == {object_key(1): Place(number, 0)}
            assert other.load([number]) == {number: StoredFrame(0, b"f")}

    def test_handles_see_each_other(self, storage: Storage, other: Storage) -> None:
        for number in range(20):
            writer, reader = (storage, other) if number % 2 else (other, storage)
            writer.publish(Batch({b"a": b"%d" % (number - 1) if number else None}, {b"a": b"%d" % number}))
            assert reader.read([b"a"]) == [b"%d" % number]

    # -- many writers ---------------------------------------------------------------------------------

    def test_of_two_writers_one_wins_and_the_other_is_told(self, storage: Storage, other: Storage) -> None:
        for turn in range(20):
            key = b"k%d" % turn

            def claim(number: int, key: bytes = key) -> bytes | None:
                try:
                    (storage, other)[number % 2].publish(
                        Batch(
                            {key: None},
                            {key: b"w%d" % number},
                            [Frame(0, b"w%d" % number, (key + bytes(13),))],
                        )
                    )
                except RecordChangedError as lost:
                    return lost.current[key]
                return None

            outcomes = at_once(4, claim)
            assert outcomes.count(None) == 1
            winner = b"w%d" % outcomes.index(None)
            assert storage.read([key]) == [winner]
            assert set(outcomes) == {None, winner}
        assert len(storage.scan_frames(0, 100)) == 20

    def test_no_update_is_lost_among_many_threads(self, storage: Storage, other: Storage) -> None:
        def work(number: int) -> None:
            for turn in range(25):
                handle = (storage, other)[number % 2]
                add(handle, b"sum", number + 1)
                handle.publish(Batch(records={b"own%d/%d" % (number, turn): b"x"}))
                assert handle.read([b"own%d/%d" % (number, turn)]) == [b"x"]

        at_once(8, work)
        assert storage.read([b"sum"]) == [b"%d" % (25 * sum(range(1, 9)))]
        assert len(storage.scan(b"own", b"owo")) == 200

    def test_chains_of_many_threads_do_not_mix(self, storage: Storage) -> None:
        def work(number: int) -> int:
            last = 0
            for turn in range(20):
                text = b"%d/%d" % (number, turn)
                frames = [Frame(last, text, (b"%16b" % text,)), Frame(CHAINED, text + b"+", ())]
                last = storage.publish(Batch(frames=frames))[-1]
            return last

        for number, last in enumerate(at_once(8, work)):
            chain = [frame.data for _, frame in sorted(storage.load([last]).items())]
            assert chain == [b"%d/%d%b" % (number, turn, end) for turn in range(20) for end in (b"", b"+")]

    # -- exclusive ------------------------------------------------------------------------------------

    def test_what_is_written_exclusively_appears_at_once(self, storage: Storage, other: Storage) -> None:
        storage.publish(Batch(records={b"a": b"1"}, frames=[Frame(0, b"old", (object_key(1), object_key(2)))]))
        before = storage.epoch()
        with storage.exclusive() as session:
            (old,) = session.scan_frames(0, 5)
            (number,) = session.write(Batch(records={b"a": b"2"}, frames=[Frame(0, b"new", (object_key(1),))]))
            session.forget([object_key(2), object_key(3)])
            session.drop([old[0], 987_654])
            assert session.read([b"a"]) == [b"2"]
            assert session.locate([object_key(1), object_key(2)]) == {object_key(1): Place(number, 0)}
            assert session.load([old[0], number]) == {number: StoredFrame(0, b"new")}
            assert session.scan(b"", LAST) == [(b"a", b"2")]
        assert other.read([b"a"]) == [b"2"]
        assert other.scan_index(b"", 9) == [(object_key(1), Place(number, 0))]
        assert other.scan_frames(0, 9) == [(number, 0, 3)]
        assert other.epoch() == storage.epoch() > before

    def test_readers_go_on_while_one_has_the_store_to_itself(self, storage: Storage) -> None:
        (old,) = storage.publish(Batch(records={b"a": b"1"}, frames=[Frame(0, b"old", (object_key(1),))]))
        epoch = storage.epoch()
        with storage.exclusive() as session:
            (new,) = session.write(Batch(records={b"a": b"2"}, frames=[Frame(0, b"new", (object_key(2),))]))
            session.forget([object_key(1)])
            session.drop([old])
            seen = at_once(
                2,
                lambda _: (
                    storage.read([b"a"]),
                    storage.locate([object_key(1), object_key(2)]),
                    storage.load([old, new]),
                    storage.epoch(),
                ),
            )
        before = ([b"1"], {object_key(1): Place(old, 0)}, {old: StoredFrame(0, b"old")}, epoch)
        assert seen == [before, before]

    def test_an_exception_undoes_all(self, storage: Storage, other: Storage) -> None:
        (number,) = storage.publish(Batch(records={b"a": b"1"}, frames=[Frame(0, b"old", (object_key(1),))]))
        before = storage.epoch()
        for failure in (ValueError, KeyboardInterrupt, EpochChangedError(7)):
            with (
                pytest.raises(failure if isinstance(failure, type) else type(failure)),
                storage.exclusive() as session,
            ):
                session.write(Batch(records={b"a": None, b"b": b"2"}, frames=[Frame(0, b"new", (object_key(1),))]))
                session.forget([object_key(1)])
                session.drop([number])
                raise failure
            assert other.scan(b"", LAST) == [(b"a", b"1")]
            assert other.scan_index(b"", 9) == [(object_key(1), Place(number, 0))]
            assert other.load([number]) == {number: StoredFrame(0, b"old")}
            assert len(other.scan_frames(0, 9)) == 1
            assert storage.epoch() == other.epoch() == before
        storage.publish(Batch({b"a": b"1"}, {b"a": b"2"}, epoch=before))
        assert other.read([b"a"]) == [b"2"]

    def test_the_epoch_stays_when_nothing_was_written(self, storage: Storage) -> None:
        storage.publish(Batch(records={b"a": b"1"}))
        before = storage.epoch()
        with storage.exclusive() as session:
            assert session.read([b"a"]) == [b"1"]
        assert storage.epoch() == before

    def test_the_epoch_is_raised_on_request(self, storage: Storage, other: Storage) -> None:
        storage.publish(Batch(records={b"a": b"1"}))
        before = storage.epoch()
        with storage.exclusive() as session:
            session.raise_epoch()
        assert storage.epoch() == other.epoch() > before
        with pytest.raises(EpochChangedError):
            other.publish(Batch(records={b"a": b"2"}, epoch=before))
        assert storage.read([b"a"]) == [b"1"]

    def test_an_exclusive_write_has_the_conditions_of_a_batch(self, storage: Storage) -> None:
        storage.publish(Batch(records={b"a": b"1"}))
        with pytest.raises(RecordChangedError) as caught, storage.exclusive() as session:
            session.write(Batch({b"a": None}, {b"a": b"2"}))
        assert caught.value.current == {b"a": b"1"}
        assert storage.read([b"a"]) == [b"1"]

    def test_writers_wait_for_the_exclusive_one(self, storage: Storage, other: Storage) -> None:
        storage.publish(Batch(records={b"sum": b"0"}))

        def work(number: int) -> None:
            for _ in range(10):
                if number:
                    add((storage, other)[number % 2], b"sum", 1)
                else:
                    with storage.exclusive() as session:
                        old = session.read([b"sum"])[0]
                        session.write(Batch(records={b"sum": b"%d" % (int(old or b"") + 100)}))

        at_once(5, work)
        assert storage.read([b"sum"]) == [b"1040"]

"""The promises of `ckpt.storage.base`, each as a test that runs on every backend.

Subclass `StorageContract` once per backend and override `open_storage`; the tests themselves never change. They
know bytes only: what records and frames mean is not tested here. Values are chosen so that every wrong outcome
(the loser's value, an older one, none) differs from the right one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from threading import Event, Thread
from typing import TypeVar

import pytest

from ckpt.errors import StoreUnavailableError
from ckpt.storage.base import (
    CHAINED,
    FRAME_OBJECTS_MAX,
    Batch,
    EpochChangedError,
    Frame,
    Place,
    RecordChangedError,
    Storage,
    StoredFrame,
    Usage,
    View,
)
from ckpt.testing.fixtures import HOSTILE_KEYS, HOSTILE_VALUES, LAST, at_once, object_key
from ckpt.testing.sharing import SharingContract


class StorageContract(SharingContract):
    """The contract suite. Safe to run in parallel with itself: each test has a store of its own."""

    # -- records ------------------------------------------------------------------------------------

    def test_a_new_store_is_empty(self, storage: Storage) -> None:
        assert storage.read([b"a", b""]) == [None, None]
        assert storage.scan(b"", LAST) == []
        assert storage.scan_index(b"", 10) == [] == storage.scan_frames(0, 10)
        assert storage.locate([object_key(1)]) == {} == storage.load([1])

    def test_records_are_read_in_the_order_asked_for(self, storage: Storage) -> None:
        storage.publish(Batch(records={b"a": b"1", b"b": b"2", b"c": b""}))
        assert storage.read([b"c", b"x", b"a", b"c", b"b"]) == [b"", None, b"1", b"", b"2"]
        assert storage.read([]) == []

    def test_any_number_of_records_is_read_at_once(self, storage: Storage) -> None:
        records = {b"%05d" % number: b"v%d" % number for number in range(3000)}
        storage.publish(Batch(records=records))
        wanted = [key for number in reversed(range(3000)) for key in (b"%05d" % number, b"no%d" % number)]
        assert storage.read(wanted) == [records.get(key) for key in wanted]

    @pytest.mark.parametrize("value", HOSTILE_VALUES, ids=lambda value: f"{value[:4]!r}x{len(value)}")
    def test_keys_and_values_are_any_bytes(self, storage: Storage, other: Storage, value: bytes) -> None:
        records = {key: b"%d:" % number + value for number, key in enumerate(HOSTILE_KEYS)}
        records[b"bare"] = value
        storage.publish(Batch(records=records))
        for key, wanted in records.items():
            assert other.read([key]) == [wanted]
        assert other.read(list(records)) == list(records.values())

    def test_a_record_is_replaced_and_removed(self, storage: Storage) -> None:
        storage.publish(Batch(records={b"a": b"1", b"b": b"1"}))
        storage.publish(Batch(records={b"a": b"2", b"b": None, b"never": None}))
        assert storage.read([b"a", b"b", b"never"]) == [b"2", None, None]
        assert storage.scan(b"", LAST) == [(b"a", b"2")]

    def test_a_scan_is_ordered_as_bytes(self, storage: Storage) -> None:
        storage.publish(Batch(records={key: b"v" + key for key in HOSTILE_KEYS}))
        rows = [(key, b"v" + key) for key in sorted(HOSTILE_KEYS)]
        assert storage.scan(b"", LAST) == rows
        assert storage.scan(b"", LAST, reverse=True) == rows[::-1]
        for limit in (0, 1, 2, len(rows), len(rows) + 1):
            assert storage.scan(b"", LAST, limit=limit) == rows[:limit]
            assert storage.scan(b"", LAST, limit=limit, reverse=True) == rows[::-1][:limit]

    def test_a_scan_takes_its_start_and_leaves_out_its_end(self, storage: Storage) -> None:
        storage.publish(Batch(records=dict.fromkeys(HOSTILE_KEYS, b"")))
        keys = sorted(HOSTILE_KEYS)
        for start in keys:
            for end in (*keys, LAST):
                wanted = [(key, b"") for key in keys if start <= key < end]
                assert storage.scan(start, end) == wanted
                assert storage.scan(start, end, reverse=True) == wanted[::-1]

    def test_a_read_of_many_records_is_as_of_one_moment(self, storage: Storage, other: Storage) -> None:
        keys = [b"%05d" % number for number in range(1500)]
        with _rewritten(other, keys, 40) as done:
            while not done.is_set():
                assert len(set(storage.read(keys))) == 1
                assert len({value for _, value in storage.scan(b"", LAST)}) == 1

    def test_a_view_holds_keys_and_ranges(self, storage: Storage, other: Storage) -> None:
        storage.publish(Batch(records={b"a": b"1", b"b": b"2", b"ba": b"3", b"c": b"4"}))
        wanted = View([b"4", None, b"1"], [[(b"b", b"2"), (b"ba", b"3")], [], [(b"a", b"1")]])
        assert other.view([b"c", b"x", b"a"], [(b"b", b"c"), (b"x", b"y"), (b"a", b"b")]) == wanted
        assert [other.view([], []), other.view([b"a"], [])] == [View([], []), View([b"1"], [])]
        assert other.view([b"x"], [(b"b", b"c"), (b"b", b"a")], last=1) == View([None], [[(b"ba", b"3")], []])
        # A range that begins right behind the key.
        assert other.view([b"b"], [(b"b\0", LAST)]) == View([b"2"], [[(b"ba", b"3"), (b"c", b"4")]])
        assert other.view([b"b"], [(b"b\0", LAST)], last=1) == View([b"2"], [[(b"c", b"4")]])
        assert other.view([b"bb"], [(b"bb\0", LAST)]) == View([None], [[(b"c", b"4")]])
        assert other.view([b"b"], [(b"b\0", b"a")]) == View([b"2"], [[]])

    def test_a_view_is_as_of_one_moment(self, storage: Storage, other: Storage) -> None:
        keys = [b"%02d" % number for number in range(40)]
        with _rewritten(other, keys, 150) as done:
            while not done.is_set():
                values, ranges = storage.view(keys[:10], [(keys[10], keys[20]), (keys[20], LAST)])
                assert len({*values, *(value for found in ranges for _, value in found)}) == 1

    # -- frames and the index -----------------------------------------------------------------------

    def test_a_frame_is_loaded_with_all_that_come_before_it(self, storage: Storage, other: Storage) -> None:
        one, two, three = storage.publish(
            Batch(frames=[Frame(0, b"one", ()), Frame(CHAINED, b"two", ()), Frame(0, b"three", ())])
        )
        (four,) = storage.publish(Batch(frames=[Frame(two, b"four", ())]))
        five, six = storage.publish(Batch(frames=[Frame(three, b"five", ()), Frame(CHAINED, b"six", ())]))
        assert len({one, two, three, four, five, six}) == 6
        assert min(one, two, three, four, five, six) > 0
        first = {one: StoredFrame(0, b"one"), two: StoredFrame(one, b"two"), four: StoredFrame(two, b"four")}
        second = {
            three: StoredFrame(0, b"three"),
            five: StoredFrame(three, b"five"),
            six: StoredFrame(five, b"six"),
        }
        assert other.load([four]) == first
        assert other.load([six, two, 987_654]) == second | {one: first[one], two: first[two]}
        assert other.load([]) == {}

    def test_a_long_pack_and_many_packs_are_loaded_at_once(self, storage: Storage) -> None:
        chained = [Frame(CHAINED if i else 0, b"c%d" % i, ()) for i in range(1200)]
        pack = storage.publish(Batch(frames=chained))
        lone = storage.publish(Batch(frames=[Frame(0, b"l%d" % i, ()) for i in range(1200)]))
        loaded = storage.load([pack[-1], *lone])
        assert {number: frame.data for number, frame in loaded.items()} == {
            **{number: b"c%d" % i for i, number in enumerate(pack)},
            **{number: b"l%d" % i for i, number in enumerate(lone)},
        }
        assert [loaded[number].previous for number in pack] == [0, *pack[:-1]]

    @pytest.mark.parametrize("data", HOSTILE_VALUES, ids=lambda value: f"{value[:4]!r}x{len(value)}")
    def test_a_frame_is_any_bytes(self, storage: Storage, other: Storage, data: bytes) -> None:
        (number,) = storage.publish(Batch(frames=[Frame(0, data, (object_key(1),))]))
        assert other.load([number]) == {number: StoredFrame(0, data)}

    def test_the_index_tells_frame_and_position(self, storage: Storage, other: Storage) -> None:
        keys = [object_key(number * 7919 % 4001) for number in range(2000)]
        one, two = storage.publish(
            Batch(frames=[Frame(0, b"one", tuple(keys[:1500])), Frame(CHAINED, b"two", tuple(keys[1500:]))])
        )
        places = {key: Place(one, i) if i < 1500 else Place(two, i - 1500) for i, key in enumerate(keys)}
        assert other.locate([*keys, object_key(5000)]) == places
        assert other.locate([]) == {}

    def test_objects_are_fetched_with_their_frames(self, storage: Storage, other: Storage) -> None:
        keys = [object_key(number) for number in range(6)]
        one, two, three = storage.publish(
            Batch(
                frames=[
                    Frame(0, b"one", (keys[0], keys[1])),
                    Frame(CHAINED, b"two", (keys[2],)),
                    Frame(CHAINED, b"three", (keys[3],)),
                ]
            )
        )
        (lone,) = storage.publish(Batch(frames=[Frame(0, b"lone", (keys[4],))]))
        first, second = StoredFrame(0, b"one"), StoredFrame(one, b"two")
        held = {one: keys[:2], two: keys[2:3], three: keys[3:4], lone: keys[4:5]}

        def fetched(wanted: list[bytes], known: Sequence[int] = ()) -> tuple[object, object]:
            places, frames, where = other.fetch(wanted, known)
            lie = {key: Place(number, at) for number in frames for at, key in enumerate(held[number])}
            for few_or_many in (keys[:2], keys):
                found = {key: lie[key] for key in few_or_many if key in lie}
                assert where is None or where.find(few_or_many) == found
            return places, frames

        assert fetched([]) == ({}, {}) == fetched([keys[5]])
        places = {keys[2]: Place(two, 0), keys[4]: Place(lone, 0)}
        all_of_both = {one: first, two: second, lone: StoredFrame(0, b"lone")}
        assert fetched([keys[4], keys[2], keys[5]]) == (places, all_of_both)
        assert fetched([keys[3]], [one, lone]) == (
            {keys[3]: Place(three, 0)},
            {two: second, three: StoredFrame(two, b"three")},
        )
        # What was asked for comes even if it is known.
        assert fetched([keys[1]], [one]) == ({keys[1]: Place(one, 1)}, {one: first})

    def test_a_frame_may_hold_as_many_objects_as_promised(self, storage: Storage) -> None:
        keys = tuple(object_key(number) for number in range(FRAME_OBJECTS_MAX))
        one, two = storage.publish(Batch(frames=[Frame(0, b"full", keys), Frame(0, b"next", (b"x" * 16,))]))
        assert storage.locate([keys[0], keys[-1], b"x" * 16]) == {
            keys[0]: Place(one, 0),
            keys[-1]: Place(one, FRAME_OBJECTS_MAX - 1),
            b"x" * 16: Place(two, 0),
        }

    def test_an_object_keeps_its_place(self, storage: Storage) -> None:
        old, new, fresh = object_key(1), object_key(2), object_key(3)
        (first,) = storage.publish(Batch(frames=[Frame(0, b"first", (b"-" * 16, old))]))
        second, third = storage.publish(
            Batch(frames=[Frame(0, b"second", (old, new)), Frame(0, b"third", (b"+" * 16, fresh, new))])
        )
        assert storage.locate([old, new, fresh]) == {
            old: Place(first, 1),
            new: Place(second, 1),
            fresh: Place(third, 1),
        }

    def test_what_is_called_fresh_and_is_not_has_one_of_its_places(self, storage: Storage) -> None:
        one, two = object_key(1), object_key(2)
        steps: list[int] = []
        for number in range(2):
            records = {b"a%d" % number: b"1", b"b%d" % number: b"1"}
            fresh = Frame(0, b"f%d" % number, (one, two), fresh=True)
            steps += storage.publish(Batch(dict.fromkeys(records), records, [fresh], storage.epoch()))
        places = storage.locate([one, two])
        assert {place.frame for place in places.values()} <= set(steps)
        assert [places[key].position for key in (one, two)] == [0, 1]
        assert (dict(storage.scan_index(b"", 9)), storage.usage().objects) == (places, 2)
        assert storage.fetch([one], ()).places == {one: places[one]}
        with storage.exclusive() as session:
            session.forget([one])
        assert storage.locate([one, two]) == {two: places[two]}

    def test_what_is_done_meanwhile_is_not_told_how_it_ends(self, storage: Storage) -> None:
        calls: list[str] = []
        storage.publish(Batch({}, {b"a": b"1"}, meanwhile=lambda: calls.append("applied")))
        with pytest.raises(RecordChangedError):
            storage.publish(Batch({b"a": b"2"}, {b"a": b"3"}, meanwhile=lambda: calls.append("refused")))
        assert storage.read([b"a"]) == [b"1"]
        assert set(calls) <= {"applied", "refused"}

    def test_an_optional_frame_is_left_out_when_nothing_in_it_is_new(self, storage: Storage) -> None:
        one, two, three, four = (object_key(number) for number in range(1, 5))
        storage.publish(Batch(frames=[Frame(0, b"old", (one, two))]))
        left_out, kept, whole = storage.publish(
            Batch(
                frames=[
                    Frame(0, b"twice", (two, one, two), optional=True),
                    Frame(0, b"partly", (one, three), optional=True),
                    Frame(0, b"whole", (one, two)),
                ]
            )
        )
        assert left_out == 0 < min(kept, whole)
        assert storage.load([kept, whole]) == {kept: StoredFrame(0, b"partly"), whole: StoredFrame(0, b"whole")}
        assert len(storage.scan_frames(0, 9)) == 3
        assert storage.locate([three]) == {three: Place(kept, 1)}
        # Within one batch, what came before counts too.
        first, again = storage.publish(
            Batch(frames=[Frame(0, b"new", (four,)), Frame(0, b"new too", (four, one), optional=True)])
        )
        assert again == 0 < first

    def test_the_number_of_a_frame_is_never_given_out_again(self, storage: Storage, other: Storage) -> None:
        numbers = storage.publish(Batch(frames=[Frame(0, b"a", ()), Frame(0, b"b", ()), Frame(0, b"c", ())]))
        for _ in range(2):
            with storage.exclusive() as session:
                session.drop(numbers)
            again = other.publish(Batch(frames=[Frame(0, b"d", ()), Frame(CHAINED, b"e", ())]))
            assert min(again) > max(numbers)
            assert storage.load(again[1:]) == {again[0]: StoredFrame(0, b"d"), again[1]: StoredFrame(again[0], b"e")}
            assert storage.load(numbers) == {}
            numbers = again

    def test_the_index_and_the_frames_are_scanned_in_pages(self, storage: Storage) -> None:
        frames = [Frame(0, b"x" * i, tuple(object_key(i * 10 + j) for j in (2, 0, 1))) for i in range(1, 8)]
        numbers = storage.publish(Batch(frames=frames))
        rows = sorted(
            (key, Place(number, position))
            for number, frame in zip(numbers, frames, strict=True)
            for position, key in enumerate(frame.keys)
        )
        scanned = _paged(lambda after: storage.scan_index(after, 4), b"")
        assert sorted(scanned) == rows
        assert _paged(lambda after: storage.scan_index(after, 5), b"") == scanned
        sizes = [(number, 0, len(frame.data)) for number, frame in zip(numbers, frames, strict=True)]
        assert _paged(lambda after: storage.scan_frames(after, 3), 0) == sorted(sizes)
        assert storage.scan_index(scanned[-1][0], 5) == [] == storage.scan_frames(max(numbers), 5)

    def test_usage_adds_up(self, storage: Storage) -> None:
        before = storage.usage()
        assert before == Usage(before.disk, 0, 0, before.free, 0)
        storage.publish(
            Batch(
                records={b"k": bytes(50_000)},
                frames=[Frame(0, bytes(70_000), (object_key(1), object_key(2)))],
            )
        )
        after = storage.usage()
        assert (after.frames, after.objects) == (70_000, 2)
        assert 50_000 <= after.records <= 50_100
        assert after.disk >= 120_000

    # -- conditions ---------------------------------------------------------------------------------

    def test_a_lost_race_changes_nothing_and_tells_the_values_found(self, storage: Storage) -> None:
        storage.publish(Batch(records={b"a": b"1", b"b": b"2", b"empty": b""}))
        for wrong in ({b"a": b"0"}, {b"a": None}, {b"absent": b""}, {b"empty": None}, {b"b": b""}):
            expected = {b"a": b"1", b"c": None, **wrong}
            with pytest.raises(RecordChangedError) as caught:
                storage.publish(
                    Batch(expected, {b"a": b"9", b"new": b"9", b"b": None}, [Frame(0, b"no", (object_key(1),))])
                )
            current = {b"a": b"1", b"b": b"2", b"empty": b""}
            assert caught.value.current == {key: current.get(key) for key in expected}
        assert storage.scan(b"", LAST) == [(b"a", b"1"), (b"b", b"2"), (b"empty", b"")]
        assert storage.scan_frames(0, 9) == [] == storage.scan_index(b"", 9)

    def test_what_is_expected_may_be_many_records_and_hostile_ones(self, storage: Storage) -> None:
        records: dict[bytes, bytes | None] = {key: b"1" + key for key in HOSTILE_KEYS}
        records |= {b"%05d" % number: b"" for number in range(1500)}
        storage.publish(Batch(dict.fromkeys(records), records))
        storage.publish(Batch(records, {b"done": b"yes"}))
        with pytest.raises(RecordChangedError) as caught:
            storage.publish(Batch({**records, b"00777": None}, {b"done": b"no"}))
        assert caught.value.current == records
        assert storage.read([b"done"]) == [b"yes"]

    def test_a_stale_epoch_is_refused(self, storage: Storage) -> None:
        storage.publish(Batch(records={b"a": b"1"}, epoch=storage.epoch()))
        stale = storage.epoch()
        storage.publish(Batch(records={b"a": None}, epoch=stale))
        with pytest.raises(EpochChangedError) as caught:
            storage.publish(Batch({b"a": None}, {b"b": b"2"}, [Frame(0, b"no", (object_key(1),))], epoch=stale))
        assert caught.value.epoch == storage.epoch() != stale
        assert storage.scan(b"", LAST) == [] == storage.scan_frames(0, 9)
        assert storage.locate([object_key(1)]) == {}
        storage.publish(Batch(records={b"b": b"3"}))
        assert storage.read([b"b"]) == [b"3"]

    def test_only_a_removal_raises_the_epoch(self, storage: Storage, other: Storage) -> None:
        start = storage.epoch()
        storage.publish(Batch(records={b"a": b"1", b"b": b"1"}, frames=[Frame(0, b"f", (object_key(1),))]))
        storage.publish(Batch({b"a": b"1"}, {b"a": b"2"}))
        assert other.epoch() == start
        storage.publish(Batch(records={b"a": None, b"c": b"1"}))
        assert other.epoch() > start
        with pytest.raises(RecordChangedError):
            storage.publish(Batch({b"b": None}, {b"b": None}))
        assert storage.epoch() == other.epoch() > start

    def test_an_empty_batch_is_allowed(self, storage: Storage) -> None:
        before = storage.epoch()
        assert storage.publish(Batch()) == []
        assert storage.epoch() == before

    # -- the end --------------------------------------------------------------------------------------

    def test_compacting_loses_nothing(self, storage: Storage, other: Storage) -> None:
        keep = {b"%05d" % number: bytes(100) for number in range(200)}
        numbers = storage.publish(Batch(records=keep, frames=[Frame(0, bytes(90_000), ()) for _ in range(20)]))
        with storage.exclusive() as session:
            session.drop(numbers[1:])
        storage.compact()
        assert other.scan(b"", LAST) == sorted(keep.items())
        assert other.load(numbers) == {numbers[0]: StoredFrame(0, bytes(90_000))}
        deadline = time.monotonic() + 10
        while storage.usage().disk >= 20 * 90_000 and time.monotonic() < deadline:
            # A server keeps what somebody else on it may still look at.
            time.sleep(0.1)
            storage.compact()
        assert storage.usage().disk < 20 * 90_000
        storage.compact()

    def test_a_sound_store_has_nothing_to_complain_of(self, storage: Storage, other: Storage) -> None:
        assert storage.verify() == []
        storage.publish(Batch(records={b"a": bytes(9000)}, frames=[Frame(0, bytes(90_000), (object_key(1),))]))
        assert storage.verify() == [] == other.verify()

    def test_a_closed_store_says_so(self, storage: Storage) -> None:
        storage.publish(Batch(records={b"a": b"1"}))
        storage.close()
        storage.close()
        calls: Sequence[Callable[[], object]] = (
            storage.epoch,
            lambda: storage.read([b"a"]),
            lambda: storage.scan(b"", LAST),
            lambda: storage.locate([object_key(1)]),
            lambda: storage.load([1]),
            lambda: storage.scan_index(b"", 1),
            lambda: storage.scan_frames(0, 1),
            storage.usage,
            lambda: storage.publish(Batch(records={b"a": b"2"})),
            lambda: storage.exclusive().__enter__(),
            storage.compact,
        )
        for call in calls:
            with pytest.raises(StoreUnavailableError):
                call()

    def test_closing_under_way_is_safe(self, storage: Storage) -> None:
        def work(number: int) -> int:
            # All but the first go on until they are told: however the threads take turns, it is the first that closes.
            for turn in range(20) if number == 0 else count():
                try:
                    storage.publish(Batch(records={b"%d" % number: b"%d" % turn}))
                    assert storage.read([b"%d" % number]) == [b"%d" % turn]
                except StoreUnavailableError:
                    return turn
            storage.close()
            return 0

        assert at_once(5, work)[0] == 0

    def test_the_url_is_one(self, storage: Storage) -> None:
        assert "://" in storage.url


_Row = TypeVar("_Row", bound=tuple[object, ...])
_After = TypeVar("_After")


@contextmanager
def _rewritten(storage: Storage, keys: Collection[bytes], times: int) -> Iterator[Event]:
    """Give all keys one value, then have a thread replace it by another one, again and again; says when it ended."""
    storage.publish(Batch(records=dict.fromkeys(keys, b"0")))
    done = Event()

    def write() -> None:
        try:
            for version in range(1, times):
                storage.publish(Batch(records=dict.fromkeys(keys, b"%d" % version)))
        finally:
            done.set()

    writer = Thread(target=write)
    writer.start()
    try:
        yield done
    finally:
        writer.join()


def _paged(page: Callable[[_After], Collection[_Row]], after: _After) -> list[_Row]:
    """Return all rows of a scan in pages whose rows begin with what the next page comes after."""
    rows: list[_Row] = []
    while found := list(page(after)):
        rows += found
        after = found[-1][0]  # type: ignore[assignment]
    return rows

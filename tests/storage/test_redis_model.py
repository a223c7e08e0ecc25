"""A Redis store does what the store in memory does: random operations on both, and a large index."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_kit import keys_of
from redis_server import prefixed

from ckpt.errors import ConflictError, InvalidInputError
from ckpt.storage.base import Batch, Frame, Reading, RecordChangedError
from ckpt.storage.memory import MemoryStorage
from ckpt.storage.redis import RedisStorage
from ckpt.testing.fixtures import LAST

KEYS = [
    b"",
    b"\x00",
    b"\x00\x00",
    b"\x00\xff",
    b"a",
    b"a\x00",
    b"a\x00\x00",
    b"a\x00\xff",
    b"a\x01",
    b"b",
    b"\xff",
    b"\xff\xff",
]
OBJECTS = [
    bytes(16),
    bytes(15) + b"\x01",
    b"\x80" + bytes(15),
    *(sha256(b"%d" % n).digest()[:16] for n in range(9)),
    b"\xff" * 16,
]
VALUES = [b"", b"-", b"=", b"\x00", b"\x00\x00", b"1", b"22"]

keys = st.sampled_from(KEYS)
objects = st.lists(st.sampled_from(OBJECTS), max_size=5).map(tuple)
records = st.dictionaries(keys, st.none() | st.sampled_from(VALUES), max_size=4)
frames = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(VALUES), objects, st.booleans()), max_size=3)
batches = st.tuples(st.dictionaries(keys, st.booleans(), max_size=2), records, frames, st.booleans())
numbers = st.lists(st.integers(0, 12), max_size=4)
steps = st.one_of(
    st.tuples(st.just("write"), batches),
    st.tuples(st.just("forget"), objects),
    st.tuples(st.just("drop"), numbers),
    st.tuples(st.just("raise"), st.none()),
    st.tuples(st.just("look"), st.none()),
)
acts = st.one_of(
    st.tuples(st.just("publish"), batches),
    st.tuples(st.just("exclusive"), st.tuples(st.lists(steps, max_size=5), st.booleans())),
)


class Abandoned(Exception):
    pass


def batch_of(reading: Reading, drawn: Any) -> Batch:
    """Make a batch: what it expects is what stands there, or something else; the same on both stores."""
    expected, changes, laid, checked = drawn
    current = {
        key: value if right else b"never"
        for (key, right), value in zip(expected.items(), reading.read(list(expected)), strict=True)
    }
    # Nobody can name a frame that is still to come.
    there = {number for number, _, _ in reading.scan_frames(0, 50)}
    made: list[Frame] = []
    for previous, data, held, optional in laid:
        chained = previous == 1 and bool(made) and not made[-1].optional
        behind = previous if previous in there and not optional else 0
        made.append(Frame(-1 if chained else behind, data, held, optional and not chained))
    return Batch(current, changes, made, reading.epoch() if checked else None)


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except RecordChangedError as error:
        return error.current


def seen(reading: Reading) -> list[Any]:
    """Return all that a store shows, by every call and with every limit that could matter."""
    bounds = [(b"", LAST), (b"\x00", b"a\x00\xff"), (b"a", b"b"), (b"b", b"a")]
    found: list[Any] = [reading.read(KEYS), reading.view(KEYS[::-1], bounds), reading.locate(OBJECTS)]
    found += [reading.view(KEYS[:count], bounds, last=last) for count in (0, 1) for last in (1, 3)]
    for start, end in bounds:
        found += [
            reading.scan(start, end, limit=limit, reverse=reverse)
            for limit in (None, 0, 1, 3, 50)
            for reverse in (False, True)
        ]
    found += [
        reading.scan_index(after, limit) for after in (b"", b"\x80", OBJECTS[5], bytes(20)) for limit in (0, 1, 4, 50)
    ]
    found += [reading.scan_frames(after, limit) for after in (0, 3) for limit in (1, 2, 50)]
    found += [sorted(reading.load(range(14), known).items()) for known in ((), (1, 3, 5))]
    found += [sorted(reading.load([n], known).items()) for n in range(1, 6) for known in ((), (1, 2), (3,))]
    return found


def act(storage: Any, drawn: Any) -> list[Any]:
    kind, rest = drawn
    if kind == "publish":
        return [outcome(lambda: storage.publish(batch_of(storage, rest)))]
    todo, abandoned = rest
    found: list[Any] = []
    try:
        with storage.exclusive() as session:
            for name, what in todo:
                if name == "write":
                    found.append(outcome(lambda what=what: session.write(batch_of(session, what))))
                elif name == "forget":
                    session.forget(what)
                elif name == "drop":
                    session.drop(what)
                elif name == "raise":
                    session.raise_epoch()
                else:
                    found.append(seen(session))
            if abandoned:
                raise Abandoned
    except Abandoned:
        pass
    return found


_stores = count()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(acts, max_size=8))
def test_redis_and_memory_agree(redis_url: str, tmp_path: Path, drawn: list[Any]) -> None:
    with ExitStack() as stack:
        ours = stack.enter_context(closing(RedisStorage(prefixed(redis_url, tmp_path / str(next(_stores))))))
        model = stack.enter_context(closing(MemoryStorage()))
        for each in drawn:
            epochs = ours.epoch(), model.epoch()
            assert act(ours, each) == act(model, each)
            assert seen(ours) == seen(model)
            assert (ours.epoch() > epochs[0]) == (model.epoch() > epochs[1])
        assert ours.verify() == []
        usage, wanted = ours.usage(), model.usage()
        assert (usage.frames, usage.objects) == (wanted.frames, wanted.objects)


def test_a_large_index_stays_ordered_and_in_small_buckets(redis_url: str, tmp_path: Path) -> None:
    url = prefixed(redis_url, tmp_path)
    prefix = url.rpartition("=")[2]
    found = [sha256(b"%d" % number).digest()[:16] for number in range(20_000)]
    with closing(RedisStorage(url)) as storage, redis.Redis.from_url(redis_url) as client:
        for start in range(0, 18_000, 600):
            storage.publish(Batch(frames=[Frame(0, b"f", tuple(found[start : start + 600]))]))
        for each in found[18_000:]:
            storage.publish(Batch(frames=[Frame(0, b"g", (each,))]))
        places = storage.locate(found)
        assert {key: place.frame for key, place in places.items()} == {
            key: n // 600 + 1 if n < 18_000 else n - 18_000 + 31 for n, key in enumerate(found)
        }
        pages: list[bytes] = []
        while page := storage.scan_index(pages[-1] if pages else b"", 777):
            pages += [key for key, _ in page]
        assert pages == sorted(found)
        sizes = [len(entries) // 24 for entries in client.hvals(keys_of(prefix)["index"])]
        assert sum(sizes) == 20_000
        assert max(sizes) < 80
        assert 12 < sum(sizes) / len(sizes) <= 17
        with storage.exclusive() as session:
            session.forget(found[::2])
        assert storage.scan_index(b"", 30_000) == sorted((key, places[key]) for key in found[1::2])
        assert storage.verify() == []
        with storage.exclusive() as session:
            session.forget(found)
        assert (storage.scan_index(b"", 9), client.exists(keys_of(prefix)["index"])) == ([], 0)
        storage.publish(Batch(frames=[Frame(0, b"h", tuple(found[:100]))]))
        assert len(storage.scan_index(b"", 200)) == 100
        assert storage.verify() == []


def test_a_page_of_frames_looks_at_a_bounded_number_of_bytes(redis_url: str, tmp_path: Path) -> None:
    with closing(RedisStorage(prefixed(redis_url, tmp_path))) as storage:
        numbers = storage.publish(Batch(frames=[Frame(0, bytes(1 << 20), ())] * 40))
        first = storage.scan_frames(0, 1000)
        assert 8 <= len(first) < 40
        rows: list[tuple[int, int, int]] = []
        while page := storage.scan_frames(rows[-1][0] if rows else 0, 1000):
            rows += page
        assert rows == [(number, 0, 1 << 20) for number in numbers]
        with storage.exclusive() as session:
            (last,) = session.write(Batch(frames=[Frame(0, b"x", ())]))
            session.drop(numbers[:30])
            assert session.scan_frames(0, 1000) == [*rows[30:], (last, 0, 1)]


@pytest.mark.parametrize("where", ["frame", "record", "expected", "together"])
def test_what_redis_cannot_hold_is_refused_before_it_is_sent(redis_url: str, tmp_path: Path, where: str) -> None:
    large = bytes(501 << 20)
    batches = {
        "frame": Batch(frames=[Frame(0, large, ())]),
        "record": Batch(records={b"a": large}),
        "expected": Batch({b"a": large}, {b"a": b"1"}),
        "together": Batch(frames=[Frame(0, large[: 400 << 20], ())] * 3),
    }
    with closing(RedisStorage(prefixed(redis_url, tmp_path))) as storage:
        with pytest.raises(InvalidInputError, match="Redis takes"):
            storage.publish(batches[where])
        with pytest.raises((InvalidInputError, ConflictError)), storage.exclusive() as session:
            session.write(batches[where])
        assert storage.scan(b"", LAST) == [] == storage.scan_frames(0, 9)


def test_a_key_of_an_object_that_is_too_long_is_refused(redis_url: str, tmp_path: Path) -> None:
    with closing(RedisStorage(prefixed(redis_url, tmp_path))) as storage:
        with pytest.raises(InvalidInputError):
            storage.publish(Batch(frames=[Frame(0, b"f", (bytes(17),))]))
        storage.publish(Batch(frames=[Frame(0, b"f", (b"ab", b"ab\x00", b"", b"abc"))]))
        assert [key for key, _ in storage.scan_index(b"", 9)] == [b"ab", b"ab\x00", b"abc"]
        assert storage.locate([b"", b"ab", b"ab\x00\x00"]).keys() == {b"", b"ab"}

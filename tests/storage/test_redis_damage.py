"""A Redis store that somebody else wrote to: what no script of ours writes is refused, never read as an absence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
import redis
from redis_kit import keys_of
from redis_server import Server

import ckpt
from ckpt.errors import IntegrityError
from ckpt.storage.base import Batch, Frame
from ckpt.storage.redis import RedisStorage
from ckpt.testing.fixtures import LAST, object_key

RECORDS, FRAMES, INDEX, META, DONE = (keys_of("ckpt")[name] for name in ("records", "frames", "index", "meta", "done"))


@pytest.fixture
def storage(server: Server) -> Iterator[RedisStorage]:
    with closing(RedisStorage(server.url)) as storage:
        records = {b"%d" % number: b"value" for number in range(9)}
        storage.publish(Batch(records=records, frames=[Frame(0, b"first", (object_key(1),))]))
        storage.publish(Batch(frames=[Frame(1, b"second", (object_key(2),))]))
        yield storage


@pytest.mark.parametrize("score", [1, -1, 1e-300])
@pytest.mark.parametrize("place", [0, 4, 8])
def test_a_record_of_another_score_is_noticed_by_every_call(
    storage: RedisStorage, client: redis.Redis, place: int, score: float
) -> None:
    member = client.zrange(RECORDS, 0, -1)[place]
    client.zadd(RECORDS, {member: score})
    calls = (
        storage.epoch,
        lambda: storage.read([b"absent"]),
        lambda: storage.view([], [(b"", LAST)]),
        lambda: storage.scan(b"", LAST),
        lambda: storage.publish(Batch({b"absent": None}, {b"absent": b""})),
        lambda: storage.exclusive().__enter__(),
    )
    for call in calls:
        with pytest.raises(IntegrityError, match="a score other than 0") as caught:
            call()
    assert storage.verify() == [caught.value.message]
    client.zadd(RECORDS, {member: -0.0})
    assert len(storage.scan(b"", LAST)) == 9
    assert storage.verify() == []


def test_nothing_is_collected_while_a_record_has_another_score(server: Server, client: redis.Redis) -> None:
    with ckpt.open(server.url) as repository:
        repository.commit("t", {"text": "kept " * 500})
        first = client.zrange(RECORDS, 0, 0)[0]
        client.zadd(RECORDS, {first: 1})
        assert "a score other than 0" in repository.fsck().problems[0].message
        for call in (lambda: repository.gc(grace=timedelta(0)), repository.thread_names):
            with pytest.raises(IntegrityError, match="a score other than 0"):
                call()
        client.zadd(RECORDS, {first: 0})
        assert repository.state("t") == {"text": "kept " * 500}
        assert repository.fsck().problems == []


def ends_with(calls: Iterable[Callable[[], object]], key: str) -> None:
    """Check that each of these calls is refused over what a key holds."""
    for call in calls:
        with pytest.raises(IntegrityError, match=rf"is damaged: its key '{re.escape(key)}' holds what cannot be read"):
            call()


@pytest.mark.parametrize("change", [lambda bucket: bucket[:-5], lambda bucket: bucket + b"abc"], ids=["cut", "longer"])
def test_a_bucket_that_is_no_row_of_entries_is_refused(
    storage: RedisStorage, client: redis.Redis, change: Callable[[bytes], bytes]
) -> None:
    ((name, bucket),) = client.hgetall(INDEX).items()
    client.hset(INDEX, name, change(bucket))
    key = object_key(1)
    calls = (
        lambda: storage.locate([key]),
        lambda: storage.fetch([key]),
        lambda: storage.scan_index(b"", 9),
        lambda: storage.publish(Batch(frames=[Frame(0, b"third", (object_key(3),))])),
    )
    ends_with(calls, INDEX)
    assert [INDEX in sentence for sentence in storage.verify()] == [True]
    client.hset(INDEX, name, bucket)
    assert (sorted(storage.load([2])), len(storage.locate([key])), storage.verify()) == ([1, 2], 1, [])


@pytest.mark.parametrize(
    "fields",
    [
        {"p": b"\x00x", "d": b"second"},
        {"p": b"1e3", "d": b"second"},
        {"p": b"", "d": b"second"},
        {"p": b"-1", "d": b"second"},
        {"p": b"9" * 5000, "d": b"second"},
        {"d": b"second"},
        {"p": b"1", "d": b"second", "e": b""},
    ],
)
def test_a_frame_of_another_form_is_refused(storage: RedisStorage, client: redis.Redis, fields: dict[Any, Any]) -> None:
    # Laid down anew: a server newer than 6.2 gives no number twice.
    (number, first), _ = client.xrange(FRAMES)
    client.delete(FRAMES)
    client.xadd(FRAMES, first, id=number)
    client.xadd(FRAMES, fields, id="2-0")

    def drop() -> None:
        with storage.exclusive() as session:
            session.drop([2])

    calls = (
        lambda: storage.load([2]),
        lambda: storage.fetch([object_key(2)]),
        lambda: storage.scan_frames(0, 9),
        drop,
    )
    ends_with(calls, FRAMES)
    assert [FRAMES in sentence for sentence in storage.verify()] == [True]
    assert sorted(storage.load([1])) == [1]


def test_an_entry_between_two_numbers_is_no_frame(storage: RedisStorage, client: redis.Redis) -> None:
    client.xdel(FRAMES, "2-0")
    client.xadd(FRAMES, {"p": b"1", "d": b"second"}, id="2-7")
    ends_with([lambda: storage.scan_frames(0, 9)], FRAMES)


def test_a_record_without_an_end_of_its_key_is_refused(storage: RedisStorage, client: redis.Redis) -> None:
    client.zrem(RECORDS, b"3\0\0value")
    client.zadd(RECORDS, {b"3": 0})
    calls = (
        lambda: storage.scan(b"", LAST),
        lambda: storage.scan(b"", LAST, reverse=True),
        lambda: storage.view([], [(b"2", b"4")]),
    )
    ends_with(calls, RECORDS)
    assert storage.read([b"2", b"3"]) == [b"value", None]


@pytest.mark.parametrize("number", [b"1e400", b"inf", b"0x10", b" 1", b"-1", b"1.5", b"", b"9" * 16])
@pytest.mark.parametrize("field", ["epoch", "next", "buckets", "frame_bytes"])
def test_a_count_that_is_no_number_of_ours_is_refused(
    storage: RedisStorage, client: redis.Redis, field: str, number: bytes
) -> None:
    client.hset(META, field, number)
    for call in (storage.epoch, storage.usage, lambda: storage.read([b"1"]), lambda: storage.publish(Batch())):
        with pytest.raises(IntegrityError, match="'meta'"):
            call()


@pytest.mark.parametrize(
    ("field", "number"), [("buckets", 0), ("buckets", 2**28 + 1), ("buckets", 10**15 - 1), ("objects", 17), ("used", 2)]
)
def test_a_count_by_which_a_script_would_never_end_is_refused(
    storage: RedisStorage, client: redis.Redis, field: str, number: int
) -> None:
    client.hset(META, field, number)
    new = Batch(frames=[Frame(0, b"third", (object_key(3),))])
    for call in (lambda: storage.scan_index(b"", 9), lambda: storage.publish(new)):
        with pytest.raises(IntegrityError, match="'meta'"):
            call()


def test_an_index_of_empty_buckets_is_walked_in_steps(server: Server, client: redis.Redis) -> None:
    def calls() -> int:
        return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])

    with closing(RedisStorage(server.url)) as storage:
        client.hset(META, "buckets", 2**14)  # as after a large removal
        keys = [bytes(16), b"\x80" * 16, b"\xff" * 16]
        storage.publish(Batch(frames=[Frame(0, b"f", tuple(keys))]))
        before = calls()
        assert [key for key, _ in storage.scan_index(b"", 9)] == keys
        assert calls() == before + 4
        assert [key for key, _ in storage.scan_index(b"", 2)] == keys[:2]
        assert [key for key, _ in storage.scan_index(keys[0], 1)] == keys[1:2]
        assert [key for key, _ in storage.scan_index(keys[1], 9)] == keys[2:]
        assert storage.scan_index(keys[2], 9) == []


@pytest.mark.parametrize("version", [b"9" * 5000, b"1e400", b"0"])
def test_a_format_that_is_no_number_of_one_is_refused(
    server: Server, storage: RedisStorage, client: redis.Redis, version: bytes
) -> None:
    client.hset(META, "format", version)
    for call in (storage.epoch, lambda: RedisStorage(server.url)):
        with pytest.raises(IntegrityError, match="does not say its format"):
            call()


def test_the_id_of_a_store_may_be_any_bytes(server: Server, storage: RedisStorage, client: redis.Redis) -> None:
    client.hset(META, "id", b"\xff\xfe")
    with pytest.raises(IntegrityError, match="not the one that was opened"):
        storage.epoch()
    with closing(RedisStorage(server.url)) as other:
        assert other.read([b"1"]) == [b"value"]


def test_what_was_written_last_is_refused_or_forgotten_where_it_cannot_be_read(
    storage: RedisStorage, client: redis.Redis
) -> None:
    ((sender, last),) = client.hgetall(DONE).items()
    for written in (b"", b"x", last.replace(b" ", b""), last + b"x"):
        client.hset(DONE, sender, written)
        ends_with([lambda: storage.publish(Batch(records={b"new": b"1"}))], DONE)
    assert storage.read([b"new"]) == [None]
    client.hset(DONE, sender, last)
    client.hset(DONE, mapping={f"old.{number}": "x" for number in range(1100)})
    with closing(RedisStorage(storage.url)) as other:
        other.publish(Batch(records={b"new": b"1"}))
    assert client.hlen(DONE) < 1102
    assert storage.read([b"new"]) == [b"1"]

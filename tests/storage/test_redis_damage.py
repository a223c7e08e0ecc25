"""A Redis store that somebody else wrote to: what no script of ours writes is refused, never read as an absence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest
import redis
from redis_kit import keys_of
from redis_server import Server, emptied, running

import ckpt
from ckpt.errors import IntegrityError
from ckpt.storage.base import Batch, Frame
from ckpt.storage.redis import RedisStorage
from ckpt.testing.fixtures import LAST, object_key

RECORDS, FRAMES, INDEX, META, DONE = (keys_of("ckpt")[name] for name in ("records", "frames", "index", "meta", "done"))


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Server:
    return emptied(shared)


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port) as client:
        yield client


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
        with pytest.raises(IntegrityError, match="has a score other than 0") as caught:
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
        for call in (lambda: repository.gc(grace=timedelta(0)), repository.fsck, repository.thread_names):
            with pytest.raises(IntegrityError, match="has a score other than 0"):
                call()
        client.zadd(RECORDS, {first: 0})
        assert repository.state("t") == {"text": "kept " * 500}
        assert repository.fsck().problems == []

"""The contract of storages, on a Redis server and on a cluster of three."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_server import cluster, prefixed

from ckpt.storage.base import Storage
from ckpt.storage.redis import RedisStorage
from ckpt.testing import StorageContract


class TestRedis(StorageContract):
    @pytest.fixture(autouse=True)
    def server(self, redis_url: str) -> None:
        self.url = redis_url

    def open_storage(self, location: Path) -> Storage:
        return RedisStorage(prefixed(self.url, location))


@pytest.fixture(scope="module")
def cluster_url() -> Iterator[str]:
    with cluster() as url:
        yield url


class TestRedisCluster(TestRedis):
    @pytest.fixture(autouse=True)
    def server(self, cluster_url: str) -> None:
        self.url = cluster_url

"""Fixtures of the tests that need a Redis server of their own, which they may flush, damage or stop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from redis_server import Server, emptied, running


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

"""The stores that the tests run on: one place to add another."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
import redis

BACKENDS = ("memory", "sqlite", "postgres", "redis")
SHARED = ("sqlite", "postgres", "redis")
"""Those that other processes, and a repository opened again, can see."""


@pytest.fixture
def redis_store(redis_url: str) -> Iterator[str]:
    """The URL of a store that is not there yet, under a prefix of its own; its keys are removed afterwards."""
    prefix = f"t{secrets.token_hex(6)}"
    yield f"{redis_url}?key_prefix={prefix}"
    with redis.Redis.from_url(redis_url) as client:
        if found := client.keys(f"*{prefix}*"):
            client.delete(*found)


def store_url(backend: str, request: pytest.FixtureRequest) -> str:
    """Return the URL of a new store; that of memory names another store each time it is opened."""
    if backend == "memory":
        return "memory://"
    if backend == "sqlite":
        return str(request.getfixturevalue("tmp_path") / "store.ckpt")
    # The servers are started by the first test that needs one.
    return str(request.getfixturevalue("postgres_url" if backend == "postgres" else "redis_store"))

"""The stores that the tests run on: one place to add another."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis
from postgres_server import postgres_schema

BACKENDS = ("memory", "sqlite", "postgres", "redis")
SHARED = ("sqlite", "postgres", "redis")
"""Those that other processes, and a repository opened again, can see."""
SERVERS = ("postgres", "redis")
"""Those where each call is a round trip."""


@pytest.fixture
def redis_store(redis_url: str) -> Iterator[str]:
    """The URL of a store that is not there yet, under a prefix of its own; its keys are removed afterwards."""
    with redis_prefix(redis_url) as url:
        yield url


def store_url(backend: str, request: pytest.FixtureRequest) -> str:
    """Return the URL of a new store; that of memory names another store each time it is opened."""
    if backend == "memory":
        return "memory://"
    if backend == "sqlite":
        return str(request.getfixturevalue("tmp_path") / "store.ckpt")
    # The servers are started by the first test that needs one.
    return str(request.getfixturevalue("postgres_url" if backend == "postgres" else "redis_store"))


@contextmanager
def new_store(backend: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield a URL as `store_url` does, for tests that need one store after another; it is removed at the end.

    A file is written without waiting for the disk, which these tests do not pull the plug of.
    """
    if backend == "memory":
        yield "memory://"
    elif backend == "sqlite":
        with TemporaryDirectory() as folder:
            yield f"sqlite:///{Path(folder, 'store.ckpt')}?synchronous=off"
    elif backend == "postgres":
        with postgres_schema(request.getfixturevalue("postgres_dsn")) as url:
            yield url
    else:
        with redis_prefix(request.getfixturevalue("redis_url")) as url:
            yield url


@contextmanager
def redis_prefix(server: str) -> Iterator[str]:
    """Yield the URL of a store that is not there yet under a prefix of its own, whose keys are removed at the end."""
    prefix = f"t{secrets.token_hex(6)}"
    yield f"{server}{'&' if '?' in server else '?'}key_prefix={prefix}"
    with redis.Redis.from_url(server) as client:
        if found := client.keys(f"*{prefix}*"):
            client.delete(*found)

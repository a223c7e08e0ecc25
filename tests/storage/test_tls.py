"""Stores on servers that speak TLS only, prove who they are and want to know who asks: PostgreSQL, PgBouncer, Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import redis
from network_kit import (
    HOST,
    SECRET,
    Certificates,
    certificates,
    rediss_url,
    tls_pgbouncer,
    tls_postgres,
    tls_redis,
    tls_url,
)
from redis_server import prefixed, running

import ckpt
from ckpt.errors import CkptError, StoreUnavailableError
from ckpt.storage.base import Storage
from ckpt.storage.postgres import PostgresStorage
from ckpt.storage.redis import RedisStorage
from ckpt.testing import StorageContract


@pytest.fixture(scope="module")
def known() -> Iterator[Certificates]:
    with certificates() as known:
        yield known


@dataclass(frozen=True)
class Secured:
    """A server: `url` names a store on it, with some options changed; what its options are called."""

    url: Callable[..., str]
    authority: str
    client: tuple[str, str]


@pytest.fixture(scope="module")
def servers(known: Certificates, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Secured]]:
    """Starts a server when it is first asked for."""
    with ExitStack() as stack:
        found: dict[str, Secured] = {}

        def server(name: str) -> Secured:
            if name not in found:
                found[name] = start(name)
            return found[name]

        def start(name: str) -> Secured:
            if name == "redis":
                port = stack.enter_context(tls_redis(known))
                return Secured(partial(rediss_url, port, known), "ssl_ca_certs", ("ssl_certfile", "ssl_keyfile"))
            if name == "postgres":
                port = stack.enter_context(tls_postgres(known))
            else:
                port = stack.enter_context(tls_pgbouncer(known, request.getfixturevalue("postgres_dsn")))
            return Secured(partial(tls_url, port, known), "sslrootcert", ("sslcert", "sslkey"))

        yield server


@pytest.fixture(params=["postgres", "pgbouncer", "redis"])
def server(servers: Callable[[str], Secured], request: pytest.FixtureRequest) -> Secured:
    return servers(request.param)


class TestPostgresWithTls(StorageContract):
    @pytest.fixture(autouse=True)
    def database(self, servers: Callable[[str], Secured], tmp_path: Path) -> None:
        self.url = servers("postgres").url(schema=tmp_path.name)

    def open_storage(self, location: Path) -> Storage:
        return PostgresStorage(self.url)


class TestRedisWithTls(StorageContract):
    @pytest.fixture(autouse=True)
    def database(self, servers: Callable[[str], Secured]) -> None:
        self.url = servers("redis").url()

    def open_storage(self, location: Path) -> Storage:
        return RedisStorage(prefixed(self.url, location))


def test_a_store_is_shown_and_opened_again_without_the_key(server: Secured, known: Certificates) -> None:
    for turn in range(2):
        with closing(ckpt.open(server.url())) as repository:
            repository.thread("t").commit({"turn": turn})
            shown = repository.storage.url
    assert SECRET not in shown
    assert str(known.client[1]) not in shown
    assert str(known.client[0]) in shown
    with closing(ckpt.open(f"{shown}&{server.client[1]}={known.client[1]}")) as repository:
        assert [repository.state(info.id) for info in repository.thread("t").log()] == [{"turn": 1}, {"turn": 0}]


def refused(url: str, known: Certificates) -> CkptError:
    with pytest.raises(StoreUnavailableError) as caught:
        ckpt.open(url)
    error = caught.value
    told = [error.message, *error.hints]
    for each in (error.__cause__, error.__context__):
        told += [str(each)] if each is not None else []
    assert not any(SECRET in text or str(known.client[1]) in text for text in told)
    return error


def test_a_server_of_an_unknown_authority_is_refused(server: Secured, known: Certificates) -> None:
    error = refused(server.url(**{server.authority: known.stranger}), known)
    assert "certificate verify failed" in error.message
    assert any(server.authority in hint for hint in error.hints)


def test_a_server_of_another_name_is_refused(server: Secured, known: Certificates) -> None:
    error = refused(server.url().replace(HOST, "127.0.0.1"), known)
    assert "127.0.0.1" in error.message
    assert "match" in error.message
    assert any(server.authority in hint for hint in error.hints)


def test_a_file_that_is_not_there_is_told(server: Secured, known: Certificates) -> None:
    error = refused(server.url(**{server.authority: "/nowhere/authority.crt"}), known)
    assert "/nowhere/authority.crt" in error.message
    assert any(server.authority in hint for hint in error.hints)


def test_who_shows_no_certificate_is_refused(server: Secured, known: Certificates) -> None:
    error = refused(server.url(**dict.fromkeys(server.client)), known)
    assert any(server.client[0] in hint for hint in error.hints)


def test_who_does_not_speak_tls_is_told_to(server: Secured, known: Certificates) -> None:
    url = server.url(sslmode="disable") if "postgresql" in server.url() else server.url().replace("rediss", "redis")
    error = refused(url.partition("?ssl_")[0], known)
    assert any("rediss://" in hint or "sslmode" in hint for hint in error.hints)


def test_a_client_passed_in_is_shown_as_it_connects(servers: Callable[[str], Secured], known: Certificates) -> None:
    url = servers("redis").url()
    with redis.Redis.from_url(url) as client, closing(RedisStorage(client)) as storage:
        assert storage.url == url.partition("?")[0]
        assert storage.read([b"a"]) == [None]


def test_a_server_without_tls_is_named() -> None:
    with running() as plain:
        with pytest.raises(StoreUnavailableError) as caught:
            RedisStorage(f"rediss://{HOST}:{plain.port}/0?socket_timeout=0.2")
        assert any("speaks TLS" in hint for hint in caught.value.hints)

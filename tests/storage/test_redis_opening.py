"""Opening a Redis store: URLs, clients passed in, what else may stand there, and who may do what."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from redis_kit import CountingClient, keys_of
from redis_server import Server, cluster
from script_kit import output_of, python

from ckpt.errors import (
    FormatTooNewError,
    IntegrityError,
    InvalidInputError,
    NotAStoreError,
    StoreNotFoundError,
    StoreUnavailableError,
)
from ckpt.storage.base import Batch, Frame, StoredFrame
from ckpt.storage.redis import RedisStorage
from ckpt.storage.redis_connect import parse_url
from ckpt.storage.redis_lua import FORMAT
from ckpt.storage.urls import open_storage
from ckpt.testing.fixtures import LAST, at_once, object_key

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "s3cret/with@signs"


# -- URLs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://", "redis://localhost"),
        ("redis://example.com:6380/3", "redis://example.com:6380/3"),
        ("rediss://ana:s3cret@example.com/0", "rediss://ana@example.com/0"),
        ("redis://:s3cret@[::1]:6379", "redis://[::1]:6379"),
        ("redis://h/0?key_prefix=a:b&password=s3cret&socket_timeout=5", "redis://h/0?socket_timeout=5&key_prefix=a:b"),
        ("redis://h?key_prefix=ckpt", "redis://h"),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        ("rediss://h?ssl_password=s3cret&ssl_ca_certs=/etc/ca.pem", "rediss://h?ssl_ca_certs=/etc/ca.pem"),
        ("redis://ana:1%3Fs3cret%40@h/0?key_prefix=a%40b", "redis://ana@h/0?key_prefix=a%40b"),
        ("unix:///run/a%40b.sock", "unix:///run/a%40b.sock"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    address = parse_url(url)
    assert address.shown == shown
    again = parse_url(shown)
    assert (again.shown, again.prefix) == (shown, address.prefix)
    assert "key_prefix" not in address.server


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@h:port",
        "redis://[:hunter2@h",
        "redis://:hunter2]@h",
        "redis://:hunter2\udce9@h",
        "redis://:hunter2@h\udce9",
        "redis://:hunter2@h:99999",
        "redis://:hunter2@h..example:1",
        "redis://:hunter2@" + 64 * "h",
        "redis://:hunter2@h/name",
        "redis://:hunter2@h/0/1",
        "redis://:hunter2@h#part",
        "redis://:hunter2@h?key_prefix=",
        "redis://:hunter2@h?key_prefix=a&key_prefix=b",
        "redis://:hunter2@h?key_prefix=a{b}",
        "redis://:hunter2@h?key_prefix=a%20b",
        "redis://:hunter2@h?key_prefix=*",
        "redis://:hunter2@h?key_prefix=a%0A",
        "redis://:hunter2@h?key_prefix=" + 101 * "a",
        "redis://:hunter2@h?no_such_option=1",
        "redis://:hunter2@h?socket_timeout=soon",
        "redis://:hunter2@h?decode_responses=yes",
        "redis://h?no_such_option=hunter2",
        "redis://h?socket_timeout=hunter2",
        "rediss://h?ssl_cert_reqs=hunter2",
        # A password that should have been percent-encoded; what stands before it is a port that could be contacted.
        "redis://:1?hunter2@h:6379/0",
        "redis://ana:1?hunter2%21@h/0",
        "redis://:1?db=hunter2&x@h/0",
        "redis://:1?key_prefix=hunter2@h/0",
        "redis://:1/hunter2@h:6379/0",
        "redis://:1#hunter2@h:6379/0",
        "unix://:1/hunter2@/run/redis.sock",
        "unix://:1?hunter2@/run/redis.sock",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_repeating_secrets(url: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        open_storage(url)
    assert "hunter2" not in str(caught.value) + str(caught.value.hints)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("query", "named"),
    [("no_such=1&db=0", "no_such"), ("db=0&socket_timeout=soon", "socket_timeout"), ("max_connections=-1", "max_conn")],
)
def test_an_option_that_is_not_taken_is_named_without_its_value(query: str, named: str) -> None:
    with pytest.raises(InvalidInputError, match=f"URL sets for '{named}"):
        open_storage(f"redis://h?{query}")


def test_a_password_appears_nowhere(client: redis.Redis, server: Server) -> None:
    client.execute_command("ACL", "SETUSER", "ana", "on", ">" + PASSWORD, "~*", "&*", "+@all")
    good = f"redis://ana:s3cret%2Fwith%40signs@127.0.0.1:{server.port}/0"
    with closing(open_storage(good)) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
        assert storage.url == f"redis://ana@127.0.0.1:{server.port}/0"
    wrong = f"redis://ana:wr0ng@127.0.0.1:{server.port}/0"
    with pytest.raises(StoreUnavailableError, match="refuses") as caught:
        open_storage(wrong)
    assert "wr0ng" not in str(caught.value) + str(caught.value.hints)
    client.execute_command("ACL", "DELUSER", "ana")


def test_stores_of_different_prefixes_and_databases_are_apart(server: Server, client: redis.Redis) -> None:
    urls = [
        server.url,
        f"{server.url}?key_prefix=ckp",
        f"{server.url}?key_prefix=ckpt:records",
        server.url.removesuffix("0") + "1",
    ]
    stores = [open_storage(url) for url in urls]
    for number, storage in enumerate(stores):
        storage.publish(Batch(records={b"a": b"%d" % number}))
    assert [storage.read([b"a"]) for storage in stores] == [[b"%d" % n] for n in range(4)]
    with closing(RedisStorage(server.url, key_prefix="ckp")) as again:
        assert again.read([b"a"]) == [b"1"]
        assert again.url == urls[1]
    for storage in stores:
        storage.close()
    assert all(key.startswith((b"{ckpt}:", b"{ckp}:", b"{ckpt:records}:")) for key in client.keys("*"))


def test_without_the_package_the_error_names_the_extra() -> None:
    script = (
        "import sys; sys.modules['redis'] = None\n"
        "from ckpt.errors import InvalidInputError\n"
        "from ckpt.storage.urls import open_storage\n"
        "try: open_storage('redis://localhost')\n"
        "except InvalidInputError as error: print(error, error.hints)\n"
    )
    assert "ckpt-store[redis]" in output_of(python(script))


def test_ckpt_does_not_import_redis_before_it_is_needed() -> None:
    script = "import sys, ckpt; print('redis' in sys.modules)"
    assert output_of(python(script)) == "False\n"


# -- clients passed in --------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_client_can_be_passed_in_and_stays_open(server: Server, protocol: int) -> None:
    with redis.Redis(port=server.port, db=1, protocol=protocol) as client:
        storage = RedisStorage(client, key_prefix="mine")
        numbers = storage.publish(Batch(records={b"a": b"\xff", b"b": b"2"}, frames=[Frame(0, b"f", (object_key(1),))]))
        assert storage.read([b"b", b"x", b"a"]) == [b"2", None, b"\xff"]
        assert storage.scan(b"", LAST, reverse=True) == [(b"b", b"2"), (b"a", b"\xff")]
        assert storage.load(numbers) == {numbers[0]: StoredFrame(0, b"f")}
        assert storage.verify() == []
        with storage.exclusive() as session:
            session.drop(numbers)
        assert storage.url == f"redis://localhost:{server.port}/1?key_prefix=mine"
        storage.close()
        assert client.ping()
        with closing(open_storage(storage.url)) as again:
            assert again.read([b"a"]) == [b"\xff"]


def test_a_client_of_a_cluster_can_be_passed_in() -> None:
    with cluster() as url, redis.RedisCluster.from_url(url) as client:
        for number in range(4):  # over several slots, so over several nodes
            storage = RedisStorage(client, key_prefix=f"p{number}")
            storage.publish(Batch(records={b"a": b"%d" % number}))
            assert storage.read([b"a"]) == [b"%d" % number]
            assert f"key_prefix=p{number}" in storage.url
            storage.close()
        assert client.ping()


def test_clients_that_would_damage_what_is_stored_are_refused(server: Server, client: redis.Redis) -> None:
    decoding = redis.Redis(port=server.port, decode_responses=True)
    for wrong in (decoding, client.pipeline(), client.connection_pool, redis.asyncio.Redis(), 7):
        unusable: Any = wrong
        with pytest.raises(InvalidInputError):
            RedisStorage(unusable)
    with pytest.raises(InvalidInputError, match="decode_responses"):
        RedisStorage(decoding)
    decoding.close()
    assert client.keys("*") == []


def test_every_call_is_one_command(server: Server) -> None:
    with CountingClient(server.url) as client:
        storage = RedisStorage(client)
        batch = Batch(
            {b"a": None},
            {b"a": b"1", b"b": b"1"},
            [Frame(0, b"f", (object_key(1),)), Frame(-1, b"g", ())],
            storage.epoch(),
        )
        calls = (
            storage.epoch,
            lambda: storage.read([b"a", b"b", b"c"]),
            lambda: storage.view([b"a", b"b"], [(b"a", b"b"), (b"b", LAST)]),
            lambda: storage.scan(b"", LAST),
            lambda: storage.scan(b"", LAST, limit=1, reverse=True),
            lambda: storage.locate([object_key(n) for n in range(100)]),
            lambda: storage.load([1, 2]),
            lambda: storage.scan_index(b"", 100),
            lambda: storage.scan_frames(0, 100),
            storage.usage,
            lambda: storage.publish(batch),
        )
        for warm in (False, True):
            for call in calls:
                client.sent.clear()
                try:
                    call()
                except Exception:  # the batch conflicts with itself the second time
                    assert warm
                # A script new to the server is refused by its digest once, and sent whole.
                wanted = [["EVALSHA"]] if warm else [["EVALSHA"], ["EVALSHA", "EVAL"]]
                assert [command[0] for command in client.sent] in wanted
        client.sent.clear()
        storage.check()
        storage.compact()
        storage.close()
        assert client.sent == []


# -- what else may stand there ------------------------------------------------------------------------------


def test_a_missing_store_is_not_made_unless_asked(server: Server, client: redis.Redis) -> None:
    for options in ({"create": False}, {"readonly": True}, {"create": False, "readonly": True}):
        with pytest.raises(StoreNotFoundError):
            open_storage(server.url, **options)
    assert client.keys("*") == []


def test_many_openers_make_one_store(server: Server) -> None:
    def open_and_write(number: int) -> None:
        with closing(open_storage(server.url)) as storage:
            storage.publish(Batch(records={b"%02d" % number: b""}))

    at_once(32, open_and_write)
    with closing(open_storage(server.url, create=False)) as storage:
        assert len(storage.scan(b"", LAST)) == 32


def test_a_readonly_store_is_not_written_to(server: Server, client: redis.Redis) -> None:
    with closing(open_storage(server.url)) as storage:
        storage.publish(Batch(records={b"a": b"1"}, frames=[Frame(0, b"f", (object_key(1),))]))
    offset = client.info("replication")["master_repl_offset"]
    before = {key: client.dump(key) for key in client.keys("*")}
    with closing(open_storage(server.url, readonly=True)) as storage:
        assert storage.read([b"a"]) == [b"1"]
        assert storage.verify() == []
        for call in (
            lambda: storage.publish(Batch(records={b"a": b"2"})),
            lambda: storage.exclusive().__enter__(),
        ):
            with pytest.raises(StoreUnavailableError, match="read-only"):
                call()
    assert {key: client.dump(key) for key in client.keys("*")} == before
    assert client.info("replication")["master_repl_offset"] == offset


def test_a_store_on_a_replica_can_be_read(server: Server, client: redis.Redis) -> None:
    with closing(open_storage(server.url)) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        with closing(open_storage(server.url, readonly=True)) as storage:
            assert storage.read([b"a"]) == [b"1"]
        with closing(open_storage(server.url)) as storage:
            assert storage.scan(b"", LAST) == [(b"a", b"1")]
    finally:
        client.execute_command("REPLICAOF", "NO", "ONE")


def test_a_newer_format_is_refused_also_when_it_comes_later(server: Server, client: redis.Redis) -> None:
    storage = open_storage(server.url)
    storage.publish(Batch(records={b"a": b"1"}))
    client.hset(keys_of("ckpt")["meta"], "format", FORMAT + 1)
    with pytest.raises(FormatTooNewError):
        open_storage(server.url)
    for call in (lambda: storage.read([b"a"]), lambda: storage.publish(Batch(records={b"a": b"2"}))):
        with pytest.raises(FormatTooNewError):
            call()
    storage.close()
    client.hset(keys_of("ckpt")["meta"], "format", "x")
    with pytest.raises(IntegrityError):
        open_storage(server.url)


@pytest.mark.parametrize("name", ["meta", "records", "frames", "index", "lock", "done"])
def test_keys_of_another_program_are_left_alone(server: Server, client: redis.Redis, name: str) -> None:
    key = keys_of("ckpt")[name]
    client.rpush(key, "theirs")
    for create in (True, False):
        with pytest.raises(NotAStoreError, match=name):
            open_storage(server.url, create=create)
    assert client.keys("*") == [key.encode()]
    assert client.lrange(key, 0, -1) == [b"theirs"]


def test_a_hash_of_another_program_is_left_alone(server: Server, client: redis.Redis) -> None:
    client.hset(keys_of("ckpt")["meta"], "kind", "shop")
    with pytest.raises(NotAStoreError):
        open_storage(server.url)
    assert client.hgetall(keys_of("ckpt")["meta"]) == {b"kind": b"shop"}


# -- who may do what ----------------------------------------------------------------------------------------


def documented_commands() -> list[str]:
    page = (ROOT / "docs" / "redis.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith("ACL SETUSER"))
    return line.split()


def test_a_password_that_is_missing_is_asked_for(server: Server, client: redis.Redis) -> None:
    client.config_set("requirepass", "s3cret")
    try:
        with pytest.raises(StoreUnavailableError, match="refuses us") as caught:
            open_storage(f"redis://127.0.0.1:{server.port}/0")
        assert "check user and password" in caught.value.hints
    finally:
        client.execute_command("AUTH", "s3cret")
        client.config_set("requirepass", "")


def test_the_documented_permissions_suffice_in_another_database(server: Server, client: redis.Redis) -> None:
    client.execute_command(*documented_commands())
    try:
        with closing(open_storage(f"redis://ckpt:password@127.0.0.1:{server.port}/3")) as storage:
            storage.publish(Batch(records={b"a": b"1"}))
            assert storage.read([b"a"]) == [b"1"]
    finally:
        with closing(redis.Redis(port=server.port, db=3)) as other:
            other.flushdb()


def test_the_documented_permissions_suffice(server: Server, client: redis.Redis) -> None:
    client.execute_command(*documented_commands())
    url = f"redis://ckpt:password@127.0.0.1:{server.port}/0"
    with closing(open_storage(url)) as storage:
        numbers = storage.publish(
            Batch({b"a": None}, {b"a": b"1", b"b": b"1"}, [Frame(0, b"f", tuple(object_key(n) for n in range(99)))])
        )
        storage.publish(Batch(records={b"a": b"2", b"b": None}))
        assert storage.view([b"a"], [(b"", LAST)]).values == [b"2"]
        assert storage.scan(b"", LAST, reverse=True) == [(b"a", b"2")]
        assert len(storage.scan_index(b"", 100)) == 99 == len(storage.locate([object_key(n) for n in range(99)]))
        assert storage.load(numbers) == {numbers[0]: StoredFrame(0, b"f")}
        with storage.exclusive() as session:
            session.read([b"a"])
            session.forget([object_key(n) for n in range(99)])
            session.drop(session.write(Batch(frames=[Frame(0, b"g", ())])) + numbers)
        with storage.exclusive():
            pass
        client.hset(keys_of("ckpt")["done"], mapping={f"old.{n}": "1 1 " for n in range(1100)})
        with closing(open_storage(url)) as other:
            other.publish(Batch(records={b"c": b"1"}))
        assert (storage.verify(), storage.scan_frames(0, 9)) == ([], [])
    with pytest.raises(StoreUnavailableError, match="refuses"):
        open_storage(f"{url}?key_prefix=other")
    client.execute_command("ACL", "DELUSER", "ckpt")

"""The URLs of PostgreSQL stores: what is ours in them, what is libpq's, and what is never shown."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import psycopg
import psycopg_pool
import pytest
from postgres_server import schema_of
from postgres_wire import wire_to
from psycopg.pq import Conninfo
from script_kit import output_of, python

from ckpt.errors import CkptError, InvalidInputError, StoreUnavailableError
from ckpt.storage.base import Batch, without_incarnation
from ckpt.storage.postgres import PostgresStorage
from ckpt.storage.postgres_connect import (
    _ENVIRONMENT,
    _OPTION_DEFAULTS,
    parse_url,
    read_conninfo,
    read_options,
    secrets_of,
    shown_url,
    translate,
)
from ckpt.storage.urls import open_storage


def words_of(error: CkptError) -> str:
    """Return all that an error says, its causes included."""
    words = [*error.hints]
    seen: BaseException | None = error
    while seen is not None:
        words += [str(seen), repr(seen)]
        seen = seen.__cause__
    return " ".join(words)


def test_our_options_are_taken_out_and_the_rest_is_libpqs() -> None:
    url = "postgresql://me@h1:1,h2:2/db?sslmode=require&schema=a%26b&options=-c%20x%3D1&pool_size=3&target_session_attrs=any"
    rest, own = parse_url(url)
    assert rest == "postgresql://me@h1:1,h2:2/db?sslmode=require&options=-c%20x%3D1&target_session_attrs=any"
    options = read_options(None, None, own)
    assert (options.schema, options.pool_size) == ("a&b", 3)
    assert read_options("own", 4, own) == read_options(None, None, {"schema": "own", "pool_size": "4"})
    parameters = read_conninfo(rest)
    assert (parameters["host"], parameters["port"], parameters["options"]) == ("h1,h2", "1,2", "-c x=1")
    assert parameters["connect_timeout"] == "10"
    shown = shown_url(parameters, options)
    assert read_conninfo(parse_url(shown)[0]) == parameters
    assert parse_url(shown)[1] == own


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@h/db",
        "postgresql://me@h/db?password=s3cret",
        "postgresql://me@h/db?sslpassword=s3cret",
        "postgres://me:s3cret@[::1]:5/db?schema=x",
        "host=h user=me password=s3cret",
        "postgresql://me@h/db?passfile=/home/me/s3cret&sslkey=/home/me/s3cret.key&sslmode=require",
        "host=h user=me passfile=/home/me/s3cret sslpassword='s3cret too'",
    ],
)
def test_a_password_and_where_it_lies_is_never_shown(url: str) -> None:
    rest, own = parse_url(url)
    shown = shown_url(read_conninfo(rest), read_options(None, None, own))
    assert "s3cret" not in shown
    assert shown.startswith("postgresql://me@")
    assert ("sslmode=require" in shown) == ("sslmode=require" in url)


def test_what_libpq_says_is_told_without_what_it_was_told() -> None:
    parameters = read_conninfo("host=h password=s3cret passfile='/home/me/s3cret file' sslpassword=s3cret-too")
    said = (
        'FATAL: password authentication failed for user "me"\npassword retrieved from file "/home/me/s3cret file",'
        " not s3cret or s3cret-too"
    )
    error = translate(psycopg.OperationalError(said), "postgresql://me@h/db", secrets_of(parameters))
    assert str(error) == (
        'postgresql://me@h/db cannot be used: FATAL: password authentication failed for user "me" password retrieved'
        ' from file "…", not … or …'
    )
    assert error.hints
    assert secrets_of({"host": "h", "password": None, "sslpassword": ""}) == []


def test_the_password_of_a_service_is_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services = tmp_path / "services"
    services.write_text("[agents]\nhost=127.0.0.1\nport=1\nuser=me\npassword=s3cret\nconnect_timeout=2\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    with pytest.raises(StoreUnavailableError, match="service=agents") as caught:
        PostgresStorage("postgresql://?service=agents")
    assert "s3cret" not in words_of(caught.value)
    services.write_text("[agents]\nhost=127.0.0.1\npassword s3cret\n")
    with pytest.raises(StoreUnavailableError, match="service=agents") as caught:
        PostgresStorage("postgresql://?service=agents")
    assert "s3cret" not in words_of(caught.value)


def test_what_is_passed_in_shows_no_password(postgres_dsn: str, postgres_url: str) -> None:
    schema, more = schema_of(postgres_url), "&password=s3cret&passfile=/nowhere/s3cret&sslpassword=s3cret"
    with psycopg.connect(postgres_dsn + more) as connection, psycopg_pool.ConnectionPool(postgres_dsn + more) as pool:
        for given in (pool, connection):
            storage = PostgresStorage(given, schema=schema)
            assert "s3cret" not in storage.url + repr(storage) + repr(storage._source)
            assert schema in storage.url
    with pytest.raises(StoreUnavailableError) as caught:
        storage.epoch()
    assert "s3cret" not in words_of(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@more@h/db", "postgresql://me:s3cret/more@h/db", "postgresql://me:s3cret?x@h/db",
        "postgresql://me:s3cret#more@h:port/db?nonsense=1", "postgresql://me:s3cret%zz@h/db",
        "postgresql://u:s3cret@h/db?pool_size=1", "postgresql://u:s3cret@h/db?pool_size=many",
        "postgresql://u:s3cret@h/db?pool_size=1001", "postgresql://u:s3cret@h/db?schema=",
        "postgresql://u:s3cret@/db?host=%2Fnowhere", "postgresql://u:s3cret@no.such.host.invalid/db",
        "postgresql://u:s3cret@127.0.0.1:1/db?connect_timeout=2", "host=/nowhere password=s3cret", "nonsense s3cret",
    ],
)  # fmt: skip
def test_no_error_shows_a_password(url: str) -> None:
    with pytest.raises((InvalidInputError, StoreUnavailableError)) as caught:
        PostgresStorage(url)
    assert isinstance(caught.value, CkptError)
    assert "s3cret" not in words_of(caught.value)
    assert caught.value.hints


@pytest.mark.parametrize(
    ("query", "meant"),
    [("shema=a", ["schema"]), ("sslmod=require&Pool-size=3", ["sslmode", "pool_size"]), ("s3cret=1", [])],
)
def test_a_mistyped_option_is_named_as_what_was_meant(query: str, meant: list[str]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        PostgresStorage(f"postgresql://u:p@h/db?{query}")
    assert [hint.split("'")[1] for hint in caught.value.hints if "mean" in hint] == meant
    assert "s3cret" not in words_of(caught.value)


def test_an_option_that_nothing_has_is_told_by_its_place() -> None:
    with pytest.raises(InvalidInputError) as caught:
        PostgresStorage("postgresql://u:p@h/db?sslmode=require&s3cret=1&schema=a")
    assert "in place 2 behind the '?'" in caught.value.hints[0]
    assert len(caught.value.hints) == 2
    assert "s3cret" not in words_of(caught.value)


@pytest.mark.parametrize("where", ["u:s3cret{}@h/db", "s3cret{}@h/db", "u:s3cret@h{}/db", "u:s3cret@h/db?options={}"])
@pytest.mark.parametrize("part", ["\udce9", "%e9", "%ed%a0%80"])
def test_a_url_that_is_no_text_is_refused_without_a_word_of_it(where: str, part: str) -> None:
    with pytest.raises(InvalidInputError, match="is not Unicode text") as caught:
        PostgresStorage(f"postgresql://{where.format(part)}")
    assert "s3cret" not in words_of(caught.value)
    assert (caught.value.__cause__, caught.value.__suppress_context__) == (None, True)


def test_an_option_that_is_set_twice_is_refused() -> None:
    for query in ("schema=a&schema=b", "pool_size=3&sslmode=require&pool_size=4"):
        with pytest.raises(InvalidInputError, match="twice"):
            PostgresStorage(f"postgresql://u@h/db?{query}")


def test_what_names_no_schema_is_refused() -> None:
    for schema in (5, "", "a\x00", "x" * 100, b"a", "s\udcff"):
        with pytest.raises(InvalidInputError, match="cannot name a schema"):
            PostgresStorage("postgresql://u@h/db", schema=schema)  # type: ignore[arg-type]


def test_what_the_environment_says_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "3")
    monkeypatch.setenv("PGAPPNAME", "agents")
    parameters = read_conninfo("postgresql://h/db")
    assert parameters.keys().isdisjoint({"connect_timeout", "application_name"})
    assert read_conninfo("postgresql://h/db?connect_timeout=7")["connect_timeout"] == "7"


def test_what_a_service_of_the_environment_says_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "services").write_text("[agents]\napplication_name=agents\n", encoding="utf-8")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    monkeypatch.setenv("PGSERVICE", "agents")
    parameters = read_conninfo("postgresql://h/db")
    assert "application_name" not in parameters
    assert parameters["connect_timeout"] == "10"


def test_libpq_knows_no_other_variable_for_what_has_a_default_here() -> None:
    variables = {each.keyword.decode(): each.envvar for each in Conninfo.get_defaults() if each.envvar}
    assert {variables[name].decode() for name in _OPTION_DEFAULTS if name in variables} == {*_ENVIRONMENT} - {
        "PGSERVICE"
    }


def test_a_pooler_that_refuses_options_does_not_keep_readers_out(postgres_dsn: str, postgres_url: str) -> None:
    with closing(PostgresStorage(postgres_url)) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
    with wire_to(postgres_dsn) as wire:
        wire.cuts.append((b"default_transaction_read_only", "before"))
        with closing(PostgresStorage(wire.url, schema=schema_of(postgres_url), readonly=True)) as storage:
            assert storage.read([b"a"]) == [b"1"]
            with pytest.raises(StoreUnavailableError, match="read-only"):
                storage.publish(Batch(records={b"a": b"2"}))
        assert wire.cuts == []


def test_a_pool_that_is_all_in_use_says_so(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckpt.storage.postgres_pool._WAIT_SECONDS", 0.3)
    monkeypatch.setattr("ckpt.storage.postgres_pool._LOOK_SECONDS", 0.1)
    with closing(PostgresStorage(postgres_url, pool_size=2)) as storage:
        with storage._source.lend(), storage._source.lend():
            with pytest.raises(StoreUnavailableError, match="no connection became free") as caught:
                storage.epoch()
            assert "pool_size" in caught.value.hints[0]
        assert without_incarnation(storage.epoch())[1] == 1


def test_a_database_that_is_not_there_says_so(postgres_dsn: str) -> None:
    with pytest.raises(StoreUnavailableError, match="does not exist") as caught:
        PostgresStorage(postgres_dsn.replace("/postgres?", "/nonesuch?"))
    assert caught.value.hints


def test_a_url_opens_the_store_and_the_storage_names_it(postgres_url: str) -> None:
    for scheme in ("postgresql", "postgres"):
        with closing(open_storage(postgres_url.replace("postgresql", scheme, 1))) as storage:
            storage.publish(Batch(records={scheme.encode(): b"1"}))
            again = storage.url
        with closing(open_storage(again, create=False)) as storage:
            assert storage.url == again
            assert storage.read([scheme.encode()]) == [b"1"]
            assert storage.remote
    with closing(open_storage(again, readonly=True)) as storage, pytest.raises(StoreUnavailableError):
        storage.publish(Batch(records={b"a": b"1"}))


def test_the_backend_is_imported_when_it_is_used() -> None:
    def after(statement: str) -> str:
        script = f"import sys\n{statement}\nprint('psycopg' in sys.modules)"
        return output_of(python(script))

    assert after("import ckpt, ckpt.storage.urls") == "False\n"
    missing = (
        "sys.modules.update(dict.fromkeys([%r]))\nfrom ckpt.storage.urls import open_storage\n"
        "try:\n    open_storage('postgresql://x')\nexcept ValueError as error:\n    print(error.hints[0])"
    )
    for package in ("psycopg", "psycopg_pool"):
        assert "pip install 'ckpt-store[postgres]'" in after(missing % package)


def test_what_cannot_hold_a_store_is_refused() -> None:
    for thing in (object(), None, 7):
        with pytest.raises(InvalidInputError, match="no PostgreSQL database"):
            PostgresStorage(thing)  # type: ignore[arg-type]


def test_a_store_that_is_not_closed_holds_up_nobody(postgres_url: str) -> None:
    script = (
        "import sys\nfrom ckpt.storage.base import Batch\nfrom ckpt.storage.postgres import PostgresStorage\n"
        "storage: object = PostgresStorage(sys.argv[1])\nstorage.publish(Batch(records={b'a': b'1'}))"
    )
    process = python(script, postgres_url, env={**os.environ, "PYTHONWARNINGS": "error"})
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0

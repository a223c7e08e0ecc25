"""Opening a PostgreSQL store: URLs, schemas, permissions, what is created, recognised, refused and left alone."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from postgres_server import schema_of
from postgres_wire import wire_to
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from ckpt.errors import (
    FormatTooNewError,
    InvalidInputError,
    NotAStoreError,
    StoreNotFoundError,
    StoreUnavailableError,
)
from ckpt.storage import postgres_connect
from ckpt.storage.base import Batch, Frame, RecordChangedError, without_incarnation
from ckpt.storage.postgres import PostgresStorage
from ckpt.storage.postgres_schema import FORMAT
from ckpt.storage.urls import open_storage
from ckpt.testing.fixtures import at_once

ROOT = Path(__file__).resolve().parents[2]
ALL = (b"", b"\xff" * 1101)


def relations(admin: psycopg.Connection[tuple[object, ...]], schema: str) -> list[tuple[object, ...]]:
    """Return what is in a schema, and when each was last changed."""
    return admin.execute(
        "SELECT relname, relkind, relfilenode FROM pg_class WHERE relnamespace = to_regnamespace(%s) ORDER BY 1",
        (f'"{schema}"',),
    ).fetchall()


def functions(admin: psycopg.Connection[tuple[object, ...]], schema: str) -> set[object]:
    query = "SELECT proname FROM pg_proc WHERE pronamespace = to_regnamespace(%s)"
    return {row[0] for row in admin.execute(query, (f'"{schema}"',))}


# -- creating ----------------------------------------------------------------------------------------


def test_nothing_is_created_unless_asked(postgres_url: str, admin: psycopg.Connection[tuple[object, ...]]) -> None:
    for readonly in (False, True):
        with pytest.raises(StoreNotFoundError) as caught:
            PostgresStorage(postgres_url, create=readonly, readonly=readonly)
        assert schema_of(postgres_url) in str(caught.value)
        assert caught.value.hints
    assert admin.execute("SELECT to_regnamespace(%s)", (schema_of(postgres_url),)).fetchone() == (None,)


def test_thirty_two_open_an_empty_database_at_once(
    postgres_url: str, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    def work(number: int) -> None:
        with closing(PostgresStorage(postgres_url)) as storage:
            storage.publish(Batch(records={b"%02d" % number: b"x"}))

    at_once(32, work)
    with closing(PostgresStorage(postgres_url, create=False)) as storage:
        assert [key for key, _ in storage.scan(*ALL)] == [b"%02d" % number for number in range(32)]
        assert without_incarnation(storage.epoch())[1] == 1
    tables = [name for name, kind, _ in relations(admin, schema_of(postgres_url)) if kind == "r"]
    assert tables == ["frame", "meta", "record"]


@pytest.mark.parametrize("schema", ['we"ird', "per%cent %s", "$ckpt$", "ünï 名", "Upper", "a;DROP TABLE x", "{s}"])
def test_a_schema_may_have_any_name(
    postgres_dsn: str, admin: psycopg.Connection[tuple[object, ...]], schema: str
) -> None:
    schema += secrets.token_hex(3)
    try:
        with closing(PostgresStorage(postgres_dsn, schema=schema)) as storage:
            (number,) = storage.publish(Batch({b"a": None}, {b"a": b"1"}, [Frame(0, b"f", (bytes(16),))]))
            assert storage.load([number])[number].data == b"f"
            assert len(storage.locate([bytes(16)])) == len(storage.scan_index(b"", 9)) == 1
            assert storage.usage().objects == 1
            with storage.exclusive() as session:
                session.forget([bytes(16)])
            storage.compact()
            url = storage.url
        with closing(open_storage(url, create=False)) as storage:
            assert storage.read([b"a"]) == [b"1"]
    finally:
        admin.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))


def test_what_else_is_on_the_search_path_of_a_connection_is_not_used(
    postgres_dsn: str, postgres_url: str, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    """Types and functions of the caller's with the names of PostgreSQL's, and before those."""
    schema = schema_of(postgres_url)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE oid (a int); CREATE TEMP TABLE record (a int)")
        name = "pg_temp.pg_advisory_xact_lock_shared(bigint)"
        connection.execute(f"CREATE FUNCTION {name} RETURNS int LANGUAGE sql AS 'SELECT NULL::int'".encode())
        connection.execute("SET search_path = pg_temp, pg_catalog")
        storage = PostgresStorage(connection, schema=schema)
        for turn in range(3):
            old, new = (None, b"0") if not turn else (b"%d" % (turn - 1), b"%d" % turn)
            step = Batch({b"a": old, b"b": old}, {b"a": new, b"b": new}, [Frame(0, new, (b"%016d" % turn,))])
            with connection.transaction():
                step.epoch = storage.epoch()
                storage.publish(step)
                held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'"
                assert admin.execute(held.encode()).fetchone() == (1,)
        assert storage.read([b"a", b"b"]) == [b"2", b"2"]


def test_a_name_that_no_schema_can_have_is_refused(postgres_dsn: str) -> None:
    for schema in ("", "x" * 64, "ü" * 32, "a\x00b", "$user"):
        with pytest.raises(InvalidInputError):
            PostgresStorage(postgres_dsn, schema=schema)


# -- encodings ---------------------------------------------------------------------------------------


@contextmanager
def database(dsn: str, encoding: str) -> Iterator[str]:
    """Yield the URL of a database of its own in an encoding."""
    name = f"d_{secrets.token_hex(6)}"
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0".encode()
        )
        try:
            yield dsn.replace("/postgres?", f"/{name}?")
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_of_any_encoding_holds_a_store(postgres_dsn: str, encoding: str) -> None:
    with database(postgres_dsn, encoding) as dsn:
        for schema in ("plain", "größe"):
            for more in ("", "&client_encoding=SQL_ASCII", "&client_encoding=LATIN1"):
                with closing(PostgresStorage(dsn + more, schema=schema)) as storage:
                    storage.publish(Batch(records={more.encode() or b"-": schema.encode()}))
                    url = storage.url
                assert "client_encoding" not in url
            with closing(open_storage(url, create=False)) as storage:
                assert [value for _, value in storage.scan(*ALL)] == [schema.encode()] * 3


def test_a_name_that_a_database_has_no_letters_for_is_refused(postgres_dsn: str) -> None:
    with database(postgres_dsn, "LATIN1") as dsn:
        with pytest.raises(InvalidInputError, match='no equivalent in encoding "LATIN1"') as caught:
            PostgresStorage(dsn, schema="名")
        assert "name the schema" in caught.value.hints[0]


def test_the_encoding_of_the_environment_changes_nothing(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "SQL_ASCII")
    for expected in (None, b"1"):
        with closing(PostgresStorage(postgres_url)) as storage:
            storage.publish(Batch({b"a": expected}, {b"a": b"1"}))


@pytest.mark.parametrize(("encoding", "letter"), [("LATIN1", "s"), ("SJIS", "s"), ("UTF8", "名")])
def test_a_connection_passed_in_may_have_an_encoding_of_its_own(
    postgres_dsn: str, admin: psycopg.Connection[tuple[object, ...]], encoding: str, letter: str
) -> None:
    schema = letter + secrets.token_hex(3)
    try:
        with psycopg.connect(postgres_dsn, client_encoding=encoding) as connection:
            PostgresStorage(connection, schema=schema).publish(Batch(records={b"a": b"1"}))
        with closing(PostgresStorage(postgres_dsn, schema=schema, create=False)) as storage:
            assert storage.read([b"a"]) == [b"1"]
    finally:
        admin.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))


@pytest.mark.parametrize(
    ("encoding", "letter"), [("SQL_ASCII", "s"), ("SQL_ASCII", "ö"), ("LATIN1", "ö"), ("SJIS", "ö"), ("SJIS", "名")]
)
def test_an_encoding_that_names_cannot_be_told_in_is_refused_before_anything_is_made(
    postgres_dsn: str, admin: psycopg.Connection[tuple[object, ...]], encoding: str, letter: str
) -> None:
    schema = letter + secrets.token_hex(3)
    with psycopg.connect(postgres_dsn, client_encoding=encoding) as connection:
        with pytest.raises(InvalidInputError, match=f"has the encoding {encoding}") as caught:
            PostgresStorage(connection, schema=schema)
        assert "client_encoding=utf8" in caught.value.hints[0]
    assert admin.execute("SELECT to_regnamespace(%s)", (f'"{schema}"',)).fetchone() == (None,)


# -- beside others -----------------------------------------------------------------------------------


def test_two_schemas_are_two_stores(
    postgres_dsn: str, postgres_url: str, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    second = schema_of(postgres_url) + "b"
    try:
        with (
            closing(PostgresStorage(postgres_url)) as one,
            closing(PostgresStorage(postgres_dsn, schema=second)) as two,
            one.exclusive() as session,
        ):
            session.write(Batch(records={b"a": b"1"}))
            # Being exclusive in one holds up nobody in the other.
            two.publish(Batch(records={b"a": b"2"}))
            assert two.read([b"a"]) == [b"2"]
    finally:
        admin.execute(f"DROP SCHEMA IF EXISTS {second} CASCADE".encode())


def test_a_store_beside_the_tables_of_others(postgres_url: str, admin: psycopg.Connection[tuple[object, ...]]) -> None:
    schema = schema_of(postgres_url)
    admin.execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.users (name text)".encode())
    with closing(PostgresStorage(postgres_url)) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
    assert admin.execute(f"SELECT count(*) FROM {schema}.users".encode()).fetchone() == (0,)


def test_frames_are_not_compressed_again(postgres_url: str, admin: psycopg.Connection[tuple[object, ...]]) -> None:
    with closing(PostgresStorage(postgres_url)) as storage:
        storage.publish(Batch(frames=[Frame(0, bytes(100_000), ())]))
    size = admin.execute(f"SELECT pg_column_size(data) FROM {schema_of(postgres_url)}.frame".encode()).fetchone()
    assert size == (100_000,)


# -- opening what is there -----------------------------------------------------------------------------


@pytest.mark.parametrize("readonly", [False, True])
def test_a_store_opens_with_one_connection_and_one_statement(
    postgres_dsn: str, postgres_url: str, readonly: bool
) -> None:
    with closing(PostgresStorage(postgres_url)) as storage:
        storage.publish(Batch(records={b"a": b"1"}, frames=[Frame(0, b"f", ()), Frame(0, b"g", ())]))
    with wire_to(postgres_dsn) as wire:

        def sent() -> tuple[int, int]:
            """Return how many connections were asked for, by the version in the message, and how many statements."""
            asked = [request for request in wire.requests if request[4:8] == b"\x00\x03\x00\x00"]
            return len(asked), len([request for request in wire.requests if request[:1] in (b"P", b"Q")])

        with closing(PostgresStorage(wire.url, schema=schema_of(postgres_url), readonly=readonly)) as storage:
            assert sent() == (1, 1)
            assert storage._newest == 2
            assert storage.read([b"a"]) == [b"1"]
            assert sent() == (1, 2)
        assert sent() == (1, 2)


def test_what_is_looked_at_while_opening_is_not_asked_for_again(postgres_dsn: str, postgres_url: str) -> None:
    with closing(PostgresStorage(postgres_url)) as other, wire_to(postgres_dsn) as wire:
        other.publish(Batch(records={b"h": b"1", b"gone": b"x"}))
        with closing(open_storage(f"{wire.url}&schema={schema_of(postgres_url)}", ahead=b"h")) as storage:
            opened = len(wire.requests)
            assert (storage.read([b"h"]), without_incarnation(storage.epoch())[1]) == ([b"1"], 1)
            assert len(wire.requests) == opened
            other.publish(Batch(records={b"h": b"2", b"gone": None}))
            assert (storage.read([b"h"]), without_incarnation(storage.epoch())[1]) == ([b"2"], 2)
            assert storage.read([b"h", b"gone"]) == [b"2", None]
            assert len(wire.requests) == opened + 3
        with closing(PostgresStorage(postgres_url, ahead=b"absent")) as storage:
            assert storage.read([b"h"]) == [b"2"]
            assert storage.read([b"absent"]) == [None]


def test_looking_for_a_store_in_vain_leaves_an_open_transaction_as_it_was(
    postgres_dsn: str, postgres_url: str, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    schema = schema_of(postgres_url)
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.kept (n int)".encode())
        with pytest.raises(StoreNotFoundError):
            PostgresStorage(connection, schema=schema, create=False)
        connection.execute(f"INSERT INTO {schema}.kept VALUES (7)".encode())
    assert admin.execute(f"SELECT n FROM {schema}.kept".encode()).fetchall() == [(7,)]


@pytest.mark.parametrize("frames", ["DROP TABLE {}.frame", "ALTER TABLE {}.frame RENAME number TO id"])
def test_a_newer_format_is_told_whatever_else_it_has(
    postgres_url: str, admin: psycopg.Connection[tuple[object, ...]], frames: str
) -> None:
    PostgresStorage(postgres_url).close()
    schema = schema_of(postgres_url)
    admin.execute(f"UPDATE {schema}.meta SET value = {FORMAT + 1} WHERE name = 'ckpt format'".encode())
    admin.execute(frames.format(schema).encode())
    with pytest.raises(FormatTooNewError, match=f"format {FORMAT + 1}"):
        PostgresStorage(postgres_url)


# -- refusing what is something else -------------------------------------------------------------------


def foreign_record(schema: str) -> str:
    return f"CREATE TABLE {schema}.record (key text, value text)"


def foreign_meta(schema: str) -> str:
    return f"CREATE TABLE {schema}.meta (name text, value text)"


def look_alike_meta(schema: str) -> str:
    return f"CREATE TABLE {schema}.meta (name text, value bigint); INSERT INTO {schema}.meta VALUES ('format', 1)"


def foreign_view(schema: str) -> str:
    return f"CREATE VIEW {schema}.frame AS SELECT 1 AS number"


@pytest.mark.parametrize("create", [True, False], ids=["create", "open"])
@pytest.mark.parametrize("make", [foreign_record, foreign_meta, look_alike_meta, foreign_view])
def test_tables_of_others_are_named_and_left_untouched(
    postgres_url: str, admin: psycopg.Connection[tuple[object, ...]], make: Callable[[str], str], create: bool
) -> None:
    schema = schema_of(postgres_url)
    admin.execute(f"CREATE SCHEMA {schema}; {make(schema)}".encode())
    before = relations(admin, schema)
    with pytest.raises(NotAStoreError, match="another program") as caught:
        PostgresStorage(postgres_url, create=create)
    assert schema in str(caught.value)
    assert caught.value.hints
    assert relations(admin, schema) == before
    assert functions(admin, schema) == set()


@pytest.mark.parametrize(
    ("make", "named"),
    [
        ("CREATE DOMAIN {s}.meta AS int", 'type "meta"'),
        ("CREATE TYPE {s}.frame AS ENUM ('a')", 'type "frame"'),
        ("CREATE TABLE {s}.q (a int); CREATE INDEX frame_keys ON {s}.q (a)", 'relation "frame_keys"'),
        ("CREATE FUNCTION {s}.ckpt_taken(bytea[]) RETURNS int LANGUAGE sql AS 'SELECT 1'", 'function "ckpt_taken"'),
    ],
)
def test_other_things_of_others_are_named_and_left_untouched(
    postgres_url: str, admin: psycopg.Connection[tuple[object, ...]], make: str, named: str
) -> None:
    schema = schema_of(postgres_url)
    admin.execute(f"CREATE SCHEMA {schema}; {make.format(s=schema)}".encode())
    before = relations(admin, schema), functions(admin, schema)
    with pytest.raises(NotAStoreError, match=f"another program.*{named} already exists.*left untouched") as caught:
        PostgresStorage(postgres_url)
    assert "another schema" in caught.value.hints[0]
    assert (relations(admin, schema), functions(admin, schema)) == before


def test_a_newer_format_is_refused(postgres_url: str, admin: psycopg.Connection[tuple[object, ...]]) -> None:
    PostgresStorage(postgres_url).close()
    table = f"{schema_of(postgres_url)}.meta"
    admin.execute(f"UPDATE {table} SET value = {FORMAT + 1} WHERE name = 'ckpt format'".encode())
    with pytest.raises(FormatTooNewError, match=f"format {FORMAT + 1}"):
        PostgresStorage(postgres_url)


def test_the_tables_of_postgressaver_may_stay_where_they_are(
    postgres_dsn: str, postgres_url: str, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    schema = schema_of(postgres_url)
    admin.execute(f"CREATE SCHEMA {schema}".encode())
    with psycopg.connect(postgres_dsn, autocommit=True, options=f"-c search_path={schema}") as connection:
        PostgresSaver(connection).setup()  # type: ignore[arg-type]
    with closing(PostgresStorage(postgres_url)) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
        assert storage.read([b"a"]) == [b"1"]


def test_a_store_that_was_dropped_says_so(postgres_url: str, admin: psycopg.Connection[tuple[object, ...]]) -> None:
    with closing(PostgresStorage(postgres_url)) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
        admin.execute(f"DROP SCHEMA {schema_of(postgres_url)} CASCADE".encode())
        calls: list[Callable[[], object]] = [
            storage.epoch,
            lambda: storage.read([b"a"]),
            lambda: storage.publish(Batch(records={b"a": b"2"})),
            lambda: storage.exclusive().__enter__(),
        ]
        for call in calls:
            with pytest.raises(StoreNotFoundError):
                call()


# -- permissions ---------------------------------------------------------------------------------------


@pytest.fixture
def role(
    postgres_dsn: str, admin: psycopg.Connection[tuple[object, ...]]
) -> Iterator[tuple[str, Callable[[str], str]]]:
    """A user without any permission, and the URL under which it opens a schema."""
    name = f"r_{secrets.token_hex(4)}"
    parameters = conninfo_to_dict(postgres_dsn)
    if not str(parameters.get("host", "")).startswith("/"):
        pytest.skip("the server asks for passwords")
    admin.execute(f"CREATE ROLE {name} LOGIN".encode())

    def url(schema: str) -> str:
        return f"postgresql://{name}@/{parameters['dbname']}?host={parameters['host']}&schema={schema}"

    yield name, url
    admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


def test_who_may_not_create_uses_what_is_there(
    postgres_url: str, role: tuple[str, Callable[[str], str]], admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    schema = schema_of(postgres_url)
    name, url = role
    with pytest.raises(StoreUnavailableError, match="permission denied") as caught:
        PostgresStorage(url(schema))
    assert "docs/postgres.md" in caught.value.hints[0]
    PostgresStorage(postgres_url).close()
    admin.execute(
        f"GRANT USAGE ON SCHEMA {schema} TO {name};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {name}".encode()
    )
    with closing(PostgresStorage(url(schema))) as storage:
        (number,) = storage.publish(Batch({b"a": None}, {b"a": b"1"}, [Frame(0, b"f", (bytes(16),))]))
        with storage.exclusive() as session:
            session.write(Batch({b"a": b"1"}, {b"a": None}))
            session.drop([number])
        storage.compact()
        assert storage.verify() == []
        assert storage.scan(*ALL) == []


def test_who_may_create_in_a_schema_need_not_own_the_database(
    postgres_url: str, role: tuple[str, Callable[[str], str]], admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    name, url = role
    admin.execute(f"CREATE SCHEMA {schema_of(postgres_url)} AUTHORIZATION {name}".encode())
    with closing(PostgresStorage(url(schema_of(postgres_url)))) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
        storage.compact()


def test_a_reader_reads_and_a_write_is_refused(
    postgres_url: str, role: tuple[str, Callable[[str], str]], admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    schema = schema_of(postgres_url)
    name, url = role
    with closing(PostgresStorage(postgres_url)) as storage:
        (number,) = storage.publish(Batch(records={b"a": b"1"}, frames=[Frame(0, b"f", (bytes(16),))]))
    admin.execute(
        f"GRANT USAGE ON SCHEMA {schema} TO {name}; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {name}".encode()
    )

    def write_alone(storage: PostgresStorage) -> None:
        with storage.exclusive() as session:
            session.write(Batch(records={b"a": b"2"}))

    for readonly in (True, False):
        with closing(PostgresStorage(url(schema), readonly=readonly)) as storage:
            assert storage.view([b"a"], [ALL]) == ([b"1"], [[(b"a", b"1")]])
            assert storage.load([number])[number].data == b"f"
            assert len(storage.locate([bytes(16)])) == len(storage.scan_index(b"", 9)) == 1
            assert storage.usage().objects == 1
            calls: list[Callable[[], object]] = [
                lambda: storage.publish(Batch(records={b"a": b"2"})),
                lambda: write_alone(storage),
            ]
            for call in calls:
                with pytest.raises(StoreUnavailableError) as refused:
                    call()
                # What the server says of the functions it was in is none of a user's business.
                assert readonly or refused.value.message.endswith(": permission denied for table record")
            assert storage.read([b"a"]) == [b"1"]


def test_readonly_is_also_said_to_the_server(postgres_url: str) -> None:
    with closing(PostgresStorage(postgres_url)) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
    with closing(PostgresStorage(postgres_url, readonly=True)) as storage:
        calls: list[Callable[[], object]] = [
            lambda: storage.publish(Batch(records={b"a": b"2"})),
            lambda: storage.exclusive().__enter__(),
            storage.compact,
        ]
        for call in calls:
            with pytest.raises(StoreUnavailableError, match="read-only"):
                call()
        with storage._source.lend() as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute(f"DELETE FROM {storage._schema}.record".encode())
        assert storage.read([b"a"]) == [b"1"]


def test_what_is_only_looked_at_first_is_still_not_written_over(postgres_url: str) -> None:
    """A batch that finds a record absent goes the careful way, which looks at all records before it writes any."""
    with closing(PostgresStorage(postgres_url)) as storage:
        storage.publish(Batch(records={b"sum": b"0"}))

        def work(_: int) -> None:
            for _ in range(20):
                while True:
                    (old,) = storage.read([b"sum"])
                    assert old is not None
                    with suppress(RecordChangedError):
                        storage.publish(Batch({b"sum": old, b"absent": None}, {b"sum": b"%d" % (int(old) + 1)}))
                        break

        at_once(8, work)
        assert storage.read([b"sum"]) == [b"160"]


def test_a_dead_network_is_noticed_unless_the_url_says_otherwise() -> None:
    parameters = postgres_connect.read_conninfo("postgresql://h/d?keepalives_idle=5")
    chosen = {name: parameters[name] for name in ("keepalives_idle", "keepalives_interval", "tcp_user_timeout")}
    assert chosen == {"keepalives_idle": "5", "keepalives_interval": "10", "tcp_user_timeout": "30000"}

"""The file of a SQLite store: what is created, recognised, refused and left alone, and what happens when it fails."""

from __future__ import annotations

import os
import random
import sqlite3
import stat
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.sqlite import SqliteSaver
from script_kit import output_of, python

from ckpt.errors import (
    CkptError,
    FormatTooNewError,
    IntegrityError,
    InvalidInputError,
    NotAStoreError,
    StoreNotFoundError,
    StoreUnavailableError,
)
from ckpt.repository import Repository, open_repository
from ckpt.storage import sqlite_file
from ckpt.storage.base import Batch, Frame, RecordChangedError, Storage
from ckpt.storage.memory import MemoryStorage
from ckpt.storage.sqlite import SqliteStorage
from ckpt.storage.urls import open_storage

ALL = (b"", b"\xff" * 1101)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def files(directory: Path) -> dict[str, bytes]:
    """Return the bytes of everything in a directory."""
    return {each.name: each.read_bytes() for each in directory.iterdir() if each.is_file()}


# -- creating ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o277, 0o777], ids=oct)
def test_a_new_file_is_for_its_owner_alone_whatever_the_umask(path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with closing(SqliteStorage(path)) as storage:
            storage.publish(Batch(records={b"a": b"1"}))
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["store.db", "store.db-wal", "store.db-shm"], 0o600)


def test_a_mode_that_the_owner_chose_stays(path: Path) -> None:
    SqliteStorage(path).close()
    path.chmod(0o640)
    with closing(SqliteStorage(path)) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    with pytest.raises(StoreNotFoundError):
        SqliteStorage(path, create=False)
    assert files(path.parent) == {"store.db": b""}
    with closing(SqliteStorage(path)) as storage:
        assert storage.epoch() >= 0


def test_nothing_is_created_unless_asked(tmp_path: Path) -> None:
    for options in ({"create": False}, {"readonly": True}):
        with pytest.raises(StoreNotFoundError):
            SqliteStorage(tmp_path / "none.db", **options)
    with pytest.raises(StoreNotFoundError, match="directory"):
        SqliteStorage(tmp_path / "no" / "such" / "directory.db")
    assert list(tmp_path.iterdir()) == []


def test_eight_processes_create_one_file_at_once(path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from ckpt.storage.base import Batch
        from ckpt.storage.sqlite import SqliteStorage

        print("ready", flush=True)
        sys.stdin.readline()
        storage = SqliteStorage(Path(sys.argv[1]))
        storage.publish(Batch(records={sys.argv[2].encode(): b"x"}))
        storage.close()
    """
    for turn in range(3):
        racers = [python(script, path.with_name(f"{turn}.db"), f"writer {n}") for n in range(8)]
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        for racer in racers:
            output_of(racer)
        with closing(SqliteStorage(path.with_name(f"{turn}.db"), create=False)) as storage:
            assert storage.scan(*ALL) == [(b"writer %d" % number, b"x") for number in range(8)]
        with closing(sqlite3.connect(path.with_name(f"{turn}.db"))) as plain:
            assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_closing_leaves_one_file(path: Path) -> None:
    with closing(SqliteStorage(path)) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
        assert storage.read([b"a"]) == [b"1"]
    assert [each.name for each in path.parent.iterdir()] == ["store.db"]


# -- refusing what is something else ---------------------------------------------------------------------


def ordinary_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as plain:
        plain.execute("CREATE TABLE record (key BLOB PRIMARY KEY, value BLOB)")
        plain.execute("INSERT INTO record VALUES (x'61', x'62')")
        plain.commit()


def database_in_wal_mode(path: Path) -> None:
    ordinary_database(path)
    with closing(sqlite3.connect(path)) as plain:
        plain.execute("PRAGMA journal_mode = WAL")
        plain.execute("INSERT INTO record VALUES (x'63', x'64')")
        plain.commit()


def database_with_another_application_id(path: Path) -> None:
    with closing(sqlite3.connect(path)) as plain:
        plain.execute("PRAGMA application_id = 1196444487")


def langgraph_database(path: Path) -> None:
    with SqliteSaver.from_conn_string(str(path)) as saver:
        saver.setup()


def newer_store(path: Path) -> None:
    SqliteStorage(path).close()
    with closing(sqlite3.connect(path)) as plain:
        plain.execute(f"PRAGMA user_version = {sqlite_file.FORMAT + 1}")


@pytest.mark.parametrize("create", [True, False], ids=["create", "open"])
@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda path: path.mkdir(), NotAStoreError, "directory"),
        (lambda path: path.write_text("just some text\n"), NotAStoreError, "not a database"),
        (lambda path: path.write_bytes(b"SQLite format 3"), NotAStoreError, "not a database"),
        (lambda path: path.write_bytes(b"SQLite format 3\x00" + bytes(50)), NotAStoreError, "not a database"),
        (lambda path: path.write_bytes(random.Random(1).randbytes(8192)), NotAStoreError, "not a database"),
        (lambda path: path.write_bytes(bytes(4096)), NotAStoreError, "not a database"),
        (ordinary_database, NotAStoreError, "another program"),
        (database_in_wal_mode, NotAStoreError, "another program"),
        (database_with_another_application_id, NotAStoreError, "another program"),
        (langgraph_database, NotAStoreError, "SqliteSaver"),
        (newer_store, FormatTooNewError, f"format {sqlite_file.FORMAT + 1}"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_something_else_is_named_and_left_untouched(
    path: Path, make: object, error: type[CkptError], words: str, create: bool
) -> None:
    make(path)  # type: ignore[operator]
    before, times = files(path.parent), path.stat().st_mtime_ns
    with pytest.raises(error, match=words) as caught:
        SqliteStorage(path, create=create)
    assert str(path) in str(caught.value)
    assert caught.value.hints
    assert files(path.parent) == before
    assert path.stat().st_mtime_ns == times


def test_a_newer_format_is_seen_while_its_writer_is_still_there(path: Path) -> None:
    SqliteStorage(path).close()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version = {sqlite_file.FORMAT + 1}")
        assert path.with_name("store.db-wal").stat().st_size > 0
        with pytest.raises(FormatTooNewError):
            SqliteStorage(path).epoch()


def test_a_store_cut_short_is_damaged(path: Path) -> None:
    with closing(SqliteStorage(path)) as storage:
        storage.publish(Batch(records={b"%d" % number: bytes(1000) for number in range(50)}))
    whole = path.read_bytes()
    for length in (100, 512, 4096, 5000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(IntegrityError), closing(SqliteStorage(path)) as storage:
            storage.scan(*ALL)
            storage.scan_frames(0, 10)
            storage.scan_index(b"", 10)
    path.write_bytes(whole)
    with closing(SqliteStorage(path)) as storage:
        assert len(storage.scan(*ALL)) == 50


@pytest.mark.parametrize("held", [False, True], ids=["alone", "held"])
@pytest.mark.parametrize("damage", ["records", "schema", "interrupt"])
def test_a_store_that_cannot_be_opened_leaves_no_connection(
    path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, held: bool
) -> None:
    real, made = sqlite3.connect, list[sqlite3.Connection]()

    def kept(*given: Any, **named: Any) -> sqlite3.Connection:
        made.append(real(*given, **named))
        return made[-1]

    def interrupted(storage: Storage) -> None:
        raise KeyboardInterrupt

    open_repository(str(path)).close()
    with closing(open_storage(str(path))) if held else nullcontext():
        if damage == "records":
            with closing(sqlite3.connect(path)) as plain, plain:
                plain.execute("DELETE FROM counter")
        elif damage == "interrupt":
            monkeypatch.setattr("ckpt.repository.core.ObjectStore", interrupted)
        else:
            with path.open("r+b") as file:
                file.seek(100)
                file.write(b"\xff" * 100)
        monkeypatch.setattr(sqlite3, "connect", kept)
        with pytest.raises(KeyboardInterrupt if damage == "interrupt" else IntegrityError) as raised:
            open_repository(str(path))
        # As long as somebody looks at the error, nothing is closed by itself.
        assert made and raised.value.__traceback__ is not None
        for connection in made:
            with pytest.raises(sqlite3.ProgrammingError, match="closed"):
                connection.execute("SELECT 1")


def test_a_file_without_permission_says_so() -> None:
    script = """
        import os, sys
        from pathlib import Path
        from ckpt.errors import StoreUnavailableError
        from ckpt.storage.base import Batch
        from ckpt.storage.sqlite import SqliteStorage

        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        place = Path(sys.argv[1])
        for name, act in {
            "secret.db": lambda store: store.epoch(),
            "frozen.db": lambda store: store.publish(Batch(records={b"b": b"2"})),
            "new.db": lambda store: store.epoch(),
        }.items():
            try:
                store = SqliteStorage(place / name)
                act(store)
            except StoreUnavailableError as error:
                assert name in str(error) and error.hints, error
                print(name)
            else:
                print("no error for", name)
    """
    # Not below tmp_path, whose directories nobody else may enter.
    with tempfile.TemporaryDirectory() as place:
        for name, mode in {"secret.db": 0o000, "frozen.db": 0o444}.items():
            with closing(SqliteStorage(Path(place, name))) as storage:
                storage.publish(Batch(records={b"a": b"1"}))
            Path(place, name).chmod(mode)
        os.chmod(place, 0o555)
        try:
            assert output_of(python(script, place)).split("\n") == ["secret.db", "frozen.db", "new.db", ""]
        finally:
            os.chmod(place, 0o755)


# -- URLs --------------------------------------------------------------------------------------------


def test_the_forms_of_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    forms: dict[str, str | Path] = {
        "a.db": "sqlite:///a.db",
        "b.db": f"sqlite:///{tmp_path}/b.db",
        "c.db": "c.db",
        "d.db": tmp_path / "d.db",
        "e f?#%.db": "sqlite:///e%20f%3F%23%25.db",
        "g?h#i%20.db": "g?h#i%20.db",
        "sqlite:": Path("sqlite:"),
        "ü 名.db": "sqlite:///ü%20%E5%90%8D.db",
        "q.db": "sqlite:///q.db?synchronous=NORMAL&cache_kb=100&busy_timeout=1.5",
    }
    for name, url in forms.items():
        assert not (tmp_path / name).exists()
        with closing(open_storage(url)) as storage:
            storage.publish(Batch(records={b"name": name.encode()}))
            again = storage.url
        assert (tmp_path / name).is_file()
        assert again.startswith("sqlite:///")
        with closing(open_storage(again, create=False)) as storage:
            assert storage.read([b"name"]) == [name.encode()]
    assert {each.name for each in tmp_path.iterdir()} == set(forms)


def test_each_memory_store_is_its_own() -> None:
    one, two = open_storage("memory://"), open_storage("memory://")
    assert isinstance(one, MemoryStorage)
    one.publish(Batch(records={b"a": b"1"}))
    assert (one.read([b"a"]), two.read([b"a"])) == ([b"1"], [None])


@pytest.mark.parametrize(
    "url",
    [
        "", ":memory:", "memory://x", "memory:///", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://host/x.db",
        "sqlite:///x.db#y",
        "http://x/y", "://x", "sqlite:///x.db?synchronous=maybe", "sqlite:///x.db?synchronous=", "sqlite:///x.db?cache=1",
        "sqlite:///x.db?cache_kb=1.5", "sqlite:///x.db?cache_kb=-1", "sqlite:///x.db?busy_timeout=soon",
        "sqlite:///x.db?busy_timeout=-1", "sqlite:///x.db?busy_timeout=nan", "sqlite:///x.db?busy_timeout=inf",
        "sqlite:///x.db?busy_timeout=1e300", "sqlite:///x.db?cache_kb=99999999999999999999",
        "sqlite:///x.db?cache_kb=1;DROP TABLE record", "sqlite:///x%00.db", "x\x00.db",
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_read_is_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError):
        open_storage(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///x?encryption_key=hunter2", "sqlite:///x?key=hunter2", "sqlite:///x?hunter2", "sqlite://u:hunter2@h/x",
        "sqlite:///x?key=hunter2&busy_timeout=soon", "sqlite:///x?busy_timeout=hunter2", "sqlite:///x?cache_kb=hunter2",
        "sqlite://[u:hunter2@h/x", "sqlite:///x#hunter2", "memory://hunter2", "u:hunter2@h://x", "https://u:hunter2@h",
        "postgres:u:hunter2@h", "POSTGRESQL:u:hunter2@h", " postgresql+psycopg:u:hunter2@h", "redis:/:hunter2@h",
        "rediss::hunter2@h", "sqlite:x?key=hunter2", "memory:hunter2", "host=h user=u password=hunter2",
        " Password = hunter2", "dbname=d password=hunter2 options=://",
    ],
)  # fmt: skip
def test_a_url_that_is_refused_is_not_repeated(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError) as caught:
        open_storage(url)
    words = "".join(traceback.format_exception_only(caught.value)) + str(caught.value.hints)
    assert "hunter2" not in words.replace("'hunter2', which is not known", "")
    assert list(tmp_path.iterdir()) == []


def test_a_file_may_be_named_like_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["redis:x", "host=a", "postgres", "hosts.db", "memory.db", "C:x"]
    for name in names[:2]:
        open_storage(Path(name)).close()
        open_storage(f"./{name}", create=False).close()
    for name in names[2:]:
        open_storage(name).close()
    assert {each.name for each in tmp_path.iterdir()} == set(names)


@pytest.mark.parametrize("name", ["☃" * 600, "x" * 5_000, "\ud800", None, 1, b"x.db", ["x.db"], {}], ids=repr)
def test_what_can_name_no_file_is_refused(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError):
        open_storage(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("query", "level"), [("", 2), ("?synchronous=normal", 1), ("?synchronous=OFF", 0)])
def test_the_query_reaches_sqlite(path: Path, monkeypatch: pytest.MonkeyPatch, query: str, level: int) -> None:
    with connections(monkeypatch) as made, closing(open_storage(f"sqlite:///{path}{query}")) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
        storage.read([b"a"])
        assert len(made) >= 2
        for connection in made[-2:]:
            assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
            assert connection.execute("PRAGMA trusted_schema").fetchone() == (0,)


def test_the_size_of_the_cache_reaches_sqlite(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for query, size in (("", 8192), ("?cache_kb=512", 512)):
        with connections(monkeypatch) as made, closing(open_storage(f"sqlite:///{path}{query}")):
            assert made[-1].execute("PRAGMA cache_size").fetchone() == (-size,)


@contextmanager
def connections(monkeypatch: pytest.MonkeyPatch, setup: str = "") -> Iterator[list[sqlite3.Connection]]:
    """Collect the connections that storages open, running `setup` on each."""
    made: list[sqlite3.Connection] = []
    connect = sqlite_file.connect

    def collecting(*args: object, **kwargs: object) -> sqlite3.Connection:
        made.append(connect(*args, **kwargs))  # type: ignore[arg-type]
        if setup:
            made[-1].execute(setup)
        return made[-1]

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_file, "connect", collecting)
        yield made


# -- sharing -------------------------------------------------------------------------------------------


def test_a_read_only_store_is_only_read(path: Path) -> None:
    with closing(SqliteStorage(path)) as writer:
        writer.publish(Batch(records={b"a": b"1"}))
        with closing(SqliteStorage(path, readonly=True)) as reader:
            assert reader.read([b"a"]) == [b"1"]
            writer.publish(Batch(records={b"a": b"2"}, frames=[Frame(0, b"f", (b"k" * 16,))]))
            assert reader.read([b"a"]) == [b"2"]
            assert reader.load([1])[1].data == b"f"
            with pytest.raises(StoreUnavailableError):
                reader.publish(Batch(records={b"a": b"3"}))
            with pytest.raises(StoreUnavailableError), reader.exclusive() as session:
                session.write(Batch(records={b"a": b"3"}))
            with pytest.raises(StoreUnavailableError):
                reader.compact()
            assert reader.read([b"a"]) == [b"2"]
    before = path.read_bytes()
    with closing(SqliteStorage(path, readonly=True)) as reader:
        assert reader.read([b"a"]) == [b"2"]
    assert path.read_bytes() == before


def test_a_lock_held_elsewhere_is_waited_for_then_reported(path: Path) -> None:
    script = """
        import sqlite3, sys

        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE counter SET value = value")
        print("locked", flush=True)
        sys.stdin.readline()
        connection.execute("ROLLBACK")
        print("free", flush=True)
    """
    with closing(open_storage(f"sqlite:///{path}?busy_timeout=0.3")) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
        holder = python(script, path)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        for act in (lambda: storage.publish(Batch(records={b"a": b"2"})), lambda: storage.exclusive().__enter__()):
            start = time.monotonic()
            with pytest.raises(StoreUnavailableError, match="locked"):
                act()
            assert 0.2 < time.monotonic() - start < 10
        assert storage.read([b"a"]) == [b"1"]
        with closing(open_storage(f"sqlite:///{path}?busy_timeout=0.1")) as another:
            assert another.read([b"a"]) == [b"1"]
        assert "free" in (holder.communicate("go\n")[0])
        storage.publish(Batch(records={b"a": b"3"}))
        assert storage.read([b"a"]) == [b"3"]


def test_a_file_held_exclusively_is_reported(path: Path) -> None:
    SqliteStorage(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("UPDATE counter SET value = value")
        url = f"sqlite:///{path}?busy_timeout=0.2"
        with pytest.raises(StoreUnavailableError, match="locked"), closing(open_storage(url)) as storage:
            storage.read([b"a"])
    with closing(open_storage(url)) as storage:
        assert storage.read([b"a"]) == [None]


def test_a_forked_process_has_connections_of_its_own(path: Path) -> None:
    script = """
        import os, sys
        from pathlib import Path
        from threading import Thread
        from ckpt.storage.base import Batch
        from ckpt.storage.sqlite import SqliteStorage

        storage = SqliteStorage(Path(sys.argv[1]))
        storage.publish(Batch(records={b"before": b"fork"}))
        assert storage.read([b"before"]) == [b"fork"]
        children = []
        for number in range(3):
            child = os.fork()
            if child == 0:
                for turn in range(20):
                    storage.publish(Batch(records={b"child %d" % number: b"%d" % turn}))
                    assert storage.read([b"before", b"child %d" % number]) == [b"fork", b"%d" % turn]
                storage.close()
                os._exit(0)
            children.append(child)
        idle = os.fork()
        if idle == 0:
            sys.exit(0)
        for turn in range(20):
            storage.publish(Batch(records={b"parent": b"%d" % turn}))
            assert storage.read([b"parent"]) == [b"%d" % turn]
        for child in (*children, idle):
            assert os.waitpid(child, 0)[1] == 0
        storage.publish(Batch(records={b"after": b"all"}))
        storage.close()
    """
    output_of(python(script, path))
    with closing(SqliteStorage(path)) as storage:
        wanted = {b"child %d" % number: b"19" for number in range(3)}
        assert dict(storage.scan(*ALL)) == {b"before": b"fork", b"parent": b"19", b"after": b"all", **wanted}
    with closing(sqlite3.connect(path)) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# -- no space left -------------------------------------------------------------------------------------


def fill(storage: Storage, *, size: int, start: int = 0) -> tuple[int, StoreUnavailableError]:
    """Publish batches from number `start` on until one fails; return the number that failed, and the error."""
    for number in range(start, 10_000):
        key = b"%05d" % number
        frame = Frame(0, random.Random(number).randbytes(size), (key.ljust(16),))
        try:
            storage.publish(Batch({key: None}, {key: b"done", b"last": key}, [frame]))
        except StoreUnavailableError as error:
            return number, error
    raise AssertionError("there is no end to this disk")


def check_filled(storage: Storage, count: int, *, size: int) -> None:
    """Assert that exactly `count` batches are there, each whole."""
    rows = dict(storage.scan(*ALL))
    assert rows.pop(b"last") == b"%05d" % (count - 1)
    assert rows == {b"%05d" % number: b"done" for number in range(count)}
    places = storage.locate([(b"%05d" % number).ljust(16) for number in range(count + 2)])
    assert len(places) == count == len(storage.scan_frames(0, 100_000))
    frames = storage.load([place.frame for place in places.values()])
    for key, place in places.items():
        assert frames[place.frame].data == random.Random(int(key)).randbytes(size)


@pytest.mark.parametrize("size", [100, 20_000])
def test_a_full_database_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    with connections(monkeypatch, "PRAGMA max_page_count = 60"), closing(SqliteStorage(path)) as storage:
        count, error = fill(storage, size=size)
        assert "space" in str(error)
        assert error.hints
        check_filled(storage, count, size=size)
        assert storage.read([b"last"]) == [b"%05d" % (count - 1)]
        with pytest.raises(RecordChangedError):
            storage.publish(Batch({b"last": None}, {b"last": b"x"}))
    with closing(SqliteStorage(path)) as storage:
        check_filled(storage, count, size=size)
        storage.publish(Batch({b"00000": b"done"}, {b"00000": b"again"}, [Frame(0, bytes(100_000), ())]))
        assert storage.read([b"00000"]) == [b"again"]


@pytest.mark.parametrize("size", [100, 20_000])
def test_a_file_that_cannot_grow_loses_nothing(path: Path, size: int) -> None:
    script = """
        import resource, signal, sys
        from contextlib import closing
        from pathlib import Path
        from ckpt.storage.sqlite import SqliteStorage

        sys.path[:0] = sys.argv[3:]
        from test_sqlite_file import check_filled, fill

        size = int(sys.argv[2])
        with closing(SqliteStorage(Path(sys.argv[1]))) as storage:
            storage.epoch()
            unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, unlimited))
            count, error = fill(storage, size=size)
            check_filled(storage, count, size=size)
            assert fill(storage, size=size, start=count)[0] == count
            resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
            check_filled(storage, count, size=size)
            print(count)
    """
    count = int(output_of(python(script, path, size, *Path(__file__).parents[:2])))
    assert count > 0
    with closing(SqliteStorage(path)) as storage:
        check_filled(storage, count, size=size)
    with closing(sqlite3.connect(path)) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_the_directory_of_our_own_is_made_and_no_other(tmp_path: Path) -> None:
    with closing(SqliteStorage(tmp_path / ".ckpt" / "store.db")) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
    assert stat.S_IMODE((tmp_path / ".ckpt").stat().st_mode) == 0o700
    with pytest.raises(StoreNotFoundError):
        SqliteStorage(tmp_path / "elsewhere" / "store.db")
    assert not (tmp_path / "elsewhere").exists()


def test_opening_a_file_again_leaves_the_locks_of_this_process_alone(path: Path) -> None:
    """Otherwise whoever closes the file next takes the log away, and what is written from then on is lost."""
    script = """
        import sys
        from pathlib import Path
        from ckpt.storage.base import Batch
        from ckpt.storage.sqlite import SqliteStorage

        with_it = SqliteStorage(Path(sys.argv[1]))
        with_it.publish(Batch(records={b"theirs": b"1"}))
        with_it.close()
        print("ready", flush=True)
    """
    with closing(SqliteStorage(path)) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
        with closing(SqliteStorage(path)) as again:
            assert again.read([b"a"]) == [b"1"]
            output_of(python(script, path))
            storage.publish(Batch(records={b"b": b"2"}))
            again.publish(Batch(records={b"c": b"3"}))
            look = """
                import sys
                from contextlib import closing
                from pathlib import Path
                from ckpt.storage.sqlite import SqliteStorage

                with closing(SqliteStorage(Path(sys.argv[1]))) as fresh:
                    assert fresh.read([b"a", b"b", b"c", b"theirs"]) == [b"1", b"2", b"3", b"1"]
            """
            output_of(python(look, path))


def test_a_relative_path_means_the_same_file_wherever_the_process_works_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with closing(SqliteStorage(Path("s.db"))) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
        monkeypatch.chdir("elsewhere")
        storage.publish(Batch(records={b"a": b"2"}))
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda _: storage.read([b"a"]), range(8))) == [[b"2"]] * 8
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".db"] == ["s.db"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE frame SET previous = x'00'",
        "UPDATE frame SET previous = 'first'",
        "UPDATE object SET place = 'here'",
        "UPDATE object SET place = 1.5",
        "UPDATE frame SET data = 7",
        "UPDATE record SET value = 'text'",
    ],
)
def test_a_column_of_another_type_is_damage(path: Path, statement: str) -> None:
    key = b"k" * 16
    with closing(SqliteStorage(path)) as storage:
        storage.publish(Batch(records={b"a": b"1"}, frames=[Frame(0, b"one", (key,))]))
    with closing(sqlite3.connect(path)) as plain:
        plain.execute(statement)
        plain.commit()
    with closing(SqliteStorage(path)) as storage, pytest.raises(IntegrityError):
        storage.read([b"a"])
        storage.scan_index(b"", 10)
        storage.load([1])
        storage.scan_frames(0, 10)
    if "record" not in statement:  # whose key is none that a repository looks at
        with Repository(SqliteStorage(path)) as repository:
            assert repository.fsck().problems


def test_the_log_that_a_long_read_made_grow_is_cut(path: Path) -> None:
    log = path.with_name(path.name + "-wal")
    with closing(SqliteStorage(path)) as storage, closing(sqlite3.connect(path)) as reader:
        storage.publish(Batch(records={b"a": b"1"}))
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM record").fetchone()[0] > 0
        for number in range(24):
            storage.publish(Batch(records={b"%d" % number: bytes(1 << 20)}))
        assert log.stat().st_size > 24 << 20
        reader.execute("COMMIT")
        # The first writes all of the log into the file, the second begins anew.
        for value in (b"2", b"3"):
            storage.publish(Batch(records={b"a": value}))
        assert log.stat().st_size <= 16 << 20
        assert storage.read([b"a"]) == [b"3"]


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("given", ["./.ckpt", "sqlite:///.ckpt", Path(".ckpt")], ids=str)
def test_a_folder_of_init_names_the_store_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | Path, there: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    if there:
        SqliteStorage(Path(".ckpt/store.db")).close()
    with closing(open_storage(given)) as storage:
        storage.publish(Batch(records={b"a": b"1"}))
    for again in (".", Path(tmp_path), ".ckpt/store.db"):
        with closing(open_storage(again, create=False)) as storage:
            assert storage.read([b"a"]) == [b"1"]
    assert [each.name for each in tmp_path.iterdir()] == [".ckpt"]


def test_where_nothing_can_be_written_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    SqliteStorage(path).close()
    # What SQLite says on a file system that was mounted to be read only, which a test cannot mount.
    refused = sqlite3.OperationalError("unable to open database file")
    assert str(sqlite_file.translate(path, refused)).endswith("cannot be used: unable to open database file")
    monkeypatch.setattr(os, "access", lambda place, mode: place != tmp_path)
    error = sqlite_file.translate(path, refused)
    assert isinstance(error, StoreUnavailableError)
    assert f"{tmp_path} does not let it" in str(error)
    assert "-wal" in error.hints[0]

"""Whoever can write to the store, but has no key: what is found out, and when. Damage never reads as an answer."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import pytest

import ckpt
from ckpt.encryption import HEADER_KEY, EncryptedStorage
from ckpt.encryption.cipher import NotAuthenticError
from ckpt.encryption.header import new_ring, read_ring
from ckpt.encryption.userkeys import user_key
from ckpt.errors import DamagedObjectError, DamagedRecordError, FormatTooNewError, IntegrityError, WrongKeyError
from ckpt.history import keys
from ckpt.history.records import Line, ThreadRecord
from ckpt.history.seal import seal

KEY = bytes(range(32))
LONG = "a line that is stored in a frame, as it is long enough for it\n" * 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    with ckpt.open(path, encryption_key=KEY) as repository:
        for name in ("ana", "bob"):
            for number in range(3):
                repository.thread(name).commit({"text": f"{name} {number} {LONG}", "who": name})
    return path


@pytest.fixture
def database(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def disguise(path: Path) -> Callable[[bytes], bytes]:
    with ckpt.open(path, encryption_key=KEY) as repository:
        storage = repository.storage
        assert isinstance(storage, EncryptedStorage)
        return storage.keys.ring.disguise.record_key


def record(database: sqlite3.Connection, key: bytes) -> bytes:
    return bytes(database.execute("SELECT value FROM record WHERE key = ?", (key,)).fetchone()[0])


def write(database: sqlite3.Connection, key: bytes, value: bytes) -> None:
    assert database.execute("UPDATE record SET value = ? WHERE key = ?", (value, key)).rowcount == 1


def checkpoints(database: sqlite3.Connection, thread: int) -> list[bytes]:
    start, end = keys.checkpoints_range(thread, "")
    rows = database.execute("SELECT key FROM record WHERE key >= ? AND key < ? ORDER BY key", (start, end))
    return [bytes(key) for (key,) in rows]


def read_all(path: Path) -> list[object]:
    """Everything that can be read by names and ids, in a process that has seen nothing before."""
    with ckpt.open(path, encryption_key=KEY) as repository:
        return [repository.state(info.id) for name in ("ana", "bob") for info in repository.log(thread=name)]


def refused(path: Path, error: type[IntegrityError] = DamagedRecordError) -> None:
    with pytest.raises(error, match="cannot be opened: it was changed, moved from another place, or forged"):
        read_all(path)


# -- records ----------------------------------------------------------------------------------------------


def test_a_changed_record_is_refused(path: Path, database: sqlite3.Connection) -> None:
    wanted = read_all(path)
    for (key,) in database.execute("SELECT key FROM record").fetchall():
        if key == HEADER_KEY or key == keys.COUNTERS:
            continue
        whole = record(database, key)
        for position in (0, 1, 2, 25, 26, len(whole) - 1):
            write(database, key, whole[:position] + bytes((whole[position] ^ 1,)) + whole[position + 1 :])
            with pytest.raises(DamagedRecordError):
                read_all(path)
        write(database, key, whole)
    assert read_all(path) == wanted


def test_rows_swapped_between_threads_ids_and_types_are_refused(path: Path, database: sqlite3.Connection) -> None:
    ana, bob = checkpoints(database, 1), checkpoints(database, 2)
    names = [disguise(path)(keys.name_key(name)) for name in ("ana", "bob")]
    pairs = [
        (ana[0], bob[0]),  # another thread's checkpoint
        (ana[0], ana[1]),  # another checkpoint of the same thread
        (keys.thread_key(1), keys.thread_key(2)),
        (names[0], names[1]),
        (ana[0], keys.thread_key(1)),  # another type
    ]
    for one, other in pairs:
        first, second = record(database, one), record(database, other)
        write(database, one, second)
        refused(path)
        write(database, other, first)
        refused(path)
        write(database, one, first)
        write(database, other, second)
    assert len(read_all(path)) == 6


def test_rows_of_another_store_with_the_same_key_are_refused(
    path: Path, database: sqlite3.Connection, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    with ckpt.open(other, encryption_key=KEY) as repository:
        repository.thread("ana").commit({"text": "of another store"})
    with closing(sqlite3.connect(other)) as there:
        write(database, keys.thread_key(1), record(there, keys.thread_key(1)))
    refused(path)


@pytest.mark.parametrize("prefix", [b"", b"\x00\x01", b"\x00\x01" + bytes(40)])
def test_a_forged_record_in_plain_is_refused(path: Path, database: sqlite3.Connection, prefix: bytes) -> None:
    forged = ThreadRecord(1, "ana", 3, "z", Line("", None, "z", 3))
    assert ThreadRecord.decode(1, forged.encode()) == forged  # a plain store would believe it
    write(database, keys.thread_key(1), prefix + forged.encode())
    refused(path)


@pytest.mark.parametrize("size", [0, 1, 2, 10, 41, 42, 60])
def test_a_record_cut_short_is_refused(path: Path, database: sqlite3.Connection, size: int) -> None:
    write(database, keys.thread_key(1), record(database, keys.thread_key(1))[:size])
    refused(path)


def test_a_record_removed_is_missed(path: Path, database: sqlite3.Connection) -> None:
    for key in (checkpoints(database, 1)[0], checkpoints(database, 1)[2], disguise(path)(keys.name_key("ana"))):
        whole = record(database, key)
        database.execute("DELETE FROM record WHERE key = ?", (key,))
        with pytest.raises(IntegrityError):
            read_all(path)
        database.execute("INSERT INTO record VALUES (?, ?)", (key, whole))
    assert len(read_all(path)) == 6


def test_a_row_added_under_a_key_of_its_own_is_noticed(path: Path, database: sqlite3.Connection) -> None:
    first = checkpoints(database, 1)[0]
    database.execute("INSERT INTO record VALUES (?, ?)", (first + b"0", record(database, first)))
    with pytest.raises(IntegrityError):
        read_all(path)


def test_a_forged_counter_does_not_give_a_number_out_again(path: Path, database: sqlite3.Connection) -> None:
    for value in (b"", b"\x00" * 60, seal(keys.COUNTERS, 1)):
        write(database, keys.COUNTERS, value)
        with ckpt.open(path, encryption_key=KEY) as repository, pytest.raises(DamagedRecordError):
            repository.thread("new").commit({"a": 1})


# -- replay -----------------------------------------------------------------------------------------------


def test_an_old_thread_record_beside_newer_checkpoints_is_noticed(path: Path, database: sqlite3.Connection) -> None:
    old = record(database, keys.thread_key(1))
    with ckpt.open(path, encryption_key=KEY) as repository:
        repository.thread("ana").commit({"text": "newest"})
    write(database, keys.thread_key(1), old)
    for question in (
        lambda repository: repository.read("ana"),
        lambda repository: repository.thread("ana").state(),
        lambda repository: repository.log(thread="ana"),
    ):
        with ckpt.open(path, encryption_key=KEY) as repository:
            for _ in range(2):
                with pytest.raises(DamagedRecordError, match=r"was put back|is missing, although"):
                    question(repository)
    with ckpt.open(path, encryption_key=KEY) as repository:
        assert any(problem.id == "ana" for problem in repository.fsck().problems)


def test_an_old_header_does_not_bring_old_keys_back(path: Path, database: sqlite3.Connection) -> None:
    old = record(database, HEADER_KEY)
    with ckpt.open(path, encryption_key=KEY) as repository:
        ckpt.encryption.rotate(path, KEY, data=True)
        assert repository.thread("ana").state()["who"] == "ana"  # has learned of the new header
        write(database, HEADER_KEY, old)
        with pytest.raises(DamagedRecordError, match="header"):
            repository.thread("ana").commit({"a": 1})
    refused(path)


def test_a_rollback_of_the_whole_store_is_not_noticed(path: Path, tmp_path: Path) -> None:
    """Said in docs/encryption.md: without something kept elsewhere nobody could tell it from a restored backup."""
    wanted = read_all(path)
    shutil.copy(path, tmp_path / "backup.db")
    with ckpt.open(path, encryption_key=KEY) as repository:
        repository.thread("ana").commit({"text": "newest"})
    for file in tmp_path.glob("store.db*"):
        file.unlink()
    shutil.copy(tmp_path / "backup.db", path)
    assert read_all(path) == wanted


def test_who_has_the_thread_open_notices_too(path: Path, database: sqlite3.Connection) -> None:
    old = record(database, keys.thread_key(1))
    with ckpt.open(path, encryption_key=KEY) as repository:
        repository.thread("ana").commit({"text": "newest"})
        assert repository.read("ana") is not None
        write(database, keys.thread_key(1), old)
        for _ in range(2):
            with pytest.raises(DamagedRecordError, match="an earlier version was put back"):
                repository.read("ana")


# -- frames -----------------------------------------------------------------------------------------------


def frames(database: sqlite3.Connection) -> list[tuple[int, int, bytes]]:
    return database.execute("SELECT number, previous, data FROM frame ORDER BY number").fetchall()


def put_frame(database: sqlite3.Connection, number: int, data: bytes) -> None:
    database.execute("UPDATE frame SET data = ? WHERE number = ?", (data, number))


def test_changed_cut_and_forged_frames_are_refused(path: Path, database: sqlite3.Connection) -> None:
    for number, _, data in frames(database):
        broken = [data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :] for at in (0, 1, 3, 30, len(data) - 1)]
        for each in (*broken, data[:-1], data[:20], b"", b"\x28\xb5\x2f\xfd"):
            put_frame(database, number, each)
            refused(path, DamagedObjectError)
        put_frame(database, number, data)
    assert len(read_all(path)) == 6


def test_frames_swapped_are_refused(path: Path, database: sqlite3.Connection) -> None:
    found = frames(database)
    assert len(found) >= 4
    for one in found:
        for other in found:
            if one[0] != other[0]:
                put_frame(database, one[0], other[2])
                with pytest.raises(DamagedObjectError):
                    read_all(path)
                put_frame(database, one[0], one[2])


def test_a_frame_behind_another_one_is_refused(path: Path, database: sqlite3.Connection) -> None:
    found = frames(database)
    for number, previous, _ in found:
        for other in {0, *(each[0] for each in found)} - {previous, number}:
            if other < number:
                database.execute("UPDATE frame SET previous = ? WHERE number = ?", (other, number))
                with pytest.raises(DamagedObjectError):
                    read_all(path)
        database.execute("UPDATE frame SET previous = ? WHERE number = ?", (previous, number))
    assert len(read_all(path)) == 6


@pytest.mark.parametrize("previous", [-1, -(1 << 63), 1 << 64, 1 << 70, b"1", "1", 1.0, True, None])
@pytest.mark.parametrize("chained", [False, True])
def test_a_frame_behind_what_is_no_number_of_one_is_not_authentic(chained: bool, previous: Any) -> None:
    ring = new_ring(user_key(KEY))
    sealed = ring.seal_frame(-1 if chained else 1, b"data")
    assert ring.open_frame(1, sealed) == b"data"
    with pytest.raises(NotAuthenticError):
        ring.open_frame(previous, sealed)


@pytest.mark.parametrize("previous", [-1, -(1 << 63), (1 << 63) - 1])
def test_a_frame_behind_none_that_can_be_is_refused(path: Path, database: sqlite3.Connection, previous: int) -> None:
    for number, before, _ in frames(database):
        database.execute("UPDATE frame SET previous = ? WHERE number = ?", (previous, number))
        with pytest.raises(IntegrityError):
            read_all(path)
        database.execute("UPDATE frame SET previous = ? WHERE number = ?", (before, number))
    assert len(read_all(path)) == 6


def test_index_entries_swapped_lead_to_no_wrong_value(path: Path, database: sqlite3.Connection) -> None:
    entries = database.execute("SELECT key, place FROM object").fetchall()
    for key, place in entries:
        for _, other in entries:
            if other != place:
                database.execute("UPDATE object SET place = ? WHERE key = ?", (other, key))
                with pytest.raises(IntegrityError):
                    read_all(path)
                break
        database.execute("UPDATE object SET place = ? WHERE key = ?", (place, key))
    assert len(read_all(path)) == 6


def test_objects_and_frames_removed_are_missed(path: Path, database: sqlite3.Connection) -> None:
    for table, columns in (("object", "key, place"), ("frame", "number, previous, data")):
        for row in database.execute(f"SELECT {columns} FROM {table}").fetchall():
            database.execute(f"DELETE FROM {table} WHERE {columns.split(',')[0]} = ?", row[:1])
            with pytest.raises(IntegrityError):
                read_all(path)
            database.execute(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(row))})", row)
    assert len(read_all(path)) == 6


# -- other graphs, other keys, no keys --------------------------------------------------------------------


def test_rows_of_another_graph_or_memory_are_refused(path: Path, database: sqlite3.Connection) -> None:
    for graph in ("one", "other"):
        with ckpt.open(path, encryption_key=KEY, graph=graph) as repository:
            repository.thread("ana").commit({"text": f"of graph {graph}"})
            repository.memory().put(("n",), "who", {"name": graph})

    def answers() -> list[object]:
        found: list[object] = []
        for graph in ("one", "other"):
            with ckpt.open(path, encryption_key=KEY, graph=graph) as repository:
                item = repository.memory().get(("n",), "who")
                found += [repository.thread("ana").state(), item and item.value]
        return found

    wanted = answers()
    scoped = [
        bytes(key) for (key,) in database.execute("SELECT key FROM record WHERE key >= ? AND key < ?", keys.ALL_SCOPES)
    ]
    pairs = [
        (one, other)
        for one in scoped
        for other in [*scoped, keys.thread_key(1)]
        if one != other and one[17:] == (other[17:] or other)
    ]
    assert len({one[:17] for one, _ in pairs}) == 4
    refusals = 0
    for one, other in pairs:
        whole = record(database, one)
        write(database, one, record(database, other))
        # Not every record is asked for by these questions.
        try:
            assert answers() == wanted
        except DamagedRecordError as error:
            assert "cannot be opened" in str(error)
            refusals += 1
        write(database, one, whole)
    assert refusals > len(pairs) / 2
    assert answers() == wanted


def test_without_its_header_a_store_is_neither_plain_nor_new(path: Path, database: sqlite3.Connection) -> None:
    wanted, header = read_all(path), record(database, HEADER_KEY)
    database.execute("DELETE FROM record WHERE key = ?", (HEADER_KEY,))
    for readonly in (True, False):
        with pytest.raises(IntegrityError, match="the header was removed"):
            ckpt.open(path, encryption_key=KEY, readonly=readonly)
    with ckpt.open(path) as plain, pytest.raises(IntegrityError):
        plain.thread_names()
    with ckpt.open(path) as plain, pytest.raises(IntegrityError):
        plain.thread("ana").commit({"text": "in plain"})
    database.execute("INSERT INTO record VALUES (?, ?)", (HEADER_KEY, header))
    assert read_all(path) == wanted


def test_the_header_of_another_store_with_the_same_key_opens_nothing(
    path: Path, database: sqlite3.Connection, tmp_path: Path
) -> None:
    with ckpt.open(tmp_path / "other.db", encryption_key=KEY) as repository:
        repository.thread("ana").commit({"text": "of another store"})
    with closing(sqlite3.connect(tmp_path / "other.db")) as there:
        write(database, HEADER_KEY, record(there, HEADER_KEY))
    with pytest.raises(IntegrityError):
        read_all(path)


def test_no_field_of_the_header_can_be_changed(path: Path, database: sqlite3.Connection) -> None:
    whole = record(database, HEADER_KEY)
    clear, ring = msgpack.unpackb(whole)
    fields = msgpack.unpackb(clear)
    others = [2, bytes(16), fields[2] + 1, "scrypt", {"salt": bytes(16)}, "0" * 16, bytes(len(fields[6]))]
    assert len(others) == len(fields)
    for at, other in enumerate(others):
        changed = msgpack.packb([*fields[:at], other, *fields[at + 1 :]])
        write(database, HEADER_KEY, msgpack.packb([changed, ring]))
        with pytest.raises((DamagedRecordError, WrongKeyError, FormatTooNewError)):
            read_all(path)
    write(database, HEADER_KEY, whole)
    assert len(read_all(path)) == 6


@pytest.mark.parametrize(("field", "forged"), [(1, bytes(16)), (2, 7)], ids=["store", "generation"])
def test_what_stands_readable_in_the_header_is_bound_to_the_keys(field: int, forged: object) -> None:
    key = user_key(bytes(range(32)))
    clear, sealed = msgpack.unpackb(new_ring(key).raw)
    fields = msgpack.unpackb(clear)
    assert type(fields[field]) is type(forged)
    assert fields[field] != forged
    fields[field] = forged
    with pytest.raises(DamagedRecordError):
        read_ring(msgpack.packb([msgpack.packb(fields), sealed]), key)

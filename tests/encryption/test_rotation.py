"""Rotating keys: in one step or many, while others read and write, and stopped at any point."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

import ckpt
from ckpt.encryption import HEADER_KEY, EncryptedStorage, encrypted, opened, rotate, rotation
from ckpt.encryption.header import read_ring
from ckpt.encryption.storage import ALL_RECORDS
from ckpt.encryption.userkeys import user_key
from ckpt.errors import DamagedObjectError, DamagedRecordError, InvalidInputError, WrongKeyError
from ckpt.repository.gc import Collector
from ckpt.repository.mark import Packs
from ckpt.storage.base import Batch, Exclusive, Frame, RecordChangedError, Storage
from ckpt.storage.memory import MemoryStorage
from ckpt.storage.sqlite import SqliteStorage

OLD = bytes(range(32))
NEW = bytes(range(1, 33))
ROOT = Path(__file__).resolve().parents[2]


def text(number: int) -> str:
    return f"{number}: a line that is long enough to be stored in a frame of its own\n" * 20


def fill(repository: ckpt.Repository, threads: int = 4, turns: int = 6) -> None:
    for thread in range(threads):
        for turn in range(turns):
            repository.thread(f"t{thread}").commit({"text": text(10 * thread + turn), "turn": turn})
    repository.tag("v1", "t0~1")
    repository.fork("t1~2", "fork")


def states(repository: ckpt.Repository) -> list[object]:
    return [
        (name, info.checkpoint_id, repository.state(f"id:{info.id}", thread=name))
        for name in repository.thread_names()
        for info in repository.log(thread=name)
    ]


def numbers(storage: Storage) -> set[int]:
    """The numbers of the data keys that anything is sealed under."""
    rows = storage.scan(*ALL_RECORDS)
    found = {int.from_bytes(value[:2], "big") for key, value in rows if key != HEADER_KEY}
    frames = storage.load([number for number, _, _ in storage.scan_frames(0, 100_000)])
    return found | {int.from_bytes(frame.data[1:3], "big") for frame in frames.values()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    with ckpt.open(path, encryption_key=OLD) as repository:
        fill(repository)
    return path


def all_states(path: Path, key: Any = OLD) -> list[object]:
    with ckpt.open(path, encryption_key=key, readonly=True) as repository:
        assert repository.fsck().problems == []
        return states(repository)


# -- the user's key ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", [NEW, "a passphrase"])
def test_the_new_key_opens_the_store_and_the_old_one_no_more(path: Path, new: bytes | str) -> None:
    before = all_states(path)
    with opened(path, OLD) as storage:
        records = {key: value for key, value in storage.inner.scan(*ALL_RECORDS) if key != HEADER_KEY}
    assert rotate(path, OLD, new_key=new) == (0, 0)
    assert all_states(path, new) == before
    with pytest.raises(WrongKeyError):
        ckpt.open(path, encryption_key=OLD)
    with pytest.raises(WrongKeyError):
        rotate(path, OLD, new_key=os.urandom(32))
    with opened(path, new) as storage:
        assert {key: value for key, value in storage.inner.scan(*ALL_RECORDS) if key != HEADER_KEY} == records


def test_a_copy_made_afterwards_is_nothing_for_the_old_key_while_the_store_is_open(path: Path, tmp_path: Path) -> None:
    with ckpt.open(path, encryption_key=OLD) as repository:
        states(repository)
        rotate(path, OLD, new_key=NEW)
        rotate(path, NEW, data=True)
        copy = tmp_path / "copy.db"
        shutil.copyfile(path, copy)  # without the log beside it
        with pytest.raises(WrongKeyError):
            ckpt.open(copy, encryption_key=OLD, readonly=True)
    with closing(SqliteStorage(path)) as after, closing(SqliteStorage(copy)) as copied:
        assert numbers(after) == numbers(copied) == {2}


def test_stores_that_are_open_go_on_after_the_users_key_was_rotated(path: Path) -> None:
    with ckpt.open(path, encryption_key=OLD) as one, ckpt.open(path, encryption_key=OLD) as two:
        one.thread("t0").commit({"turn": "before"})
        rotate(path, OLD, new_key=NEW)
        one.thread("t0").commit({"turn": "after"})
        two.thread("t0").commit({"turn": "too"})
        assert one.thread("t0").state() == {"turn": "too"}
        # With the data key everything is out of reach of the old key, also for who has the store open.
        rotate(path, NEW, data=True)
        with pytest.raises(WrongKeyError):
            one.thread("t0").commit({"turn": "late"})
        with pytest.raises(WrongKeyError):
            two.state("v1")
    with ckpt.open(path, encryption_key=NEW) as repository:
        assert repository.thread("t0").state() == {"turn": "too"}


def test_of_two_rotations_of_the_users_key_one_counts(path: Path) -> None:
    with opened(path, OLD) as one, opened(path, OLD) as two:
        rotation.rewrap(one, NEW)
        with pytest.raises(WrongKeyError):
            rotation.rewrap(two, "the other's")
        rotation.rewrap(one, "the last one")
    assert all_states(path, "the last one")


def test_a_rotation_of_the_data_key_does_not_bring_an_old_users_key_back(path: Path) -> None:
    with opened(path, OLD) as storage:
        rotate(path, OLD, new_key=NEW)
        with pytest.raises(WrongKeyError):
            rotation.reseal(storage)
    assert all_states(path, NEW)


def test_a_header_read_before_another_thread_saw_a_newer_one_is_no_damage(path: Path) -> None:
    with opened(str(path), OLD) as storage:
        before = storage.keys.ring.raw
        rotate(path, OLD, data=True)
        storage.keys.reread()
        now = storage.keys.ring.raw
        assert now != before
        storage.keys.renew(before)
        assert storage.keys.ring.raw == now
        storage.inner.publish(Batch(records={HEADER_KEY: before}))
        with pytest.raises(DamagedRecordError, match="encryption header"):
            storage.keys.renew(before)


def test_nothing_to_rotate_is_an_error(path: Path) -> None:
    with pytest.raises(InvalidInputError):
        rotate(path, OLD)


# -- the data key -----------------------------------------------------------------------------------------


def test_afterwards_nothing_is_sealed_under_the_old_data_key(path: Path) -> None:
    before = all_states(path)
    for turn in range(2, 5):
        with opened(path, OLD) as storage:
            frames = len(storage.scan_frames(0, 10_000))
            records = len(storage.scan(*ALL_RECORDS))
            entries = storage.scan_index(b"", 10_000)
        assert rotate(path, OLD, data=True) == (records, frames)
        with opened(path, OLD) as storage:
            assert numbers(storage.inner) == {turn}
            assert not storage.keys.ring.has_old_keys
            assert len(storage.scan_frames(0, 10_000)) == frames
            again = storage.scan_index(b"", 10_000)
            assert [key for key, _ in again] == [key for key, _ in entries]
            assert [place.position for _, place in again] == [place.position for _, place in entries]
        assert all_states(path) == before


def test_numbers_of_data_keys_come_round(monkeypatch: pytest.MonkeyPatch) -> None:
    from ckpt.encryption import header

    monkeypatch.setattr(header, "_NUMBERS", 3)
    storage = encrypted(MemoryStorage(), OLD)
    storage.publish(Batch(records={b"a": b"1"}))
    seen = []
    for _ in range(4):
        assert rotation.reseal(storage) == (1, 0)
        seen.append(numbers(storage.inner))
    assert seen == [{2}, {1}, {2}, {1}]
    assert storage.read([b"a"]) == [b"1"]


def test_stores_that_are_open_follow_a_rotation(path: Path) -> None:
    before = all_states(path)
    with ckpt.open(path, encryption_key=OLD) as reader, ckpt.open(path, encryption_key=OLD) as writer:
        writer.thread("t0").commit({"turn": 1})
        rotate(path, OLD, data=True)
        assert [each for each in states(reader) if each[0] != "t0"] == [each for each in before if each[0] != "t0"]  # type: ignore[index]
        writer.thread("t0").commit({"turn": 2})
        writer.gc(grace=timedelta(0))
        assert reader.thread("t0").state() == {"turn": 2}
        with opened(path, OLD) as storage:
            assert numbers(storage.inner) == {2}


def test_a_writer_that_has_not_heard_of_a_rotation_never_writes_under_an_old_key() -> None:
    inner = MemoryStorage()
    one, two = encrypted(inner, OLD), encrypted(inner, OLD)
    one.publish(Batch(records={b"a": b"1", b"b": b"1"}))
    rotation.reseal(two)
    (number,) = one.publish(Batch({b"a": b"1"}, {b"a": b"2"}, [Frame(0, b"frame", (bytes(16),))]))
    assert numbers(inner) == {2}
    assert two.read([b"a"]) == [b"2"]
    rotation.reseal(two)
    with one.exclusive() as session:
        session.write(Batch({b"a": b"2"}, {b"a": b"3"}))
        assert session.load([number]) == {}
    assert numbers(inner) == {3}
    assert two.read([b"a", b"b"]) == [b"3", b"1"]


def test_a_value_sealed_under_an_older_key_is_still_the_expected_one() -> None:
    storage = encrypted(MemoryStorage(), OLD)
    storage.publish(Batch(records={b"a": b"1", b"b": b"1"}))
    ring = storage.keys.ring.with_new_key(user_key(OLD))
    storage.inner.publish(Batch(records={HEADER_KEY: ring.raw}))
    storage.publish(Batch({b"a": b"1", b"b": b"1", b"c": None}, {b"a": b"2"}))
    storage.publish(Batch({b"a": b"2", b"b": b"1"}, {b"a": b"3"}))
    assert storage.read([b"a", b"b"]) == [b"3", b"1"]
    assert numbers(storage.inner) == {1, 2}


def test_above_the_encryption_there_is_no_header() -> None:
    storage = encrypted(MemoryStorage(), OLD)
    storage.publish(Batch({HEADER_KEY: None}, {b"a": b"1"}))
    with pytest.raises(RecordChangedError) as caught:
        storage.publish(Batch({HEADER_KEY: None, b"a": None}, {b"a": b"2"}))
    assert caught.value.current == {HEADER_KEY: None, b"a": b"1"}
    ring = storage.keys.ring.with_new_key(user_key(OLD))
    storage.inner.publish(Batch(records={HEADER_KEY: ring.raw}))
    storage.publish(Batch({HEADER_KEY: None, b"a": b"1"}, {b"a": b"3"}))
    assert storage.read([HEADER_KEY, b"a"]) == [None, b"3"]
    for batch in (Batch({HEADER_KEY: ring.raw}), Batch(records={HEADER_KEY: None})):
        with pytest.raises(InvalidInputError):
            storage.publish(batch)


def test_dead_and_moved_objects_keep_their_neighbours_in_place() -> None:
    storage = encrypted(MemoryStorage(), OLD)
    one, two, three, four = (bytes((number,)) * 16 for number in range(1, 5))
    first, second = storage.publish(
        Batch(frames=[Frame(0, b"first", (one, two, three)), Frame(-1, b"second", (four,))])
    )
    with storage.exclusive() as session:
        session.forget([one])
        (moved,) = session.write(Batch(frames=[Frame(0, b"moved", (two,))]))
    assert rotation.reseal(storage) == (0, 3)
    places = storage.locate([one, two, three, four])
    assert set(places) == {two, three, four}
    assert [places[key].position for key in (two, three, four)] == [0, 2, 0]
    assert len({first, second, moved} | {place.frame for place in places.values()}) == 6
    loaded = storage.load([places[four].frame])
    assert {frame.data for frame in loaded.values()} == {b"first", b"second"}
    assert loaded[places[four].frame].previous == places[three].frame
    assert len(storage.scan_index(b"", 9)) == 3


def test_packs_that_branch_are_resealed_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "_FRAMES_AT_ONCE", 2)
    storage = encrypted(MemoryStorage(), OLD)
    (root,) = storage.publish(Batch(frames=[Frame(0, b"root", (bytes(16),))]))
    tips = []
    for branch in range(3):
        (tip,) = storage.publish(Batch(frames=[Frame(root, b"branch %d" % branch, (b"%016d" % branch,))]))
        tips += storage.publish(Batch(frames=[Frame(tip, b"tip %d" % branch, (b"+%015d" % branch,))]))
    assert rotation.reseal(storage) == (0, 7)
    assert len(storage.scan_frames(0, 99)) == 7
    for branch in range(3):
        tip = storage.locate([b"+%015d" % branch]).popitem()[1].frame
        assert {frame.data for frame in storage.load([tip]).values()} == {
            b"root", b"branch %d" % branch, b"tip %d" % branch,
        }  # fmt: skip


def test_damage_stops_a_rotation_and_keeps_the_old_keys(path: Path) -> None:
    before = all_states(path)
    with opened(path, OLD) as storage:
        number, frame = next(iter(storage.inner.load([storage.scan_frames(0, 1)[0][0]]).items()))
        database = storage.inner._connect().connection  # type: ignore[attr-defined]
        database.execute("UPDATE frame SET data = ? WHERE number = ?", (frame.data[:-1], number))
        with pytest.raises(DamagedObjectError):
            rotation.reseal(storage)
        assert storage.keys.ring.has_old_keys
        database.execute("UPDATE frame SET data = ? WHERE number = ?", (frame.data, number))
        database.close()
    assert all_states(path) == before
    rotate(path, OLD, data=True)
    assert all_states(path) == before


# -- interruptions and company ----------------------------------------------------------------------------


class StoppedError(BaseException):
    """The process ends here."""


class Stopping:
    """A storage that lets some calls that change something through, then stops before or behind the next one."""

    def __init__(self, inner: Storage, calls: int, *, behind: bool) -> None:
        self._inner = inner
        self._left = calls
        self._behind = behind

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _count(self) -> bool:
        self._left -= 1
        return self._left < 0

    def publish(self, batch: Batch) -> list[int]:
        stop = self._count()
        if stop and not self._behind:
            raise StoppedError
        numbers = self._inner.publish(batch)
        if stop:
            raise StoppedError
        return numbers

    @contextmanager
    def exclusive(self) -> Iterator[Exclusive]:
        stop = self._count()
        with self._inner.exclusive() as session:
            yield session
            if stop and not self._behind:
                raise StoppedError
        if stop:
            raise StoppedError


@pytest.mark.parametrize("behind", [False, True])
def test_stopped_at_any_step_the_store_is_whole_and_the_next_rotation_goes_on(
    path: Path, behind: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "_FRAMES_AT_ONCE", 5)
    monkeypatch.setattr(rotation, "_RECORDS_AT_ONCE", 20)
    wanted = all_states(path)
    for step in range(100):
        copy = path.with_name(f"{step}.db")
        shutil.copy(path, copy)
        with closing(SqliteStorage(copy)) as inner:
            try:
                rotation.reseal(encrypted(Stopping(inner, step, behind=behind), OLD))  # type: ignore[arg-type]
            except StoppedError:
                ended = False
            else:
                ended = True
        assert all_states(copy) == wanted
        with ckpt.open(copy, encryption_key=OLD) as repository:
            repository.thread("t0").commit({"step": step})
        rotate(copy, OLD, data=True)
        with opened(copy, OLD) as storage:
            assert len(numbers(storage.inner)) == 1
            assert not storage.keys.ring.has_old_keys
        with ckpt.open(copy, encryption_key=OLD) as repository:
            repository.gc(grace=timedelta(0))
            repository.rewind("t0")
            assert states(repository)[-10:] == wanted[-10:]
            assert repository.fsck().problems == []
        if ended:
            break
    assert 10 < step < 60


def test_writers_readers_and_a_collector_work_through_rotations(path: Path) -> None:
    stop = Event()
    errors: list[BaseException] = []
    written = [0, 0]

    def guarded(work: Any) -> Thread:
        def run() -> None:
            try:
                with ckpt.open(path, encryption_key=OLD) as repository:
                    while not stop.is_set():
                        work(repository)
            except BaseException as error:
                errors.append(error)
                stop.set()

        thread = Thread(target=run)
        thread.start()
        return thread

    def write(number: int) -> Any:
        def work(repository: ckpt.Repository) -> None:
            repository.thread(f"w{number}").commit({"text": text(written[number]), "turn": written[number]})
            written[number] += 1

        return work

    def read(repository: ckpt.Repository) -> None:
        assert repository.thread("t0").state()["turn"] == 5
        assert len(repository.log(thread="t1")) == 6

    def collect(repository: ckpt.Repository) -> None:
        # A collector that another one, or a rotation, got ahead of gives up with this; nothing was lost.
        with suppress(DamagedObjectError):
            repository.gc(grace=timedelta(0))

    threads = [guarded(write(0)), guarded(write(1)), guarded(read), guarded(collect)]
    try:
        for turn in range(100):
            rotate(path, OLD, data=True)
            if stop.is_set() or (turn > 5 and min(written) > 5):
                break
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert min(written) > 5
    with ckpt.open(path, encryption_key=OLD) as repository:
        assert repository.fsck().problems == []
        for number, count in enumerate(written):
            found = [repository.state(f"id:{info.id}") for info in repository.log(thread=f"w{number}")]
            assert found == [{"text": text(turn), "turn": turn} for turn in reversed(range(count))]
        assert isinstance(repository.storage, EncryptedStorage)
        assert len(numbers(repository.storage.inner)) == 1


def test_two_rotations_at_once_end_well(path: Path) -> None:
    before = all_states(path)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            rotate(path, OLD, data=True)
        except BaseException as error:
            errors.append(error)

    threads = [Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert all_states(path) == before
    with opened(path, OLD) as storage:
        assert len(numbers(storage.inner)) == 1
        assert not storage.keys.ring.has_old_keys


def test_another_process_follows(path: Path) -> None:
    script = (
        "import sys, ckpt\n"
        f"with ckpt.open({str(path)!r}, encryption_key=bytes(range(32))) as repository:\n"
        "    print(repository.thread('t0').state()['turn'], flush=True)\n"
        "    sys.stdin.readline()\n"
        "    print(repository.thread('t0').commit({'turn': 'other'}).step, flush=True)\n"
        "    print(repository.state('t1')['turn'], flush=True)\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "5\n"
        rotate(path, OLD, data=True)
        rotate(path, OLD, data=True)
        rest, _ = other.communicate("go\n", timeout=60)
    assert rest == "6\n5\n"
    with opened(path, OLD) as storage:
        assert numbers(storage.inner) == {3}


def test_an_old_header_does_not_open_with_the_new_key_nor_the_new_one_with_the_old(path: Path) -> None:
    with opened(path, OLD) as storage:
        first = storage.inner.read([HEADER_KEY])[0]
    rotate(path, OLD, new_key=NEW, data=True)
    with opened(path, NEW) as storage:
        second = storage.inner.read([HEADER_KEY])[0]
    assert first is not None
    assert second is not None
    assert read_ring(first, user_key(OLD)).current != read_ring(second, user_key(NEW)).current
    for raw, key in ((first, NEW), (second, OLD)):
        with pytest.raises(WrongKeyError):
            read_ring(raw, user_key(key))


def test_a_frame_that_joins_a_pack_while_it_is_resealed_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "_FRAMES_AT_ONCE", 1)
    storage = encrypted(MemoryStorage(), OLD)
    other = encrypted(storage.inner, OLD)
    first, second = storage.publish(Batch(frames=[Frame(0, b"first", (b"1" * 16,)), Frame(-1, b"second", ())]))
    move = rotation._Frames._move
    joined = []

    def late(self: Any, old: Any) -> None:
        # Writers who mind the epoch never do this; nothing is lost even so.
        if second in old and not joined:
            joined.extend(other.publish(Batch(frames=[Frame(first, b"late", (b"2" * 16,))])))
        move(self, old)

    monkeypatch.setattr(rotation._Frames, "_move", late)
    rotation.reseal(storage)
    assert joined
    place = other.locate([b"2" * 16])[b"2" * 16]
    assert [frame.data for _, frame in sorted(other.load([place.frame]).items())] == [b"first", b"late"]
    assert numbers(storage.inner) == {2}
    assert set(storage.load([joined[0], first])) == set()


@contextmanager
def after_moves(monkeypatch: pytest.MonkeyPatch, count: int, act: Any) -> Iterator[None]:
    """Have something happen once between two steps of a rotation, in which each step takes one frame."""
    move = rotation._Frames._move
    steps = []

    def moved(self: Any, old: Any) -> None:
        move(self, old)
        steps.append(old)
        if len(steps) == count:
            act()

    with monkeypatch.context() as patch:
        patch.setattr(rotation, "_FRAMES_AT_ONCE", 1)
        patch.setattr(rotation._Frames, "_move", moved)
        yield
    assert len(steps) >= count


def test_a_frame_is_not_written_behind_one_that_a_collector_took_away(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = encrypted(MemoryStorage(), OLD)
    other = encrypted(storage.inner, OLD)
    storage.publish(Batch(frames=[Frame(0, b"first", (b"1" * 16,)), Frame(-1, b"second", (b"2" * 16,))]))

    def rewrite_the_first() -> None:
        (place,) = other.locate([b"1" * 16]).values()
        with other.exclusive() as session:
            session.write(Batch(frames=[Frame(0, b"elsewhere", (b"1" * 16,))]))
            session.drop([place.frame])

    with after_moves(monkeypatch, 1, rewrite_the_first):
        rotation.reseal(storage)
    (place,) = storage.locate([b"2" * 16]).values()
    assert [frame.data for _, frame in sorted(storage.load([place.frame]).items())] == [b"first", b"second"]
    (place,) = storage.locate([b"1" * 16]).values()
    assert storage.load([place.frame])[place.frame].data == b"elsewhere"


def test_a_collector_between_two_steps_of_a_rotation_takes_nothing_that_is_built_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ckpt.open(path, encryption_key=OLD) as repository:
        before = states(repository)

        def collect() -> None:
            with ckpt.open(path, encryption_key=OLD) as other:
                other.gc(grace=timedelta(0))

        with after_moves(monkeypatch, 7, collect):
            rotate(path, OLD, data=True)
    with ckpt.open(path, encryption_key=OLD) as repository:
        assert states(repository) == before
        assert repository.fsck().problems == []


def test_a_rotation_between_two_steps_of_a_collector_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ckpt.open(path, encryption_key=OLD) as repository:
        before = states(repository)
    halfway, listed, rotated = Event(), Event(), Event()
    settled = Collector._settled_packs

    def listing(self: Collector) -> Packs:
        packs = settled(self)
        listed.set()
        assert rotated.wait(60)
        return packs

    def wait_for_the_list() -> None:
        halfway.set()
        assert listed.wait(60)

    def act() -> None:
        rotate(path, OLD, data=True)
        rotated.set()

    monkeypatch.setattr(Collector, "_settled_packs", listing)
    with after_moves(monkeypatch, 7, wait_for_the_list):
        thread = Thread(target=act)
        thread.start()
        assert halfway.wait(60)
        with ckpt.open(path, encryption_key=OLD) as repository:
            repository.gc(grace=timedelta(0))
        thread.join()
    with ckpt.open(path, encryption_key=OLD) as repository:
        assert states(repository) == before
        assert repository.fsck().problems == []

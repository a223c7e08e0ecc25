"""Over a network whole frames are taken in at once: what lies beside an object is not asked for again."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from told_kit import Told

from ckpt.errors import DamagedObjectError, ObjectMissingError
from ckpt.objects.frames import StoredObject, encode_frame
from ckpt.objects.ids import Kind, ObjectId, index_key, object_id
from ckpt.objects.opened import Opened
from ckpt.objects.packs import PackStream
from ckpt.objects.store import Draft, ObjectStore
from ckpt.storage.base import Batch, Fetched, Frame, Place, StoredFrame
from ckpt.storage.memory import MemoryStorage
from ckpt.testing.fixtures import at_once


class Remote(MemoryStorage):
    """A store in memory that says it is behind a network, and writes down what it is asked."""

    def __init__(self, *, telling: bool = False) -> None:
        super().__init__()
        self.calls: list[tuple[str, int]] = []
        self.telling = telling
        """Whether it says which objects there are in the frames that are fetched."""
        self.held: dict[int, tuple[bytes, ...]] = {}

    def publish(self, batch: Batch) -> list[int]:
        numbers = super().publish(batch)
        self.held.update(zip(numbers, (frame.keys for frame in batch.frames), strict=True))
        return numbers

    @property
    def remote(self) -> bool:
        return True

    def locate(self, keys: Collection[bytes]) -> dict[bytes, Place]:
        self.calls.append(("locate", len(keys)))
        return super().locate(keys)

    def load(self, frames: Collection[int], known: Collection[int] = ()) -> dict[int, StoredFrame]:
        self.calls.append(("load", len(frames)))
        return super().load(frames, known)

    def fetch(self, keys: Collection[bytes], known: Collection[int] = ()) -> Fetched:
        self.calls.append(("fetch", len(keys)))
        found = super().fetch(keys, known)
        return found._replace(where=Told({n: self.held[n] for n in found.frames})) if self.telling else found


@pytest.fixture(params=[False, True], ids=["silent", "telling"])
def storage(request: pytest.FixtureRequest) -> Remote:
    return Remote(telling=request.param)


def blob(name: str, size: int = 100) -> bytes:
    return f"{name} ".encode() * (size // (len(name) + 1) + 1)


def store(storage: Remote, line: str, *transactions: list[bytes]) -> list[ObjectId]:
    """Store blobs, the list of each transaction in a frame of its own behind the one before, as one writer does."""
    objects, ids = ObjectStore(storage), []
    for data in transactions:
        draft = Draft()
        ids += [draft.add(Kind.BLOB, each) for each in data]
        objects.stored(line, draft, storage.publish(Batch(frames=objects.lay_down(line, draft, ids))))
    storage.calls.clear()
    return ids


def test_what_lies_beside_and_before_is_not_asked_for_again(storage: Remote) -> None:
    one, two, three = store(storage, "t", [blob("one"), blob("two")], [blob("three")])
    (other,) = store(storage, "u", [blob("other")])
    reader = ObjectStore(storage)
    assert reader.load([three]) == {three: blob("three")}
    assert reader.load([two, one, three]) == {one: blob("one"), two: blob("two"), three: blob("three")}
    assert storage.calls == [("fetch", 1)]
    assert reader.load([one, other]) == {one: blob("one"), other: blob("other")}
    assert storage.calls == [("fetch", 1), ("fetch", 1)]


def test_reading_goes_on_where_it_stopped(storage: Remote) -> None:
    writer = "t"
    objects = ObjectStore(storage)
    reader = ObjectStore(storage)
    loaded: list[int] = []
    for turn in range(20):
        draft = Draft()
        oid = draft.add(Kind.BLOB, blob(f"turn {turn}"))
        objects.stored(writer, draft, storage.publish(Batch(frames=objects.lay_down(writer, draft, [oid]))))
        loaded.append(len(storage.fetch([index_key(oid)], set(reader._readers)).frames))
        assert reader.load([oid]) == {oid: blob(f"turn {turn}")}
    # A pack of a single frame is begun anew.
    assert loaded == [1, 2] + [1] * 18


def test_damage_beside_what_is_wanted_is_found_when_it_is_wanted(storage: Remote) -> None:
    good, bad = StoredObject(Kind.BLOB, b"good"), StoredObject(Kind.BLOB, b"bad")
    ids = [object_id(*good), object_id(Kind.BLOB, b"what it should be")]
    data = PackStream().append(encode_frame([good, bad]))
    storage.publish(Batch(frames=[Frame(0, data, tuple(map(index_key, ids)))]))
    reader = ObjectStore(storage)
    assert reader.load(ids[:1]) == {ids[0]: b"good"}
    with pytest.raises(DamagedObjectError, match=ids[1].hex()[:16]):
        reader.load(ids[1:])
    with pytest.raises(ObjectMissingError):
        reader.load([ObjectId(b"x" * 32)])
    assert reader.load(ids[:1]) == {ids[0]: b"good"}


def test_what_is_not_where_it_was_told_to_be_is_found_all_the_same() -> None:
    storage = Remote(telling=True)
    one, two, three = store(storage, "t", [blob("one"), blob("two"), blob("three")])
    ((number, keys),) = storage.held.items()
    # As after a collector has moved objects and the number was given to another frame.
    storage.held[number] = (keys[0], keys[2], keys[1], *keys)
    reader = ObjectStore(storage)
    assert reader.load([one]) == {one: blob("one")}
    assert reader.load([three, two]) == {two: blob("two"), three: blob("three")}


def test_an_object_that_two_writers_stored_at_once_is_read_behind_either(storage: Remote) -> None:
    """A server may bring all frames that list it: one that was read already, and whose pack a reader stands behind."""
    both = [blob("before", 300)], [blob("the same", 300)]
    store(storage, "t", *both)
    one, same = store(storage, "u", *both)
    numbers = [place for place in storage.held if index_key(same) in storage.held[place]]
    assert len(numbers) == 2
    listed = storage.fetch

    def fetch(keys: Collection[bytes], known: Collection[int] = ()) -> Fetched:
        found = listed(keys, known)
        more = MemoryStorage.load(storage, numbers, known) if index_key(same) in keys else {}
        return found._replace(frames={**more, **found.frames})

    for read_first in numbers:
        reader = ObjectStore(storage)
        reader._unfold(storage, MemoryStorage.load(storage, [read_first]), (), Opened((), 1 << 20))
        assert list(reader._readers) == [read_first]
        storage.fetch = fetch  # type: ignore[method-assign]
        assert reader.load([same, one]) == {same: both[1][0], one: both[0][0]}


def test_more_than_is_kept_unhashed_is_not_asked_for_again(storage: Remote) -> None:
    sizes = range(1_000_000, 6_000_000, 1_000_000)
    ids = store(storage, "t", [blob(str(size), size) for size in sizes])
    reader = ObjectStore(storage)
    for oid, size in zip(ids, sizes, strict=True):
        assert reader.load([oid]) == {oid: blob(str(size), size)}
    assert storage.calls == [("fetch", 1)]


def test_what_was_only_seen_beside_is_not_taken_to_be_stored(storage: Remote) -> None:
    kept, gone = store(storage, "t", [blob("kept", 20_000), blob("gone", 20_000)])
    # As a collector leaves it that was stopped: the frame serves as dictionary for another pack.
    with storage.exclusive() as session:
        session.forget([index_key(gone)])
    objects = ObjectStore(storage)
    objects.load([kept])
    draft = Draft()
    ids = [draft.add(Kind.BLOB, blob(name, 20_000)) for name in ("kept", "gone")]
    storage.calls.clear()
    frames = objects.lay_down("u", draft)
    assert [frame.keys for frame in frames] == [(index_key(ids[1]),)]
    assert storage.calls == [("locate", 1)]


def test_what_was_seen_beside_and_is_stored_is_not_sent_again(storage: Remote) -> None:
    store(storage, "t", [blob("one", 20_000), blob("two", 20_000)])
    objects = ObjectStore(storage)
    objects.load([object_id(Kind.BLOB, blob("one", 20_000))])
    for turn, calls in (("first", [("locate", 1)]), ("second", [])):
        draft = Draft()
        draft.add(Kind.BLOB, blob("two", 20_000))
        new = draft.add_top(Kind.COMMIT, turn.encode())
        storage.calls.clear()
        (frame,) = objects.lay_down("t", draft, [new])
        assert frame.keys == (index_key(new),)
        assert storage.calls == calls
        objects.abandon("t")


def test_threads_that_read_the_same_packs_at_once_all_get_them(storage: Remote) -> None:
    ids: list[ObjectId] = []
    for pack in range(6):
        ids += store(storage, f"t{pack}", *[[blob(f"{pack} {turn}", 3000)] for turn in range(10)])
    reader = ObjectStore(storage)

    def read(number: int) -> int:
        # Each begins elsewhere, so that the packs are opened at other ends.
        order = ids[number * 7 :] + ids[: number * 7]
        found = {oid: data for oid in order for data in reader.load([oid]).values()}
        return sum(object_id(Kind.BLOB, data) == oid for oid, data in found.items())

    assert at_once(8, read) == [len(ids)] * 8

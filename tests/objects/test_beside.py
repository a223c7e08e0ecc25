"""Objects that came along are found by their keys where these are told, and by hashing all where not."""

from __future__ import annotations

from ckpt.objects.beside import Beside
from ckpt.objects.frames import Frame, StoredObject, cut, encode_frame
from ckpt.objects.ids import Kind, ObjectId, index_key, object_id

OBJECTS = [StoredObject(Kind.BLOB, f"object {number}".encode()) for number in range(5)]
IDS = [object_id(*obj) for obj in OBJECTS]
KEYS = [index_key(oid) for oid in IDS]
ABSENT = ObjectId(bytes(32))


def frames() -> dict[int, Frame]:
    first, second = (encode_frame(part) for part in (OBJECTS[:3], OBJECTS[3:]))
    return dict(zip((7, 9), cut(first + second, 2), strict=True))


def data(*positions: int) -> dict[ObjectId, bytes]:
    return {IDS[position]: OBJECTS[position].data for position in positions}


def test_only_what_is_asked_for_is_taken_out_where_keys_are_told() -> None:
    beside = Beside()
    beside.add(frames(), {7: KEYS[:3], 9: KEYS[3:]}, without=[IDS[1]])
    assert beside.take([ABSENT, IDS[4], IDS[1]]) == data(4)
    assert beside.take([IDS[4]]) == {}
    assert beside.take_all() == data(0, 2, 3)
    assert beside.take_all() == {}


def test_all_is_hashed_where_no_keys_are_told() -> None:
    beside = Beside()
    beside.add(frames(), {7: KEYS[:3]}, without=[])
    assert beside.take([IDS[0]]) == data(0)
    assert beside.take([IDS[3]]) == data(3, 4)
    assert beside.take([IDS[4]]) == {}
    assert beside.take_all() == data(1, 2)


def test_an_object_that_is_elsewhere_or_another_is_not_handed_out() -> None:
    beside = Beside()
    beside.add(frames(), {7: [KEYS[0], None, KEYS[1], KEYS[2]], 9: []}, without=[])
    assert beside.take(IDS) == data(0)
    beside.add(frames(), {7: [KEYS[0], KEYS[1], KEYS[2], KEYS[3]], 9: KEYS[3:]}, without=[IDS[3]])
    assert beside.take_all() == data(0, 1, 2, 4)
    beside.add(frames(), {7: [*KEYS[:3], index_key(ABSENT)], 9: []}, without=[])
    assert beside.take_all() == data(0, 1, 2)


def test_the_size_is_that_of_what_was_added_since_all_was_taken_out() -> None:
    beside = Beside()
    beside.add(frames(), {}, without=[])
    before = beside.size
    assert before >= sum(len(obj.data) for obj in OBJECTS)
    beside.take_all()
    assert beside.size == 0
    beside.add(frames(), {7: KEYS[:3], 9: KEYS[3:]}, without=IDS)
    assert beside.size == before

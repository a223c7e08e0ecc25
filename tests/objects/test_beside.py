"""Objects that came along are found by their keys where these are told, and by hashing all where not."""

from __future__ import annotations

from told_kit import Told

from ckpt.objects.beside import Beside
from ckpt.objects.frames import Frame, StoredObject, cut, encode_frame
from ckpt.objects.ids import Kind, ObjectId, index_key, object_id

OBJECTS = [StoredObject(Kind.BLOB, f"object {number}".encode()) for number in range(5)]
IDS = [object_id(*obj) for obj in OBJECTS]
KEYS = [index_key(oid) for oid in IDS]
ABSENT = ObjectId(bytes(32))
TOLD = Told({7: KEYS[:3], 9: KEYS[3:]})


def frames() -> dict[int, Frame]:
    first, second = (encode_frame(part) for part in (OBJECTS[:3], OBJECTS[3:]))
    return dict(zip((7, 9), cut(first + second, 2), strict=True))


def data(*positions: int) -> dict[ObjectId, bytes]:
    return {IDS[position]: OBJECTS[position].data for position in positions}


def test_only_what_is_asked_for_is_handed_out_where_keys_are_told() -> None:
    beside = Beside()
    beside.add(frames(), 100, TOLD)
    assert beside.take([ABSENT, IDS[4], IDS[1]]) == data(4, 1)
    assert beside.take([IDS[4]]) == data(4)
    assert beside.take_all() == data(0, 2, 3)
    assert beside.take_all() == {} == beside.take([IDS[4]])


def test_all_is_hashed_where_no_keys_are_told() -> None:
    beside = Beside()
    both = frames()
    beside.add({7: both[7]}, 100, TOLD)
    beside.add({9: both[9]}, 100, None)
    assert beside.take([IDS[0]]) == data(0)
    assert beside.take([IDS[3], IDS[1]]) == data(1, 3, 4)
    assert beside.take([IDS[4]]) == {}
    assert beside.take_all() == data(2)


def test_an_object_that_is_elsewhere_or_another_is_not_handed_out() -> None:
    beside = Beside()
    beside.add(frames(), 100, Told({7: [KEYS[0], None, KEYS[1], KEYS[2]], 9: []}))
    assert beside.take(IDS) == data(0)
    # What an older frame has is found behind one that misleads, and what was not kept is not.
    beside.add({7: frames()[7]}, 100, Told({7: [KEYS[1], KEYS[0], KEYS[2]], 9: KEYS[3:]}))
    assert beside.take(IDS) == data(0, 2)


def test_it_is_full_when_much_or_many_were_added_and_empty_when_all_is_taken_out() -> None:
    for size, times in ((3 << 20, 2), (0, 17)):
        for where in (TOLD, None):
            beside = Beside()
            for _ in range(times - 1):
                beside.add(frames(), size, where)
                assert not beside.full
            beside.add(frames(), size, where)
            assert beside.full == (size > 0 or where is not None)
            assert beside.take_all() == data(0, 1, 2, 3, 4)
            assert not beside.full

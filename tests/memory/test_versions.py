"""The versions of an item: found at every moment, in records that stay short, and damage that is noticed."""

from __future__ import annotations

from bisect import bisect_right
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt.errors import CkptError, DamagedObjectError, DamagedRecordError
from ckpt.history import keys
from ckpt.history.commits import StoredValue
from ckpt.history.items import ItemRecord, Lease, Older, Version, decode_namespace, encode_namespace
from ckpt.history.seal import Census, seal
from ckpt.objects.ids import Kind
from ckpt.objects.store import Draft
from ckpt.repository.versions import all_versions, at_moments, decode_versions, put_away, ropes
from ckpt.values.cut import Cutter
from ckpt.values.rope import Item, encode_items, inline, references

KEY = keys.item_key(7, keys.namespace_path(("a", "b")), "k")


def version(draft: Draft, moment: int, data: bytes | None, vectors: bytes = b"") -> Version:
    cutter = Cutter(draft.add)
    value = StoredValue("ckpt", cutter.cut("x", data)[0]) if data is not None else None
    rope = cutter.cut("v", vectors)[0] if vectors else b""
    return Version(moment, moment - moment % 5, moment % 3, value, rope, moment + 7 if moment % 4 else 0)


DATA = st.none() | st.binary(min_size=1, max_size=40) | st.integers(130, 400).map(bytes)


@settings(max_examples=100, deadline=None)
@given(contents=st.lists(st.tuples(DATA, st.sampled_from([b"", b"v", bytes(200)])), min_size=1, max_size=150))
def test_every_version_is_found_at_every_moment(contents: list[tuple[bytes | None, bytes]]) -> None:
    draft = Draft()
    record = ItemRecord(("a",), "k")
    versions = []
    for number, (data, vectors) in enumerate(contents):
        versions.append(version(draft, 10 * (number + 1), data, vectors))
        record = put_away(record._replace(recent=(*record.recent, versions[-1])), draft.add)
        assert ItemRecord.decode(KEY, record.encode(KEY)) == record
        assert len(record.encode(KEY)) < 4000

    def load(ids):  # type: ignore[no-untyped-def]
        return {oid: draft.objects[oid].data for oid in ids}

    assert all_versions([record, record], load) == [versions, versions]
    moments = [5, *(each.moment + step for each in versions for step in (0, 1))]
    found = at_moments([(record, moment) for moment in moments], load)
    times = [each.moment for each in versions]
    assert found == [versions[at - 1] if (at := bisect_right(times, moment)) else None for moment in moments]
    assert at_moments([(record, None)], load) == [versions[-1]]
    # Whatever a version needs is reached by going down the ropes that the record names.
    reached, left = set(), [oid for rope in ropes(record) for _, oid in references(rope)]
    while left:
        oid = left.pop()
        reached.add(oid)
        if draft.objects[oid].kind == Kind.ROPE:
            left += [below for _, below in references(draft.objects[oid].data)]
    assert reached >= {oid for each in versions if each.value for _, oid in references(each.value.rope)}


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=60))
def test_bytes_that_are_no_versions_end_in_an_error_of_the_tree(data: bytes) -> None:
    for rope in (data, encode_items([inline(data, 1)])):
        with suppress(CkptError):
            decode_versions(rope)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xc0",
        b"\x96\x01\x00\x00\xa1x\x05\x00",
        b"\x96\x01\x00\x00\xa1x\xff\x00",
        b"\x96\xa1x\x00\x00\xa1x\x00\x00",
        b"\x95\x01\x00\x00\xa1x\x00",
        b"\x96\x01\x00\x90\xa1x\x00\x00",
        b"\x96\x01\x00\x91\x01\xa1x\x00\x00",
        b"\x96\x01\x00\x93\x01\x01\x01\xa1x\x00\x00",
        b"\x96\x01\x00\x92\x01\xa1x\xa1x\x00\x00",
    ],
)
def test_what_a_version_cannot_be(head: bytes) -> None:
    with pytest.raises(DamagedObjectError):
        decode_versions(encode_items([inline(head, 1)]))
    with pytest.raises(DamagedObjectError):
        decode_versions(encode_items([Item(1, 5, 1, bytes(32))]))


def test_a_record_as_bytes() -> None:
    draft = Draft()
    record = ItemRecord(
        ("a", "b"),
        "k",
        (version(draft, 30, b"x"), version(draft, 40, None)),
        (Older(1, 10, b"rope"), Older(0, 20, b"rope")),
        Lease(30, 99),
    )
    raw = record.encode(KEY)
    assert ItemRecord.decode(KEY, raw) == record
    for at in range(len(raw)):
        with pytest.raises(DamagedRecordError):
            ItemRecord.decode(KEY, raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    with pytest.raises(DamagedRecordError):
        ItemRecord.decode(KEY + b"x", raw)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [["a"], "k", [], []],
        [["a", 1], "k", [], [], None],
        [["a"], "k", [1], [], None],
        [["a"], "k", [1, 0, 0, b"type", b"", b""], [], None],
        [None, ["a"], "k", [1, 0, [1], "type", b"", b""], []],
        [None, ["a"], "k", [1, 0, [1, "2"], "type", b"", b""], []],
        [["a"], "k", [], [0, 1], None],
        [["a"], "k", [], [0, 1, "rope"], None],
        [["a"], "k", [], [], [1]],
        {"a": 1},
    ],
)
def test_fields_that_are_no_item(fields: object) -> None:
    with pytest.raises(DamagedRecordError):
        ItemRecord.decode(KEY, seal(KEY, fields))


def test_a_lease_stays_with_a_version_that_is_replaced_before_its_end() -> None:
    first = Version(30, 30, 10, StoredValue("ckpt", b""))
    read = ItemRecord(("a",), "k", (first,), lease=Lease(30, 99))
    for moment, expires in ((98, 99), (99, 40)):
        record = read.adding(Version(moment, 30, 5, None))
        assert (record.lease, len(record.recent)) == (None, 2)
        again = ItemRecord.decode(KEY, record.encode(KEY))
        assert again == record and again.expiry(again.recent[0]) == expires
        assert again.expiry(again.recent[1]) == moment + 5


def test_a_namespace_as_bytes() -> None:
    key = keys.namespace_key(7, keys.namespace_path(("a", "b")))
    raw = encode_namespace(key, ("a", "b"), Census(3, 99))
    assert decode_namespace(key, raw) == (("a", "b"), Census(3, 99))
    for fields in ([], [["a"], 1], [[1], 1, 1], [["a"], "1", 1]):
        with pytest.raises(DamagedRecordError):
            decode_namespace(key, seal(key, fields))


def test_the_path_of_a_key() -> None:
    for labels in ((), ("a",), ("a", "b", "c")):
        path = keys.namespace_path(labels)
        assert keys.path_of(keys.item_key(300, path, "k"), 300) == path
        assert keys.path_of(keys.namespace_key(300, path), 300) == path
        start, end = keys.items_range(300, path)
        assert start <= keys.item_key(300, path, "k") < end
        assert start <= keys.item_key(300, keys.namespace_path((*labels, "z")), "k") < end
        start, end = keys.own_items_range(300, path)
        assert start <= keys.item_key(300, path, "k") < end
        assert not start <= keys.item_key(300, keys.namespace_path((*labels, "z")), "k") < end

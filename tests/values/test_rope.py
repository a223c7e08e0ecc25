"""Putting ropes together: each level is one load, shared parts are loaded once, and no forged rope goes on for ever."""

from __future__ import annotations

import tracemalloc

import pytest
from objects_kit import Stored

from ckpt.errors import DamagedObjectError
from ckpt.objects.ids import Kind
from ckpt.values import rope as ropes
from ckpt.values.rope import BLOB, ROPE, Item, assemble, encode_items, inline


class Objects(Stored):
    """Makes the items of ropes."""

    def blob(self, data: bytes) -> Item:
        return Item(BLOB, len(data), 1, self.emit(Kind.BLOB, data))

    def group(self, *items: Item, length: int | None = None) -> Item:
        oid = self.emit(Kind.ROPE, encode_items(items))
        return Item(ROPE, sum(item.length for item in items) if length is None else length, len(items), oid)


def test_pieces_come_in_order_whatever_they_are_nested_in() -> None:
    objects = Objects()
    low = objects.group(objects.blob(b"b" * 9), inline(b"c", 1), objects.blob(b"d" * 7))
    high = objects.group(inline(b"a", 1), low, inline(b"", 0), low, objects.blob(b"e" * 5))
    first = encode_items([inline(b"<", 1), high, objects.blob(b"f"), low, inline(b">", 1)])
    second = encode_items([objects.blob(b"b" * 9), low])
    nested = b"b" * 9 + b"c" + b"d" * 7
    assert assemble([first, second, b""], objects.load) == [
        b"<a" + nested + nested + b"e" * 5 + b"f" + nested + b">",
        b"b" * 9 + nested,
        b"",
    ]


def test_each_level_is_one_load_and_nothing_is_asked_for_twice() -> None:
    objects = Objects()
    low = objects.group(objects.blob(b"b" * 9), inline(b"c", 1))
    high = objects.group(inline(b"a", 1), low, objects.blob(b"b" * 9), low)
    top = objects.group(high, low)
    assemble([encode_items([top, high]), encode_items([low])], objects.load)
    assert [len(asked) for asked in objects.loads] == [3, 1]
    assert set.union(*objects.loads) == objects.stored.keys()


def test_values_without_objects_ask_for_nothing() -> None:
    objects = Objects()
    assert assemble([encode_items([inline(b"a", 1), inline(b"b" * 300, 1)])], objects.load) == [b"a" + b"b" * 300]
    assert objects.loads == []


@pytest.mark.parametrize("at", ["group", "value"])
def test_a_reference_of_another_length_is_damage(at: str) -> None:
    objects = Objects()
    named = objects.group(objects.blob(b"b" * 9), length=8)
    if at == "value":
        named = objects.blob(b"b" * 9)._replace(length=8)
    with pytest.raises(DamagedObjectError, match=r"not as long as the reference|9 bytes long where its rope says 8"):
        assemble([encode_items([named])], objects.load)


def test_a_value_that_is_too_long_is_refused_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Objects()
    long = encode_items([objects.group(*[objects.blob(b"b" * 100)] * 10)])
    monkeypatch.setattr(ropes, "LENGTH_MAX", 1000)
    assert assemble([long, long], objects.load) == [b"b" * 1000] * 2
    objects.loads.clear()
    monkeypatch.setattr(ropes, "LENGTH_MAX", 999)
    with pytest.raises(DamagedObjectError, match="longer than any that can be read"):
        assemble([b"", long], objects.load)
    assert objects.loads == []


def test_pieces_longer_than_their_references_say_are_not_put_together() -> None:
    objects = Objects()
    named = objects.blob(bytes(1 << 20))._replace(length=1)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedObjectError, match="67108864 bytes long where its rope says 64"):
            assemble([encode_items([named] * 64)], objects.load)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("values", [1, 2])
def test_a_rope_that_multiplies_is_stopped(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Objects()
    named = objects.blob(b"bb")
    for _ in range(9):
        named = objects.group(named, named)
    value = encode_items([named])
    monkeypatch.setattr(ropes, "ITEMS_MAX", 512 * values)
    assert assemble([value] * values, objects.load) == [b"bb" * 512] * values
    monkeypatch.setattr(ropes, "ITEMS_MAX", 512 * values - 1)
    with pytest.raises(DamagedObjectError, match="more pieces than any value"):
        assemble([value] * values, objects.load)


def test_a_rope_that_multiplies_without_measure_is_stopped_before_it_is_put_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objects = Objects()
    named = objects.blob(b"b")
    for _ in range(32):
        named = objects.group(named, named)
    monkeypatch.setattr(ropes, "ITEMS_MAX", 10_000)
    with pytest.raises(DamagedObjectError, match="more pieces than any value"):
        assemble([encode_items([named])], objects.load)


def test_a_rope_that_is_nested_too_deeply_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Objects()
    named = objects.blob(b"b")
    for _ in range(50):
        named = objects.group(named)
    value = encode_items([named])
    monkeypatch.setattr(ropes, "_DEPTH_MAX", 52)
    assert assemble([value], objects.load) == [b"b"]
    monkeypatch.setattr(ropes, "_DEPTH_MAX", 51)
    with pytest.raises(DamagedObjectError, match="nested without end"):
        assemble([value], objects.load)

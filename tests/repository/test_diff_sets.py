"""Sets in a state: which members came and went counts, and not the order in which they happened to be stored."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from ckpt.history.commits import StoredValue
from ckpt.objects.ids import ObjectId, object_id
from ckpt.repository.diff import Changes, ChannelChange, diff_states, key_changes
from ckpt.repository.nodes import fingerprint
from ckpt.values.cut import Cutter
from ckpt.values.inert import inert
from ckpt.values.serializer import Serializer

# These share the low bits of their hashes, so that the order of a set is that in which they came.
COLLIDING = [number << 20 for number in range(8)]
LONG = [f"{number:04} " * 60 for number in range(3000)]


@pytest.fixture(params=[JsonPlusSerializer(), Serializer()], ids=["langgraph", "own"])
def serde(request: pytest.FixtureRequest) -> Any:
    return request.param


class Store:
    """Objects in memory; counts what is loaded."""

    def __init__(self, serde: Any) -> None:
        self.serde = serde
        self.objects: dict[ObjectId, bytes] = {}
        self.loaded = 0

    def emit(self, kind: int, data: bytes) -> ObjectId:
        self.objects[object_id(kind, data)] = data
        return object_id(kind, data)

    def load(self, ids: Collection[ObjectId]) -> Mapping[ObjectId, bytes]:
        self.loaded += len(ids)
        return {oid: self.objects[oid] for oid in ids}

    def put(self, value: object) -> dict[str, StoredValue]:
        type_, data = self.serde.dumps_typed(value)
        return {"k": StoredValue(type_, Cutter(self.emit).cut(type_, data)[0])}

    def diff(self, old: object, new: object) -> Changes:
        return diff_states(self.load, self.put(old), self.put(new))

    def summary(self, old: object, new: object) -> list[ChannelChange]:
        return key_changes(self.load, self.put(old), self.put(new))


def told(changes: Changes) -> list[tuple[str, object]]:
    return [(each.op, each.old if each.op == "remove" else each.new) for each in changes.changes]


@pytest.mark.parametrize("kind", [set, frozenset])
def test_a_set_stored_in_another_order_is_the_same(serde: Any, kind: Any) -> None:
    old, new = kind(COLLIDING), kind(COLLIDING[::-1])
    assert list(old) != list(new)
    store = Store(serde)
    assert (store.put(old) == store.put(new)) is isinstance(serde, Serializer)
    for before, after in ((old, new), ({"tags": [old, 1]}, {"tags": [new, 1]})):
        changes = store.diff(before, after)
        assert (changes.changes, changes.same) == ([], 1)
    assert store.summary(old, new) == []


def test_sets_inside_a_set_have_no_order_either(serde: Any) -> None:
    store = Store(serde)
    old = {frozenset(COLLIDING), frozenset({"a"})}
    new = {frozenset(COLLIDING[::-1]), frozenset({"b"})}
    found = [(op, sorted(value.fields)) for op, value in told(store.diff(old, new))]  # type: ignore[attr-defined]
    assert found == [("remove", ["a"]), ("add", ["b"])]


def test_members_come_and_go(serde: Any) -> None:
    store = Store(serde)
    old, new = {*COLLIDING, 5, 6}, {*COLLIDING[::-1], 6, 7}
    assert told(store.diff(old, new)) == [("remove", 5), ("add", 7)]
    assert store.summary(old, new) == [ChannelChange("k", 1, 0, 1)]
    assert told(store.diff({1, "1"}, {True, "1"})) == [("remove", 1), ("add", True)]
    assert store.summary(None, {1, 2, 3}) == [ChannelChange("k", 0, 1, 0)]


def test_a_set_is_no_frozenset_and_a_deque_has_an_order(serde: Any) -> None:
    store = Store(serde)
    [change] = store.diff({1}, frozenset({1})).changes
    assert (change.op, change.path, change.kind) == ("change", ("k",), "opaque")
    assert store.diff(deque(LONG[:50]), deque(LONG[49::-1])).changes != []
    assert told(store.diff(deque(LONG[:50]), deque([*LONG[:50], "z"]))) == [("add", "z")]


def test_a_large_set_costs_what_differs(serde: Any) -> None:
    store = Store(serde)
    old = set(LONG)
    new = old - {LONG[7]}
    found = told(store.diff(old, new))
    assert found == [("remove", LONG[7])]
    assert store.loaded < 60


def test_what_differs_in_order_only_is_not_read(serde: Any) -> None:
    store = Store(serde)
    old, new = (frozenset((number, LONG[number]) for number in order) for order in (range(99), range(98, -1, -1)))
    assert store.diff(old, new | {0}).changes[0].new == 0
    assert store.loaded < 60


def test_fingerprints_tell_sets_from_their_members() -> None:
    def printed(value: object) -> bytes:
        return fingerprint(inert(*Serializer().dumps_typed(value)))

    assert printed(set(COLLIDING)) == printed({*COLLIDING[::-1]})
    values: list[object] = [set(), {1}, {1, 2}, frozenset({1}), [1], {(1,)}, {frozenset({1})}, {True}, {1.5}, {"1"}]
    assert len({printed(value) for value in values}) == len(values)

"""Differences: what is reported, that it is enough to get from one state to the other, and what it costs."""

from __future__ import annotations

import copy
import math
import random
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgpack
import pytest
from blake3 import blake3
from hypothesis import example, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from ckpt.errors import DamagedObjectError
from ckpt.history.commits import StoredValue
from ckpt.objects.ids import Kind, ObjectId, object_id
from ckpt.repository import nodes
from ckpt.repository.alignment import align
from ckpt.repository.diff import ChannelChange, diff_states, key_changes
from ckpt.repository.fingerprints import Fingerprints
from ckpt.repository.nodes import fingerprint
from ckpt.values.cut import Cutter
from ckpt.values.inert import InertMessage, InertObject, inert
from ckpt.values.rope import BLOB, INLINE, ROPE, Item, encode_items
from ckpt.values.serializer import Serializer

LANGGRAPH = JsonPlusSerializer()
OWN = Serializer()


class Store:
    """Objects in memory; counts what is loaded."""

    def __init__(self) -> None:
        self.objects: dict[ObjectId, bytes] = {}
        self.loaded: list[ObjectId] = []
        self.calls = 0

    def emit(self, kind: int, data: bytes) -> ObjectId:
        oid = object_id(kind, data)
        self.objects[oid] = data
        return oid

    def load(self, ids: Collection[ObjectId]) -> Mapping[ObjectId, bytes]:
        self.loaded += ids
        self.calls += 1
        return {oid: self.objects[oid] for oid in ids}

    def put(self, value: object, serde: Any = LANGGRAPH) -> StoredValue:
        type_, data = serde.dumps_typed(value)
        return StoredValue(type_, Cutter(self.emit).cut(type_, data)[0])

    def state(self, values: Mapping[str, object], serde: Any = LANGGRAPH) -> dict[str, StoredValue]:
        return {name: self.put(value, serde) for name, value in values.items()}


def changes(old: Mapping[str, object], new: Mapping[str, object], **options: Any) -> list[Any]:
    store = Store()
    return diff_states(store.load, store.state(old), store.state(new), **options).changes


def told(old: object, new: object, **options: Any) -> list[tuple[Any, ...]]:
    found = changes({"k": old}, {"k": new}, **options)
    return [(each.op, each.path[1:], each.kind, each.old, each.new) for each in found]


# -- what is reported -----------------------------------------------------------------------------------


def test_channels_are_compared_by_name() -> None:
    found = changes({"a": 1, "b": 2, "c": 3}, {"b": 2, "c": 4, "d": 5})
    assert [(each.op, each.path, each.old, each.new) for each in found] == [
        ("remove", ("a",), 1, None),
        ("change", ("c",), 3, 4),
        ("add", ("d",), None, 5),
    ]


def test_dicts_are_compared_by_key() -> None:
    assert told({"status": "open", "id": 1, "old": 0}, {"status": "refunded", "id": 1, "new": 2}) == [
        ("change", ("status",), "value", "open", "refunded"),
        ("remove", ("old",), "value", 0, None),
        ("add", ("new",), "value", None, 2),
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (1, True),
        (1, 1.0),
        (1, "1"),
        (b"1", "1"),
        (0.0, -0.0),
        ((1,), [1]),
        (None, False),
        ([], {}),
        (0, None),
    ],
)
def test_another_type_is_a_change(old: object, new: object) -> None:
    for serde in (LANGGRAPH, OWN) if not isinstance(old, tuple) else (OWN,):
        for wrapped in (lambda value: value, lambda value: [value], lambda value: {"x": value}):
            store = Store()
            states = [store.state({"k": wrapped(value)}, serde) for value in (old, new)]
            found = diff_states(store.load, *states).changes
            assert [change.op for change in found] == ["change"]


def test_nan_equals_nan() -> None:
    other = bytes([0xCB]) + b"\x7f\xf8\0\0\0\0\0\x01"
    store = Store()
    old = {"k": store.put({"x": math.nan, "y": 1})}
    assert diff_states(store.load, old, {"k": store.put({"x": math.nan, "y": 1})}).changes == []
    raw = LANGGRAPH.dumps_typed(math.nan)[1]
    assert raw != other
    found = diff_states(store.load, *(stored([Item(INLINE, 9, 1, each)]) for each in (raw, other)))
    assert (found.changes, found.same) == ([], 1)


def test_the_order_of_a_dict_is_part_of_it() -> None:
    assert told({"a": 1, "b": 2, "c": 3}, {"b": 2, "c": 3, "a": 1}) == [("move", (), "value", {"a": 0}, {"a": 2})]
    assert told({"x": {"a": 1, "b": 2}}, {"x": {"b": 2, "a": 5}})[0] == ("change", ("x", "a"), "value", 1, 5)
    assert [each[0] for each in told({"a": 1}, {"b": 2, "a": 1})] == ["add"]


def test_keys_that_are_no_text_have_a_path() -> None:
    found = told({1: "a", None: "b", 2.5: "c", b"\1": "d"}, {1: "A", None: "B", 2.5: "C", b"\1": "D"})
    assert [path for _, path, *_ in found] == [(1,), ("null",), ("2.5",), ("b'\\x01'",)]


def test_lists_are_compared_by_content_and_moves_are_recognised() -> None:
    assert told([1, 2, 3], [0, 1, 2, 3]) == [("add", (0,), "value", None, 0)]
    assert told([1, 2, 3], [1, 3]) == [("remove", (1,), "value", 2, None)]
    assert told([1, 2, 3], [1, 9, 3]) == [("change", (1,), "value", 2, 9)]
    [moved] = changes({"k": [1, 2, 3, 4]}, {"k": [4, 1, 2, 3]})
    assert (moved.op, moved.path, moved.old_path, moved.new) == ("move", ("k", 0), ("k", 3), 4)


TURNS = [0, 1] * 10_000
TEXTS = [f"{kind} " * 40 for kind in range(9)] * 2000
RATINGS = [1, 2, 3, 4, 5] * 120


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (RATINGS, [*RATINGS[1:], 3], [("remove", 0), ("add", 599)]),
        (RATINGS * 9, [*RATINGS[1:], *RATINGS * 8, 3], [("remove", 0), ("add", 5399)]),
        (TURNS, [*TURNS[:9000], "x", *TURNS[9001:]], [("change", 9000)]),
        (TURNS, [*TURNS[:10_000], 2, *TURNS[10_000:]], [("add", 10_000)]),
        (TURNS, [*TURNS[:10_000], *TURNS[10_001:]], [("remove", 10_000)]),
        (TEXTS, [*TEXTS[:9000], "x", *TEXTS[9001:]], [("change", 9000)]),
    ],
)
def test_values_that_repeat_are_not_told_as_moved(old: list[Any], new: list[Any], expected: list[Any]) -> None:
    assert [(op, path[0]) for op, path, *_ in told(old, new)] == expected
    check(old, new)


def test_many_changes_among_values_that_repeat_are_told_one_by_one() -> None:
    rng = random.Random(1)
    for old in (TURNS, [rng.randint(0, 3) for _ in range(20_000)]):
        new = list(old)
        for at in rng.sample(range(20_000), 400):
            new[at] = "x"
        found = told(old, new)
        assert {at for at, value in enumerate(new) if value == "x"} == {
            path[0] for *_, path, _, _, value in found if value == "x"
        }
        assert len(found) < 600


def test_records_are_known_again_by_their_id() -> None:
    old = [{"id": "a", "n": 1}, {"id": "b", "n": 1}, {"id": "c", "n": 1}]
    new = [{"id": "x", "n": 9}, {"id": "b", "n": 2}, {"id": "c", "n": 1}]
    found = changes({"k": old}, {"k": new})
    assert [(each.op, each.path[1:]) for each in found] == [
        ("remove", (0,)),
        ("add", (0,)),
        ("change", (1, "n")),
    ]


def test_a_message_edited_in_place_is_one_change_with_its_parts() -> None:
    old = [HumanMessage("whole", id="1"), AIMessage("ok", id="2")]
    new = [HumanMessage("first", id="0"), HumanMessage("last", id="1"), AIMessage("ok", id="2")]
    added, change = changes({"messages": old}, {"messages": new})
    assert (added.op, added.path, added.kind) == ("add", ("messages", 0), "message")
    assert (change.op, change.path, change.kind) == ("change", ("messages", 1), "message")
    assert change.old_path == ("messages", 0)
    assert isinstance(change.old, InertMessage) and isinstance(change.new, InertMessage)
    assert (change.old.content, change.new.content) == ("whole", "last")
    [part] = change.parts
    assert (part.path, part.old, part.new) == (("messages", 1, "content"), "whole", "last")


def test_messages_stored_as_plain_dicts_are_messages() -> None:
    old = [{"type": "human", "content": "a", "id": "1"}]
    [change] = changes({"k": old}, {"k": [{**old[0], "content": "b"}]})
    assert (change.kind, change.path) == ("message", ("k", 0))


def test_messages_with_other_ids_are_not_the_same_message() -> None:
    found = changes({"k": [AIMessage("a", id="1")]}, {"k": [AIMessage("a", id="2")]})
    assert [each.op for each in found] == ["remove", "add"]


def test_a_message_moved_and_edited_is_both() -> None:
    a, b, c = (HumanMessage(text, id=text) for text in "abc")
    found = changes({"k": [b, a, c]}, {"k": [a, c, HumanMessage("B", id="b")]})
    assert [(each.op, each.path, each.old_path) for each in found] == [
        ("move", ("k", 2), ("k", 0)),
        ("change", ("k", 2), ("k", 0)),
    ]


def test_long_text_is_of_kind_text() -> None:
    assert told("a\nb", "a\nc")[0][2] == "text"
    assert told("x" * 80, "x" * 81)[0][2] == "text"
    assert told("open", "closed")[0][2] == "value"


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [value, "y" * 5000], lambda v: {"a": v}])
def test_binary_and_very_long_text_are_shown_by_size_and_hash(wrap: Any) -> None:
    lines = [f"line {i} of a text\n" for i in range(5000)]
    text = "".join(lines)
    lines[2000] = "another\n"
    [change] = changes({"k": wrap(text)}, {"k": wrap("".join(lines))})
    assert (change.kind, change.old.name, change.old.fields["size"]) == ("binary", "text", len(text))
    assert change.old.fields["hash"] != change.new.fields["hash"]
    [change] = changes({"k": wrap(b"abc")}, {"k": wrap(b"abd")})
    assert (change.kind, change.old.name, change.old.fields["size"]) == ("binary", "binary", 3)


def test_the_hash_of_a_text_does_not_depend_on_where_it_stands() -> None:
    text = "".join(f"line {i} of a text\n" for i in range(5000))
    hashes = []
    for value, empty in ((text, None), ([text], []), ({"a": [1, text]}, {"a": [1]}), ((text,), ())):
        store = Store()
        [change] = diff_states(store.load, store.state({"k": empty}, OWN), store.state({"k": value}, OWN)).changes
        hashes.append(change.new)
    assert hashes == hashes[:1] * 4


@dataclass
class Note:
    text: str
    tags: list[str]
    files: dict[str, str]


def test_instances_are_compared_field_by_field() -> None:
    files = {f"f{i}": f"content {i} " * 40 for i in range(100)}
    for more in ({}, files):
        store = Store()
        old = store.state({"k": Note("a", ["x"], more)}, OWN)
        new = store.state({"k": Note("b", ["x", "y"], more)}, OWN)
        found = diff_states(store.load, old, new).changes
        assert [(each.op, each.path) for each in found] == [
            ("change", ("k", "text")),
            ("add", ("k", "tags", 1)),
        ]


def test_an_instance_of_another_class_is_opaque() -> None:
    store = Store()
    states = store.state({"k": OrderedDict(a=1)}, OWN), store.state({"k": {"a": 1}}, OWN)
    [change] = diff_states(store.load, *states).changes
    assert (change.op, change.kind) == ("change", "opaque")
    rope = encode_items([Item(INLINE, 3, 1, b"abc")]), encode_items([Item(INLINE, 3, 1, b"abd")])
    [change] = diff_states(store.load, *({"k": StoredValue("pickle", each)} for each in rope)).changes
    assert change.kind == "opaque" and change.old != change.new


def test_internal_channels_are_left_out_and_counted() -> None:
    old, new = {"a": 1, "__start__": 1, "branch:to:x": 1}, {"a": 1, "__start__": 2, "branch:to:y": 1}
    store = Store()
    states = store.state(old), store.state(new)
    found = diff_states(store.load, *states)
    assert (found.changes, found.hidden, found.same) == ([], 3, 1)
    found = diff_states(store.load, *states, internal=True)
    assert [each.path for each in found.changes] == [("__start__",), ("branch:to:x",), ("branch:to:y",)]
    assert [each.path for each in diff_states(store.load, *states, paths=[("__start__",)]).changes] == [("__start__",)]


def test_paths_restrict_and_narrow() -> None:
    old = {"t": {"a": 1, "b": {"c": 1}}, "m": [HumanMessage("x", id="1"), HumanMessage("y", id="2")]}
    new = {
        "t": {"a": 2, "b": [7]},
        "m": [HumanMessage("x", id="1"), HumanMessage("z", id="2")],
        "n": {"q": 1},
    }

    def at(*path: str | int) -> list[tuple[Any, ...]]:
        return [(each.op, each.path, each.old, each.new) for each in changes(old, new, paths=[path])]

    assert at("t", "a") == [("change", ("t", "a"), 1, 2)]
    assert at("t", "b", "c") == [("remove", ("t", "b", "c"), 1, None)]
    assert at("t", "b", 0) == [("add", ("t", "b", 0), None, 7)]
    assert at("m", -1, "content") == [("change", ("m", 1, "content"), "y", "z")]
    assert at("m", 0) == []
    assert at("n", "q") == [("add", ("n", "q"), None, 1)]
    assert at("n", "nothing") == []


def test_deep_nesting_ends_in_one_change() -> None:
    for depth in (120, 400, 900):
        old, new = (stored([Item(INLINE, depth + 1, 1, b"\x91" * depth + end)]) for end in (b"\1", b"\2"))
        [change] = diff_states(Store().load, old, new).changes
        assert change.op == "change" and len(change.path) < 110


# -- the summary for a log ------------------------------------------------------------------------------


def test_key_changes_count_elements_of_lists() -> None:
    old = {"messages": [HumanMessage("a", id="1"), AIMessage("b", id="2")], "ticket": {"a": 1}, "gone": 1}
    new = {
        "messages": [HumanMessage("A", id="1"), AIMessage("b", id="2"), AIMessage("c", id="3")],
        "ticket": {"a": 2, "b": 1},
        "__x": 1,
        "docs": ["a", "b"],
    }
    store = Store()
    assert key_changes(store.load, store.state(old), store.state(new)) == [
        ChannelChange("messages", 1, 1, 0),
        ChannelChange("ticket", 0, 1, 0),
        ChannelChange("gone", 0, 0, 1),
        ChannelChange("docs", 2, 0, 0),
    ]


def test_key_changes_count_every_kind_of_change_once() -> None:
    store = Store()
    old = store.state({"k": [1, 2, 3, {"a": 1, "b": 1}, 4, "m"], "t": [1]}, OWN)
    new = store.state({"k": ["m", 1, 3, {"a": 2, "b": 2}, 4], "t": (1,)}, OWN)
    assert key_changes(store.load, old, new) == [ChannelChange("k", 0, 2, 1), ChannelChange("t", 0, 1, 0)]


# -- applying a difference ------------------------------------------------------------------------------


def apply(value: Any, found: list[Any], at: int, target: Any) -> Any:
    """Return `value` with the changes made; `target` is only asked for what is shown by its hash."""
    here = [change for change in found if len(change.path) == at]
    inside: dict[Any, list[Any]] = {}
    for change in found:
        if len(change.path) > at:
            inside.setdefault(change.path[at], []).append(change)
    for change in here:
        if change.op == "change":
            assert fingerprint(change.new) == fingerprint(target) or change.kind == "binary"
            return target
    if isinstance(value, dict):
        return apply_to_dict(value, here, inside, at, target)
    if inside:
        assert isinstance(value, list | tuple)
        return type(value)(apply_to_list(list(value), inside, at, target))
    return value


def apply_to_dict(value: Any, here: list[Any], inside: dict[Any, list[Any]], at: int, target: Any) -> Any:
    made = dict(value)
    for key, found in inside.items():
        ops = {change.op for change in found if len(change.path) == at + 1 and change.op in ("add", "remove")}
        if "remove" in ops:
            del made[key]
        elif "add" in ops:
            made[key] = target[key]
        else:
            made[key] = apply(made[key], found, at + 1, target[key])
    for change in here:
        assert change.op == "move"
        order = [key for key in made if key not in change.new]
        if set(made) == set(value):
            for key, position in sorted(change.new.items(), key=lambda entry: entry[1]):
                order.insert(position, key)
            made = {key: made[key] for key in order}
    return made


def is_of_keys(change: Any) -> bool:
    return change.op == "move" and change.old_path is None


def apply_to_list(value: list[Any], inside: dict[Any, list[Any]], at: int, target: Any) -> list[Any]:
    gone, placed = set(), {}
    top = [change for found in inside.values() for change in found if len(change.path) == at + 1]
    for change in top:
        index = change.path[at]
        if change.op == "remove":
            gone.add(index)
        elif change.op == "move" and not is_of_keys(change):
            gone.add(change.old_path[at])
            placed[index] = value[change.old_path[at]]
        elif change.op == "add":
            placed[index] = target[index]
    rest = iter([each for i, each in enumerate(value) if i not in gone])
    made = [placed[i] if i in placed else next(rest) for i in range(len(value) - len(gone) + len(placed))]
    assert next(rest, None) is None
    for index, found in inside.items():
        # What was removed there stood in another place, and what was added or moved is whole by now.
        deeper = [c for c in found if len(c.path) > at + 1 or c.op == "change" or is_of_keys(c)]
        if deeper:
            made[index] = apply(made[index], deeper, at + 1, target[index])
    return made


def ordered(value: Any) -> Any:
    """Return what tells two values apart, the order of dicts with the same keys included."""
    return fingerprint(value)


def normal(value: Any) -> Any:
    """Sort dicts: where a key was added, the changes do not say where it stands."""
    if isinstance(value, dict):
        return {key: normal(each) for key, each in sorted(value.items(), key=lambda entry: repr(entry[0]))}
    return type(value)(normal(each) for each in value) if isinstance(value, list | tuple) else value


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=4), st.binary(max_size=3),
    st.sampled_from(["long " * 40, "longer " * 1200, "line\n" * 30]),
)  # fmt: skip
KEYS = st.one_of(st.sampled_from("abcdef"), st.text(max_size=3))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=8), st.dictionaries(KEYS, inner, max_size=6), st.tuples(inner, inner)
    ),
    max_leaves=30,
)


def edited(value: Any, rng: random.Random) -> Any:
    """Return a value with a few changes somewhere inside."""
    value = copy.copy(value)
    if isinstance(value, list):
        for _ in range(rng.randint(1, 3)):
            act, at = rng.choice(["add", "remove", "edit", "swap", "double"]), rng.randint(0, len(value))
            if act == "add":
                value.insert(at, rng.choice([0, "new", [1], {"n": 1}, "fresh " * 60]))
            elif value and act == "remove":
                value.pop(at % len(value))
            elif value and act == "edit":
                value[at % len(value)] = edited(value[at % len(value)], rng)
            elif value and act == "swap":
                value.insert(at % len(value), value.pop())
            elif value:
                value.insert(at, value[0])
        return value
    if isinstance(value, dict):
        keys = list(value)
        act = rng.choice(["add", "remove", "edit", "edit", "rename", "touch"])
        if act == "add" or not keys:
            value[rng.choice("ghi")] = "new"
            return value
        key = rng.choice(keys)
        if act == "remove":
            del value[key]
        elif act == "edit":
            value[key] = edited(value[key], rng)
        else:
            value["renamed" if act == "rename" else key] = value.pop(key)
        return value
    return rng.choice([value, 7, "other", None, [value]])


def check(old: Any, new: Any, serde: Any = LANGGRAPH) -> None:
    store = Store()
    before, after, value = store.state({"k": old}, serde), store.state({"k": new}, serde), new
    old, new = (inert(*serde.dumps_typed(value)) for value in (old, new))
    assert diff_states(store.load, before, before).changes == []
    assert store.loaded == []
    found = diff_states(store.load, before, after)
    made = apply(old, found.changes, 1, new)
    assert ordered(normal(made)) == ordered(normal(new))
    if ordered(normal(old)) != ordered(normal(new)):
        assert found.changes
    if ordered(old) == ordered(new):
        assert (found.changes, found.same) == ([], 1)
    assert found.bytes_new + found.bytes_shared == len(serde.dumps_typed(value)[1])


@settings(deadline=None, max_examples=300)
@given(VALUES, VALUES, st.sampled_from([LANGGRAPH, OWN]))
@example([1, 2, 3, 4], [4, 2, 1, 1, 3], LANGGRAPH)
def test_the_changes_lead_from_one_value_to_another(old: Any, new: Any, serde: Any) -> None:
    check(old, new, serde)


@settings(deadline=None, max_examples=300)
@given(VALUES, st.randoms(use_true_random=False), st.sampled_from([LANGGRAPH, OWN]))
def test_the_changes_lead_from_a_value_to_an_edited_one(old: Any, rng: random.Random, serde: Any) -> None:
    check(old, edited(old, rng), serde)


def filled(rng: random.Random, size: int) -> Any:
    """Return a container large enough to be cut into groups, of values small and large."""

    def value(depth: int) -> Any:
        kind = rng.random()
        if kind < 0.5:
            return rng.choice([rng.randint(0, 50), "s" * rng.randint(0, 60), rng.random()])
        if kind < 0.8:
            return f"{rng.random()} " * rng.randint(8, 40)
        if kind < 0.9 or not depth:
            return {"id": rng.randint(0, 10**6), "text": "t" * rng.randint(0, 300)}
        if kind < 0.95:
            return [value(depth - 1) for _ in range(rng.randint(0, 60))]
        return {f"k{i}": value(depth - 1) for i in range(rng.randint(0, 60))}

    if rng.random() < 0.5:
        return [value(2) for _ in range(size)]
    return {f"key {i}": value(2) for i in range(size)}


@pytest.mark.parametrize("seed", range(16))
def test_the_changes_lead_from_a_large_value_to_an_edited_one(seed: int) -> None:
    rng = random.Random(seed)
    old = filled(rng, rng.choice([30, 300, 2000]))
    new = old
    for _ in range(rng.randint(1, 5)):
        new = edited(new, rng)
    check(old, new, rng.choice([LANGGRAPH, OWN]))


@pytest.mark.parametrize("seed", range(6))
def test_large_dicts_are_reordered_key_by_key(seed: int) -> None:
    rng = random.Random(seed)
    old = {f"key {i}": rng.choice([i, "v" * 200 + str(i)]) for i in range(1000)}
    new = dict(old)
    for key in rng.sample(list(old), 3):
        new[key] = new.pop(key)
    [move] = changes({"k": old}, {"k": new})
    assert move.op == "move" and len(move.new) <= 3
    made = apply(old, [move], 1, new)
    assert list(made) == list(new)


# -- cost -----------------------------------------------------------------------------------------------

N = 10_000


def long_chat() -> list[Any]:
    return [
        HumanMessage(f"message {i} " * 20, id=f"id-{i}") if i % 2 else AIMessage(f"answer {i} " * 30, id=f"id-{i}")
        for i in range(N)
    ]


def cost(old: Any, new: Any) -> tuple[Store, list[Any]]:
    store = Store()
    before, after = store.state({"k": old}), store.state({"k": new})
    found = diff_states(store.load, before, after)
    assert found.bytes_new < 100_000
    assert found.bytes_shared > 1_000_000
    return store, found.changes


def test_one_message_in_ten_thousand() -> None:
    old = long_chat()
    for index in (0, 1, 4321, N - 1):
        new = list(old)
        new[index] = HumanMessage("edited", id=f"id-{index}")
        store, [change] = cost(old, new)
        assert (change.op, change.path, change.kind) == ("change", ("k", index), "message")
        assert len(store.loaded) < 40
        assert store.calls < 15

    for index in (0, 77, 5000, N):
        new = [*old[:index], ToolMessage("result", id="new", tool_call_id="c"), *old[index:]]
        store, [change] = cost(old, new)
        assert (change.op, change.path, change.kind) == ("add", ("k", index), "message")
        assert len(store.loaded) < 40
        store, [change] = cost(new, old)
        assert (change.op, change.path) == ("remove", ("k", index))
        assert len(store.loaded) < 40

    new = [*old[:100], *old[101:], old[100]]
    store, [change] = cost(old, new)
    assert (change.op, change.path, change.old_path) == ("move", ("k", N - 1), ("k", 100))
    assert len(store.loaded) < 60


def test_appending_costs_little_wherever_the_groups_end() -> None:
    store = Store()
    cutter = Cutter(store.emit)
    elements = [msgpack.packb({"id": str(i), "text": f"message {i} " * 15}) for i in range(2000)]
    cut, before, worst = None, None, 0
    for size in range(600, 2000):
        data = b"\xdd" + size.to_bytes(4) + b"".join(elements[:size])
        rope, cut = cutter.cut("msgpack", data, cut)
        after = {"k": StoredValue("msgpack", rope)}
        if before is not None:
            store.loaded.clear()
            assert key_changes(store.load, before, after) == [ChannelChange("k", 1, 0, 0)]
            worst = max(worst, len(store.loaded))
        before = after
    assert worst < 40


def test_one_file_in_ten_thousand() -> None:
    old = {f"file {i}.py": f"content {i} " * 30 for i in range(N)}
    for key in ("file 0.py", "file 5000.py", f"file {N - 1}.py"):
        store, [change] = cost(old, {**old, key: "edited"})
        assert (change.op, change.path) == ("change", ("k", key))
        assert len(store.loaded) < 40
    store, [change] = cost(old, {**old, "new": "x"})
    assert (change.op, change.path) == ("add", ("k", "new"))
    assert len(store.loaded) < 40
    touched = dict(old)
    touched["file 3.py"] = touched.pop("file 3.py")
    store, [change] = cost(old, touched)
    assert (change.op, change.old, change.new) == ("move", {"file 3.py": 3}, {"file 3.py": N - 1})
    assert len(store.loaded) < 60


def test_moves_of_what_does_not_repeat_are_found_without_looking_further() -> None:
    old = long_chat()
    new = list(old)
    for there, here in ((100, 9000), (5000, 20), (7000, 3000)):
        new.insert(here, new.pop(there))
    store, found = cost(old, new)
    assert [each.op for each in found] == ["move"] * 3
    assert len(store.loaded) < 90
    assert store.calls < 15


def test_two_distant_changes_leave_what_lies_between_closed() -> None:
    old = long_chat()
    new = list(old)
    new[10] = HumanMessage("x", id="id-10")
    new.insert(9000, HumanMessage("y", id="y"))
    store, found = cost(old, new)
    assert [(each.op, each.path) for each in found] == [("change", ("k", 10)), ("add", ("k", 9000))]
    assert len(store.loaded) < 60


def test_a_change_deep_inside_is_found_without_reading_the_rest() -> None:
    big = {f"n{i}": "x" * 300 + str(i) for i in range(2000)}
    old = {"a": [big, Note("a", [], big)], "b": "c" * 5000}
    changed = {**big, "n1000": "edited"}
    store = Store()
    states = (
        store.state({"k": old}, OWN),
        store.state({"k": {**old, "a": [big, Note("a", [], changed)]}}, OWN),
    )
    [change] = diff_states(store.load, *states).changes
    assert change.path == ("k", "a", 1, "files", "n1000")
    assert len(store.loaded) < 40


def test_long_text_is_told_apart_without_reading_it() -> None:
    lines = [f"line {i} of a text\n" for i in range(100_000)]
    store = Store()
    before = store.state({"k": "".join(lines)})
    lines[500] = "another\n"
    after = store.state({"k": "".join(lines)})
    [change] = diff_states(store.load, before, after).changes
    assert change.kind == "binary"
    assert len(store.loaded) < 10


def test_equal_values_are_not_loaded() -> None:
    store = Store()
    state = store.state({"a": long_chat()[:500], "b": "x" * 10_000})
    found = diff_states(store.load, state, dict(state))
    assert (found.changes, found.same, found.bytes_new) == ([], 2, 0)
    assert found.bytes_shared > 100_000
    assert store.loaded == []


def test_what_lies_deep_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = 0

    class Counting:
        def __init__(self) -> None:
            self.hasher = blake3()

        def update(self, data: bytes) -> None:
            nonlocal hashed
            hashed += len(data)
            self.hasher.update(data)

        def digest(self) -> bytes:
            return self.hasher.digest()

    monkeypatch.setattr(nodes, "blake3", Counting)

    def deep(*more: str) -> Any:
        value: Any = [*(f"text {i}" for i in range(1000)), *more]
        for _ in range(120):
            value = [value, 1]
        return value

    [change] = changes({"k": deep()}, {"k": deep("new")})
    assert change.op == "change"
    assert 10_000 < hashed < 500_000


def test_equal_parts_are_known_by_what_they_are_and_not_by_where() -> None:
    values: list[Any] = [
        [[1], [1.0], [True]], [[1], (1,)], [{"a": [1]}, {"a": [2]}], [inert(*OWN.dumps_typed({1, 2}))],
        [InertObject("a", "b", [[1]]), InertObject("a", "b", [[2]]), InertObject("", "", b"x")],
    ]  # fmt: skip
    flat = [each for value in values for each in [value, *value]]
    known = Fingerprints().pieces(flat)
    again = Fingerprints().pieces([copy.deepcopy(each) for each in flat])
    assert known == again
    for i, a in enumerate(flat):
        for j, b in enumerate(flat):
            assert (known[i] == known[j]) == (fingerprint(a) == fingerprint(b))


# -- damage ---------------------------------------------------------------------------------------------


def stored(items: list[Item]) -> dict[str, StoredValue]:
    return {"k": StoredValue("msgpack", encode_items(items))}


def test_a_rope_that_names_itself_ends() -> None:
    store = Store()
    oid = ObjectId(b"R" * 32)
    for siblings in (0, 1, 2, 5):
        for length in (0, 10):
            item = Item(ROPE, length, siblings, oid)
            store.objects[oid] = encode_items([item, item])
            with pytest.raises(DamagedObjectError):
                diff_states(store.load, stored([item]), stored([Item(INLINE, 1, 1, b"\1")]))
            head = Item(INLINE, 1, 0, bytes([0x90 | siblings]))
            with pytest.raises(DamagedObjectError):
                diff_states(store.load, stored([head, item]), stored([head, item, item]))


def test_a_rope_of_nothing_many_times_over_ends() -> None:
    store = Store()
    item = Item(INLINE, 0, 0, b"")
    for _ in range(60):
        item = Item(ROPE, 0, 0, store.emit(Kind.ROPE, encode_items([item, item])))
    with pytest.raises(DamagedObjectError):
        diff_states(store.load, stored([item]), {})


def test_a_rope_that_doubles_without_end_is_refused() -> None:
    store = Store()
    item = Item(INLINE, 1, 1, b"\1")
    for _ in range(50):
        oid = store.emit(Kind.ROPE, encode_items([item, item]))
        item = Item(ROPE, 2 * item.length, 2 * item.siblings, oid)
    with pytest.raises(DamagedObjectError):
        diff_states(store.load, {}, stored([item]))


@pytest.mark.parametrize("seed", range(100))
def test_a_damaged_rope_is_an_error_or_a_difference(seed: int) -> None:
    rng = random.Random(seed)
    store = Store()
    value = filled(rng, 200)
    before = store.put(value)
    after = store.put(edited(value, rng))
    states = {"k": before}, {"k": after}
    for _ in range(3):
        if store.objects and rng.random() < 0.7:
            oid = rng.choice(list(store.objects))
            data = bytearray(store.objects[oid])
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            store.objects[oid] = bytes(data)
        else:
            data = bytearray(after.rope)
            data[rng.randrange(min(len(data), 60))] ^= 1 << rng.randrange(8)
            states = {"k": before}, {"k": StoredValue(after.type, bytes(data))}

    def load(ids: Collection[ObjectId]) -> Mapping[ObjectId, bytes]:
        missing = [oid for oid in ids if oid not in store.objects]
        if missing:
            raise DamagedObjectError("not stored")
        return {oid: store.objects[oid] for oid in ids}

    try:
        diff_states(load, *states)
        key_changes(load, *states)
    except DamagedObjectError:
        pass


# -- alignment ------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 6), max_size=30), st.lists(st.integers(0, 6), max_size=30))
def test_alignment_pairs_equal_elements_in_order(old: list[int], new: list[int]) -> None:
    pairs = align(old, new)
    assert all(old[i] == new[j] for i, j in pairs)
    assert all(a < c and b < d for (a, b), (c, d) in pairwise(pairs))
    if old == new:
        assert len(pairs) == len(old)


def test_alignment_of_long_sequences_without_anchors_ends_soon() -> None:
    rng = random.Random(1)
    old, new = ([rng.randint(0, 3) for _ in range(20_000)] for _ in range(2))
    align(old, new)


def test_a_blob_reference_is_read_once_for_both_sides() -> None:
    store = Store()
    oid = store.emit(Kind.BLOB, b"\xda\x10\x00" + b"x" * 4096)
    head, item = Item(INLINE, 1, 0, b"\x91"), Item(BLOB, 4099, 1, oid)
    assert diff_states(store.load, stored([head, item]), stored([head, item])).changes == []

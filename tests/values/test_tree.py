"""The lazy view of a value: what it knows without loading, what it loads, and what it does with damage."""

from __future__ import annotations

import tracemalloc
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from ckpt.errors import DamagedObjectError, PathNotFoundError
from ckpt.objects.ids import Kind, ObjectId, object_id
from ckpt.values.cut import Cutter
from ckpt.values.inert import UNDECODABLE, InertObject, inert
from ckpt.values.rope import BLOB, INLINE, ROPE, Item, encode_items
from ckpt.values.serializer import Serializer
from ckpt.values.tree import Form, Pieces, Tree, inert_all, split

OWN = Serializer()
LANGGRAPH = JsonPlusSerializer()


class Store:
    """Objects in memory; counts what is loaded."""

    def __init__(self) -> None:
        self.objects: dict[ObjectId, bytes] = {}
        self.loaded: list[ObjectId] = []

    def emit(self, kind: int, data: bytes) -> ObjectId:
        oid = object_id(kind, data)
        self.objects[oid] = data
        return oid

    def load(self, ids: Collection[ObjectId]) -> Mapping[ObjectId, bytes]:
        self.loaded += ids
        return {oid: self.objects[oid] for oid in ids}

    def tree(self, value: object, serde: Any = OWN) -> Tree:
        type_, data = serde.dumps_typed(value)
        return Tree(type_, Cutter(self.emit).cut(type_, data)[0], self.load)


@dataclass
class Note:
    text: str
    files: dict[str, str]


FILES = {f"file {i}": f"content {i} " * 40 for i in range(3000)}


def test_form_count_and_length_are_known_without_loading() -> None:
    store = Store()
    for value, form, count in (
        (["x" * 5000, "y" * 200], Form.ARRAY, 2),
        ({"a": "x" * 5000, "b": 1}, Form.MAP, 2),
        ([1, 2, 3], Form.ARRAY, 3),
        ({}, Form.MAP, 0),
        ((1, 2), Form.EXTENSION, 3),
        ("line\n" * 2000, Form.TEXT, 10_000),
        ("short", Form.TEXT, 5),
        (b"abc", Form.BINARY, 3),
        (7, Form.OTHER, 0),
    ):
        tree = store.tree(value)
        assert (tree.form, tree.count) == (form, count)
        assert tree.length == len(OWN.dumps_typed(value)[1])
    assert store.loaded == []


def test_children_are_inline_bytes_or_references() -> None:
    store = Store()
    tree = store.tree(["x" * 5000, "y" * 200, 1, 2, "z" * 300])
    kinds = [(item.kind, item.siblings) for item in tree.children()]
    assert kinds == [(ROPE, 1), (BLOB, 1), (INLINE, 2), (BLOB, 1)]
    elements = tree.elements()
    assert [item.siblings for item in elements] == [1] * 5
    assert store.loaded == []
    assert [tree.child(item).inert() for item in elements[2:4]] == [1, 2]
    assert store.loaded == []
    assert tree.child(elements[1]).inert() == "y" * 200
    assert len(store.loaded) == 1


def test_expanding_a_group_loads_that_rope_only() -> None:
    store = Store()
    tree = store.tree([f"element {i} " * 30 for i in range(3000)])
    groups = [item for item in tree.children() if item.siblings > 1]
    store.loaded.clear()
    parts = tree.pieces.open(groups[:1])[groups[0]]
    assert sum(part.siblings for part in parts) == groups[0].siblings
    assert len(store.loaded) == 1
    tree.pieces.open(groups[:1])
    assert len(store.loaded) == 1


def test_equal_values_are_equal_trees_without_loading() -> None:
    store = Store()
    value = [f"element {i} " * 30 for i in range(3000)]
    assert store.tree(value) == store.tree(list(value))
    assert len({store.tree(value), store.tree(list(value))}) == 1
    assert store.tree(value) != store.tree(value[1:])
    assert store.tree([1]) != store.tree([1], LANGGRAPH)
    assert store.loaded == []


def test_an_extension_shows_its_payload_and_an_instance_its_fields() -> None:
    store = Store()
    payload = store.tree((1, [2])).payload()
    assert payload is not None and payload.inert() == [1, [2]]
    instance = store.tree(Note("t", FILES)).instance()
    assert instance is not None
    assert (instance.module, instance.name, instance.fields.form) == (__name__, "Note", Form.MAP)
    assert len(store.loaded) < 10
    assert store.tree([1]).payload() is None
    assert store.tree((1, 2, 3)).instance() is None


VALUE = {
    "a": [{"b": ["x" * 3000, "y" * 3000]}, Note("t", FILES), tuple(range(50))],
    "list": list(range(5000)),
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (("a", 0, "b", 1), "y" * 3000),
        (("a", -3, "b", -1), "y" * 3000),
        (("a", 1, "text"), "t"),
        (("a", 1, "files", "file 77"), FILES["file 77"]),
        (("a", 2, 3), 3),
        (("a", 2), tuple(range(50))),
        (("list", 4321), 4321),
        (("list", -1), 4999),
    ],
)
def test_parts_are_found_by_path(path: tuple[str | int, ...], found: object) -> None:
    store = Store()
    assert store.tree(VALUE).at(path) == found
    located, value = store.tree(VALUE).locate(path)
    assert value == found
    assert not any(isinstance(part, int) and part < 0 for part in located)


def test_parts_of_messages_are_found_by_path() -> None:
    store = Store()
    messages = [HumanMessage("hello", id="1"), AIMessage("x" * 9000, id="2", response_metadata={"n": 1})]
    tree = store.tree(messages, LANGGRAPH)
    assert tree.at((0, "content")) == "hello"
    assert tree.at((1, "content")) == "x" * 9000
    assert tree.at((-1, "response_metadata", "n")) == 1


@pytest.mark.parametrize("path", [("b",), ("a", 3), ("a", -4), ("a", "x"), ("a", 1, "no"), ("list", 0, 0), (0,)])
def test_a_path_that_leads_nowhere_is_an_error(path: tuple[str | int, ...]) -> None:
    with pytest.raises(PathNotFoundError):
        Store().tree(VALUE).at(path)


def test_a_part_of_a_long_list_costs_few_loads() -> None:
    store = Store()
    tree = store.tree([f"element {i} " * 30 for i in range(10_000)])
    store.loaded.clear()
    assert tree.at((7777,)) == "element 7777 " * 30
    assert len(store.loaded) < 8


def test_many_values_are_read_together() -> None:
    store = Store()
    calls = []

    def load(ids: Collection[ObjectId]) -> Mapping[ObjectId, bytes]:
        calls.append(len(ids))
        return store.load(ids)

    pieces = Pieces(load)
    values = [f"value {i} " * 50 for i in range(20)]
    trees = [Tree("ckpt", Cutter(store.emit).cut(*OWN.dumps_typed(value))[0], pieces) for value in values]
    assert inert_all(trees) == values
    assert calls == [20]
    assert inert_all([]) == []


def test_types_that_are_no_msgpack_are_shown_whole() -> None:
    store = Store()
    assert Tree("null", encode_items([Item(INLINE, 0, 1, b"")]), store.load).inert() is None
    tree = Tree("bytes", Cutter(store.emit).cut("bytes", b"x" * 500)[0], store.load)
    assert (tree.form, tree.children(), tree.inert()) == (Form.BINARY, [], b"x" * 500)
    assert Tree("other", encode_items([Item(INLINE, 1, 1, b"x")]), store.load).inert() == InertObject("", "other", 1)


def test_digests_tell_values_apart_by_size_and_hash() -> None:
    store = Store()
    text = "".join(f"line {i}\n" for i in range(2000))
    store.loaded.clear()
    found = store.tree(text).digest()
    assert isinstance(found.fields, dict)
    assert (found.name, found.fields["size"]) == ("text", len(text))
    assert store.loaded == []
    assert found == store.tree(text).digest() == store.tree(text, LANGGRAPH).digest()
    assert found != store.tree(text + "\n").digest()


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.integers(0, 2**60),
        st.text(max_size=200),
        st.binary(max_size=200),
        st.just("long " * 300),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=30), st.dictionaries(st.text(max_size=9), inner), st.tuples(inner)
    ),
    max_leaves=80,
)


@settings(deadline=None)
@given(VALUES, st.sampled_from([OWN, LANGGRAPH]))
def test_every_part_is_what_it_is_in_the_whole(value: Any, serde: Any) -> None:
    tree = Store().tree(value, serde)
    whole = inert(*serde.dumps_typed(value))
    assert tree.inert() == whole
    parts = [tree.child(item).inert() for item in tree.elements()]
    if isinstance(whole, list):
        assert parts == whole == [tree.at((i,)) for i in range(len(whole))]
    elif isinstance(whole, dict):
        assert dict(zip(parts[::2], parts[1::2], strict=True)) == whole
        assert all(tree.at((key,)) == each for key, each in whole.items())
    else:
        assert parts == []


# -- damage ---------------------------------------------------------------------------------------------


def test_a_run_must_hold_what_its_reference_says() -> None:
    assert [item.payload for item in split(b"\1\2", 2)] == [b"\1", b"\2"]
    for data, count in ((b"\1\2", 1), (b"\1\2", 3), (b"\xa9a", 1), (b"\xc1", 1)):
        with pytest.raises(DamagedObjectError):
            split(data, count)


def test_a_group_must_hold_as_many_values_as_its_reference_says() -> None:
    store = Store()
    oid = store.emit(Kind.ROPE, encode_items([Item(INLINE, 1, 1, b"\1"), Item(INLINE, 1, 1, b"\2")]))
    for length, siblings, fails in ((2, 2, False), (2, 3, True), (3, 2, True), (1, 2, True)):
        head = Item(INLINE, 1, 0, bytes([0x90 | siblings]))
        tree = Tree("msgpack", [head, Item(ROPE, length, siblings, oid)], store.load)
        if fails:
            with pytest.raises(DamagedObjectError):
                tree.elements()
        else:
            assert [tree.child(item).inert() for item in tree.elements()] == [1, 2]


@pytest.mark.parametrize("siblings", [0, 1, 2, 3, 14])
@pytest.mark.parametrize("length", [0, 1, 9, 1 << 31, 1 << 60])
def test_a_rope_inside_itself_is_damage(siblings: int, length: int) -> None:
    store = Store()
    oid = ObjectId(b"R" * 32)
    item = Item(ROPE, length, siblings, oid)
    for content in ([item], [item, item], [Item(INLINE, 1, 1, b"\1"), item]):
        store.objects[oid] = encode_items(content)
        for items in ([item], [Item(INLINE, 1, 0, bytes([0x90 | siblings])), item]):
            tree = Tree("msgpack", items, store.load)
            with pytest.raises(DamagedObjectError):
                tree.inert()
            with pytest.raises(DamagedObjectError):
                tree.at((0,))


def test_ropes_that_multiply_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckpt.values.tree.ITEMS_MAX", 1 << 16)
    store = Store()
    item = Item(INLINE, 1, 1, b"\1")
    for _ in range(30):
        oid = store.emit(Kind.ROPE, encode_items([item, item]))
        item = Item(ROPE, 2 * item.length, 2 * item.siblings, oid)
    tree = Tree("msgpack", [Item(INLINE, 5, 0, b"\xdd" + (1 << 30).to_bytes(4)), item], store.load)
    with pytest.raises(DamagedObjectError):
        tree.inert()
    with pytest.raises(DamagedObjectError):
        tree.elements()
    assert tree.at((12345,)) == 1
    assert len(store.loaded) < 100


def test_elements_are_counted_before_they_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    many = store.emit(Kind.ROPE, encode_items([Item(INLINE, 1, 1, b"\1")] * 2000))
    all_of_them = store.emit(Kind.ROPE, encode_items([Item(ROPE, 2000, 2000, many)] * 2000))
    head = Item(INLINE, 5, 0, b"\xdd" + (2000 * 2000).to_bytes(4))
    tree = Tree("msgpack", [head, Item(ROPE, 2000 * 2000, 2000 * 2000, all_of_them)], store.load)
    monkeypatch.setattr("ckpt.values.tree.ITEMS_MAX", 2000 * 2000 - 1)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedObjectError, match="more pieces than any"):
            tree.elements()
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    monkeypatch.setattr("ckpt.values.tree.ITEMS_MAX", 2000 * 2000)
    assert len(tree.elements()) == 2000 * 2000


def test_a_cut_at_an_odd_place_costs_nothing_but_laziness() -> None:
    store = Store()
    data = OWN.dumps_typed(["abc", "def", [1, 2]])[1]
    for at in range(1, len(data)):
        items = [Item(INLINE, at, 0, data[:at]), Item(INLINE, len(data) - at, 1, data[at:])]
        tree = Tree("ckpt", items, store.load)
        assert tree.inert() == ["abc", "def", [1, 2]]
        assert tree.at((1,)) == "def"


def test_a_piece_of_another_length_is_damage() -> None:
    store = Store()
    oid = store.emit(Kind.BLOB, b"\xa3abc")
    assert Tree("msgpack", [Item(BLOB, 4, 1, oid)], store.load).inert() == "abc"
    with pytest.raises(DamagedObjectError):
        Tree("msgpack", [Item(BLOB, 5, 1, oid)], store.load).inert()


def test_headers_nested_without_end_do_not_recurse() -> None:
    heads = [Item(INLINE, 6, 0, b"\xc9" + (6 * (5000 - i)).to_bytes(4) + b"\x22") for i in range(5000)]
    tree = Tree("ckpt", [*heads, Item(INLINE, 6, 0, b"\xc9\0\0\0\0\x22")], Store().load)
    assert tree.form is Form.EXTENSION
    with pytest.raises(PathNotFoundError):
        tree.at((0,))
    found = tree.inert()
    assert isinstance(found, InertObject)


def test_bytes_that_cannot_be_decoded_are_shown_as_such() -> None:
    tree = Tree("msgpack", [Item(INLINE, 2, 1, b"\x92\1")], Store().load)
    assert tree.inert() == InertObject("", UNDECODABLE, 2)
    with pytest.raises(DamagedObjectError):
        tree.elements()


@given(st.binary(max_size=60))
def test_any_bytes_make_a_tree_or_an_error(data: bytes) -> None:
    for type_ in ("msgpack", "ckpt", "bytes", "json", "x"):
        try:
            tree = Tree(type_, data, lambda ids: dict.fromkeys(ids, b"\2\1\1\2\1\2"))
            assert isinstance(tree.form, Form)
            tree.elements()
            tree.payload()
            tree.instance()
            tree.digest()
            tree.inert()
            tree.at((0, "x"))
        except (DamagedObjectError, PathNotFoundError):
            pass

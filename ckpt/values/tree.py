"""Lazy inert views: a stored value as a tree whose parts are loaded only when they are looked at.

A rope says how long each piece is and how many whole values it covers, so the form of a value, the number of
its children and the identity of each are known from the rope alone. Pieces opened are checked against what
the reference to them says: each rope must consist of smaller pieces, so that no forged rope leads in circles.
What an instance means is decided in `ckpt.values.inert`, how two values differ in `ckpt.repository.diff`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from functools import cached_property
from typing import Any, NamedTuple

import msgpack

from ckpt.errors import DamagedObjectError, PathNotFoundError
from ckpt.objects.ids import Kind, ObjectId, object_id
from ckpt.values.cut import MSGPACK_TYPES
from ckpt.values.inert import InertMessage, InertObject, inert
from ckpt.values.kinds import DATACLASS, MODEL, NAMEDTUPLE, TUPLE
from ckpt.values.rope import (
    BLOB,
    INLINE,
    ITEMS_MAX,
    LENGTH_MAX,
    ROPE,
    Item,
    Load,
    decode_items,
    encode_items,
    inline,
)

Path = tuple[str | int, ...]

_OBJECT_CODES = frozenset({*range(6), DATACLASS, NAMEDTUPLE, MODEL})


class Form(Enum):
    """What a value is, as far as its first byte tells."""

    ARRAY = "array"
    MAP = "map"
    EXTENSION = "extension"
    TEXT = "text"
    BINARY = "binary"
    OTHER = "other"


_WIDE = {0xC4: Form.BINARY, 0xC7: Form.EXTENSION, 0xD9: Form.TEXT}


def _head(data: bytes) -> tuple[Form, int, int, int]:
    """Return (form, size of the header, children or bytes that follow, code of an extension)."""
    first = data[0] if data else 0xC0
    if first & 0xF0 in (0x80, 0x90):
        return Form.MAP if first < 0x90 else Form.ARRAY, 1, first & 0x0F, 0
    if first & 0xE0 == 0xA0:
        return Form.TEXT, 1, first & 0x1F, 0
    if first in (0xDC, 0xDD, 0xDE, 0xDF):
        width = 2 << (first & 1)
        return Form.ARRAY if first < 0xDE else Form.MAP, 1 + width, int.from_bytes(data[1 : 1 + width]), 0
    if 0xD4 <= first <= 0xD8:
        return Form.EXTENSION, 2, 1 << (first - 0xD4), data[1] if len(data) > 1 else 0
    for start, form in _WIDE.items():
        if start <= first <= start + 2:
            width = 1 << (first - start)
            length = int.from_bytes(data[1 : 1 + width])
            if form is Form.EXTENSION:
                return form, 2 + width, length, data[1 + width] if len(data) > 1 + width else 0
            return form, 1 + width, length, 0
    return Form.OTHER, 0, 0, 0


class Pieces:
    """Opens pieces over a batched `Load`, checks them, and remembers the ropes that it has opened."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.ropes: dict[ObjectId, list[Item]] = {}

    def open(self, items: Iterable[Item]) -> dict[Item, list[Item]]:
        """Return the items of each rope, and a run of values as one inline item for each, in one batch.

        Raises DamagedObjectError when a piece is not as long as its reference says or holds another number
        of values.
        """
        wanted = list(dict.fromkeys(items))
        loaded = self._fetch(wanted)
        opened = {}
        for item in wanted:
            if item.kind == ROPE:
                parts = self._parts(item, loaded)
            else:
                parts = split(self._bytes(item, loaded), item.siblings)
            if item.siblings > 1:
                counts = [part.siblings for part in parts]
                if 0 in counts or sum(counts) != item.siblings:
                    raise DamagedObjectError("a group of values does not hold as many as the reference says")
            opened[item] = parts
        return opened

    def join(self, columns: Sequence[Sequence[Item]]) -> list[bytes]:
        """Return the bytes that each list of items stands for; one batch for each level of nesting."""
        whole = [list(column) for column in columns]
        if any(sum(item.length for item in column) > LENGTH_MAX for column in whole):
            raise DamagedObjectError("a value is longer than any that can be read")
        while ropes := {item for column in whole for item in column if item.kind == ROPE}:
            loaded = self._fetch(ropes)
            parts = {item: self._parts(item, loaded) for item in ropes}
            sizes = [sum(len(parts.get(item, (item,))) for item in column) for column in whole]
            if sum(sizes) > ITEMS_MAX:
                raise DamagedObjectError("a value has more pieces than any that can be read")
            whole = [[part for item in column for part in parts.get(item, (item,))] for column in whole]
        loaded = self._fetch({item for column in whole for item in column})
        return [b"".join([self._bytes(item, loaded) for item in column]) for column in whole]

    def _fetch(self, items: Iterable[Item]) -> Mapping[ObjectId, bytes]:
        ids = {
            ObjectId(item.payload)
            for item in items
            if item.kind == BLOB or (item.kind == ROPE and item.payload not in self.ropes)
        }
        return self._load(ids) if ids else {}

    def _parts(self, item: Item, loaded: Mapping[ObjectId, bytes]) -> list[Item]:
        oid = ObjectId(item.payload)
        parts = self.ropes.get(oid)
        if parts is None:
            parts = self.ropes[oid] = decode_items(loaded[oid])
        lengths = [part.length for part in parts]
        if len(lengths) < 2 or 0 in lengths or sum(lengths) != item.length:
            raise DamagedObjectError("a rope is not what the reference to it says")
        return parts

    @staticmethod
    def _bytes(item: Item, loaded: Mapping[ObjectId, bytes]) -> bytes:
        data = item.payload if item.kind == INLINE else loaded[ObjectId(item.payload)]
        if len(data) != item.length:
            raise DamagedObjectError("a piece is not as long as the reference to it says")
        return data


def split(data: bytes, count: int) -> list[Item]:
    """Return `count` msgpack values that fill `data` as inline items, or raise DamagedObjectError."""
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(data), 1))
    unpacker.feed(data)
    parts: list[Item] = []
    start = 0
    try:
        for _ in range(count):
            unpacker.skip()
            end = unpacker.tell()
            parts.append(inline(data[start:end], 1))
            start = end
    except (msgpack.UnpackException, ValueError, RecursionError) as error:
        raise DamagedObjectError("a run of values cannot be taken apart") from error
    if start != len(data):
        raise DamagedObjectError("a run of values is longer than they are")
    return parts


class Instance(NamedTuple):
    """An instance of a class whose fields are a map: `rest` is what else is stored of it."""

    module: object
    name: object
    fields: Tree
    rest: tuple[Item, ...]


class _Structure(NamedTuple):
    form: Form
    number: int
    """Elements or entries, or the bytes that follow the header."""
    code: int
    header: int
    raw: bytes | None
    """The bytes, when the value is one piece."""
    items: list[Item]
    """All of it; the first is the header, when one was recognised and the value has several pieces."""


class Tree:
    """A stored value, or one inside it. Equal trees hold equal values; comparing them loads nothing."""

    def __init__(self, type_: str, rope: bytes | Sequence[Item], load: Load | Pieces) -> None:
        self.type = type_
        self.items = tuple(decode_items(rope) if isinstance(rope, bytes) else rope)
        self.pieces = load if isinstance(load, Pieces) else Pieces(load)
        self.length = sum(item.length for item in self.items)
        """Bytes of the value."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tree) and (self.type, self.items) == (other.type, other.items)

    def __hash__(self) -> int:
        return hash((self.type, self.items))

    def __repr__(self) -> str:
        return f"<Tree {self.type}, {self.length} bytes>"

    @cached_property
    def _structure(self) -> _Structure:
        if self.type not in MSGPACK_TYPES:
            form = Form.BINARY if self.type in ("bytes", "bytearray") else Form.OTHER
            return _Structure(form, 0, 0, 0, None, list(self.items))
        items = list(self.items)
        while len(items) == 1 and items[0].kind == ROPE:
            whole = items[0]._replace(siblings=1)
            items = self.pieces.open([whole])[whole]
        if len(items) == 1:
            [raw] = self.pieces.join([items])
            form, header, count, code = _head(raw)
            return _Structure(form, count, code, header, raw, items)
        first, parts = items[0] if items else inline(b"", 0), items[1:]
        if first.kind == INLINE and first.siblings == 0:
            form, header, count, code = _head(first.payload)
            if form in (Form.ARRAY, Form.MAP):
                counts = [part.siblings for part in parts]
                fits = 0 not in counts and sum(counts) == count * (2 if form is Form.MAP else 1)
            else:
                fits = sum(part.length for part in parts) == count
            if header == first.length and fits:
                return _Structure(form, count, code, header, None, items)
        # A cut at an odd place is no damage: the value is still the bytes in their order.
        return _Structure(Form.OTHER, 0, 0, 0, None, items)

    @property
    def form(self) -> Form:
        """What the value is. Loads one object at most, and none where the rope holds the first byte."""
        return self._structure.form

    @property
    def count(self) -> int:
        """Elements of an array, entries of a map, bytes of the payload of all else that has one."""
        return self._structure.number

    @property
    def code(self) -> int:
        """Code of an extension."""
        return self._structure.code

    @property
    def is_cut(self) -> bool:
        """Whether the value has pieces that can be loaded apart from each other."""
        return self._structure.raw is None

    def children(self) -> list[Item]:
        """Return what an array or map consists of: elements, or keys and values in turn.

        Each item is inline bytes or a reference; it covers one value (`siblings` 1) or several in a row.
        """
        form, count, _, header, raw, items = self._structure
        if form not in (Form.ARRAY, Form.MAP):
            return []
        return items[1:] if raw is None else split(raw[header:], count * (2 if form is Form.MAP else 1))

    def elements(self) -> list[Item]:
        """Return the children one by one; loads all groups, but no child that is a piece of its own."""
        parts = self.children()
        while groups := [part for part in parts if part.siblings > 1]:
            opened = self.pieces.open(groups)
            if sum(len(opened.get(part, (part,))) for part in parts) > ITEMS_MAX:
                raise DamagedObjectError("a value has more pieces than any that can be read")
            parts = [each for part in parts for each in opened.get(part, (part,))]
        return parts

    def child(self, item: Item) -> Tree:
        """Return one of the children, an item that covers one value."""
        return Tree(self.type, (item,), self.pieces)

    def payload(self) -> Tree | None:
        """Return the document inside an extension, or None when the value is none."""
        form, _, _, header, raw, items = self._structure
        if form is not Form.EXTENSION:
            return None
        return Tree(self.type, items[1:] if raw is None else (inline(raw[header:], 1),), self.pieces)

    def instance(self) -> Instance | None:
        """Return module, name and fields of an instance whose fields are a map, else None."""
        payload = self.payload() if self.code in _OBJECT_CODES else None
        if payload is None or payload.form is not Form.ARRAY or not 3 <= payload.count <= 16:
            return None
        module, name, fields, *rest = payload.elements()
        tree = self.child(fields)
        if tree.form is not Form.MAP:
            return None
        names = inert_all([self.child(module), self.child(name)])
        return Instance(names[0], names[1], tree, tuple(rest))

    def inert(self) -> object:
        """Return the whole value as inert data; see `ckpt.values.inert.inert`."""
        return inert_all([self])[0]

    def digest(self) -> InertObject:
        """Return size and hash in place of text or binary data; loads nothing that `form` did not."""
        name = self.form.value if self.form in (Form.TEXT, Form.BINARY) else self.type
        return digest(name, self.length - self._structure.header, self._structure.items)

    # -- finding parts ---------------------------------------------------------------------------------

    def at(self, path: Path) -> object:
        """Return the part at a path of keys and indexes as inert data, or raise PathNotFoundError."""
        return self.locate(path)[1]

    def locate(self, path: Path) -> tuple[Path, object]:
        """Return a path with its negative indexes counted from the front, and the part that it leads to."""
        tree, done = self, list[str | int]()
        for depth, part in enumerate(path):
            found = tree._step(part)
            if found is None:
                return _follow(tree.inert(), path, depth, done)
            done.append(found[0])
            tree = found[1]
        return tuple(done), tree.inert()

    def _step(self, part: str | int) -> tuple[str | int, Tree] | None:
        """Return one child, or None when that takes the value as a whole."""
        if not self.is_cut:
            return None
        if self.form is Form.EXTENSION:
            instance = self.instance()
            inside = self.payload() if instance is None else instance.fields
            if inside is None or (instance is None and self.code != TUPLE):
                return None
            return inside._step(part) if inside.form in (Form.ARRAY, Form.MAP) else None
        if self.form is Form.ARRAY and isinstance(part, int) and -self.count <= part < self.count:
            index = part % self.count
            return index, self.child(self._element(index))
        if self.form is Form.MAP:
            elements = self.elements()
            keys = inert_all([self.child(key) for key in elements[::2]])
            for wanted in (part, str(part)):
                for key, value in zip(keys, elements[1::2], strict=True):
                    if type(key) is type(wanted) and key == wanted:
                        return wanted, self.child(value)
        return None

    def _element(self, index: int) -> Item:
        parts = self.children()
        while True:
            for part in parts:
                if index < part.siblings:
                    break
                index -= part.siblings
            if part.siblings == 1:
                return part
            parts = self.pieces.open([part])[part]


def inert_all(trees: Sequence[Tree]) -> list[object]:
    """Return whole values as inert data, loaded together."""
    loaded = trees[0].pieces.join([tree.items for tree in trees]) if trees else []
    return [inert(tree.type, data) for tree, data in zip(trees, loaded, strict=True)]


def digest(name: str, size: int, items: Sequence[Item]) -> InertObject:
    """Return what stands for bytes not shown: how many they are, and a hash equal for equal bytes."""
    if len(items) == 1:
        [item] = items
        oid = object_id(Kind.BLOB, item.payload) if item.kind == INLINE else item.payload
    else:
        oid = object_id(Kind.ROPE, encode_items(items))
    return InertObject("", name, {"size": size, "hash": oid.hex()})


def step(value: Any, part: str | int) -> tuple[bool, Any]:
    """Return whether inert data has such a child, and the child."""
    if isinstance(value, InertMessage):
        value = value.fields
    if isinstance(value, InertObject):
        value = value.fields
    if isinstance(value, dict):
        for key in (part, str(part)):
            if key in value:
                return True, value[key]
    elif isinstance(value, list | tuple) and isinstance(part, int) and -len(value) <= part < len(value):
        return True, value[part]
    return False, None


def _follow(value: Any, path: Path, depth: int, done: list[str | int]) -> tuple[Path, object]:
    for part in path[depth:]:
        inside = value.fields if isinstance(value, InertMessage | InertObject) else value
        if isinstance(inside, list | tuple) and isinstance(part, int) and -len(inside) <= part < 0:
            part += len(inside)
        found, value = step(inside, part)
        if not found:
            raise PathNotFoundError(f"there is nothing at {list(path)!r}; the path ends after {done!r}")
        done.append(part)
    return tuple(done), value

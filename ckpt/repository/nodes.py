"""Nodes of a comparison: values read when they are looked at, their fingerprints, and how changes show them.

A node is a stored value that may stay unread, or inert data already in memory; `ckpt.repository.diff`
compares both alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

import msgpack
from blake3 import blake3

from ckpt.objects.ids import object_id
from ckpt.values.cut import Cutter
from ckpt.values.inert import UNDECODABLE, InertMessage, InertObject
from ckpt.values.kinds import FROZENSET, SET, TAG, TUPLE
from ckpt.values.rope import Item, decode_items, inline
from ckpt.values.tree import Form, Tree, digest, inert_all

SHOWN_MAX = 64_000
"""Text of more bytes than this is shown by size and hash, as binary data always is."""

TEXT_MIN = 80
"""Text from this many characters on, or with a line end, is compared by word rather than as one value."""

Kind: TypeAlias = Literal["value", "message", "text", "binary", "opaque"]

_UNREAD = object()
_KNOWN_TYPES = frozenset({"null", "bytes", "bytearray", "json", "msgpack", TAG})
_DIGESTS = frozenset({Form.TEXT.value, Form.BINARY.value})
_CONSTRUCTED = 0
"""The extension in which LangGraph's serializer writes [module, name, argument]."""
_BY_CODE = {TUPLE: "tuple", SET: "set", FROZENSET: "frozenset"}
_BY_CLASS = {"builtins.set": "set", "builtins.frozenset": "frozenset", "collections.deque": "deque"}
SETS = frozenset({"set", "frozenset"})
"""Collections whose items have no order."""


class Node:
    """A value in a comparison."""

    __slots__ = ("_fingerprint", "_value", "tree")

    def __init__(self, tree: Tree | None = None, value: object = _UNREAD) -> None:
        self.tree = tree
        self._value = value
        self._fingerprint: bytes | None = None

    @property
    def value(self) -> Any:
        """The value as inert data; long text and binary data only if they came that way."""
        if self._value is _UNREAD:
            read([self])
        return self._value

    @property
    def fingerprint(self) -> bytes:
        """Equal for equal values, of equal types at every depth."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.value)
        return self._fingerprint

    @property
    def is_read(self) -> bool:
        """Whether the value is in memory."""
        return self._value is not _UNREAD

    @property
    def is_light(self) -> bool:
        """Whether reading it costs no more than it is worth to look inside."""
        return self._value is not _UNREAD or (self.tree is not None and self.tree.length <= SHOWN_MAX)

    def ident(self) -> str | int | None:
        """Return the id by which a message, or any record that has one, is known again."""
        if not self.is_light:
            assert self.tree is not None
            return _ident(_field(self.tree, "id"))
        value = self.value
        if isinstance(value, InertMessage | InertObject):
            value = value.fields
        return _ident(value.get("id")) if isinstance(value, dict) else None


def _ident(found: object) -> str | int | None:
    return found if type(found) in (str, int) else None  # type: ignore[return-value]


def _field(tree: Tree, name: str) -> object:
    instance = tree.instance()
    fields = instance.fields if instance is not None else tree
    if fields.form is not Form.MAP or fields.count > 64:
        return None
    parts = fields.elements()
    light = [(key, value) for key, value in zip(parts[::2], parts[1::2], strict=True) if value.length <= 4096]
    keys = inert_all([fields.child(key) for key, _ in light])
    wanted = [value for key, (_, value) in zip(keys, light, strict=True) if key == name]
    return fields.child(wanted[0]).inert() if wanted else None


def collection(tree: Tree) -> tuple[str, Tree] | None:
    """Return the name of a built-in collection stored as an extension, and the array of its items; else None."""
    payload = tree.payload()
    if payload is None or payload.form is not Form.ARRAY:
        return None
    if tree.code in _BY_CODE:
        return _BY_CODE[tree.code], payload
    if tree.code != _CONSTRUCTED or payload.count != 3:
        return None
    module, name, items = (payload.child(each) for each in payload.elements())
    names = inert_all([module, name])
    known = _BY_CLASS.get(".".join(each if isinstance(each, str) else "?" for each in names))
    return (known, items) if known is not None and items.form is Form.ARRAY else None


def members(value: object) -> Sequence[object] | None:
    """Return the members of a set that is inert data, as they were stored; None for all else."""
    if not isinstance(value, InertObject) or value.module != "builtins" or value.name not in SETS:
        return None
    return value.fields if isinstance(value.fields, list | tuple) else None


def is_message(tree: Tree) -> bool:
    """Whether a map is a chat message by its shape; looks only where there are few keys."""
    return tree.count <= 64 and all(type(_field(tree, name)) is str for name in ("type", "content"))


def read(nodes: Iterable[Node]) -> None:
    """Read what is not read yet, all together. Long text and binary data stay where they are."""
    wanted = []
    for node in nodes:
        if node._value is not _UNREAD or node.tree is None:
            continue
        tree = node.tree
        if tree.type not in _KNOWN_TYPES or (tree.length > SHOWN_MAX and tree.form in (Form.TEXT, Form.BINARY)):
            node._value = tree.digest()
        else:
            wanted.append((node, tree))
    for (node, tree), value in zip(wanted, inert_all([tree for _, tree in wanted]), strict=True):
        if isinstance(value, InertObject) and (value.module, value.name) == ("", UNDECODABLE):
            value = InertObject("", UNDECODABLE, tree.digest().fields)
        node._value = value


def shown(value: object) -> object:
    """Return what a change says of a value: itself, or size and hash of long text and of binary data."""
    if isinstance(value, bytes) or (isinstance(value, str) and len(value) * 4 > SHOWN_MAX):
        name = "binary" if isinstance(value, bytes) else "text"
        size = len(value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass"))
        if name == "binary" or size > SHOWN_MAX:
            packed: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
            rope, _ = Cutter(object_id).cut("msgpack", packed)
            return digest(name, size, decode_items(rope))
    return value


def kind_of(value: object) -> Kind:
    """Return the kind of one value."""
    if isinstance(value, InertMessage):
        return "message"
    if isinstance(value, InertObject):
        return "binary" if not value.module and value.name in _DIGESTS else "opaque"
    if isinstance(value, str) and (len(value) >= TEXT_MIN or "\n" in value):
        return "text"
    return "value"


def kind_of_change(old: object, new: object) -> Kind:
    """Return the kind of a change from one value to another."""
    kinds = {kind_of(old), kind_of(new)}
    if len(kinds) == 1:
        return kinds.pop()
    if isinstance(old, str) and isinstance(new, str):
        return "text"
    return "binary" if "binary" in kinds else "opaque" if "opaque" in kinds else "value"


def pieces_of(values: Sequence[object]) -> list[Item]:
    """Return an item for each value in memory, equal for equal values."""
    return [inline(fingerprint(value), 1) for value in values]


def fingerprint(value: object) -> bytes:
    """Return a hash of inert data; it tells 1, 1.0 and True apart, list from tuple, but no two NaN.

    The order of keys counts, that of a set's members does not.
    """
    hasher = blake3()
    todo: list[Any] = [value]
    while todo:
        each = todo.pop()
        text = b""
        if isinstance(each, InertMessage):
            each = each.fields if each.origin is None else InertObject(*each.origin, each.fields)
        name = type(each).__name__
        if isinstance(each, str):
            text = each.encode("utf-8", "surrogatepass")
        elif isinstance(each, bytes):
            text = each
        elif isinstance(each, int):
            text = hex(each).encode()
        elif isinstance(each, list | tuple):
            todo += reversed(each)
            text = str(len(each)).encode()
        elif isinstance(each, dict):
            todo += [part for entry in reversed(each.items()) for part in reversed(entry)]
            text = str(len(each)).encode()
        elif (inside := members(each)) is not None:
            text = b"".join([each.name.encode(), *sorted(map(fingerprint, inside))])
        elif isinstance(each, InertObject):
            todo += [each.fields, each.name, each.module]
        else:
            text = repr(each).encode("utf-8", "surrogatepass")
        hasher.update(b"%b %d:%b" % (name.encode(), len(text), text))
    return hasher.digest()

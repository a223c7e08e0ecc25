"""Values given without a framework: which are plain data, and how they are serialized."""

from __future__ import annotations

from ckpt.repository.incoming import Typed
from ckpt.values.serializer import Serializer

_PLAIN = (type(None), bool, int, float, str, bytes)


def is_plain(value: object) -> bool:
    """Return whether a value consists of None, bool, 64-bit int, float, str, bytes, list and dict alone."""
    if type(value) is list:
        return all(map(is_plain, value))
    if type(value) is dict:
        return all(type(key) in _PLAIN and is_plain(each) for key, each in value.items())
    return type(value) in _PLAIN and not (type(value) is int and not -(1 << 63) <= value < 1 << 64)


def same(typed: Typed) -> Typed:
    """Return what was serialized already."""
    return typed


def dumped(serializer: Serializer, name: str, value: object) -> Typed:
    """Serialize one value; an error names its path from the channel on."""
    return Typed(*serializer.dumps_typed(value, path=name))

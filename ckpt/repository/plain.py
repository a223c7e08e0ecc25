"""Values given without a framework: which are plain data, and how they are serialized."""

from __future__ import annotations

from ckpt.repository.incoming import Typed
from ckpt.values.serializer import Serializer

_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
_DEPTH_MAX = 500  # msgpack ends at 1,024, and whoever reads by recursion may before
_WIDTH_MAX = 10_000


def is_plain(value: object) -> bool:
    """Return whether a value consists of None, bool, 64-bit int, float, str, bytes, list and dict alone.

    What is nested more than 500 levels deep is not plain.
    """
    level = [value]
    for _ in range(_DEPTH_MAX + 1):
        below: list[object] = []
        for each in level:
            if type(each) is list:
                below += each
            elif type(each) is dict:
                if not _PLAIN.issuperset(map(type, each)):
                    return False
                below += each.values()
            elif type(each) not in _PLAIN or (type(each) is int and not -(1 << 63) <= each < 1 << 64):
                return False
        if not below:
            return True
        # The same object many times over must not multiply from level to level.
        level = list({id(each): each for each in below}.values()) if len(below) > _WIDTH_MAX else below
    return False


def same(typed: Typed) -> Typed:
    """Return what was serialized already."""
    return typed


def dumped(serializer: Serializer, name: str, value: object) -> Typed:
    """Serialize one value; an error names its path from the channel on."""
    return Typed(*serializer.dumps_typed(value, path=name))

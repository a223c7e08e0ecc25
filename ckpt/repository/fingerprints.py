"""Fingerprints of values in memory, each part of which is looked at once however deep it lies."""

from __future__ import annotations

from collections.abc import Sequence

from ckpt.repository.nodes import fingerprint, pieces_of
from ckpt.values.inert import InertMessage, InertObject
from ckpt.values.rope import Item


class Fingerprints:
    """Knows the fingerprints of what it has seen by its `id()`: nothing of that may go before this does."""

    def __init__(self) -> None:
        self._known: dict[int, InertObject] = {}

    def pieces(self, values: Sequence[object]) -> list[Item]:
        """Return an item for each value, equal for equal values in the sense of `fingerprint`."""
        return pieces_of([self._brief(value) for value in values])

    def _brief(self, value: object) -> object:
        """Return what is equal for equal values, and small."""
        todo = [value] if _has_parts(value) else []
        while todo:
            each = todo[-1]
            unknown = [part for part in _parts(each) if _has_parts(part) and id(part) not in self._known]
            if unknown and id(each) not in self._known:
                todo += unknown
                continue
            todo.pop()
            if id(each) not in self._known:
                # Whatever has parts is stood for by such an object, so that none that is stored is taken for one.
                self._known[id(each)] = InertObject("", "", fingerprint(self._shallow(each)))
        return self._known[id(value)] if _has_parts(value) else value

    def _shallow(self, value: object) -> object:
        """Return a value with what stands for each of its parts in its place."""
        if isinstance(value, InertMessage):
            if value.origin is None:
                return self._shallow(value.fields)
            return InertObject(*value.origin, self._shallow(value.fields))
        if isinstance(value, InertObject):
            return InertObject(value.module, value.name, self._shallow(value.fields))
        if isinstance(value, dict):
            return {key: self._known.get(id(part), part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._known.get(id(part), part) for part in value)
        return value


def _has_parts(value: object) -> bool:
    return isinstance(value, list | tuple | dict | InertObject | InertMessage)


def _parts(value: object) -> list[object]:
    while isinstance(value, InertObject | InertMessage):
        value = value.fields
    if isinstance(value, dict):
        return [*value.values()]
    return [*value] if isinstance(value, list | tuple) else []

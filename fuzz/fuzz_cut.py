"""Cutting: pieces add up to their bytes, and continuing an earlier cut gives what a fresh one gives."""

from __future__ import annotations

from collections.abc import Collection
from random import Random

import msgpack
from fuzzkit import Recipe, instrumented, run

with instrumented():
    from ckpt.objects.ids import ObjectId, object_id
    from ckpt.values.cut import Cut, Cutter
    from ckpt.values.rope import assemble

SEEDS = [
    bytes((0, 0, 60, 1, 1, 1, 7)) + bytes(range(40)),
    bytes((0, 1, 200, 0, 2, 3, 9, 4)) * 6,
    bytes((1, 3, 80, 5, 5, 5, 1, 200, 3)) * 4,
    bytes((2, 2, 120)) + bytes(range(0, 250, 3)),
    b"\xff" + msgpack.packb([b"x" * 200] * 30),
    b"\xfe" + msgpack.packb({str(i): "y" * i for i in range(100)})[:3000],
]


class _Objects:
    """Objects emitted so far; loading one that was not is a failure."""

    def __init__(self) -> None:
        self.stored: dict[ObjectId, bytes] = {}

    def emit(self, kind: int, data: bytes) -> ObjectId:
        oid = object_id(kind, data)
        self.stored[oid] = data
        return oid

    def load(self, ids: Collection[ObjectId]) -> dict[ObjectId, bytes]:
        return {oid: self.stored[oid] for oid in ids}


def one(data: bytes) -> None:
    if data[:1] >= b"\xfe":
        type_ = "msgpack" if data[0] == 0xFF else "json"
        body = data[1:] * 3
        _check(type_, [body, body[: len(body) // 2] + data[1:9] + body[len(body) // 2 :], data[1:]])
        return
    recipe = Recipe(data)
    document = [_value(recipe, 0) for _ in range(1 + recipe.number(40))]
    versions = [document]
    for _ in range(3):
        document = _edited(document, recipe)
        versions.append(document)
    wrap = recipe.number(4)
    _check("msgpack", [_packed(version, wrap) for version in versions])


def _packed(document: list[object], wrap: int) -> bytes:
    value: object = document
    if wrap == 1:
        value = {f"key {i}": each for i, each in enumerate(document)}
    elif wrap == 2:
        value = msgpack.ExtType(5, msgpack.packb(["module", "Class", document]))
    elif wrap == 3:
        value = [{"messages": document}, document]
    packed: bytes = msgpack.packb(value)
    return packed


def _value(recipe: Recipe, depth: int) -> object:
    size = 3 * recipe.number(256)
    match recipe.number(8):
        case 0:
            return size
        case 1:
            return Random(size).randbytes(size).hex()
        case 2:
            return "a line of text\n" * size
        case 3:
            return Random(size).randbytes(4 * size)
        case 4 if depth < 3:
            return [_value(recipe, depth + 1) for _ in range(recipe.number(12))]
        case 5 if depth < 3:
            return {str(i): _value(recipe, depth + 1) for i in range(recipe.number(12))}
        case 6 if depth < 3:
            return msgpack.ExtType(7, msgpack.packb(_value(recipe, depth + 1)))
        case _:
            return [0] * (size % 64)


def _edited(document: list[object], recipe: Recipe) -> list[object]:
    at = recipe.number(256) % (len(document) + 1)
    match recipe.number(4):
        case 0:
            return [*document, _value(recipe, 0)]
        case 1:
            return [*document[:at], _value(recipe, 0), *document[at:]]
        case 2:
            return document[:at] + document[at + 1 :]
        case _:
            return [*document[:at], _value(recipe, 0), *document[at + 1 :]]


def _check(type_: str, versions: list[bytes]) -> None:
    objects = _Objects()
    previous: Cut | None = None
    for version in versions:
        alone = _Objects()
        rope, _ = Cutter(alone.emit).cut(type_, version)
        assert assemble([rope], alone.load) == [version]
        continued, previous = Cutter(objects.emit).cut(type_, version, previous)
        assert continued == rope
        assert assemble([continued], objects.load) == [version]


def main() -> None:
    run(one, SEEDS)


if __name__ == "__main__":
    main()

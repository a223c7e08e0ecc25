"""Ropes: hostile encodings are refused, and values come together right or not at all."""

from __future__ import annotations

from collections.abc import Collection

from fuzzkit import Recipe, instrumented, run

with instrumented():
    from ckpt.errors import DamagedObjectError
    from ckpt.objects.ids import Kind, ObjectId, object_id
    from ckpt.values.rope import (
        BLOB,
        INLINE,
        ROPE,
        Item,
        assemble,
        decode_items,
        encode_items,
        inline,
        references,
        rope_length,
    )

_EXPANDED_MAX = 1 << 16

SEEDS = [
    b"\x00" + encode_items([inline(b"abc", 1)]),
    b"\x00" + encode_items([inline(b"\x92", 0), Item(BLOB, 300, 1, bytes(32)), Item(ROPE, 9000, 7, bytes(32))]),
    bytes((1, 2, 5, 0, 3, 1, 1, 0, 9, 2, 2, 2, 0, 1, 0, 0, 0, 2, 1, 1)),
    bytes((1, 1, 200, 0, 1, 1, 0, 0, 1, 2, 1, 7, 1, 0, 0, 0, 3, 1, 2, 1, 1, 1, 0)),
]


def one(data: bytes) -> None:
    if data[:1] == b"\x01":
        _put_together(Recipe(data[1:]))
    else:
        _decode(data[1:])


def _decode(rope: bytes) -> None:
    try:
        items = decode_items(rope)
    except DamagedObjectError:
        return
    assert decode_items(encode_items(items)) == items
    assert len(encode_items(items)) <= len(rope)
    assert rope_length(rope) == sum(item.length for item in items)
    assert len(references(rope)) == sum(item.kind != INLINE for item in items)


def _put_together(recipe: Recipe) -> None:
    """Build objects that name earlier ones, some with wrong lengths, and put the last one together."""
    store: dict[ObjectId, bytes] = {}
    values: list[tuple[int, ObjectId, bytes, bool, int]] = []
    honest, value, expanded, items = True, b"", 0, [inline(b"", 1)]
    while recipe.more and expanded < _EXPANDED_MAX:
        if recipe.number(3) == 1:
            value = recipe.take(recipe.number(64))
            oid = object_id(Kind.BLOB, value)
            store[oid] = value
            values.append((BLOB, oid, value, True, 1))
            continue
        items, parts, honest, expanded = [], [], True, 0
        for _ in range(recipe.number(8)):
            if values and recipe.number(2):
                kind, oid, part, whole, size = values[recipe.number(len(values))]
                wrong = recipe.number(16) == 15
                items.append(Item(kind, len(part) + wrong, recipe.number(4), oid))
                honest, expanded = honest and whole and not wrong and part != b"", expanded + size
            else:
                part = recipe.take(recipe.number(8))
                items.append(inline(part, recipe.number(4)))
                expanded += 1
            parts.append(part)
        value = b"".join(parts)
        rope = encode_items(items)
        oid = object_id(Kind.ROPE, rope)
        store[oid] = rope
        values.append((ROPE, oid, value, honest, expanded))

    def load(ids: Collection[ObjectId]) -> dict[ObjectId, bytes]:
        return {oid: store[oid] for oid in ids}

    value = value if items else b""
    for kind, oid, part, whole, size in values[-3:]:
        if size > _EXPANDED_MAX:
            continue
        try:
            (found,) = assemble([encode_items([Item(kind, len(part), 1, oid)])], load)
        except DamagedObjectError:
            assert not whole or not part  # nothing names an object for no bytes at all
        else:
            assert found == part or not whole


def main() -> None:
    run(one, SEEDS)


if __name__ == "__main__":
    main()

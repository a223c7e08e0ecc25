"""Frames and packs: hostile bytes are refused, and what is laid down is read back."""

from __future__ import annotations

from fuzzkit import Recipe, instrumented, run

with instrumented():
    from ckpt.errors import DamagedObjectError
    from ckpt.objects.frames import StoredObject, cut, encode_frame
    from ckpt.objects.ids import Kind
    from ckpt.objects.packs import PackReader, PackStream, pack_frame

_PACK = PackStream()
_FRAME = encode_frame([StoredObject(Kind.BLOB, b"a" * 200), StoredObject(Kind.ROPE, b"\x0c\x01abc")])
_BLOCKS = [_PACK.append(_FRAME), _PACK.append(_FRAME * 2)]

SEEDS = [
    b"\x00" + _FRAME,
    b"\x01" + bytes((len(_BLOCKS[0]),)) + b"".join(_BLOCKS),
    b"\x01\x00" + pack_frame([StoredObject(Kind.COMMIT, bytes(range(100)))]),
    b"\x02\x05\x01hello\x07\x02world and more",
]
_KINDS = list(Kind)


def one(data: bytes) -> None:
    if data[:1] == b"\x00":
        _decode(data[1:])
    elif data[:1] == b"\x01":
        first = data[1] if len(data) > 1 else 0
        # Two bytes of zstd can stand for 128 KB, so the input is kept small enough to unfold.
        _decompress([data[2 : 2 + first], data[2 + first : 600]])
    else:
        _lay_down(Recipe(data[1:]))


def _decode(raw: bytes) -> None:
    try:
        objects = cut(raw, 1)[0].objects()
    except DamagedObjectError:
        return
    assert cut(encode_frame(objects), 1)[0].objects() == objects
    assert all(kind in _KINDS for kind, _ in objects)


def _decompress(blocks: list[bytes]) -> None:
    try:
        frames = PackReader().read(blocks)
    except DamagedObjectError:
        return
    assert len(frames) == len(blocks)


def _lay_down(recipe: Recipe) -> None:
    pack, blocks, frames = PackStream(), [], []
    while recipe.more and len(frames) < 20:
        objects = [
            StoredObject(_KINDS[recipe.number(3)], recipe.take(recipe.number(80)) * (1 + recipe.number(4)))
            for _ in range(recipe.number(4))
        ]
        frames.append(objects)
        blocks.append(pack.append(encode_frame(objects)))
    assert [frame.objects() for frame in PackReader().read(blocks)] == frames


def main() -> None:
    run(one, SEEDS)


if __name__ == "__main__":
    main()

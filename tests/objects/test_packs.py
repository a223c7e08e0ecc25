"""Packs: what a forged one may cost, and that nothing sound is taken for forged."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import ckpt
from ckpt.errors import DamagedObjectError, InvalidInputError
from ckpt.objects.frames import StoredObject, encode_frame
from ckpt.objects.ids import Kind
from ckpt.objects.packs import RAW_FRAME_MAX, PackReader, PackStream, pack_frame

ROOT = Path(__file__).resolve().parents[2]
ZEROS = (128 << 10 << 3 | 1 << 1).to_bytes(3, "little") + b"\x00"
"""A zstd block of four bytes that stands for 128 KiB."""


def test_a_small_pack_cannot_fill_the_memory() -> None:
    script = """
        import resource
        from ckpt.errors import DamagedObjectError
        from ckpt.objects.packs import PackReader
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        forged = bytes.fromhex("28b52ffd0048") + bytes.fromhex("02001000") * 250_000
        for blocks in ([forged], [forged[:500_000], forged[500_000:]]):
            try:
                PackReader().read(blocks)
            except DamagedObjectError as error:
                print(error)
    """
    assert ZEROS.hex() == "02001000"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"a pack is damaged: it unfolds to more than {count * RAW_FRAME_MAX:,} bytes" for count in (1, 2)
    ]


def test_the_largest_frame_is_read_and_a_larger_one_is_not_written() -> None:
    largest = encode_frame([StoredObject(Kind.BLOB, bytes(RAW_FRAME_MAX - 6))])
    assert len(largest) == RAW_FRAME_MAX
    stream = PackStream()
    blocks = [stream.append(encode_frame([StoredObject(Kind.BLOB, b"before")])), stream.append(largest)]
    reader = PackReader()
    assert reader.read(blocks[:1])[0][0].data == b"before"
    assert reader.read(blocks[1:])[0][0].data == bytes(RAW_FRAME_MAX - 6)
    with pytest.raises(InvalidInputError, match="67,108,865 bytes") as caught:
        stream.append(largest + b"x")
    assert caught.value.hints
    end = pack_frame([StoredObject(Kind.BLOB, bytes(RAW_FRAME_MAX - 5))])
    with pytest.raises(DamagedObjectError, match="unfolds"):
        PackReader().read([end])


@pytest.mark.parametrize("cut", [1, 5, 8, 9])
def test_a_pack_read_in_slices_is_the_pack_read_at_once(cut: int) -> None:
    stream = PackStream()
    objects = [[StoredObject(Kind.BLOB, random.Random(i).randbytes(7000)) for i in range(3 * n)] for n in range(9)]
    blocks = [stream.append(encode_frame(each)) for each in objects]
    for reader, parts in ((PackReader(), [blocks]), (PackReader(), [blocks[:cut], blocks[cut:]])):
        frames = [frame for part in parts for frame in reader.read(part)]
        assert [frame.objects() for frame in frames] == objects


def test_a_reader_begins_another_pack_wherever_it_stopped() -> None:
    packs = []
    for name in ("one", "two"):
        stream = PackStream()
        objects = [[StoredObject(Kind.BLOB, f"{name} {number} ".encode() * 50)] for number in range(4)]
        packs.append((objects, [stream.append(encode_frame(each)) for each in objects]))
    reader = PackReader()
    for objects, blocks in (*packs, *packs):
        assert [frame.objects() for frame in reader.read(blocks[:3])] == objects[:3]
        reader.begin()
    with pytest.raises(DamagedObjectError):
        reader.read(packs[0][1][1:])
    reader.begin()
    assert [frame.objects() for frame in reader.read(packs[1][1])] == packs[1][0]


def test_what_compresses_extremely_well_comes_back(tmp_path: Path) -> None:
    value = {"zeros": bytes(50 << 20), "text": "all work and no play " * (1 << 20)}
    with ckpt.open(tmp_path / "store.db") as repository:
        repository.thread("t").commit(value)
    assert (tmp_path / "store.db").stat().st_size < 1 << 20
    with ckpt.open(tmp_path / "store.db") as repository:
        assert repository.thread("t").state() == value
        assert repository.fsck().problems == []

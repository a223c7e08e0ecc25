"""Packs: what a forged one may cost, and that nothing sound is taken for forged."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import pytest

import ckpt
from ckpt.errors import DamagedObjectError, InvalidInputError
from ckpt.objects.frames import StoredObject, cut, encode_frame
from ckpt.objects.ids import Kind, index_key, object_id
from ckpt.objects.packs import RAW_FRAME_MAX, PackReader, PackStream, pack_frame, unpack
from ckpt.objects.store import ObjectStore
from ckpt.storage.base import Batch
from ckpt.storage.base import Frame as StoreFrame
from ckpt.storage.memory import MemoryStorage

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
    assert done.stdout.splitlines() == 2 * [f"a pack is damaged: it unfolds to more than {RAW_FRAME_MAX:,} bytes"]


def test_frames_of_few_objects_and_many_are_found_one_after_another() -> None:
    parts = [
        [StoredObject(Kind.BLOB if each % 3 else Kind.COMMIT, b"%d of %d" % (each, count)) for each in range(count)]
        for count in (2, 0, 1, 15, 16, 17, 127, 128, 300, 0)
    ]
    raw = b"".join(map(encode_frame, parts))
    frames = cut(raw, len(parts))
    assert [frame.objects() for frame in frames] == parts
    assert [list(frame.hashed()) for frame in frames] == [
        [(object_id(*each), each.data) for each in part] for part in parts
    ]
    assert sum(frame.size for frame in frames) == len(raw)
    for wrong, count in (
        (raw, 9),
        (raw, 11),
        (raw[:-1], 10),
        (raw + b"\0", 10),
        (raw.replace(b"cbbcbb", b"cbbcbx"), 10),
    ):
        with pytest.raises(DamagedObjectError):
            cut(wrong, count)


def test_the_largest_frame_is_read_and_a_larger_one_is_not_written() -> None:
    largest = encode_frame([StoredObject(Kind.BLOB, bytes(RAW_FRAME_MAX - 6))])
    assert len(largest) == RAW_FRAME_MAX
    stream = PackStream()
    blocks = [stream.append(encode_frame([StoredObject(Kind.BLOB, b"before")])), stream.append(largest)]
    reader = PackReader()
    assert reader.read(blocks[:1])[0].objects()[0].data == b"before"
    assert reader.read(blocks[1:])[0].objects()[0].data == bytes(RAW_FRAME_MAX - 6)
    with pytest.raises(InvalidInputError, match="67,108,865 bytes") as caught:
        stream.append(largest + b"x")
    assert caught.value.hints
    end = pack_frame([StoredObject(Kind.BLOB, bytes(RAW_FRAME_MAX - 5))])
    with pytest.raises(DamagedObjectError, match="unfolds"):
        PackReader().read([end])


@pytest.mark.parametrize("first", [1, 5, 8, 9])
def test_a_pack_read_in_slices_is_the_pack_read_at_once(first: int) -> None:
    stream = PackStream()
    objects = [[StoredObject(Kind.BLOB, random.Random(i).randbytes(7000)) for i in range(3 * n)] for n in range(9)]
    blocks = [stream.append(encode_frame(each)) for each in objects]
    for reader, parts in ((PackReader(), [blocks]), (PackReader(), [blocks[:first], blocks[first:]])):
        frames = [frame for part in parts for frame in reader.read(part)]
        assert [frame.objects() for frame in frames] == objects


def test_small_and_large_frames_of_one_pack_come_back_whichever_are_asked_for() -> None:
    data = [bytes([n]) * (3 << 20 if n in (7, 8, 20) else 40) for n in range(30)]
    storage, numbers = _stored(data)
    ids = [object_id(Kind.BLOB, each) for each in data]
    for wanted in (ids, ids[:1], ids[7:9], ids[29:], [ids[29], ids[20]]):
        found = ObjectStore(storage).fetch(wanted)
        assert found == {oid: StoredObject(Kind.BLOB, data[ids.index(oid)]) for oid in wanted}
    stored = storage.load(numbers[-1:])
    assert [frame.objects()[0].data for frame in unpack(stored, numbers[-1]).values()] == data


@pytest.mark.parametrize("chained", [True, False])
@pytest.mark.parametrize("ahead", [True, False])
def test_what_is_not_asked_for_does_not_stay_in_memory(chained: bool, ahead: bool) -> None:
    small = [f"small {n}".encode() for n in range(60)]
    storage, _ = _stored(small, beside=bytes(8 << 20), chained=chained)
    ids = [object_id(Kind.BLOB, each) for each in small]
    objects = ObjectStore(storage)
    read = objects._fetch_ahead if ahead else objects.fetch
    tracemalloc.start()
    try:
        for wanted in (ids, ids[-1:]):
            assert read(wanted) == {oid: StoredObject(Kind.BLOB, small[ids.index(oid)]) for oid in wanted}
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


def _stored(data: list[bytes], beside: bytes | None = None, *, chained: bool = True) -> tuple[MemoryStorage, list[int]]:
    """Return a store with each object in a frame of its own, in one pack or in many, and the numbers of the frames."""
    storage, stream, numbers = MemoryStorage(), PackStream(), [0]
    for each in data:
        stream = stream if chained else PackStream()
        objects = [StoredObject(Kind.BLOB, part) for part in (each, beside) if part is not None]
        keys = tuple(index_key(object_id(*obj)) for obj in objects)
        frame = StoreFrame(numbers[-1] if chained else 0, stream.append(encode_frame(objects)), keys)
        numbers += storage.publish(Batch(frames=[frame]))
    return storage, numbers[1:]


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

"""Every byte of a small store flipped: the answer is right or an error, never another value, never an absence.

By default the bytes that hold the file together and a sample of the others; all of them, with two masks, when
CKPT_ALL_FLIPS is set (several minutes).
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from flip_kit import Lie, build, explain, lies, structural

ALL = bool(os.environ.get("CKPT_ALL_FLIPS"))
PROCESSES = 2


@pytest.mark.timeout(1800 if ALL else 300)
@pytest.mark.parametrize(("mask", "stride"), [(0xFF, 1 if ALL else 17), (0x01, 1 if ALL else 53)], ids=["all", "low"])
def test_no_flipped_byte_goes_unnoticed(tmp_path: Path, mask: int, stride: int) -> None:
    path = tmp_path / "store.db"
    build(path)
    size = path.stat().st_size
    assert 30_000 < size < 80_000
    offsets = sorted({*range(mask % stride, size, stride), *structural(path)})
    copies = [path.with_name(f"{number}.db") for number in range(PROCESSES)]
    for copy in copies:
        shutil.copy(path, copy)
    # Processes of their own: reading costs the interpreter's time, not the disk's.
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        parts = [pool.submit(lies, copy, offsets[i::PROCESSES], mask) for i, copy in enumerate(copies)]
        found: list[Lie] = sorted(lie for part in parts for lie in part.result())
    assert not found, f"{len({lie.offset for lie in found})} bytes:\n{explain(path, found)}"

"""What the collector does with objects that are damaged: nothing, as their bytes may be the only copy there is."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

import ckpt

_WORDS = random.Random(7)
_TEXTS = ["".join(_WORDS.choices("abcdefghij klmnop", k=5000)) for _ in range(4)]


@pytest.mark.parametrize("live", [True, False], ids=["live", "dead"])
def test_bytes_that_are_damaged_survive_a_collection_and_can_be_mended(tmp_path: Path, live: bool) -> None:
    path = tmp_path / "store.db"
    with ckpt.open(path) as repository:
        for count in range(1, 5):
            repository.commit("t", {f"text {number}": _TEXTS[number] for number in range(count)})
        repository.commit("other", {"n": 1})
    with closing(sqlite3.connect(path)) as plain:
        frames = plain.execute("SELECT number, data FROM frame WHERE length(data) > 1500").fetchall()
        number, data = frames[-1]
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 1
        plain.execute("UPDATE frame SET data = ? WHERE number = ?", (bytes(flipped), number))
        plain.commit()
    with ckpt.open(path) as repository:
        damage = [problem.message for problem in repository.fsck().problems]
        assert len(damage) == 1 and "do not match" in damage[0]
        if not live:
            repository.delete("t")
        repository.gc(grace=timedelta(0))
        assert [problem.message for problem in repository.fsck().problems] == damage
    with closing(sqlite3.connect(path)) as plain:
        assert plain.execute("UPDATE frame SET data = ? WHERE number = ?", (data, number)).rowcount == 1
        plain.commit()
    with ckpt.open(path) as repository:
        assert repository.fsck().problems == []
        if live:
            assert repository.state("t") == {f"text {number}": text for number, text in enumerate(_TEXTS)}
        else:
            repository.commit("new", {"text": _TEXTS[3]})
    with ckpt.open(path) as repository:
        assert live or repository.state("new") == {"text": _TEXTS[3]}
        # Nothing is left alone any more.
        repository.gc(grace=timedelta(0))
        assert repository.fsck().problems == []
        repository.state("t" if live else "new")

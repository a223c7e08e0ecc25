"""`fsck` of an encrypted store names what was changed, and goes on with the rest."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import ckpt
from ckpt.history import keys

KEY = bytes(range(32))


def test_every_record_and_frame_that_cannot_be_opened_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with ckpt.open(path, encryption_key=KEY) as repository:
        for name in ("ana", "bob"):
            repository.thread(name).commit({"text": f"{name} " * 200})
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        whole = database.execute("SELECT value FROM record WHERE key = ?", (keys.thread_key(1),)).fetchone()[0]
        database.execute("UPDATE record SET value = ? WHERE key = ?", (whole[:-1], keys.thread_key(1)))
        with ckpt.open(path, encryption_key=KEY) as repository:
            found = [(problem.kind, problem.message) for problem in repository.fsck().problems]
        assert found[0][0] == "database"
        assert "thread number 1 cannot be opened" in found[0][1]
        assert any(kind == "records" for kind, _ in found)
        database.execute("UPDATE record SET value = ? WHERE key = ?", (whole, keys.thread_key(1)))
        database.execute("UPDATE frame SET data = substr(data, 1, length(data) - 1) WHERE previous = 0")
    with ckpt.open(path, encryption_key=KEY) as repository:
        problems = repository.fsck().problems
    assert {problem.kind for problem in problems} == {"object"}
    assert any("ana" in needed for problem in problems for needed in problem.needed_by)

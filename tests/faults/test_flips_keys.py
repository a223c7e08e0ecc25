"""Single bytes of keys and of the schema, changed so that the order of the rows stays right: SQLite finds nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from flip_kit import all_questions, build

import ckpt
from ckpt.errors import IntegrityError
from ckpt.history import keys
from ckpt.repository import Repository

SUB = "sub:1"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store.db"
    build(path)
    return path


def changed(store: Path, copy: Path, old: bytes, new: bytes) -> Path:
    """Copy a store in which the key of one record is another."""
    data = store.read_bytes()
    rows = [offset for offset in range(len(data)) if data.startswith(old, offset)]
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as plain:
        values = dict(plain.execute("SELECT key, value FROM record"))
    assert new not in values
    (offset,) = (each for each in rows if data.startswith(values[old], each + len(old)))
    copy.write_bytes(data[:offset] + new + data[offset + len(old) :])
    with closing(sqlite3.connect(copy)) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return copy


def last_byte(key: bytes, by: int) -> bytes:
    return key[:-1] + bytes([key[-1] + by])


S1, S5 = (keys.checkpoint_key(1, SUB, name) for name in ("s1", "s5"))
TAG, LAST_DONE = keys.tag_key("v1"), keys.operation_key(3)
LATE = keys.checkpoint_key(3, "", "c5")
CASES: dict[str, tuple[bytes, bytes, Callable[[Repository], object]]] = {
    "a checkpoint's id is no text": (S5, S5[:-2] + b"\xff5", lambda repo: repo.read("older", SUB)),
    "a checkpoint left the namespace of a base": (S1, S1[:6] + b"\x00" + S1[7:], lambda repo: repo.read("older", SUB)),
    "a checkpoint has another id": (S1, last_byte(S1, 1), lambda repo: repo.read("older", SUB)),
    "a tagged checkpoint has another id": (
        keys.checkpoint_key(2, "", "b1x"),
        keys.checkpoint_key(2, "", "b1y"),
        lambda repo: repo.tags(),
    ),
    "a thread has another number": (keys.thread_key(1), b"t\x01\x00", lambda repo: repo.thread_names()),
    "a tag's key is that of nothing yet": (TAG, b"h" + TAG[1:], lambda repo: repo.tags()),
    "a tag has become the name of a thread": (TAG, b"n" + TAG[1:], lambda repo: repo.tags()),
    "a tag is gone": (TAG, b"h" + TAG[1:], lambda repo: repo.resolve("tag:v1")),
    "the last operation is gone": (LAST_DONE, b"p" + LAST_DONE[1:], lambda repo: repo.operations()),
    "what a fork wrote to its base's checkpoint": (LATE, last_byte(LATE, -1), lambda repo: repo.read("fork", "", "c5")),
}


@pytest.mark.parametrize("case", CASES)
def test_a_record_under_another_key_is_missed(store: Path, tmp_path: Path, case: str) -> None:
    old, new, ask = CASES[case]
    copy = changed(store, tmp_path / "store.db", old, new)
    with ckpt.open(store) as repository:
        assert ask(repository)
    with ckpt.open(copy, create=False) as repository, pytest.raises(IntegrityError):
        ask(repository)


def test_fsck_tells_of_a_checkpoint_whose_id_is_no_text(store: Path, tmp_path: Path) -> None:
    copy = changed(store, tmp_path / "store.db", S5, S5[:-2] + b"\xff5")
    with ckpt.open(copy, create=False) as repository:
        found = repository.fsck().problems
    assert any((S5[:-2] + b"\xff5").hex() in problem.needed_by[0] for problem in found if problem.needed_by)


def test_two_tables_in_one_place_are_noticed(store: Path, tmp_path: Path) -> None:
    data = store.read_bytes()
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as plain:
        roots = dict(plain.execute("SELECT name, rootpage FROM sqlite_master"))
    where = data.index(b"recordrecord") + len("recordrecord")
    assert data[where] == roots["record"]
    copy = tmp_path / "store.db"
    copy.write_bytes(data[:where] + bytes([roots["object"]]) + data[where + 1 :])
    with ckpt.open(store) as repository:
        truth = {label: ask(repository) for label, ask in all_questions(store)}
    with ckpt.open(copy, create=False) as repository:
        for label, ask in all_questions(store):
            try:
                assert ask(repository) == truth[label]
            except IntegrityError:
                continue

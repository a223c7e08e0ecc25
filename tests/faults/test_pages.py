"""A page of a SQLite file that holds another page of it, as after a write that went to the wrong place."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

import ckpt
from ckpt.errors import CkptError, IntegrityError
from ckpt.repository import Repository

_SIZE = 4096
_THREADS = [f"thread {number}" for number in range(12)]

_ASKED: dict[str, Callable[[Repository], object]] = {
    "names": lambda repository: sorted(repository.thread_names()),
    "state": lambda repository: [repository.state(name) for name in _THREADS],
    "log": lambda repository: [info.id for info in repository.log(thread=_THREADS[0])],
    "items": lambda repository: [item.value for item in repository.memory().items()],
    "item": lambda repository: repository.memory().get(("docs",), "7"),
    "tags": lambda repository: sorted(repository.tags()),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, list[int]]]:
    """Return the bytes of a store, and of each table its pages, the root first."""
    path = tmp_path_factory.mktemp("pages") / "store.db"
    with ckpt.open(path) as repository:
        for number in range(60):
            repository.commit(_THREADS[number % len(_THREADS)], {"number": number, "text": f"some text {number} " * 40})
        for number in range(30):
            repository.memory().put(("docs",), str(number), {"number": number})
        repository.tag("good", f"{_THREADS[3]}~1")
    with closing(sqlite3.connect(path)) as plain:
        roots = dict(plain.execute("SELECT name, rootpage FROM sqlite_master WHERE rootpage > 0"))
    data = path.read_bytes()
    return data, {name: [root, *_children(data, root)] for name, root in roots.items()}


def _children(data: bytes, number: int) -> list[int]:
    """Return the pages right below an inner page of a tree, as SQLite's file format has them."""
    page = data[(number - 1) * _SIZE : number * _SIZE]
    if page[0] not in (2, 5):
        return []
    at = [
        int.from_bytes(page[12 + 2 * cell : 14 + 2 * cell], "big") for cell in range(int.from_bytes(page[3:5], "big"))
    ]
    return [int.from_bytes(page[start : start + 4], "big") for start in (*at, 8)]


def _cases() -> list[tuple[str, int, str, int]]:
    tables = {"record": (0, 1, 2, -1), "frame": (0, 1, -1), "object": (0,), "counter": (0,)}
    places = [(table, place) for table, each in tables.items() for place in each]
    return [(*to, *of) for to in places for of in places if to != of]


@pytest.mark.parametrize(("table", "place", "other", "source"), _cases())
def test_a_page_in_the_place_of_another_is_told(
    sound: tuple[bytes, dict[str, list[int]]], tmp_path: Path, table: str, place: int, other: str, source: int
) -> None:
    """All is answered as before, or refused; nothing that is asked goes on for ever, and nothing is collected."""
    data, pages = sound
    assert len(pages["record"]) > 3 < len(pages["frame"])
    target, page = (pages[name][at] - 1 for name, at in ((table, place), (other, source)))
    if data[target * _SIZE : (target + 1) * _SIZE] == (held := data[page * _SIZE : (page + 1) * _SIZE]):
        return
    path = tmp_path / "store.db"
    path.write_bytes(data)
    with ckpt.open(path) as repository:
        truth = {label: ask(repository) for label, ask in _ASKED.items()}
    spoiled = bytearray(data)
    spoiled[target * _SIZE : (target + 1) * _SIZE] = held
    for label, ask in _ASKED.items():
        path.write_bytes(spoiled)
        try:
            with ckpt.open(path) as repository:
                assert ask(repository) == truth[label]
        except CkptError:
            pass
    path.write_bytes(spoiled)
    try:
        with ckpt.open(path) as repository:
            assert repository.fsck().problems
    except IntegrityError:
        pass
    with pytest.raises(IntegrityError), ckpt.open(path) as repository:
        repository.gc(grace=timedelta(0))
    assert path.stat().st_size >= len(data)

"""What finds the items of memories by meaning, as far as the database does it: see `ckpt.storage.base.Ranking`.

The vectors of a version are a value like any other. What the database keeps of them to compare is a copy that goes
by the name of that value: forks, other memories and earlier versions with the same vectors share it, and none of it
is needed to answer a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from blake3 import blake3

from ckpt.repository.core import Core
from ckpt.repository.directory import Directory
from ckpt.repository.memory_reader import Entry, MemoryReader
from ckpt.repository.scopes import MEMORY, at, registered, root_of
from ckpt.storage.base import Ranking

_NAME_SIZE = 16
_PAGE = 5000


class Ranked(NamedTuple):
    """Places in a list of items: of the nearest with their scores, and of those whose vectors must be looked at."""

    nearest: list[tuple[int, float]]
    left: list[int]


def rank(ranking: Ranking | None, entries: Sequence[Entry], query: Sequence[float], limit: int) -> Ranked:
    """Return the nearest of those items that the database can compare, and which are left.

    What is returned includes the nearest `limit` of them, as the order of scores and then of places has it.
    """
    if ranking is None:
        return Ranked([], list(range(len(entries))))
    places: dict[bytes, list[int]] = {}
    for place, entry in enumerate(entries):
        places.setdefault(_name(entry), []).append(place)
    found = ranking.nearest(query, list(places), min(limit, len(places)))
    return Ranked(
        [(place, score) for name, score in found.ranked for place in places[name]],
        [place for name in places if name in found.unknown for place in places[name]],
    )


def keep(ranking: Ranking | None, entries: Sequence[Entry], vectors: Sequence[Sequence[bytes]]) -> bool:
    """Have the database compare the vectors of these items from now on; return whether it may. Fails no reader."""
    if ranking is None or not entries:
        return False
    return ranking.add({_name(entry): each for entry, each in zip(entries, vectors, strict=True)})


def forget_unused(core: Core) -> None:
    """Remove from the database what no search of any memory asks for as they are now.

    Works in bounded steps; what is needed again after all is added again by the next search.
    """
    ranking = core.storage.ranking
    needed: set[bytes] | None = None
    after = b""
    while ranking is not None and (page := ranking.names(after, _PAGE)):
        needed = _needed(core) if needed is None else needed
        unused = [name for name in page if name not in needed]
        if unused:
            ranking.remove(unused)
        after = page[-1]


def _needed(core: Core) -> set[bytes]:
    root = root_of(core.storage)
    found: set[bytes] = set()
    for prefix, scope in registered(root).items():
        if scope.kind != MEMORY:
            continue
        beside = core.beside(at(root, prefix))
        directory = Directory(beside)
        reader = MemoryReader(beside, directory)
        for record in directory.names():
            if record.thread is not None:
                _, (entries,) = reader.read(record.name, [], [()])
                found |= {_name(entry) for entry in entries if entry.version.vectors}
    return found


def _name(entry: Entry) -> bytes:
    return blake3(entry.version.vectors).digest(length=_NAME_SIZE)

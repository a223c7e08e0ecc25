"""Scopes: several graphs in one store, each with its threads, tags and operations, and each with its memory.

The threads of the default graph lie in the store itself, so that a store without scopes is what it always was.
Every other scope is a prefix; a record of the registry says what it stands for. Objects are shared by all, so
whoever frees them goes through every scope: `prefixes` finds them by their records, not by the registry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from ckpt.history import keys
from ckpt.history.seal import damaged, missing, seal, shaped, unseal
from ckpt.repository.core import Core
from ckpt.repository.directory import Directory
from ckpt.storage.base import Reading, Storage
from ckpt.storage.scoped import ScopedReading, ScopedStorage

GRAPH: Final = "g"
"""As the kind of a scope: the threads of a graph, with their tags and operations."""

MEMORY: Final = "m"
"""As the kind of a scope: the memories of a graph."""

_KINDS = frozenset({GRAPH, MEMORY})
_WHAT = "a graph"


class Scope(NamedTuple):
    """A scope as the registry knows it."""

    kind: str
    graph: str


def within(storage: Storage, kind: str, graph: str) -> Storage:
    """Return the scope of a graph in the store that `storage` is, or is a scope of."""
    root, prefix = root_of(storage), keys.scope_prefix(kind, graph)
    if not prefix:
        return root
    key = keys.registration_key(prefix)
    return ScopedStorage(root, prefix, (key, seal(key, [kind, graph])))


def root_of(storage: Storage) -> Storage:
    """Return the whole store."""
    return storage.root if isinstance(storage, ScopedStorage) else storage


def prefixes(reading: Reading) -> Iterator[bytes]:
    """Yield the prefix of every scope that has a record, the default graph's empty one first.

    One round trip for each.
    """
    yield b""
    start, end = keys.ALL_SCOPES
    while page := reading.scan(start, end, limit=1):
        prefix = keys.scope_of(page[0][0])
        yield prefix
        start = keys.after_prefix(prefix)


def seen_by(reading: Reading, prefix: bytes) -> Reading:
    """Return what a scope sees of a store."""
    return ScopedReading(reading, prefix) if prefix else reading


def at(storage: Storage, prefix: bytes) -> Storage:
    """Return the scope with this prefix, which exists already."""
    return ScopedStorage(storage, prefix) if prefix else storage


def registered(storage: Storage) -> dict[bytes, Scope]:
    """Return what each registered scope stands for, by its prefix. Raises DamagedRecordError."""
    storage.check()
    found: dict[bytes, Scope] = {}
    for key, raw in root_of(storage).scan(*keys.ALL_REGISTRATIONS):
        kind, graph = shaped(unseal(key, raw, _WHAT), (str, str), _WHAT)
        prefix = keys.scope_prefix(kind, graph)
        if kind not in _KINDS or keys.registration_key(prefix) != key:
            raise damaged(_WHAT)
        found[prefix] = Scope(kind, graph)
    return found


@dataclass(frozen=True, slots=True)
class GraphInfo:
    """A graph in a store: its name, empty for the default one, and how many threads it has."""

    name: str
    threads: int


def graphs(core: Core) -> list[GraphInfo]:
    """Return all graphs of the store that a core is on, by name. Raises DamagedRecordError when one has no name.

    One round trip for each scope, and those that listing the threads of each graph takes.
    """
    found = []
    # First what has records: a scope is registered with the first of them.
    there = set(prefixes(root_of(core.storage))) - {b""}
    known = registered(core.storage)
    if there - known.keys():
        raise missing(_WHAT)
    for name in sorted({"", *(scope.graph for scope in known.values())}):
        directory = Directory(core.beside(within(core.storage, GRAPH, name)))
        found.append(GraphInfo(name, sum(1 for _ in directory.threads())))
    return found

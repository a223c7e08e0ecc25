"""Statistics: how much a store holds, all graphs together, how much of it is distinct, and where it goes."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from ckpt.history.commits import StoredValue, decode_commit
from ckpt.history.items import ItemRecord
from ckpt.history.records import ThreadRecord
from ckpt.objects.frames import StoredObject
from ckpt.objects.ids import ObjectId
from ckpt.repository.core import Core
from ckpt.repository.mark import rows
from ckpt.repository.remains import LeftMarker, Remains, dead, sizes_of_frames
from ckpt.repository.scopes import GRAPH, Scope, at, prefixes, registered, root_of
from ckpt.repository.versions import own, ropes
from ckpt.values.rope import INLINE, ROPE, decode_items, rope_length


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """One channel over all checkpoints: bytes written in full, and bytes of its distinct pieces.

    In `Stats.metadata` what checkpoints hold besides their channels.
    """

    name: str
    logical: int
    unique: int


@dataclass(frozen=True, slots=True)
class Stats:
    """Sizes in bytes, memories included.

    `bytes_logical` is what all checkpoints take in full, each once, however many forks share it: metadata and
    channels, as `CheckpointInfo.bytes_logical`, and all versions of items. `bytes_stored` are the compressed frames of
    what is there, `bytes_disk` all that the store occupies. Of that a collection frees about `bytes_reclaimable` with
    the default grace, and `bytes_restorable` once what was deleted and pruned cannot be brought back any more.
    """

    checkpoints: int
    threads: int
    heads: int
    items: int
    """Items of memories that are there, each once, however many forks share it."""
    objects: int
    format: int
    bytes_logical: int
    bytes_unique: int
    bytes_stored: int
    bytes_disk: int
    bytes_reclaimable: int
    bytes_restorable: int
    channels: tuple[ChannelStats, ...]
    metadata: ChannelStats


def collect_stats(core: Core, store_format: int, grace: timedelta) -> Stats:
    """Read every checkpoint's commit and every rope twice, and the index of objects, those of all graphs of the store.

    A checkpoint shared by forks counts once, and what was deleted or pruned, and no fork shows, not at all. `grace` is
    that of the collection to come.
    """
    checkpoints = threads = heads = items = 0
    root, until = root_of(core.storage), time.time() - grace.total_seconds()
    # What others store from here on is live, and not looked for.
    frames = dict(sizes_of_frames(root))
    scopes = registered(core.storage)
    counter = _Counter(core)
    found: dict[bytes, Remains] = {}
    for prefix in prefixes(root):
        remains = found[prefix] = Remains(core.beside(at(root, prefix)), until)
        left = {thread.number: thread.base.moment for thread in remains.threads if thread.base is not None}
        queue = rows(remains.core.storage)
        while page := list(islice(queue, _PAGE)):
            records = [
                own(ItemRecord.decode(row.key, row.value), left.get(row.thread, 0))
                for row in page
                if row.part == "i" and remains.shows(row.thread)
            ]
            items += sum(bool(each.recent) and each.recent[-1].value is not None for each in records)
            counter.items_of(records)
            puts = [((prefix, row.thread), *remains.shown(row)) for row in page if row.part == "c"]
            checkpoints += sum(bool(commits) for _, _, commits in puts)
            counter.checkpoints_of(puts)
        if scopes.get(prefix, _THREADS).kind == GRAPH:
            threads += len(remains.threads)
        heads += counter.heads(prefix, remains.threads)
    usage = root.usage()
    marker = LeftMarker(core, {prefix: remains.last for prefix, remains in found.items()})
    marker.mark_all()
    _, kept = dead(root, frames, marker.live)
    freed = kept
    if any(remains.differing for remains in found.values()):
        for remains in found.values():
            marker.mark_rows(remains.core.storage, remains.differing, remains.next)
        _, freed = dead(root, frames, marker.live)
    metadata = counter.channels.pop(None, _NO_METADATA)
    return Stats(
        checkpoints=checkpoints,
        threads=threads,
        heads=heads,
        items=items,
        objects=usage.objects,
        format=store_format,
        bytes_logical=counter.items + sum(each.logical for each in (metadata, *counter.channels.values())),
        bytes_unique=counter.unique,
        bytes_stored=max(usage.frames - kept, 0),
        bytes_disk=usage.disk,
        bytes_reclaimable=usage.free + freed,
        bytes_restorable=max(kept - freed, 0),
        channels=tuple(sorted(counter.channels.values(), key=lambda each: (-each.logical, each.name))),
        metadata=metadata,
    )


_PAGE = 200
"""Records whose commits and ropes are read at once."""

_NO_METADATA = ChannelStats("", 0, 0)
_THREADS = Scope(GRAPH, "")

_Owner = tuple[bytes, int]
"""A thread of any graph: the prefix of the graph's scope, and the thread's number there."""


class _Counter:
    """Adds up commits: what each channel holds in full, and what of it was not seen before."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._seen: set[ObjectId] = set()
        self._ropes: set[bytes] = set()
        self._ids: set[tuple[_Owner, str, str]] = set()
        self._parents: set[tuple[_Owner, str, str]] = set()
        self.channels: dict[str | None, ChannelStats] = {}
        """Under None what belongs to no channel."""
        self.unique = 0
        self.items = 0
        """Bytes of all versions of all items of memories, each written in full."""
        self._below: dict[ObjectId, bytes] = {}
        """The ropes below those that are counted next."""

    def heads(self, prefix: bytes, threads: list[ThreadRecord]) -> int:
        """Return how many root checkpoints no other continues, per thread; a fresh fork has its base's head."""
        own: dict[_Owner, int] = {}
        for owner, namespace, _ in self._ids - self._parents:
            if not namespace:
                own[owner] = own.get(owner, 0) + 1
        return sum(own.get((prefix, thread.number), 0) or thread.root.head is not None for thread in threads)

    def checkpoints_of(self, puts: Sequence[tuple[_Owner, ObjectId | None, Sequence[ObjectId]]]) -> None:
        """Take the commits of checkpoints, in the order given: of each the thread, what it shows, and what any does."""
        new = dict.fromkeys(oid for _, _, commits in puts for oid in commits if oid not in self._seen)
        decoded = {oid: decode_commit(obj.data) for oid, obj in self._fetch(new).items()}
        self._load(value.rope for commit in decoded.values() for value in commit.values())
        for thread, visible, commits in puts:
            for oid in [oid for oid in commits if oid not in self._seen]:
                commit = decoded[oid]
                if oid == visible:
                    self._ids.add((thread, commit.namespace, commit.checkpoint_id))
                    self._parents.update((thread, commit.namespace, parent.checkpoint_id) for parent in commit.parents)
                for name, value in zip((None, None, *commit.channels), commit.values(), strict=True):
                    self._channel(name, value)
            self._seen.update(commits)

    def items_of(self, records: Sequence[ItemRecord]) -> None:
        """Take the versions of items of memories."""
        found = [rope for record in records for rope in ropes(record)]
        self._load(found)
        for rope in found:
            self.items += rope_length(rope)
            self.unique += self._pieces(rope)

    def _channel(self, name: str | None, value: StoredValue) -> None:
        old = self.channels.get(name, ChannelStats(name or "", 0, 0))
        unique = 0
        if value.rope not in self._ropes:
            self._ropes.add(value.rope)
            unique = self._pieces(value.rope)
        self.unique += unique
        self.channels[name] = ChannelStats(old.name, old.logical + rope_length(value.rope), old.unique + unique)

    def _load(self, wanted: Iterable[bytes]) -> None:
        """Load the ropes below some that were not seen before, in as many calls as they are deep."""
        self._below = {}
        level = [rope for rope in wanted if rope not in self._ropes]
        while level:
            named = (ObjectId(item.payload) for rope in level for item in decode_items(rope) if item.kind == ROPE)
            new = dict.fromkeys(oid for oid in named if oid not in self._seen and oid not in self._below)
            found = {oid: obj.data for oid, obj in self._fetch(new).items()}
            self._below |= found
            level = list(found.values())

    def _fetch(self, wanted: Collection[ObjectId]) -> dict[ObjectId, StoredObject]:
        return self._core.objects.fetch(wanted) if wanted else {}

    def _pieces(self, rope: bytes) -> int:
        """Return the bytes of what was not seen before; not by recursion, which has no room for deep ropes."""
        size = 0
        stack = [rope]
        while stack:
            for item in decode_items(stack.pop()):
                oid = ObjectId(item.payload)
                if item.kind == INLINE:
                    size += item.length
                elif oid not in self._seen:
                    self._seen.add(oid)
                    if item.kind == ROPE:
                        stack.append(self._below[oid])
                    else:
                        size += item.length
        return size

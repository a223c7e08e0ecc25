"""Statistics: how much a store holds, all graphs together, how much of it is distinct, and where it goes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from ckpt.history.checkpoints import Put, decode_events
from ckpt.history.commits import StoredValue, decode_commit
from ckpt.history.items import ItemRecord
from ckpt.history.records import ThreadRecord
from ckpt.objects.frames import StoredObject
from ckpt.objects.ids import ObjectId
from ckpt.repository.core import Core
from ckpt.repository.mark import Marker, rows, thread_records
from ckpt.repository.scopes import GRAPH, Scope, prefixes, registered, root_of, seen_by
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
    channels, as `CheckpointInfo.bytes_logical`, and all versions of items. `bytes_stored` are the compressed frames,
    `bytes_disk` all that the store occupies.
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
    channels: tuple[ChannelStats, ...]
    metadata: ChannelStats


def collect_stats(core: Core, store_format: int) -> Stats:
    """Read every checkpoint's commit and every rope once, those of all graphs of the store.

    A checkpoint shared by forks counts once.
    """
    checkpoints = threads = heads = items = 0
    scopes = registered(core.storage)
    counter = _Counter(core)
    for prefix in prefixes(root_of(core.storage)):
        reading = seen_by(root_of(core.storage), prefix)
        records = [ThreadRecord.decode(number, raw) for number, raw in thread_records(reading)]
        left = {thread.number: thread.base.moment for thread in records if thread.base is not None}
        queue = rows(reading)
        while page := list(islice(queue, _PAGE)):
            found = [
                own(ItemRecord.decode(row.key, row.value), left.get(row.thread, 0)) for row in page if row.part == "i"
            ]
            items += sum(bool(item.recent) and item.recent[-1].value is not None for item in found)
            counter.items_of(found)
            puts = [
                (
                    (prefix, row.thread),
                    [event.commit for event in decode_events(row.key, row.value) if isinstance(event, Put)],
                )
                for row in page
                if row.part == "c"
            ]
            checkpoints += sum(bool(commits) for _, commits in puts)
            counter.checkpoints_of(puts)
        if scopes.get(prefix, _THREADS).kind == GRAPH:
            threads += sum(not thread.deleted for thread in records)
        heads += counter.heads(prefix, [thread for thread in records if not thread.deleted])
    usage = core.storage.usage()
    marker = Marker(core)
    marker.mark_all()
    # What others have stored since the store was measured is live, and was not counted.
    dead = max(usage.objects - len(marker.live), 0)
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
        bytes_stored=usage.frames,
        bytes_disk=usage.disk,
        bytes_reclaimable=usage.free + (usage.frames * dead // usage.objects if usage.objects else 0),
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

    def checkpoints_of(self, puts: Sequence[tuple[_Owner, Sequence[ObjectId]]]) -> None:
        """Take the commits of checkpoints, in the order given, of each checkpoint's thread."""
        new = dict.fromkeys(oid for _, commits in puts for oid in commits if oid not in self._seen)
        decoded = {oid: decode_commit(obj.data) for oid, obj in self._fetch(new).items()}
        self._load(value.rope for commit in decoded.values() for value in commit.values())
        for thread, commits in puts:
            for commit in [decoded[oid] for oid in dict.fromkeys(commits) if oid not in self._seen]:
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

"""The engine: what savers and adapters build on. What people call is `ckpt.repository.repository`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from types import MappingProxyType, TracebackType
from typing import NamedTuple, Self, TypeVar

from ckpt.errors import IntegrityError, InvalidInputError
from ckpt.history import clock, keys
from ckpt.history.checkpoints import Hidden, PendingWrite, Put, Spill, pending_writes
from ckpt.history.commits import Commit, StoredValue
from ckpt.history.records import ThreadRecord
from ckpt.repository.arguments import check_place, check_texts
from ckpt.repository.core import DEFAULT_MAX_CHECKPOINT_SIZE, Core
from ckpt.repository.directory import Directory
from ckpt.repository.gathered import look_at_all, timelines
from ckpt.repository.incoming import NewCheckpoint, Stored, Typed
from ckpt.repository.lineage import resets_of
from ckpt.repository.listing import Listing, Walk, newest_first
from ckpt.repository.options import Options
from ckpt.repository.plan import Keep
from ckpt.repository.prune import Pruner, PruneReport
from ckpt.repository.recent import Recent, Seen
from ckpt.repository.replays import is_ahead, is_head_as_told
from ckpt.repository.scopes import GRAPH, within
from ckpt.repository.stretches import Found
from ckpt.repository.tags import Tags
from ckpt.repository.threads import ThreadAdmin
from ckpt.repository.timeline import Timeline
from ckpt.repository.upkeep import Upkeep
from ckpt.repository.writer import Writer
from ckpt.storage.base import Storage
from ckpt.values.serializer import Serializer

_PAGE_MAX = 64
_T = TypeVar("_T")


class StoredCheckpoint(NamedTuple):
    """A checkpoint as read: what its commit holds, and the pending writes that count, in their order."""

    thread: str
    namespace: str
    checkpoint_id: str
    oid: bytes
    commit: Commit
    writes: list[PendingWrite]

    def values(self) -> list[StoredValue]:
        """Return all that belongs to it: header, metadata, channels, pending writes, the latter two in their order."""
        written = (StoredValue(write.type, write.rope) for write in self.writes)
        return [*self.commit.values(), *written]


class Engine:
    """Checkpoints as frameworks write and read them: serialized by the caller, named by thread and id.

    `graph` says whose threads these are: graphs that share a store do not see each other's. `ttl` and `retention`
    are the policies of `Lifetimes.of` and `Retention.of`.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        graph: str = "",
        max_checkpoint_size: int = DEFAULT_MAX_CHECKPOINT_SIZE,
        ttl: object = None,
        retention: object = None,
        types: Iterable[type] = (),
    ) -> None:
        options = Options.of(graph, max_checkpoint_size, ttl, retention, types)
        self.graph = graph
        self.storage = storage = within(storage, GRAPH, graph)
        self._core = Core(storage, max_checkpoint_size=options.max_checkpoint_size, lifetimes=options.lifetimes)
        self._directory = Directory(self._core)
        self._recent = Recent(self._core)
        self._writer = Writer(self._core, self._directory, self._recent)
        self._admin = ThreadAdmin(self._core, self._directory)
        self._pruner = Pruner(self._core, self._directory, self._admin)
        self._tags = Tags(self._core)
        self._serializer = Serializer(options.types)
        self._upkeep = Upkeep(self._core, self._directory, self._admin, self._pruner, self._tags, options.retention)

    def put(self, new: NewCheckpoint) -> Stored:
        """Store a checkpoint that a framework serialized; see `Writer.put`.

        Raises InvalidInputError, with nothing written, for a name, an id or a type tag that is no str.
        """
        if not isinstance(new, NewCheckpoint):
            raise InvalidInputError(f"a {type(new).__name__} is no NewCheckpoint")
        parent_id, timestamp = new.parent_id, new.timestamp
        check_texts(
            {
                "the name of a thread": new.thread,
                "the namespace of a checkpoint": new.namespace,
                "the id of a checkpoint": new.checkpoint_id,
                "the id of a parent": "" if parent_id is None else parent_id,
                "the timestamp of a checkpoint": "" if timestamp is None else timestamp,
            }
        )
        keys.check_text("the name of a channel", *new.channels)
        for small in (new.header, new.metadata):
            _check_typed(small)
        stored = self._writer.put(new)
        self._upkeep.written(stored.thread, stored.line)
        return stored

    def put_writes(
        self,
        thread: str,
        namespace: str,
        checkpoint_id: str,
        task_id: str,
        task_path: str,
        writes: Sequence[tuple[int, str, Typed]],
        above: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Attach a task's writes to a checkpoint; see `Writer.put_writes`, and `NewCheckpoint` for what is `above`.

        Raises InvalidInputError, with nothing written, for a name, an id, a path or a type tag that is no str.
        """
        check_texts(
            {
                "the name of a thread": thread,
                "the namespace of a checkpoint": namespace,
                "the id of a checkpoint": checkpoint_id,
                "the id of a task": task_id,
                "the path of a task": task_path,
            }
        )
        keys.check_text("the name of a channel", *[channel for _, channel, _ in writes])
        for _, _, typed in writes:
            _check_typed(typed)
        self._writer.put_writes(thread, namespace, checkpoint_id, task_id, task_path, writes, above)

    def timeline(self, thread: str) -> Timeline | None:
        """Return the view of a thread as it is now, or None when there is no such thread."""
        keys.check_text("the name of a thread", thread)
        known = self._directory.find(thread)
        return Timeline(self._core, self._upkeep.read(*known)[0]) if known is not None else None

    def _timeline_with_newest(self, thread: str) -> Timeline | None:
        """Return what `timeline` does, with the newest checkpoint read already."""
        known = self._directory.find_with_newest(thread)
        return Timeline(self._core, self._upkeep.read(*known[:2])[0], known[2]) if known is not None else None

    def read(self, thread: str, namespace: str = "", checkpoint_id: str | None = None) -> StoredCheckpoint | None:
        """Return one checkpoint, the head when no id is given; None when there is none. Values are not loaded."""
        check_place(thread, namespace)
        keys.check_text("the id of a checkpoint", "" if checkpoint_id is None else checkpoint_id)

        def attempt() -> StoredCheckpoint | None:
            epoch = self._core.epoch
            found = self._shortcut(thread, checkpoint_id) if not namespace else None
            if found is not None:
                return found
            wanted = checkpoint_id
            mostly_newest = wanted is None and not namespace
            timeline = self._timeline_with_newest(thread) if mostly_newest else self.timeline(thread)
            if timeline is None or (wanted is None and (wanted := timeline.head(namespace)) is None):
                return None
            row = timeline.find(namespace, wanted)
            # Only now: what was found has proved that the thread's record is no old one.
            self._recent.saw(thread, Seen(timeline.thread, timeline.thread.encode()))
            if row is None or row.put is None or row.hidden:
                return None
            if row.record is not None:
                # Who reads a checkpoint mostly continues from it.
                key = keys.checkpoint_key(timeline.thread.number, namespace, wanted)
                self._recent.decoded(key, row.record, epoch)
            return self._stored(thread, row, row.put, timeline.writes(row))

        return self._core.consistently(attempt)

    def _shortcut(self, name: str, checkpoint_id: str | None) -> StoredCheckpoint | None:
        """Read a root checkpoint in one round trip if the thread is still as it was last seen, else None."""
        last = self._recent.thread(name)
        if last is None:
            return None
        number = last.thread.number
        wanted = checkpoint_id or last.thread.root.head
        if wanted is None or last.thread.base is not None:
            return None
        key = keys.checkpoint_key(number, "", wanted)
        epoch = self._core.epoch
        # A thread has its name until it is deleted, which its own record says.
        current, raw = self.storage.read([keys.thread_key(number), key])
        if current is None or raw is None:
            return None
        thread = last.thread
        if current != last.raw:
            thread = ThreadRecord.decode(number, current)
            if thread.deleted or thread.sequence < last.thread.sequence:
                return None
            if checkpoint_id is None and thread.root.head != wanted:
                self._recent.saw(name, Seen(thread, current))
                return self._shortcut(name, None)
        if thread.lifetime is not None:
            if thread.lapsed(clock.now_ms()):
                return None
            thread, current = self._upkeep.read(thread, current)
        events = self._recent.decoded(key, raw, epoch)
        if any(isinstance(event, Spill | Hidden) for event in events) or is_ahead(thread, events):
            return None
        if wanted == thread.root.head and not is_head_as_told(thread.root, events):
            return None
        if current != last.raw:
            self._recent.saw(name, Seen(thread, current))
        row = Found("", wanted, events)
        return self._stored(name, row, row.put, pending_writes(events)) if row.put is not None else None

    def _stored(self, thread: str, row: Found, put: Put, writes: list[PendingWrite]) -> StoredCheckpoint:
        return StoredCheckpoint(
            thread, row.namespace, row.checkpoint_id, put.commit, self._core.commit(put.commit), writes
        )

    def read_all(
        self, thread: str, namespace: str | None = "", *, before: str | None = None
    ) -> Iterator[StoredCheckpoint]:
        """Yield the checkpoints of a thread, greatest id first, of one namespace or of all (None).

        Commits are loaded in pages that grow with what is asked for. The iterator holds no lock and no transaction
        and may be left half-read. What is removed while it runs is skipped, as far as it was not read ahead.
        """
        check_place(thread, "" if namespace is None else namespace)
        keys.check_text("the id of a checkpoint", "" if before is None else before)
        yield from self._listed(Listing(self._core, lambda: self.timeline(thread), namespace, before), thread)

    def read_before(self, thread: str, namespace: str, before: str) -> Iterator[StoredCheckpoint]:
        """Yield what `read_all` does, but in a thread that was rewound from where the namespace stood at `before` on.

        So a run that begins at this root checkpoint, or at the last one before it while this one is on its way, does
        not get what a rewind has left behind. Not so for a task's namespace, which stands where it is, and where
        `before` is one of the namespace itself.
        """
        check_place(thread, namespace)
        keys.check_text("the id of a checkpoint", before)
        timeline, bound = self._core.consistently(partial(self._standing, thread, namespace, before))
        if timeline is not None:
            yield from self._listed(Listing(self._core, self._first(timeline), namespace, bound), thread)

    def _standing(self, thread: str, namespace: str, root: str) -> tuple[Timeline | None, str]:
        """Return a thread's view, and what the ids of a namespace are less than up to where it stood at a root."""
        timeline = self.timeline(thread)
        if timeline is None or not any(resets_of(segment.thread, namespace) for segment in timeline.segments):
            return timeline, root
        moment = timeline.moment(root)
        if moment is None and timeline.find(namespace, root) is None:
            begun = next(timeline.newest_first("", before=root), None)
            moment = timeline.moment(begun.checkpoint_id) if begun is not None else None
        if moment is None:
            return timeline, root
        head = timeline.head_at(moment[0], namespace, moment[1])
        return timeline, min(root, f"{head}\0") if head is not None else ""

    def read_everything(self, *, before: str | None = None) -> Iterator[StoredCheckpoint]:
        """Yield the checkpoints of all threads and namespaces, greatest id first, as `read_all` does those of a thread.

        What is put meanwhile may be left out. Threads are read some hundred at a time, as far as the caller goes.
        """
        keys.check_text("the id of a checkpoint", "" if before is None else before)
        threads = sorted(self._directory.threads(), key=lambda thread: thread.greatest, reverse=True)
        yield from newest_first(self._walks(threads, before))

    def _walks(self, threads: Sequence[ThreadRecord], before: str | None) -> Iterator[Walk[StoredCheckpoint]]:
        bounds = {thread.number: thread.greatest for thread in threads}
        for timeline in timelines(self._core, threads):
            thread = timeline.thread
            self._upkeep.read(thread, thread.encode())
            bound = bounds[thread.number]
            listing = Listing(self._core, self._first(timeline), None, before)
            yield Walk(bound if before is None else min(bound, before), self._listed(listing, thread.name))

    def _first(self, timeline: Timeline) -> Callable[[], Timeline | None]:
        """Return what finds a thread's present view, and this one when it is called first."""
        first = iter([timeline])
        return lambda: next(first, None) or self.timeline(timeline.thread.name)

    def _listed(self, listing: Listing, thread: str) -> Iterator[StoredCheckpoint]:
        size = 1
        while page := listing.page(size):
            for found, oid, commit in page:
                writes = pending_writes(found.events)
                yield StoredCheckpoint(thread, found.namespace, found.checkpoint_id, oid, commit, writes)
            size = min(4 * size, _PAGE_MAX)

    def threads_where(self, wanted: Callable[[Commit], bool]) -> list[str]:
        """Return the names of the threads, sorted, that have a checkpoint whose commit is `wanted`.

        One that was pruned counts as long as it can be brought back. Renews no lifetime. Reads all threads, some
        hundred at a time.
        """

        def has_one(timeline: Timeline) -> list[str]:
            for each in timeline.namespaces():
                puts = (found.put for found in timeline.newest_first(each, hidden=True))
                while page := [put.commit for put in islice(puts, _PAGE_MAX) if put is not None]:
                    if any(map(wanted, self._core.commits(page).values())):
                        return [timeline.thread.name]
            return []

        return sorted(chain.from_iterable(look_at_all(self._core, self._directory.threads(), has_one)))

    def consistently(self, read: Callable[[], _T]) -> _T:
        """Run a read of several calls, and run it again when it stumbles over what was removed meanwhile."""
        return self._core.consistently(read)

    def load(self, values: Sequence[StoredValue]) -> list[bytes]:
        """Return the bytes of values, in order, with a bounded number of round trips for all together."""
        return self._core.consistently(lambda: self._core.value_bytes(values))

    def load_all(
        self,
        checkpoints: Sequence[StoredCheckpoint],
        pick: Callable[[StoredCheckpoint], Sequence[StoredValue]] = StoredCheckpoint.values,
    ) -> list[tuple[StoredCheckpoint, list[bytes]]]:
        """Return checkpoints, in order, with the bytes of the values picked; those removed meanwhile are left out.

        The number of round trips for all together is bounded, unless something was removed.
        """
        present = list(checkpoints)

        def attempt() -> list[tuple[StoredCheckpoint, list[bytes]]]:
            picked = [(stored, pick(stored)) for stored in present]
            try:
                loaded = iter(self._core.value_bytes([value for _, values in picked for value in values]))
            except IntegrityError:
                again = (self.read(stored.thread, stored.namespace, stored.checkpoint_id) for stored in present)
                present[:] = [stored for stored in again if stored is not None]
                raise
            return [(stored, list(islice(loaded, len(values)))) for stored, values in picked]

        return self._core.consistently(attempt)

    def thread_names(self) -> list[str]:
        """Return the names of all threads, sorted."""
        return sorted(thread.name for thread in self._directory.threads())

    def copy_thread(self, source: str, target: str) -> None:
        """Make `target` a full copy of `source`, pending writes included, in constant time and space."""
        keys.check_text("the name of a thread", source, target)
        self._admin.fork(source, target, None)

    def delete_thread(self, name: str) -> bool:
        """Delete a thread for good; False when there is none. Threads forked from it keep what they share."""
        keys.check_text("the name of a thread", name)
        return self._admin.delete(name)

    def prune_thread(self, name: str, keep: Keep, *, exactly: bool = False) -> PruneReport:
        """Remove for good the checkpoints of a thread that `keep` does not name; see `Pruner.prune`."""
        return self._pruner.prune(name, keep, guard=self._tags.guard, exactly=exactly)

    def close(self) -> None:
        """Release the store. A second call does nothing."""
        self.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_typed(value: Typed | StoredValue) -> None:
    keys.check_text("the type tag of a value", value.type)
    if isinstance(value, Typed) and not isinstance(value.data, bytes):
        raise InvalidInputError(f"a serialized value is a {type(value.data).__name__}, not bytes")

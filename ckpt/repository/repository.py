"""`Repository`: the engine over one store, and what people and frameworks call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from functools import partial
from itertools import islice
from typing import Any

import msgpack

from ckpt.durations import duration_text
from ckpt.errors import (
    HeadMovedError,
    InvalidInputError,
    NotFoundError,
    PathNotFoundError,
    ThreadDeletedError,
    UnstorableValueError,
)
from ckpt.history import clock
from ckpt.history.clock import next_checkpoint_id, now_text
from ckpt.history.commits import Commit, StoredValue
from ckpt.objects.ids import ObjectId
from ckpt.repository.acts import SILENT, Acts, Parts
from ckpt.repository.core import DEFAULT_MAX_CHECKPOINT_SIZE
from ckpt.repository.diff import Changes, ChannelChange, diff_states, key_changes
from ckpt.repository.engine import Engine
from ckpt.repository.fsck import Checker, FsckReport
from ckpt.repository.gc import Collector, GcReport
from ckpt.repository.infos import ChannelInfo, CheckpointInfo, ThreadInfo, WriteInfo, is_internal
from ckpt.repository.lifetimes import duration, expiry
from ckpt.repository.memory import DEFAULT_MEMORY, Memories, Memory
from ckpt.repository.operations import Operation, OperationLog
from ckpt.repository.plain import dumped, is_plain, same
from ckpt.repository.prune import PruneReport
from ckpt.repository.resolve import Resolver
from ckpt.repository.retention import Retention
from ckpt.repository.scopes import MEMORY, GraphInfo, graphs, within
from ckpt.repository.stats import Stats, collect_stats
from ckpt.repository.thread import Thread
from ckpt.repository.writer import Channel, NewCheckpoint, Typed
from ckpt.storage.base import Storage
from ckpt.storage.sqlite_file import FORMAT
from ckpt.values.inert import inert
from ckpt.values.kinds import TAG, Opaque
from ckpt.values.rope import rope_length
from ckpt.values.tree import Tree

DEFAULT_GRACE = timedelta(days=14)
"""How long what was deleted can be brought back."""


@dataclass(frozen=True, slots=True)
class Diff:
    """What differs between two checkpoints; `old` is None for the empty state."""

    old: CheckpointInfo | None
    new: CheckpointInfo
    changes: Changes


class Repository(Engine):
    """The engine over one store. Safe for many threads; several may be open on one store, in many processes."""

    def __init__(
        self,
        storage: Storage,
        *,
        graph: str = "",
        max_checkpoint_size: int = DEFAULT_MAX_CHECKPOINT_SIZE,
        ttl: object = None,
        retention: object = None,
        actor: str = "",
        types: Iterable[type] = (),
    ) -> None:
        limit = max_checkpoint_size
        super().__init__(storage, graph=graph, max_checkpoint_size=limit, ttl=ttl, retention=retention, types=types)
        self._operations = OperationLog(self._core, actor)
        parts = Parts(
            self._core,
            self._directory,
            self._writer,
            self._admin,
            self._pruner,
            self._operations,
            self._tags,
        )
        self._acts = Acts(parts, self._serializer)
        self._resolver = Resolver(self._core, self._directory, self._tags)
        self._collector = Collector(self._core)
        self._memories = Memories(self._core.beside(within(storage, MEMORY, graph)), self._serializer)

    # -- reading as people do ---------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The URL that opens this store."""
        return self.storage.url

    @property
    def format(self) -> int:
        """The number of the store's format."""
        return FORMAT

    def memory(self, name: str = DEFAULT_MEMORY) -> Memory:
        """Return a handle for a memory of this graph, which need not exist yet."""
        return Memory(self._memories, name)

    def memories(self) -> list[str]:
        """Return the names of this graph's memories, sorted."""
        return self._memories.names()

    def graphs(self) -> list[GraphInfo]:
        """Return all graphs in this store, by name. The default graph, named "", is always one."""
        return graphs(self._core)

    def resolve(self, revision: str, *, thread: str | None = None, namespace: str = "") -> CheckpointInfo:
        """Return the one checkpoint that a revision means; see `Resolver.resolve`."""
        read = partial(self._resolver.resolve, revision, thread=thread, namespace=namespace)
        info = self._core.consistently(read)
        self._upkeep.looked_at(info.thread)
        return info

    def threads(self, pattern: str | None = None) -> list[ThreadInfo]:
        """Return all threads, or those whose name matches a glob, the one written to last first."""
        names = [name for name in self.thread_names() if pattern is None or fnmatchcase(name, pattern)]
        found = [info for name in names if (info := self._thread_info(name)) is not None]
        return sorted(found, key=lambda info: (info.updated or "", info.name), reverse=True)

    def _thread_info(self, name: str) -> ThreadInfo | None:
        browser = self._resolver.browser(name)
        if browser is None:
            return None
        infos = [info for each in browser.timeline.namespaces() for info in browser.newest_first(each)]
        head = next((info for info in infos if info.is_current and not info.namespace), None)
        base = browser.timeline.thread.base
        return ThreadInfo(
            name=name,
            checkpoints=len(infos),
            heads=sum(info.is_head and not info.namespace for info in infos),
            head=head,
            updated=head.timestamp if head is not None else None,
            status=head.status if head is not None and head.status in ("interrupted", "error") else "idle",
            bytes_logical=sum(info.bytes_logical for info in infos),
            forked_from=self._directory.by_number(base.thread)[0].name if base is not None else None,
            expires=expiry(browser.timeline.thread),
        )

    def log(
        self,
        revision: str | None = None,
        *,
        thread: str | None = None,
        namespace: str = "",
        limit: int | None = None,
        all_heads: bool = False,
        subgraphs: bool = False,
    ) -> list[CheckpointInfo]:
        """Return checkpoints, greatest id first.

        With a revision its ancestors and itself, or with `all_heads` all of its thread; without one all of
        `thread`, or of every thread. `subgraphs` adds the other namespaces.
        """
        if revision is not None:
            start = self.resolve(revision, thread=thread, namespace=namespace)
            if not all_heads:
                browser = self._resolver.browser(start.thread)
                assert browser is not None
                return list(islice(browser.ancestors(start.namespace, start.checkpoint_id), limit))
            thread = start.thread
        names = self.thread_names() if thread is None else [self._admin.require(thread)[0].name]
        found: list[CheckpointInfo] = []
        for name in names:
            browser = self._resolver.browser(name)
            if browser is not None:
                for each in browser.timeline.namespaces() if subgraphs else [namespace]:
                    found += islice(browser.newest_first(each), limit)
        return sorted(found, key=lambda info: info.checkpoint_id, reverse=True)[:limit]

    def channels(self, info: CheckpointInfo) -> list[ChannelInfo]:
        """Return the channels of a checkpoint, in their order; no value is loaded."""
        return [
            ChannelInfo(name, value.type, rope_length(value.rope), is_internal(name))
            for name, value in self._commit(info).channels.items()
        ]

    def inert(self, info: CheckpointInfo, channel: str) -> object:
        """Return a channel's value as inert data, importing nothing. Raises PathNotFoundError."""
        value = self._value(info, channel)
        return inert(value.type, self.load([value])[0])

    def tree(self, info: CheckpointInfo, channel: str) -> Tree:
        """Return a channel's value as a tree that loads what is looked at. Raises PathNotFoundError."""
        value = self._value(info, channel)
        return Tree(value.type, value.rope, self._core.objects.load)

    def writes(self, info: CheckpointInfo) -> list[WriteInfo]:
        """Return the pending writes of a checkpoint, in (task path, task id, index) order."""
        stored = self.read(info.thread, info.namespace, info.checkpoint_id)
        found = stored.writes if stored is not None else []
        values = self.load([StoredValue(write.type, write.rope) for write in found])
        return [
            WriteInfo(write.task_id, write.task_path, write.index, write.channel, inert(write.type, data))
            for write, data in zip(found, values, strict=True)
        ]

    def state(self, revision: str, *, thread: str | None = None) -> dict[str, Any]:
        """Return the values of a checkpoint as live Python values; what cannot be revived is an `Opaque`."""
        return self._state(self.resolve(revision, thread=thread))

    def _state(self, info: CheckpointInfo) -> dict[str, Any]:
        channels = self._commit(info).channels
        loaded = self.load(list(channels.values()))
        return {
            name: self._serializer.loads_typed((value.type, data))
            for (name, value), data in zip(channels.items(), loaded, strict=True)
        }

    def diff(
        self,
        old: CheckpointInfo | None,
        new: CheckpointInfo,
        *,
        internal: bool = False,
        paths: Sequence[tuple[str | int, ...]] = (),
    ) -> Diff:
        """Return what differs between two checkpoints of any threads; None stands for an empty state.

        Equal parts are recognised by their ids and not loaded.
        """
        before = self._commit(old).channels if old is not None else {}
        after = self._commit(new).channels
        changes = self._core.consistently(
            lambda: diff_states(self._core.objects.load, before, after, internal=internal, paths=paths)
        )
        return Diff(old, new, changes)

    def changes(self, info: CheckpointInfo) -> list[ChannelChange]:
        """Return, in short, what a checkpoint changed against its parent; LangGraph's own channels left out."""
        before: Mapping[str, StoredValue] = {}
        if info.parents:
            before = self._core.commit(ObjectId(bytes.fromhex(info.parents[0]))).channels
        after = self._commit(info).channels
        return key_changes(
            self._core.objects.load,
            {name: value for name, value in before.items() if not is_internal(name)},
            {name: value for name, value in after.items() if not is_internal(name)},
        )

    def _commit(self, info: CheckpointInfo) -> Commit:
        return self._core.commit(ObjectId(bytes.fromhex(info.id)))

    def _value(self, info: CheckpointInfo, channel: str) -> StoredValue:
        channels = self._commit(info).channels
        if channel not in channels:
            raise PathNotFoundError(
                f"checkpoint {info.id[:8]} has no key {channel!r}",
                hints=[f"it has {', '.join(channels) or 'none'}"],
            )
        return channels[channel]

    # -- changing as people do --------------------------------------------------------------------------

    def thread(self, name: str) -> Thread:
        """Return a handle for a thread, which need not exist yet."""
        return Thread(self, name)

    def commit(
        self, thread: str, values: Mapping[str, object], *, metadata: Mapping[str, object] | None = None
    ) -> CheckpointInfo:
        """Append a checkpoint that holds exactly these values behind the head of a thread.

        Creates the thread if need be. Values come back equal in value and type, or UnstorableValueError names
        the path of the one that would not; nothing is written then. Durable on return.
        """
        typed = {name: dumped(self._serializer, name, value) for name, value in values.items()}
        while True:
            timeline = self.timeline(thread)
            head = timeline.head() if timeline is not None else None
            before = self._resolver.describe(thread, "", head) if head is not None else None
            step = (before.step or 0) + 1 if before is not None else 0
            details = {"source": "commit", "step": step, **(metadata or {})}
            made = next_checkpoint_id(timeline.thread.greatest if timeline is not None else "")
            try:
                self.put(
                    NewCheckpoint(
                        thread=thread,
                        namespace="",
                        checkpoint_id=made,
                        parent_id=head,
                        timestamp=now_text(),
                        header=Typed(*self._serializer.dumps_typed({})),
                        metadata=Typed(*self._serializer.dumps_typed(details)),
                        channels={name: Channel(partial(same, value)) for name, value in typed.items()},
                        expect_head=True,
                    )
                )
            except HeadMovedError:
                continue  # somebody else committed first: this one goes behind it
            return self._described(thread, made)

    def fork(
        self,
        revision: str,
        new_thread: str,
        *,
        thread: str | None = None,
        values: Mapping[str, object] | None = None,
    ) -> CheckpointInfo:
        """Create a thread from any checkpoint, in constant time and space, and return its head.

        At a thread's head pending writes come along; at an older checkpoint its next nodes run again. `values`
        replaces channels, by one more checkpoint. Raises AlreadyExistsError when the name is taken.
        """
        source = self.resolve(revision, thread=thread)
        typed = {name: self._typed_like(source, name, value) for name, value in (values or {}).items()}
        self._acts.fork(source, new_thread, rows=1 if typed else 0)
        info = self._described(new_thread, source.checkpoint_id)
        if typed:
            self._acts.checkout(info, kind=SILENT, values=typed)
            info = self.resolve("@", thread=new_thread)
        return info

    def _typed_like(self, info: CheckpointInfo, name: str, value: object) -> Typed:
        """Serialize a value so that who wrote the checkpoint can read it.

        A framework reads its own type tag, and plain data is the same msgpack for all.
        """
        commit = self._commit(info)
        tag = commit.channels[name].type if name in commit.channels else commit.header.type
        if tag == TAG:
            return dumped(self._serializer, name, value)
        if isinstance(value, Opaque) and value.kind == "document" and value.name == tag:
            return dumped(self._serializer, name, value)
        if not is_plain(value):
            raise UnstorableValueError(
                f"{name} is not plain data, and its checkpoint was written by a framework",
                path=name,
                hints=["give None, bool, int, float, str, bytes, lists and dicts of these, or use update_state"],
            )
        return Typed("msgpack", msgpack.packb(value, unicode_errors="surrogatepass"))

    def checkout(self, revision: str, *, thread: str | None = None) -> CheckpointInfo:
        """Continue a thread from one of its checkpoints: append a copy of it, without pending writes.

        Nothing is lost: the old head stays as another head. Returns the new head. Raises HeadMovedError.
        """
        return self._checkout(self.resolve(revision, thread=thread), "checkout")

    def rewind(self, thread: str, steps: int = 1) -> CheckpointInfo:
        """Check out the N-th ancestor of a thread's head."""
        if steps < 1:
            raise InvalidInputError(f"rewind by {steps}: the number of checkpoints to go back is 1 or more")
        return self._checkout(self.resolve(f"@~{steps}", thread=thread), "rewind")

    def _checkout(self, target: CheckpointInfo, kind: str) -> CheckpointInfo:
        stored = self._acts.checkout(target, kind=kind)
        return self._described(target.thread, stored.commit.checkpoint_id)

    def _described(self, thread: str, checkpoint_id: str) -> CheckpointInfo:
        info = self._resolver.describe(thread, "", checkpoint_id)
        if info is None:
            raise ThreadDeletedError(f"thread {thread!r} was deleted meanwhile")
        return info

    def tag(self, name: str, revision: str, *, thread: str | None = None) -> CheckpointInfo:
        """Name a checkpoint, which also protects it from `prune`. Raises AlreadyExistsError."""
        info = self.resolve(revision, thread=thread)
        self._acts.tag(name, info)
        return info

    def untag(self, name: str) -> None:
        """Remove a tag. Raises NotFoundError."""
        self._acts.untag(name)

    def tags(self) -> dict[str, CheckpointInfo]:
        """Return the checkpoints that carry tags, by tag; tags whose thread was deleted are left out."""
        found: dict[str, CheckpointInfo] = {}
        for tag in sorted(self._tags.all(), key=lambda tag: tag.name):
            with suppress(NotFoundError):
                found[tag.name] = self.resolve(f"tag:{tag.name}")
        return found

    def delete(self, thread: str) -> None:
        """Delete a thread so that `undo` can bring it back until `gc` passes. Raises ThreadNotFoundError."""
        self._acts.delete(thread)

    def prune(
        self,
        threads: Sequence[str],
        *,
        keep_last: int | None = None,
        keep_within: str | timedelta | None = None,
        dry_run: bool = False,
    ) -> list[PruneReport]:
        """Keep the newest checkpoints of every namespace of some threads, heads, and what carries a tag.

        What either option says to keep stays; without both InvalidInputError is raised.
        """
        policy = Retention.keeping(keep_last, keep_within)
        keep = policy.keep(clock.now_ms())
        if keep is None:
            raise InvalidInputError("nothing says what to keep", hints=["give keep_last=, keep_within= or both"])
        return self._acts.prune(threads, keep, str(policy), dry_run=dry_run)

    def operations(self, limit: int | None = None) -> list[Operation]:
        """Return what people did to threads, the last first."""
        return list(islice(self._operations.newest_first(), limit))

    def undo(self, operation: str | None = None) -> Operation:
        """Take back the last operation that is not undone, or the one named; see `Acts.undo`."""
        return self._acts.undo(operation)

    # -- upkeep ---------------------------------------------------------------------------------------

    def expire(self, thread: str, after: str | timedelta | None) -> datetime | None:
        """Give a thread a lifetime of its own, counted from now and renewed by each write; None: it lives for ever.

        Returns when it ends if nothing is written any more. Raises ThreadNotFoundError, InvalidInputError.
        """
        ttl = timedelta(0) if after is None else duration(after, "after")
        text = "never" if after is None else duration_text(ttl)
        return expiry(self._acts.expire(thread, ttl // timedelta(milliseconds=1), text))

    def sweep(self) -> int:
        """Let go of the threads of this graph that have expired; return how many. `gc` does so, and frees them."""
        return self._upkeep.sweep()

    def stats(self) -> Stats:
        """Return how much the whole store holds and where it goes; reads every commit of every graph once."""
        return collect_stats(self._core, self.format)

    def fsck(self, *, read_data: bool = True) -> FsckReport:
        """Check every record and object of the whole store; see `Checker.run`."""
        return Checker(self._core).run(read_data=read_data)

    def gc(self, *, grace: timedelta = DEFAULT_GRACE, dry_run: bool = False) -> GcReport:
        """Free what was let go longer ago than `grace`, and rewrite loose packs, in the whole store.

        First prunes this graph's threads by its retention policy (but not in a dry run). See `Collector.collect`.
        """
        if not dry_run:
            self._upkeep.prune_all()
        return self._collector.collect(grace=grace, dry_run=dry_run)

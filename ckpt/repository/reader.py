"""`Reader`: what people ask a repository, and what the answers look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, partial
from itertools import chain, islice
from typing import Any

from ckpt.errors import InvalidInputError, ObjectMissingError, PathNotFoundError
from ckpt.history.commits import Commit, StoredValue
from ckpt.history.keys import check_text
from ckpt.objects.ids import ObjectId
from ckpt.repository.arguments import check_info, check_place, checked_limit, several
from ckpt.repository.browse import Browser
from ckpt.repository.diff import Changes, ChannelChange, diff_states, key_changes
from ckpt.repository.engine import Engine
from ckpt.repository.gathered import look_at_all
from ckpt.repository.infos import ChannelInfo, CheckpointInfo, ThreadInfo, WriteInfo, is_internal
from ckpt.repository.memory import DEFAULT_MEMORY, Memories, Memory
from ckpt.repository.resolve import Resolver
from ckpt.repository.scopes import MEMORY, GraphInfo, graphs, within
from ckpt.repository.timeline import Timeline
from ckpt.storage.base import Storage
from ckpt.storage.sqlite_file import FORMAT
from ckpt.values.inert import inert
from ckpt.values.rope import rope_length
from ckpt.values.tree import Tree


@dataclass(frozen=True, slots=True)
class Diff:
    """What differs between two checkpoints; `old` is None for the empty state."""

    old: CheckpointInfo | None
    new: CheckpointInfo
    changes: Changes


class Reader(Engine):
    """The part of a repository that changes nothing: what there is, and what differs."""

    def __init__(self, storage: Storage, *, graph: str = "", **options: Any) -> None:
        super().__init__(storage, graph=graph, **options)
        self._resolver = Resolver(self._core, self._directory, self._tags)

    @cached_property
    def _memories(self) -> Memories:
        # Most processes that open a store ask for none. Made twice, by two threads at once, it serves as well.
        return Memories(self._core.beside(within(self.storage, MEMORY, self.graph)), self._serializer)

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
        check_text("the name of a memory", name)
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

    def resolve_with_head(
        self, revision: str, *, thread: str | None = None, namespace: str = ""
    ) -> tuple[CheckpointInfo, CheckpointInfo]:
        """Return what `resolve` does, and the head of its thread at that moment: see `Resolver.resolve_with_head`."""
        read = partial(self._resolver.resolve_with_head, revision, thread=thread, namespace=namespace)
        info, head = self._core.consistently(read)
        self._upkeep.looked_at(info.thread)
        return info, head

    def threads(self, pattern: str | None = None) -> list[ThreadInfo]:
        """Return all threads, or those whose name matches a glob, the one written to last first.

        One that is created, or deleted and created again, meanwhile may be left out. Costs a few round trips for each
        hundred of short threads.
        """
        check_text("a pattern", "" if pattern is None else pattern)
        wanted = [each for each in self._directory.threads() if pattern is None or fnmatchcase(each.name, pattern)]
        tags = self._tags.by_commit()
        found = look_at_all(
            self._core,
            wanted,
            lambda timeline: Browser(self._core, timeline, tags).thread(),
            damaged=lambda error, timeline: Browser(self._core, timeline, tags).damaged_thread(error),
        )
        return sorted(found, key=lambda info: (info.updated or "", info.name), reverse=True)

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

        With a revision its ancestors and itself, or with `all_heads` all of its thread in its namespace; without one
        all of `thread`, or of every thread. `subgraphs` adds the other namespaces of threads; ancestors are in one.
        """
        limit = checked_limit(limit)
        check_place(thread, namespace)
        if revision is not None:
            if subgraphs and not all_heads:
                raise InvalidInputError(
                    "subgraphs=True lists whole threads, and a revision has its ancestors in one namespace",
                    hints=["name the thread alone, or all_heads=True for all of the revision's thread"],
                )
            start = self.resolve(revision, thread=thread, namespace=namespace)
            if not all_heads:
                browser = self._resolver.require_browser(start.thread)
                return list(islice(browser.ancestors(start.namespace, start.checkpoint_id), limit))
            thread, namespace = start.thread, start.namespace

        if thread is None:
            return self.log_of_each(namespace=namespace, limit=limit, subgraphs=subgraphs)[:limit]
        browser = self._resolver.require_browser(thread)
        infos = _newest(browser, namespace, limit, subgraphs)
        self._upkeep.read(browser.timeline.thread, browser.timeline.thread.encode())
        return sorted(infos, key=lambda info: info.checkpoint_id, reverse=True)[:limit]

    def log_of_each(
        self, *, namespace: str = "", limit: int | None = None, subgraphs: bool = False
    ) -> list[CheckpointInfo]:
        """Return the newest checkpoints of every thread, up to `limit` of each in each namespace.

        Greatest id first, and those that forks share by the names of the threads. Costs a few round trips for each
        hundred of short threads.
        """
        limit = checked_limit(limit)
        check_place(None, namespace)
        tags = self._tags.by_commit()

        def look(timeline: Timeline) -> list[CheckpointInfo]:
            self._upkeep.read(timeline.thread, timeline.thread.encode())
            return _newest(Browser(self._core, timeline, tags), namespace, limit, subgraphs)

        # One more of each, to tell what the last one changed.
        newest = None if limit is None else limit + 1
        threads = self._directory.threads()
        every = look_at_all(self._core, threads, look, namespace=None if subgraphs else namespace, newest=newest)
        infos = sorted(chain.from_iterable(every), key=lambda info: info.thread)
        return sorted(infos, key=lambda info: info.checkpoint_id, reverse=True)

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
        check_info(info)
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
        old: CheckpointInfo | str | None,
        new: CheckpointInfo | str,
        *,
        internal: bool = False,
        paths: Sequence[tuple[str | int, ...]] = (),
    ) -> Diff:
        """Return what differs between two checkpoints of any threads, or revisions; None stands for an empty state.

        Equal parts are recognised by their ids and not loaded.
        """
        wanted = [_path(each) for each in several(paths, "paths")]
        old = self.resolve(old) if isinstance(old, str) else old
        new = self.resolve(new) if isinstance(new, str) else new
        before = self._commit(old).channels if old is not None else {}
        after = self._commit(new).channels
        changes = self._core.consistently(
            lambda: diff_states(self._core.objects.load, before, after, internal=internal, paths=wanted)
        )
        return Diff(old, new, changes)

    def changes(self, info: CheckpointInfo) -> list[ChannelChange]:
        """Return, in short, what a checkpoint changed against its parent; LangGraph's own channels left out.

        One whose parent was pruned is compared with nothing, as one that has none: all that it holds is new.
        """
        check_info(info)
        before, after = self._core.consistently(lambda: (self._parent_channels(info), self._commit(info).channels))
        return key_changes(
            self._core.objects.load,
            {name: value for name, value in before.items() if not is_internal(name)},
            {name: value for name, value in after.items() if not is_internal(name)},
        )

    def _parent_channels(self, info: CheckpointInfo) -> Mapping[str, StoredValue]:
        if not info.parents:
            return {}
        oid = ObjectId(bytes.fromhex(info.parents[0]))
        try:
            return self._core.commit(oid).channels
        except ObjectMissingError:
            browser = self._resolver.browser(info.thread)
            assert info.parent_checkpoint_id is not None
            if browser is None or (
                (found := browser.timeline.find(info.namespace, info.parent_checkpoint_id)) is not None
                and found.put is not None
                and found.put.commit == oid
            ):
                raise
            return {}

    def _commit(self, info: CheckpointInfo) -> Commit:
        check_info(info)
        return self._core.commit(ObjectId(bytes.fromhex(info.id)))

    def _value(self, info: CheckpointInfo, channel: str) -> StoredValue:
        check_text("the name of a channel", channel)
        channels = self._commit(info).channels
        if channel not in channels:
            raise PathNotFoundError(
                f"checkpoint {info.id[:8]} has no key {channel!r}",
                hints=[f"it has {', '.join(channels) or 'none'}"],
            )
        return channels[channel]


def _newest(browser: Browser, namespace: str, limit: int | None, subgraphs: bool) -> list[CheckpointInfo]:
    """Return the newest checkpoints of one namespace or, with `subgraphs`, of each; `limit` of each at most."""
    namespaces = browser.timeline.namespaces() if subgraphs else [namespace]
    return [info for each in namespaces for info in islice(browser.newest_first(each), limit)]


def _path(given: object) -> tuple[str | int, ...]:
    if isinstance(given, tuple | list) and all(isinstance(each, str | int) for each in given):
        return tuple(given)
    raise InvalidInputError(
        f"a path is a {type(given).__name__} that does not consist of texts and numbers",
        hints=["write it as in ('messages', 3)"],
    )

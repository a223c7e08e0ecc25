"""`CkptSaver`: LangGraph's checkpointer over a `Repository`.

One class, sync and async. The async methods run the sync ones on a small pool of threads of the saver's own, so
that the event loop never waits for serialising, hashing, compressing or the disk. What LangGraph expects of a
saver beyond its base class is written down in `docs/saver-contract.md`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from ckpt.errors import InvalidInputError
from ckpt.history.commits import Commit, StoredValue
from ckpt.history.keys import check_text
from ckpt.langgraph.history import delta_history
from ckpt.langgraph.metadata import Reading, dump_metadata, dump_value, load_metadata, matches, merged_metadata
from ckpt.langgraph.shared import (
    LifeCycle,
    Shared,
    config_of,
    named_id,
    next_version,
    place,
    thread_name,
    warn_encrypted,
)
from ckpt.repository import Repository, StoredCheckpoint
from ckpt.repository.arguments import check_mapping, checked_limit, several
from ckpt.repository.core import DEFAULT_MAX_CHECKPOINT_SIZE
from ckpt.repository.incoming import Channel, NewCheckpoint
from ckpt.repository.lineage import named_by, parents_in
from ckpt.repository.prune import keep_last

if TYPE_CHECKING:
    from ckpt.encryption import EncryptionKey

_APART = frozenset({"channel_values", "id", "ts"})
_PAGE_MAX = 32
_STRATEGIES = ("delete", "delete_all", "keep_latest")


class CkptSaver(LifeCycle, BaseCheckpointSaver[str]):
    """Keeps the checkpoints of LangGraph graphs, each value stored once.

    `store` is a path, a URL (`sqlite:///…`, `memory://`) or an open `Repository`, which then stays open when the
    saver is closed. `graph` keeps the threads of several graphs in one store apart: none sees another's.
    `encryption_key` (32 bytes, a passphrase, or a `KeyProvider`) encrypts all that is stored. `serde` serializes
    values (LangGraph's own by default). A `put` of more than `max_checkpoint_size` bytes raises StateTooLargeError
    with nothing written. `configurable_keys` names the configurable values to keep in the metadata; by default all
    plain ones whose names do not look like secrets. With `on_conflict="error"` a put whose parent is no longer the
    head raises HeadMovedError; by default both are kept, as two heads. `ttl` is how long a thread lives after its last
    write ("30d"), `retention` which checkpoints are kept of each thread ("keep_latest", {"keep_last": 50}). Thread ids
    that are not strings become `str(thread_id)`.

    Safe for many threads, event loops and processes. Usable with `with` and `async with`, which close it.
    """

    def __init__(
        self,
        store: str | Path | Repository,
        *,
        serde: SerializerProtocol | None = None,
        graph: str = "",
        encryption_key: EncryptionKey | None = None,
        max_checkpoint_size: int = DEFAULT_MAX_CHECKPOINT_SIZE,
        ttl: str | timedelta | Mapping[str, object] | None = None,
        retention: str | Mapping[str, object] | None = None,
        configurable_keys: Collection[str] | None = None,
        on_conflict: str = "keep",
    ) -> None:
        if serde is not None and not (hasattr(serde, "dumps_typed") or hasattr(serde, "dumps")):
            raise InvalidInputError(f"a {type(serde).__name__} is no serde", hints=["give what has dumps_typed"])
        super().__init__(serde=serde)
        if on_conflict not in ("keep", "error"):
            raise InvalidInputError(f"on_conflict={on_conflict!r} is neither 'keep' nor 'error'")
        names = None if configurable_keys is None else several(configurable_keys, "configurable_keys")
        check_text("a configurable key", *(names or ()))
        self._shared = Shared.of(
            store,
            graph=graph,
            encryption_key=encryption_key,
            max_checkpoint_size=max_checkpoint_size,
            ttl=ttl,
            retention=retention,
        )
        self._configurable_keys = None if names is None else frozenset(names)
        self._expect_head = on_conflict == "error"
        if isinstance(serde, EncryptedSerializer):
            warn_encrypted()

    # -- writing --------------------------------------------------------------------------------------

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, durably on return, under the parent that `config` names.

        All channel values are stored; those that `new_versions` does not name and whose version is the parent's
        are taken over from it without being serialized. Raises StateTooLargeError, ThreadDeletedError, and
        HeadMovedError with `on_conflict="error"`, UnstorableValueError for what the serde refuses, and
        InvalidInputError for an id or a channel's name that is no str; nothing is written then.
        """
        thread, namespace, parent_id = place(config)
        serde = self.serde
        check_mapping("a checkpoint", checkpoint)
        check_mapping("new_versions", new_versions)
        versions: ChannelVersions = _mapping_in(checkpoint, "channel_versions")

        def unchanged(name: str) -> Callable[[Commit], bool] | None:
            if name in new_versions or name not in versions:
                return None
            return lambda parent: self._versions(parent.header).get(name) == versions[name]

        timestamp: object = checkpoint.get("ts")
        apart = _APART if isinstance(timestamp, str) else _APART - {"ts"}
        header = {key: value for key, value in checkpoint.items() if key not in apart}
        values = _mapping_in(checkpoint, "channel_values")
        # Before the header is serialized: its versions have the same names, and a serde would not say what is wrong.
        check_text("the name of a channel", *values)
        stored = self.repository.put(
            NewCheckpoint(
                thread=thread,
                namespace=namespace,
                checkpoint_id=checkpoint.get("id"),  # refused where it is no str
                parent_id=parent_id or None,
                timestamp=timestamp if isinstance(timestamp, str) else None,
                header=dump_value(serde, header, "the checkpoint without its values"),
                metadata=dump_metadata(serde, merged_metadata(config, metadata, self._configurable_keys)),
                channels={
                    name: Channel(partial(dump_value, serde, value, name), unchanged(name))
                    for name, value in values.items()
                },
                expect_head=self._expect_head,
                above=parents_in(metadata),
            )
        )
        self._shared.versions.put(stored.commit.header.rope, dict(versions), 1)
        return config_of(thread, namespace, checkpoint["id"])

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Attach a task's writes to the checkpoint that `config` names, which may be put later.

        Decided write by write: error, scheduled, interrupt and resume writes replace what they wrote before,
        all others keep their first value. Raises ThreadDeletedError when the thread was deleted meanwhile, and
        InvalidInputError for a task or a channel that is not named by a str, or for what is no pair of channel and
        value; UnstorableValueError for what the serde refuses. Nothing is written then.
        """
        thread, namespace, checkpoint_id = place(config)
        if checkpoint_id is None:
            raise InvalidInputError("put_writes needs the checkpoint_id that the writes belong to")
        typed = [
            (WRITES_IDX_MAP.get(channel, index), channel, dump_value(self.serde, value, channel))
            for index, (channel, value) in enumerate(_pairs(writes))
        ]
        if typed:
            above = named_by(config["configurable"].get("checkpoint_map"))
            self.repository.put_writes(thread, namespace, checkpoint_id, task_id, task_path, typed, above)

    def _versions(self, header: StoredValue) -> ChannelVersions:
        known = self._shared.versions.get(header.rope)
        if known is None:
            loaded = Reading(self.serde).header(header, self.repository.load([header])[0])
            known = loaded.get("channel_versions") or {}
            self._shared.versions.put(header.rope, known, 1)
        return known

    # -- reading --------------------------------------------------------------------------------------

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that `config` names, or the thread's head when it names none.

        None only for what was never stored, or was deleted. Damage raises IntegrityError.
        """
        thread, namespace, checkpoint_id = place(config)
        stored = self.repository.read(thread, namespace, checkpoint_id or None)
        found = self._tuples([stored]) if stored is not None else ()
        return found[0] if found else None

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield checkpoints by id, greatest first.

        Without `checkpoint_ns` in the config, those of all namespaces; without a config, those of all threads.
        `filter` compares metadata by equality, `before` wants a lesser id, `limit` counts what is left: 0 gives
        none. In a thread that was rewound, what a subgraph remembers is listed from where it stood at `before` on, if
        that is a root checkpoint. What is no config, mapping or number from 0 on raises InvalidInputError, before
        anything is read. May be left half-read and interleaved with puts.
        """
        if filter is not None:
            check_mapping("a filter", filter)
        if config is not None:
            place(config)
        below = None if before is None or before == {} else named_id(before)
        return self._list(config, filter or {}, below, checked_limit(limit))

    def _list(
        self, config: RunnableConfig | None, wanted: dict[str, Any], before: str | None, limit: int | None
    ) -> Iterator[CheckpointTuple]:
        left = limit
        size = 1
        batch: list[StoredCheckpoint] = []
        for stored in self._candidates(config, before):
            if left is not None and left <= 0:
                break
            if wanted and not self._matches(stored, wanted):
                continue
            batch.append(stored)
            if left is not None:
                left -= 1
            if len(batch) >= size or left == 0:
                yield from self._tuples(batch)
                batch, size = [], min(4 * size, _PAGE_MAX)
        yield from self._tuples(batch)

    def _matches(self, stored: StoredCheckpoint, wanted: dict[str, Any]) -> bool:
        loaded = self.repository.load_all([stored], lambda each: [each.commit.metadata])
        return any(matches(load_metadata(self.serde, each.commit.metadata, data), wanted) for each, (data,) in loaded)

    def _metadata(self, commit: Commit) -> CheckpointMetadata:
        return load_metadata(self.serde, commit.metadata, self.repository.load([commit.metadata])[0])

    def _candidates(self, config: RunnableConfig | None, before: str | None) -> Iterator[StoredCheckpoint]:
        if config is None:
            yield from self.repository.read_everything(before=before)
            return
        thread, _, checkpoint_id = place(config)
        namespace = config["configurable"].get("checkpoint_ns")
        if namespace and checkpoint_id is None and before is not None:
            # How LangGraph looks for what a subgraph remembers, in a run that begins at a given root checkpoint.
            yield from self.repository.read_before(thread, namespace, before)
        elif checkpoint_id is None or namespace is None:
            for row in self.repository.read_all(thread, namespace, before=before):
                if checkpoint_id is None or row.checkpoint_id == checkpoint_id:
                    yield row
        elif before is None or checkpoint_id < before:
            found = self.repository.read(thread, namespace, checkpoint_id)
            if found is not None:
                yield found

    def _tuples(self, batch: Sequence[StoredCheckpoint]) -> Sequence[CheckpointTuple]:
        loaded = self.repository.load_all(batch)
        return [self._tuple(stored, zip(stored.values(), data, strict=True)) for stored, data in loaded]

    def _tuple(self, stored: StoredCheckpoint, loaded: Iterator[tuple[StoredValue, bytes]]) -> CheckpointTuple:
        serde = Reading(self.serde)
        loads = serde.loads_typed
        checkpoint = serde.header(*next(loaded))
        metadata = load_metadata(self.serde, *next(loaded))
        checkpoint["id"] = stored.checkpoint_id
        if stored.commit.timestamp is not None:
            checkpoint["ts"] = stored.commit.timestamp
        checkpoint["channel_values"] = {}
        for name in stored.commit.channels:
            value, data = next(loaded)
            checkpoint["channel_values"][name] = loads((value.type, data))
        writes = []
        for write in stored.writes:
            value, data = next(loaded)
            writes.append((write.task_id, write.channel, loads((value.type, data))))
        parents = stored.commit.parents
        return CheckpointTuple(
            config_of(stored.thread, stored.namespace, stored.checkpoint_id),
            cast(Checkpoint, checkpoint),
            metadata,
            config_of(stored.thread, stored.namespace, parents[0].checkpoint_id) if parents else None,
            writes,
        )

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return, per channel, the writes on the ancestors since the nearest one that holds a value, and it."""
        names = several(channels, "channels")
        check_text("the name of a channel", *names)
        thread, namespace, checkpoint_id = place(config)
        return delta_history(self.repository, Reading(self.serde), thread, namespace, checkpoint_id, names)

    # -- threads --------------------------------------------------------------------------------------

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread; late writes of a run that still goes on are refused. Unknown threads are ignored."""
        self.repository.delete_thread(thread_name(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints that the given runs made, in all threads and namespaces, with their writes.

        What another fork or a DeltaChannel of a checkpoint that stays needs is kept out of sight. Reads every
        checkpoint's metadata.
        """
        wanted = {str(run_id) for run_id in several(run_ids, "run_ids")}
        if not wanted:
            return

        def made(commit: Commit) -> bool:
            run_id: object = self._metadata(commit).get("run_id")
            return run_id is not None and str(run_id) in wanted

        for name in self.repository.threads_where(made):
            self.repository.prune_thread(
                name,
                lambda namespace, rows, head: {found.checkpoint_id: () for found, commit in rows if not made(commit)},
                exactly=True,
            )

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread whole, in constant time and space. Raises ThreadNotFoundError, AlreadyExistsError."""
        self.repository.copy_thread(thread_name(source_thread_id), thread_name(target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Prune threads: `keep_latest` keeps the head of every namespace, `delete` (or `delete_all`) nothing.

        An interrupted thread stays resumable and DeltaChannels of what is kept still rebuild. Raises
        InvalidInputError for another strategy or a plain string instead of a list.
        """
        names = [thread_name(thread_id) for thread_id in several(thread_ids, "thread_ids")]
        if strategy not in _STRATEGIES:
            raise InvalidInputError(f"strategy={strategy!r} is not one of {', '.join(_STRATEGIES)}")
        for name in names:
            if strategy == "keep_latest":
                self.repository.prune_thread(name, keep_last(1))
            else:
                self.repository.delete_thread(name)

    # -- versions and configs ---------------------------------------------------------------------------

    def config(self, revision: str, *, thread: str | None = None) -> RunnableConfig:
        """Return the config of the checkpoint that a revision means (`support-42~3`, `tag:good`, `id:8c1f`).

        Raises RevisionSyntaxError, RevisionNotFoundError or AmbiguousRevisionError.
        """
        info = self.repository.resolve(revision, thread=thread)
        return config_of(info.thread, info.namespace, info.checkpoint_id)

    def get_next_version(self, current: Any, channel: None) -> str:
        """Return the version after `current`: a zero-padded string, so that versions sort by age.

        `current` may be None or any int, float or string version, those of other savers included.
        """
        return next_version(current)

    # -- async ------------------------------------------------------------------------------------------

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Do what `get_tuple` does, off the event loop."""
        return await self._read(lambda: self.get_tuple(config), place(config)[0])

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Do what `list` does, off the event loop."""
        rows = self.list(config, filter=filter, before=before, limit=limit)
        while (row := await self._read(lambda: next(rows, None))) is not None:
            yield row

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Do what `put` does, off the event loop."""
        return await self._write(lambda: self.put(config, checkpoint, metadata, new_versions), place(config)[0])

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Do what `put_writes` does, off the event loop."""
        await self._write(lambda: self.put_writes(config, writes, task_id, task_path), place(config)[0])

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Do what `get_delta_channel_history` does, off the event loop."""
        return await self._read(
            lambda: self.get_delta_channel_history(config=config, channels=channels), place(config)[0]
        )

    async def adelete_thread(self, thread_id: str) -> None:
        """Do what `delete_thread` does, off the event loop."""
        await self._write(lambda: self.delete_thread(thread_id), thread_name(thread_id))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Do what `delete_for_runs` does, off the event loop."""
        await self._write(lambda: self.delete_for_runs(run_ids))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Do what `copy_thread` does, off the event loop."""
        await self._write(lambda: self.copy_thread(source_thread_id, target_thread_id))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Do what `prune` does, off the event loop."""
        await self._write(lambda: self.prune(thread_ids, strategy=strategy))


def _mapping_in(checkpoint: Checkpoint, key: str) -> dict[str, Any]:
    found: Any = checkpoint.get(key)
    if found is None:
        return {}
    check_mapping(key, found)
    mapping: dict[str, Any] = found
    return mapping


def _pairs(writes: Iterable[Any]) -> Sequence[tuple[str, Any]]:
    pairs: list[Any] = several(writes, "writes")
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InvalidInputError(
                f"a write is a {type(pair).__name__}, not a pair", hints=["give (channel, value) for each write"]
            )
    check_text("the name of a channel", *(channel for channel, _ in pairs))
    return pairs

"""Browsing: from rows of a timeline to descriptions of checkpoints, in batches."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgpack

from ckpt.errors import IntegrityError
from ckpt.history.checkpoints import Writes
from ckpt.history.commits import Commit, StoredValue
from ckpt.objects.ids import ObjectId
from ckpt.repository.core import Core
from ckpt.repository.infos import CheckpointInfo, ThreadInfo
from ckpt.repository.lifetimes import expiry
from ckpt.repository.progress import START, following, packets, status, tells
from ckpt.repository.stretches import Found
from ckpt.repository.timeline import Timeline
from ckpt.values.cut import MSGPACK_TYPES
from ckpt.values.inert import inert
from ckpt.values.rope import rope_length

logger = logging.getLogger(__name__)

_NOT_NODES = frozenset({"__input__", "__interrupt__", START})
_BATCH = 64


class Browser:
    """Describes checkpoints of one timeline. `tags` maps commit ids in hex to the names of their tags."""

    def __init__(self, core: Core, timeline: Timeline, tags: Mapping[str, Sequence[str]]) -> None:
        self._core = core
        self._timeline = timeline
        self._tags = tags

    @property
    def timeline(self) -> Timeline:
        """The timeline that is described."""
        return self._timeline

    def damaged_thread(self, error: IntegrityError) -> ThreadInfo:
        """Describe, by its records alone, a thread that cannot be described, and log why: with the status `damaged`."""
        timeline = self._timeline
        logger.warning("thread %r is damaged: %s", timeline.thread.name, error)
        return ThreadInfo(
            name=timeline.thread.name,
            checkpoints=self._count(),
            heads=0,
            head=None,
            updated=None,
            status="damaged",
            bytes_logical=0,
            forked_from=self._forked_from(),
            expires=expiry(timeline.thread),
        )

    def _count(self) -> int:
        """Return how many checkpoints a damaged thread shows; where that cannot be told, how many records it has."""
        timeline = self._timeline
        try:
            return sum(1 for namespace in timeline.namespaces() for _ in timeline.newest_first(namespace))
        except IntegrityError:
            return timeline.thread.root.census.count

    def _forked_from(self) -> str | None:
        return self._timeline.segments[1].thread.name if self._timeline.thread.base is not None else None

    def thread(self) -> ThreadInfo:
        """Describe the thread. Of its checkpoints the commits are read, and of its head what that refers to."""
        timeline = self._timeline
        checkpoints = size = 0
        head: Found | None = None
        roots: set[str] = set()
        # Where a host's clock is behind, a checkpoint may come before the one that it continues.
        continued: set[str] = set()
        for namespace in timeline.namespaces():
            for row, commit in self._with_commits(timeline.newest_first(namespace)):
                checkpoints += 1
                size += _logical_size(commit)
                if not namespace:
                    roots.add(row.checkpoint_id)
                    continued.update(parent.checkpoint_id for parent in commit.parents[:1])
                    head = row if row.checkpoint_id == timeline.head() else head
        described = self.describe([head], continued)[0] if head is not None else None
        return ThreadInfo(
            name=timeline.thread.name,
            checkpoints=checkpoints,
            heads=len(roots - continued),
            head=described,
            updated=described.timestamp if described is not None else None,
            status=described.status if described is not None and described.status != "done" else "idle",
            bytes_logical=size,
            forked_from=self._forked_from(),
            expires=expiry(timeline.thread),
        )

    def describe(self, rows: Sequence[Found], continued: set[str] | None = None) -> list[CheckpointInfo]:
        """Return descriptions in the order of `rows`, with a number of round trips that does not depend on it.

        `continued` are the checkpoint ids of their namespace known to be parents; without it they are found by
        reading what is newer than the rows.
        """
        if not rows:
            return []
        commits = self._core.commits(row.put.commit for row in rows if row.put is not None)
        parents = self._parents(rows, commits)
        if continued is None:
            continued = self._continued(rows)
        continued = continued | {parent.checkpoint_id for commit in commits.values() for parent in commit.parents}
        known = commits | {row.put.commit: commit for row, commit in parents.values() if row.put is not None}
        values = self._small_values(known.values())
        # Once for each: a packet may hold a copy of the whole state.
        sent = {oid: packets(commit, values) for oid, commit in known.items()}
        heads = {namespace: self._timeline.head(namespace) for namespace in {row.namespace for row in rows}}
        return [
            self._describe(row, commits[row.put.commit], parents, values, sent, heads[row.namespace], continued)
            for row in rows
            if row.put is not None
        ]

    def newest_first(self, namespace: str) -> Iterator[CheckpointInfo]:
        """Yield descriptions by id, greatest first."""
        continued: set[str] = set()
        for batch in _batches(self._timeline.newest_first(namespace)):
            infos = self.describe(batch, continued)
            continued.update(info.parent_checkpoint_id for info in infos if info.parent_checkpoint_id)
            yield from infos

    def ancestors(self, namespace: str, checkpoint_id: str) -> Iterator[CheckpointInfo]:
        """Yield a checkpoint and its ancestors by first parent; ends at one that was pruned."""
        walk = (found for found, _ in self._timeline.ancestors(namespace, checkpoint_id))
        continued: set[str] | None = None
        for batch in _batches(walk):
            for info, row in zip(self.describe(batch, continued), batch, strict=True):
                if row.hidden:
                    return
                yield info
                # All but the first are continued by the one before.
                continued = {info.parent_checkpoint_id} if info.parent_checkpoint_id is not None else set()

    def _with_commits(self, rows: Iterator[Found]) -> Iterator[tuple[Found, Commit]]:
        for batch in _batches(rows):
            commits = self._core.commits(row.put.commit for row in batch if row.put is not None)
            yield from ((row, commits[row.put.commit]) for row in batch if row.put is not None)

    def _continued(self, rows: Sequence[Found]) -> set[str]:
        found: set[str] = set()
        for namespace in {row.namespace for row in rows}:
            oldest = min(row.checkpoint_id for row in rows if row.namespace == namespace)
            for batch in _batches(self._timeline.newest_first(namespace, prove=False)):
                commits = self._core.commits(row.put.commit for row in batch if row.put is not None)
                found.update(parent.checkpoint_id for commit in commits.values() for parent in commit.parents)
                if batch[-1].checkpoint_id <= oldest:
                    break
        return found

    def _parents(
        self, rows: Sequence[Found], commits: Mapping[ObjectId, Commit]
    ) -> dict[tuple[str, str], tuple[Found, Commit]]:
        wanted: dict[str, dict[str, None]] = {}
        for row in rows:
            commit = commits[row.put.commit] if row.put is not None else None
            for parent in commit.parents[:1] if commit is not None else ():
                wanted.setdefault(row.namespace, {})[parent.checkpoint_id] = None
        found: list[Found] = []
        for namespace, ids in wanted.items():
            found += [row for row in self._timeline.find_many(namespace, list(ids)) if row is not None and row.put]
        more = self._core.commits(row.put.commit for row in found if row.put is not None)
        return {(row.namespace, row.checkpoint_id): (row, more[row.put.commit]) for row in found if row.put is not None}

    def _small_values(self, commits: Iterable[Commit]) -> dict[StoredValue, bytes]:
        wanted: dict[StoredValue, None] = {}
        for commit in commits:
            wanted[commit.header] = wanted[commit.metadata] = None
            wanted |= dict.fromkeys(value for name, value in commit.channels.items() if tells(name))
        values = list(wanted)
        return dict(zip(values, self._core.value_bytes(values), strict=True))

    def _describe(
        self,
        row: Found,
        commit: Commit,
        parents: Mapping[tuple[str, str], tuple[Found, Commit]],
        values: Mapping[StoredValue, bytes],
        sent: Mapping[ObjectId, list[str]],
        head: str | None,
        continued: set[str],
    ) -> CheckpointInfo:
        put = row.put
        assert put is not None
        parent_id = commit.parents[0].checkpoint_id if commit.parents else None
        parent = parents.get((row.namespace, parent_id)) if parent_id is not None else None
        metadata = _mapping(commit.metadata, values[commit.metadata])
        header = _header(commit, values)
        source = _text(metadata.get("source"))
        seen = _dict(header.get("versions_seen"))
        before: Mapping[str, Any] | None = {} if parent_id is None else None
        own, sent_before = sent[put.commit], list[str]()
        if parent is not None and parent[0].put is not None:
            before = _dict(_header(parent[1], values).get("versions_seen"))
            sent_before = sent[parent[0].put.commit]
        nodes = tuple(dict.fromkeys(following(commit, values, own, _dict(header.get("channel_versions")), seen)))
        is_head = row.checkpoint_id not in continued
        told, stopped = status(self._timeline.writes(row) if is_head else [], nodes, own)
        stored_id = put.commit.hex()
        step = metadata.get("step")
        return CheckpointInfo(
            id=stored_id,
            thread=self._timeline.thread.name,
            namespace=row.namespace,
            checkpoint_id=row.checkpoint_id,
            parents=tuple(each.commit.hex() for each in commit.parents if each.commit),
            parent_checkpoint_id=parent_id,
            step=step if type(step) is int and step.bit_length() <= 64 else None,
            source=source,
            run_id=_text(metadata.get("run_id")),
            timestamp=commit.timestamp,
            nodes=_ran(source, seen, before, sent_before),
            next=nodes,
            status=told,
            stopped=stopped,
            metadata=metadata,
            is_head=is_head,
            is_current=row.checkpoint_id == head,
            tags=tuple(self._tags.get(stored_id, ())),
            bytes_logical=_logical_size(commit),
            bytes_new=put.added + (_written(parent[0]) if parent is not None else 0),
            sequence=put.sequence,
        )


def _batches(rows: Iterator[Found]) -> Iterator[list[Found]]:
    size, batch = 4, []
    for row in rows:
        batch.append(row)
        if len(batch) >= size:
            yield batch
            size, batch = min(4 * size, _BATCH), []
    if batch:
        yield batch


def _ran(
    source: str | None, seen: Mapping[str, Any], before: Mapping[str, Any] | None, sent: Sequence[str]
) -> tuple[str, ...]:
    """Return the nodes whose run made a checkpoint, sorted.

    `before` is what nodes had seen at its parent (None where that is gone, so that nothing tells), and `sent` whom the
    parent's packets were for.
    """
    # An input has LangGraph drop the tasks that were open, as if they had seen all: nothing ran.
    if source == "input" or before is None:
        return ()
    ran = {node for node, versions in seen.items() if before.get(node) != versions}
    if source == "loop":
        # What a `Send` started has seen no channel. All packets run in the step that follows them.
        ran.update(sent)
    return tuple(sorted(ran - _NOT_NODES))


def _logical_size(commit: Commit) -> int:
    """Return the size of a checkpoint written in full, in bytes."""
    return sum(rope_length(value.rope) for value in commit.values())


def _written(row: Found) -> int:
    return sum(event.added for event in row.events if isinstance(event, Writes))


def _mapping(value: StoredValue, data: bytes) -> dict[str, Any]:
    """Return metadata or a header as inert data; empty when it is encrypted or no mapping."""
    shown = inert(value.type, data)
    return {key: each for key, each in shown.items() if isinstance(key, str)} if isinstance(shown, dict) else {}


def _header(commit: Commit, values: Mapping[StoredValue, bytes]) -> dict[str, Any]:
    if commit.header.type not in MSGPACK_TYPES:
        return {}
    try:
        header = msgpack.unpackb(values[commit.header], strict_map_key=False, unicode_errors="surrogatepass")
    except (ValueError, msgpack.UnpackException):
        return {}
    return _dict(header)


def _dict(value: object) -> dict[str, Any]:
    return {key: each for key, each in value.items() if isinstance(key, str)} if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None

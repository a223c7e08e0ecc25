"""What people do to threads, written down so that it can be undone: fork, checkout, tag, delete, prune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from shlex import quote
from typing import Any

from ckpt.errors import (
    AlreadyExistsError,
    HeadMovedError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    RevisionNotFoundError,
    damage_among,
)
from ckpt.history import clock, keys
from ckpt.history.checkpoints import Put
from ckpt.history.clock import next_checkpoint_id, now_text
from ckpt.history.commits import Commit, StoredValue
from ckpt.history.records import ThreadRecord
from ckpt.history.revisions import is_tag_name
from ckpt.repository.core import Core
from ckpt.repository.directory import Change, Directory
from ckpt.repository.incoming import Channel, NewCheckpoint, Stored, Typed
from ckpt.repository.infos import CheckpointInfo
from ckpt.repository.operations import OperationLog
from ckpt.repository.plan import Keep
from ckpt.repository.progress import DELTA_COUNTERS
from ckpt.repository.prune import Pruner, PruneReport, keep_heads_and
from ckpt.repository.tags import Tag, Tags
from ckpt.repository.threads import ThreadAdmin
from ckpt.repository.timeline import Timeline
from ckpt.repository.writer import Writer
from ckpt.storage.base import Batch
from ckpt.values.serializer import Serializer

SILENT = ""
"""As the kind of a checkout: part of another act, which is the one written down."""

_DOING = {"checkout": "checking it out", "rewind": "rewinding it", SILENT: "setting its values"}


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a repository that acts are made of."""

    core: Core
    directory: Directory
    writer: Writer
    admin: ThreadAdmin
    pruner: Pruner
    operations: OperationLog
    tags: Tags


class Acts:
    """Changes threads on a person's behalf. Each act is one transaction together with its log entry.

    But a prune of several threads, which is one for each of them, and a fork with values, which is two: its entry comes
    with the first.
    """

    def __init__(self, parts: Parts, serializer: Serializer) -> None:
        self._parts = parts
        self._serializer = serializer

    # -- fork and checkout ----------------------------------------------------------------------------

    def fork(self, source: CheckpointInfo, target: str, *, rows: int = 0) -> ThreadRecord:
        """Create the thread `target` from a checkpoint of the root namespace, in constant time and space.

        Returns its record as stored.

        `rows` says how many more rows belong to the fork, so that it can be undone together with them.
        """
        _require_root(source)
        text = f"fork {quote(source.thread)} at {source.id[:8]} as {quote(target)}"
        return self._parts.admin.fork(
            source.thread,
            target,
            source.checkpoint_id,
            log=lambda facts: self._parts.operations.entry("fork", text, [*facts, target, rows]),
        )

    def checkout(
        self,
        target: CheckpointInfo,
        expected: CheckpointInfo,
        *,
        kind: str,
        values: Mapping[str, Typed] | None = None,
    ) -> Stored:
        """Append a checkpoint with the target's state, without its pending writes, and make it the head.

        `values` replaces channels. Its id is greater than every other in the thread; the old head stays as
        another head. Raises HeadMovedError, with nothing written, when the head is not the one that is expected.
        """
        _require_root(target)
        timeline, commit = self._target(target)
        metadata = self._metadata(commit)
        step = metadata.get("step")
        # A DeltaChannel is rebuilt from the writes on its ancestors; the target's own come after its state. With
        # durability "exit" those of a thread's first run hang on a checkpoint before it, which names no source.
        rebuilt = metadata.get(DELTA_COUNTERS) or (step == -2 and "source" not in metadata)
        parent_id = target.parent_checkpoint_id if rebuilt else target.checkpoint_id
        metadata |= {"source": "fork", "step": step + 1 if isinstance(step, int) else 0}
        head = expected.checkpoint_id
        made = next_checkpoint_id(timeline.thread.greatest)
        text = f"{kind} {quote(target.thread)} -> {target.id[:8]}"
        channels: dict[str, StoredValue | Channel] = dict(commit.channels)
        channels |= {name: _channel(typed) for name, typed in (values or {}).items()}
        new = NewCheckpoint(
            thread=target.thread,
            namespace="",
            checkpoint_id=made,
            parent_id=parent_id,
            timestamp=now_text(),
            header=commit.header,
            metadata=Typed(*self._serializer.dumps_typed(metadata)),
            channels=channels,
            expect_head=True,
            expected_head=head,
            reset=self._moment(timeline, target.checkpoint_id),
            check=lambda thread: self._require_stored(target, timeline.thread, thread),
            log=lambda: self._entry(kind, text, [target.thread, made, head]),
        )
        try:
            return self._parts.writer.put(new)
        except HeadMovedError as error:
            raise self._moved(expected, target.thread, kind) from error

    def _moved(self, expected: CheckpointInfo, thread: str, kind: str) -> HeadMovedError:
        """Return the error for a head that is not the one expected; it says which one there is now."""
        timeline = Timeline(self._parts.core, self._parts.admin.require(thread)[0])
        head = timeline.head()
        found = timeline.find("", head) if head is not None else None
        now = found.put.commit.hex()[:8] if found is not None and found.put is not None else "without a head"
        return HeadMovedError(
            f"thread {thread!r} moved while you were {_DOING[kind]} (now {now}, was {expected.id[:8]})",
            hints=[f"a run is probably active. Look with ckpt log -n 3 -t {quote(thread)}, then try again"],
        )

    def _entry(self, kind: str, text: str, facts: list[object]) -> Change:
        return self._parts.operations.entry(kind, text, facts) if kind != SILENT else Change({}, {})

    def _target(self, target: CheckpointInfo) -> tuple[Timeline, Commit]:
        timeline, _, put = self._shown(target)
        return timeline, self._parts.core.commit(put.commit)

    def _shown(self, target: CheckpointInfo) -> tuple[Timeline, bytes, Put]:
        """Return the view and the record of a target's thread, and its put, or raise RevisionNotFoundError."""
        thread, raw = self._parts.admin.require(target.thread)
        timeline = Timeline(self._parts.core, thread)
        found = timeline.find(target.namespace, target.checkpoint_id)
        if found is None or found.shown is None:
            raise _gone(target)
        return timeline, raw, found.shown

    def _require_stored(self, target: CheckpointInfo, planned: ThreadRecord, present: ThreadRecord) -> None:
        """Refuse a target that was removed since, be it with its thread, whose name and ids another may have now."""
        self._target(target)
        if present.number != planned.number:
            raise _gone(target)

    def _metadata(self, commit: Commit) -> dict[str, Any]:
        data = self._parts.core.value_bytes([commit.metadata])[0]
        loaded = self._serializer.loads_typed((commit.metadata.type, data))
        return dict(loaded) if isinstance(loaded, dict) else {}

    def _moment(self, timeline: Timeline, checkpoint_id: str) -> tuple[int, int]:
        moment = timeline.moment(checkpoint_id)
        if moment is not None:
            return moment
        raise RevisionNotFoundError(f"thread {timeline.thread.name!r} has no checkpoint {checkpoint_id}")

    # -- tags -----------------------------------------------------------------------------------------

    def tag(self, name: str, target: CheckpointInfo, *, dry_run: bool) -> None:
        """Name a checkpoint, or raise AlreadyExistsError when the tag names another one that is there.

        Raises NotFoundError when it has gone since it was resolved.
        """
        if not is_tag_name(name):
            raise InvalidInputError(
                f"{name!r} cannot be a tag",
                hints=["use letters, digits and _ . + / - without two dots in a row"],
            )
        thread, _ = self._parts.admin.require(target.thread)
        tag = Tag(name, thread.number, target.namespace, target.checkpoint_id, bytes.fromhex(target.id))

        def act() -> tuple[Batch, None]:
            old, raw = self._parts.tags.get(name)
            if old is not None and old.commit != tag.commit and not self._is_over(old):
                raise AlreadyExistsError(
                    f"there is a tag {name!r} already, on {old.commit.hex()[:8]}",
                    hints=[f"first: ckpt tag -d {name}"],
                )
            if old == tag or dry_run:
                return Batch(), None
            # It may have gone since it was resolved, and its thread with it.
            timeline, record, put = self._shown(target)
            if timeline.thread.number != tag.thread or put.commit != tag.commit:
                raise _gone(target)
            entry = self._parts.operations.entry("tag", f"tag {name} {target.id[:8]}", [name, raw, tag.encode()])
            change = self._parts.tags.changed(name, raw, tag.encode())
            expected = {keys.thread_key(tag.thread): record, **change.expected, **entry.expected}
            return Batch(expected, {**change.records, **entry.records}), None

        self._parts.admin.atomically((target.thread,), act)

    def _is_over(self, tag: Tag) -> bool:
        """Whether a tag names only what the end of a lifetime has taken, which nothing brings back."""
        raw = self._parts.core.storage.read([keys.thread_key(tag.thread)])[0]
        if raw is None:
            return True
        thread = ThreadRecord.decode(tag.thread, raw)
        if thread.forks or not thread.lapsed(clock.now_ms()):
            return False
        timeline = Timeline(self._parts.core, thread)
        below = [timeline.put_in(segment, tag.namespace, tag.checkpoint_id) for segment in timeline.segments[1:]]
        return all(put is None or put.commit != tag.commit for put in below)

    def untag(self, name: str, *, dry_run: bool) -> None:
        """Remove a tag, or raise NotFoundError."""

        def act() -> tuple[Batch, None]:
            tag, raw = self._parts.tags.get(name)
            if tag is None:
                raise NotFoundError(f"there is no tag {name!r}", hints=["ckpt tag lists all"])
            if dry_run:
                return Batch(), None
            entry = self._parts.operations.entry("untag", f"untag {name}", [name, raw, None])
            change = self._parts.tags.changed(name, raw, None)
            return Batch({**change.expected, **entry.expected}, {**change.records, **entry.records}), None

        self._parts.admin.atomically((), act)

    # -- delete and prune -------------------------------------------------------------------------------

    def delete(self, name: str) -> None:
        """Delete a thread so that it can be brought back until the collector passes."""
        self._parts.admin.require(name)
        self._parts.admin.delete(
            name, log=lambda facts: self._parts.operations.entry("delete", f"delete {quote(name)}", facts)
        )

    def expire(self, name: str, ttl: int, text: str) -> ThreadRecord:
        """Give a thread a lifetime of its own, in milliseconds (0: for ever); `text` says it in the log."""
        entry = partial(self._parts.operations.entry, "expire", f"expire {quote(name)} {text}")
        return self._parts.admin.set_lifetime(name, ttl, log=entry)

    def prune(self, names: Sequence[str], keep: Keep, text: str, *, dry_run: bool) -> list[PruneReport]:
        """Keep what `keep` says, every head, and what carries a tag; `text` says it in the log.

        Raises ThreadNotFoundError, with nothing changed, for a name that no thread has. Threads that are damaged stay
        as they are: PartlyDoneError is raised when the others are pruned, or IntegrityError where there are none.
        """
        for name in names:
            self._parts.admin.require(name)
        reports: list[PruneReport] = []
        damaged: dict[str, IntegrityError] = {}
        for name in names:
            try:
                report = self._parts.pruner.prune(
                    name,
                    keep_heads_and(keep),
                    guard=self._parts.tags.guard,
                    log=partial(self._parts.operations.entry, "prune", f"prune {quote(name)} {text}"),
                    dry_run=dry_run,
                    undoable=True,
                )
            except IntegrityError as error:
                damaged[name] = error
            else:
                reports.append(report)
        if damaged:
            more = "let go of what nobody can mend: ckpt delete THREAD"
            raise damage_among("nothing was removed from", damaged, done=reports, hints=[more])
        return reports


def _channel(typed: Typed) -> Channel:
    return Channel(lambda: typed)


def _gone(target: CheckpointInfo) -> RevisionNotFoundError:
    return RevisionNotFoundError(f"checkpoint {target.id[:8]} is no longer in thread {target.thread!r}")


def _require_root(info: CheckpointInfo) -> None:
    if info.namespace:
        raise InvalidInputError(
            f"{info.id[:8]} belongs to the subgraph namespace {info.namespace!r}",
            hints=["fork or check out a checkpoint of the root namespace; its subgraphs come along"],
        )

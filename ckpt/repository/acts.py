"""What people do to threads, written down so that it can be undone: fork, checkout, tag, delete, prune, undo."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from ckpt.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RevisionNotFoundError,
)
from ckpt.history import clock, keys
from ckpt.history.checkpoints import newest
from ckpt.history.clock import next_checkpoint_id, now_text
from ckpt.history.commits import Commit, StoredValue
from ckpt.history.records import ThreadRecord
from ckpt.history.revisions import is_tag_name
from ckpt.repository.core import Core
from ckpt.repository.directory import Change, Directory
from ckpt.repository.incoming import Channel, NewCheckpoint, Stored, Typed
from ckpt.repository.infos import CheckpointInfo
from ckpt.repository.operations import Operation, OperationLog
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
    """Changes threads on a person's behalf. Each act is one transaction together with its log entry."""

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
        text = f"fork {source.thread} at {source.id[:8]} as {target}"
        return self._parts.admin.fork(
            source.thread,
            target,
            source.checkpoint_id,
            log=lambda facts: self._parts.operations.entry("fork", text, [*facts, target, rows]),
        )

    def checkout(
        self,
        target: CheckpointInfo,
        *,
        kind: str = "checkout",
        values: Mapping[str, Typed] | None = None,
        expected_head: str | None = None,
    ) -> Stored:
        """Append a checkpoint with the target's state, without its pending writes, and make it the head.

        `values` replaces channels. Its id is greater than every other in the thread; the old head stays as
        another head. Raises HeadMovedError when a run moved the head meanwhile.
        """
        _require_root(target)
        timeline, commit = self._target(target)
        metadata = self._metadata(commit)
        step = metadata.get("step")
        metadata |= {"source": "fork", "step": step + 1 if isinstance(step, int) else 0}
        head = timeline.head() if expected_head is None else expected_head
        parent_id: str | None = target.checkpoint_id
        if metadata.get(DELTA_COUNTERS):
            # A DeltaChannel is rebuilt from the writes on its ancestors; the target's own come after its state.
            parent_id = target.parent_checkpoint_id
        forks = timeline.thread.forks
        made = next_checkpoint_id(timeline.thread.greatest)
        text = f"{kind} {target.thread} -> {target.id[:8]}"
        channels: dict[str, StoredValue | Channel] = dict(commit.channels)
        channels |= {name: _channel(typed) for name, typed in (values or {}).items()}
        return self._parts.writer.put(
            NewCheckpoint(
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
                check=lambda: self._require_stored(target),
                log=lambda: self._entry(kind, text, [target.thread, made, head, forks]),
            )
        )

    def _entry(self, kind: str, text: str, facts: list[object]) -> Change:
        return self._parts.operations.entry(kind, text, facts) if kind != SILENT else Change({}, {})

    def _target(self, target: CheckpointInfo) -> tuple[Timeline, Commit]:
        thread, _ = self._parts.admin.require(target.thread)
        timeline = Timeline(self._parts.core, thread)
        found = timeline.find("", target.checkpoint_id)
        if found is None or found.put is None or found.hidden:
            raise RevisionNotFoundError(f"checkpoint {target.id[:8]} is no longer in thread {target.thread!r}")
        return timeline, self._parts.core.commit(found.put.commit)

    def _require_stored(self, target: CheckpointInfo) -> None:
        self._target(target)

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

    def tag(self, name: str, target: CheckpointInfo) -> None:
        """Name a checkpoint, or raise AlreadyExistsError when the tag names another one."""
        if not is_tag_name(name):
            raise InvalidInputError(
                f"{name!r} cannot be a tag",
                hints=["use letters, digits and _ . + / - without two dots in a row"],
            )
        thread, _ = self._parts.admin.require(target.thread)
        tag = Tag(name, thread.number, target.namespace, target.checkpoint_id, bytes.fromhex(target.id))

        def act() -> tuple[Batch, None]:
            old, raw = self._parts.tags.get(name)
            if old is not None and old.commit != tag.commit:
                raise AlreadyExistsError(
                    f"there is a tag {name!r} already, on {old.commit.hex()[:8]}",
                    hints=[f"first: ckpt tag -d {name}"],
                )
            if old == tag:
                return Batch(), None
            entry = self._parts.operations.entry("tag", f"tag {name} {target.id[:8]}", [name, raw, tag.encode()])
            change = self._parts.tags.changed(name, raw, tag.encode())
            return Batch({**change.expected, **entry.expected}, {**change.records, **entry.records}), None

        self._parts.admin.atomically((), act)

    def untag(self, name: str) -> None:
        """Remove a tag, or raise NotFoundError."""

        def act() -> tuple[Batch, None]:
            tag, raw = self._parts.tags.get(name)
            if tag is None:
                raise NotFoundError(f"there is no tag {name!r}", hints=["ckpt tag lists all"])
            entry = self._parts.operations.entry("untag", f"untag {name}", [name, raw, None])
            change = self._parts.tags.changed(name, raw, None)
            return Batch({**change.expected, **entry.expected}, {**change.records, **entry.records}), None

        self._parts.admin.atomically((), act)

    # -- delete and prune -------------------------------------------------------------------------------

    def delete(self, name: str) -> None:
        """Delete a thread so that it can be brought back until the collector passes."""
        self._parts.admin.require(name)
        self._parts.admin.delete(
            name, log=lambda facts: self._parts.operations.entry("delete", f"delete {name}", facts)
        )

    def expire(self, name: str, ttl: int, text: str) -> ThreadRecord:
        """Give a thread a lifetime of its own, in milliseconds (0: for ever); `text` says it in the log."""
        entry = partial(self._parts.operations.entry, "expire", f"expire {name} {text}")
        return self._parts.admin.set_lifetime(name, ttl, log=entry)

    def prune(self, names: Sequence[str], keep: Keep, text: str, *, dry_run: bool) -> list[PruneReport]:
        """Keep what `keep` says, every head, and what carries a tag; `text` says it in the log."""
        reports = []
        for name in names:
            self._parts.admin.require(name)
            reports.append(
                self._parts.pruner.prune(
                    name,
                    keep_heads_and(keep),
                    protected=lambda thread: self._parts.tags.protected(thread.number),
                    log=partial(self._parts.operations.entry, "prune", f"prune {name} {text}"),
                    dry_run=dry_run,
                    undoable=True,
                )
            )
        return reports

    # -- undo -----------------------------------------------------------------------------------------

    def undo(self, wanted: str | None) -> Operation:
        """Take back the newest operation that is not undone, or the one whose id begins with `wanted`.

        Returns the undo itself. Raises NotFoundError, or ConflictError when something was built on it or the
        collector has passed.
        """
        target = self._undoable(wanted)
        change: Callable[[], tuple[Change, str]] = {
            "fork": lambda: self._undo_fork(target),
            "checkout": lambda: self._undo_checkout(target),
            "rewind": lambda: self._undo_checkout(target),
            "tag": lambda: self._undo_tag(target),
            "untag": lambda: self._undo_tag(target),
            "delete": lambda: self._undo_delete(target),
            "prune": lambda: self._undo_prune(target),
            "expire": lambda: self._undo_expire(target),
        }.get(target.kind, lambda: _refuse(target, "it cannot be undone"))
        done: list[Operation] = []

        def act() -> tuple[Batch, None]:
            now = self._parts.operations.get(target.number)
            if now.undone:
                _refuse(target, "it is undone already")
            if not now.facts:
                _refuse(target, "gc has run since, and keeps this only for as long as its grace")
            undone, text = change()
            entry, operation = self._parts.operations.undone(now, text)
            done[:] = [operation]
            return Batch({**undone.expected, **entry.expected}, {**undone.records, **entry.records}), None

        self._parts.admin.atomically(self._names(target), act)
        return done[0]

    def _undoable(self, wanted: str | None) -> Operation:
        for operation in self._parts.operations.newest_first():
            if wanted is not None and operation.id.startswith(wanted):
                if operation.undone:
                    _refuse(operation, "it is undone already")
                return operation
            if wanted is None and operation.kind != "undo" and not operation.undone:
                return operation
        raise NotFoundError(
            "there is no operation to undo" if wanted is None else f"no operation begins with {wanted!r}",
            hints=["ckpt op log lists all"],
        )

    @staticmethod
    def _names(target: Operation) -> Collection[str]:
        return tuple(fact for fact in target.facts if isinstance(fact, str))

    def _undo_fork(self, target: Operation) -> tuple[Change, str]:
        number, name, rows = target.facts
        thread, raw = self._still_there(target, number)
        # One row too few: it was made, and then the store went away before its values were there.
        if thread.deleted or thread.sequence > int(str(rows)) or thread.forks:
            _refuse(target, f"thread {thread.name!r} has changed since")
        released = self._parts.directory.release(thread)
        key = keys.thread_key(thread.number)
        change = Change(
            {**released.expected, key: raw}, {**released.records, key: thread._replace(deleted=True).encode()}
        )
        return change, f"Undid op {target.id}: thread {name} is gone"

    def _undo_checkout(self, target: Operation) -> tuple[Change, str]:
        name, made, head, forks = target.facts
        thread, raw = self._parts.admin.require(str(name))
        key, head_key = (keys.checkpoint_key(thread.number, "", str(each)) for each in (made, head))
        record, of_head = self._parts.core.storage.read([key, head_key])
        unchanged = thread.root.head == made and thread.root.moved == thread.sequence
        if record is None or not unchanged or thread.forks != forks:
            _refuse(target, f"thread {name!r} has changed since")
        root = thread.counted(thread.root, key, record, None)._replace(
            head=str(head) if head is not None else None, moved=thread.sequence, newest=newest(head_key, of_head)
        )
        resets = tuple(reset for reset in thread.resets if reset.at < thread.sequence)
        before = thread._replace(root=root, resets=resets, sequence=thread.sequence + 1)
        change = Change(
            {keys.thread_key(thread.number): raw, key: record},
            {keys.thread_key(thread.number): before.encode(), key: None},
        )
        return change, f"Undid op {target.id}: {name} is back at {self._short(thread, str(head))}"

    def _short(self, thread: ThreadRecord, checkpoint_id: str) -> str:
        found = Timeline(self._parts.core, thread).find("", checkpoint_id)
        return found.put.commit.hex()[:8] if found is not None and found.put is not None else checkpoint_id

    def _undo_tag(self, target: Operation) -> tuple[Change, str]:
        name, before, after = target.facts
        raw = self._parts.tags.get(str(name))[1]
        if raw != after:
            _refuse(target, f"tag {name!r} has changed since")
        state = "gone" if before is None else "back"
        change = self._parts.tags.changed(str(name), raw, before)  # type: ignore[arg-type]
        return change, f"Undid op {target.id}: tag {name} is {state}"

    def _still_there(self, target: Operation, number: object) -> tuple[ThreadRecord, bytes]:
        """Return the thread that an operation needs. What has expired does not come back."""
        raw = self._parts.core.storage.read([keys.thread_key(int(str(number)))])[0]
        if raw is None:
            _refuse(target, "gc has removed what it needs")
        thread = ThreadRecord.decode(int(str(number)), raw)
        if thread.lapsed(clock.now_ms()):
            _refuse(target, f"thread {thread.name!r} has expired since")
        return thread, raw

    def _undo_delete(self, target: Operation) -> tuple[Change, str]:
        self._still_there(target, target.facts[0])
        change, thread = self._parts.admin.restored(int(str(target.facts[0])))
        return change, f"Undid op {target.id}: thread {thread.name} is back"

    def _undo_prune(self, target: Operation) -> tuple[Change, str]:
        number, sequence = (int(str(fact)) for fact in target.facts)
        self._still_there(target, number)
        change, count = self._parts.pruner.unhide(number, sequence)
        return change, f"Undid op {target.id}: {count} checkpoints are back"

    def _undo_expire(self, target: Operation) -> tuple[Change, str]:
        number, before, after = target.facts
        thread, _ = self._still_there(target, number)
        change = self._parts.admin.lifetime_restored(thread.number, before, after)  # type: ignore[arg-type]
        if change is None or thread.deleted:
            _refuse(target, f"thread {thread.name!r} has changed since")
        return change, f"Undid op {target.id}: {thread.name} lives as long as before, from now on"


def _channel(typed: Typed) -> Channel:
    return Channel(lambda: typed)


def _require_root(info: CheckpointInfo) -> None:
    if info.namespace:
        raise InvalidInputError(
            f"{info.id[:8]} belongs to the subgraph namespace {info.namespace!r}",
            hints=["fork or check out a checkpoint of the root namespace; its subgraphs come along"],
        )


def _refuse(operation: Operation, why: str) -> NoReturn:
    raise ConflictError(
        f"op {operation.id} ({operation.text}) cannot be undone: {why}",
        hints=["ckpt op log shows what came after, and older operations, which can be undone by their number"],
    )

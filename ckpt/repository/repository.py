"""`Repository`: the engine over one store, and what people and frameworks call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice

import msgpack

from ckpt.durations import DURATION_FORMS, duration_text, parse_duration
from ckpt.errors import (
    HeadMovedError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    StoreUnavailableError,
    ThreadDeletedError,
    UnstorableValueError,
    damage_among,
)
from ckpt.history import clock
from ckpt.history.clock import next_checkpoint_id, now_text
from ckpt.history.keys import check_text
from ckpt.history.readings import NUMBER_MAX
from ckpt.history.records import ThreadRecord
from ckpt.repository.acts import SILENT, Acts, Parts
from ckpt.repository.arguments import check_count, check_info, check_mapping, checked_limit, several
from ckpt.repository.core import DEFAULT_MAX_CHECKPOINT_SIZE
from ckpt.repository.fsck import Checker, FsckReport
from ckpt.repository.gc import Collector, GcReport
from ckpt.repository.incoming import Channel, NewCheckpoint, Stored, Typed
from ckpt.repository.infos import CheckpointInfo
from ckpt.repository.lifetimes import duration, expiry
from ckpt.repository.operations import Operation, OperationLog
from ckpt.repository.plain import dumped, is_plain, same
from ckpt.repository.prune import PruneReport
from ckpt.repository.reader import Reader
from ckpt.repository.retention import Retention
from ckpt.repository.stats import Stats, collect_stats
from ckpt.repository.tagged import in_own_threads
from ckpt.repository.thread import Thread
from ckpt.repository.undo import Undoer
from ckpt.storage.base import Storage
from ckpt.values.kinds import LANGGRAPH, TAG, Opaque

DEFAULT_GRACE = timedelta(days=14)
"""How long what was deleted can be brought back."""


class Repository(Reader):
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
        check_text("actor", actor)
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
        self._undoer = Undoer(parts)
        self._collector = Collector(self._core)

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
        check_text("the name of a thread", thread)
        check_mapping("what is to be committed", values)
        check_mapping("metadata", {} if metadata is None else metadata)
        typed = {name: dumped(self._serializer, name, value) for name, value in values.items()}
        while True:
            timeline = self.timeline(thread)
            head = timeline.head() if timeline is not None else None
            before = self._resolver.describe(thread, "", head) if head is not None else None
            step = (before.step or 0) + 1 if before is not None else 0
            details = {"source": "commit", "step": step, **(metadata or {})}
            made = next_checkpoint_id(timeline.thread.greatest if timeline is not None else "")
            try:
                stored = self.put(
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
            # Not by its name: the thread may have expired since, and what was stored is told all the same.
            return self._as_stored(stored)

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
        replaces channels, by one more checkpoint. Raises AlreadyExistsError when the name is taken, and
        UnstorableValueError for a value that who wrote the checkpoint could not read; nothing is made then.
        """
        check_text("the name of a thread", new_thread)
        check_mapping("values", {} if values is None else values)
        check_text("the name of a channel", *(values or ()))
        source = self.resolve(revision, thread=thread)
        typed = {name: self._typed_like(source, name, value) for name, value in (values or {}).items()}
        made = self._acts.fork(source, new_thread, rows=1 if typed else 0)
        with _after(f"thread {new_thread!r} was made" + (", maybe without its values" if typed else "")):
            info = self._found(made, "", source.checkpoint_id)
            if not typed:
                return info
            stored = self._acts.checkout(info, info, kind=SILENT, values=typed)
        return self._as_stored(stored)

    def _typed_like(self, info: CheckpointInfo, name: str, value: object) -> Typed:
        """Serialize a value so that who wrote the checkpoint can read it, or raise UnstorableValueError.

        A framework reads its own type tag, and plain data is the same msgpack for all that write msgpack.
        """
        commit = self._commit(info)
        tag = commit.channels[name].type if name in commit.channels else commit.header.type
        if tag == TAG:
            return dumped(self._serializer, name, value)
        # All of a checkpoint is written by one serde, and its header is always a dict.
        if commit.header.type != LANGGRAPH:
            raise UnstorableValueError(
                f"{name} cannot be set: its checkpoint was written by a serde of its own, as {commit.header.type!r}",
                path=name,
                hints=["use update_state of a graph whose saver has this serde"],
            )
        if isinstance(value, Opaque) and value.kind == "document" and value.name == tag:
            return dumped(self._serializer, name, value)
        if not is_plain(value):
            raise UnstorableValueError(
                f"{name} is not plain data, and its checkpoint was written by a framework",
                path=name,
                hints=["give None, bool, int, float, str, bytes, lists and dicts of these, or use update_state"],
            )
        try:
            return Typed(LANGGRAPH, msgpack.packb(value))
        except ValueError as error:
            raise UnstorableValueError(
                f"{name} is nothing that a framework could read: {error}",
                path=name,
                hints=["give text without halves of surrogate pairs"],
            ) from error

    def checkout(
        self, revision: str, *, thread: str | None = None, expected_head: CheckpointInfo | None = None
    ) -> CheckpointInfo:
        """Continue a thread from one of its checkpoints: append a copy of it, without pending writes.

        Nothing is lost: the old head stays as another head. Returns the new head. Of the head itself nothing is
        written: it is returned as it is, its pending writes stay. Raises HeadMovedError, with nothing changed, when
        the head is not, or no longer, the one expected: the one at the moment at which the revision was resolved.
        """
        _check_expected(expected_head)
        return self._checkout(*self.resolve_with_head(revision, thread=thread), expected_head, "checkout")

    def rewind(self, thread: str, steps: int = 1, *, expected_head: CheckpointInfo | None = None) -> CheckpointInfo:
        """Check out the N-th ancestor of a thread's head, or of the head expected; see `checkout`."""
        check_count("the number of checkpoints to go back", steps, least=1)
        _check_expected(expected_head)
        start = "@" if expected_head is None else f"@@{{id:{expected_head.id}}}"
        found = self.resolve_with_head(f"{start}~{min(steps, NUMBER_MAX)}", thread=thread)
        return self._checkout(*found, expected_head, "rewind")

    def _checkout(
        self, target: CheckpointInfo, head: CheckpointInfo, expected: CheckpointInfo | None, kind: str
    ) -> CheckpointInfo:
        expected = expected or head
        if target.id == head.id and expected.id == head.id:
            return target
        return self._as_stored(self._acts.checkout(target, expected, kind=kind))

    def _as_stored(self, stored: Stored) -> CheckpointInfo:
        namespace, checkpoint_id = stored.commit.namespace, stored.commit.checkpoint_id
        with _after(f"checkpoint {checkpoint_id} was stored in thread {stored.thread.name!r}"):
            return self._found(stored.thread, namespace, checkpoint_id)

    def _found(self, thread: ThreadRecord, namespace: str, checkpoint_id: str) -> CheckpointInfo:
        """Describe a checkpoint in a thread as that stood then, whatever became of its name."""
        info = self._resolver.describe_in(thread, namespace, checkpoint_id)
        if info is None:
            raise _gone(thread.name)
        return info

    def tag(self, name: str, revision: str, *, thread: str | None = None, dry_run: bool = False) -> CheckpointInfo:
        """Name a checkpoint, which also protects it from `prune`, and return it. Raises AlreadyExistsError."""
        check_text("the name of a tag", name)
        info = self.resolve(revision, thread=thread)
        self._acts.tag(name, info, dry_run=dry_run)
        return replace(info, tags=tuple(sorted({*info.tags, name})))

    def untag(self, name: str, *, dry_run: bool = False) -> None:
        """Remove a tag. Raises NotFoundError."""
        check_text("the name of a tag", name)
        self._acts.untag(name, dry_run=dry_run)

    def tags(self) -> dict[str, CheckpointInfo]:
        """Return the checkpoints that carry tags, by tag, sorted; tags whose thread was deleted are left out.

        Each thread with tags is looked through once. Where some checkpoints are damaged: PartlyDoneError, whose `done`
        are the (tag, checkpoint) pairs of the others, and IntegrityError where there are none.
        """
        tags = self._tags.all()
        found = in_own_threads(self._core, tags)
        for name in {info.thread for info in found.values()}:
            self._upkeep.looked_at(name)
        damaged: dict[str, IntegrityError] = {}
        for tag in tags:
            if tag.name not in found:
                try:
                    found[tag.name] = self.resolve(f"tag:{tag.name}")
                except IntegrityError as error:
                    damaged[tag.name] = error
                except NotFoundError:
                    continue
        pairs = sorted(found.items())
        if damaged:
            raise damage_among("what these tags name cannot be read:", damaged, done=pairs)
        return dict(pairs)

    def tag_names(self, thread: str | None = None) -> list[str]:
        """Return the names of all tags, or of those that were put on a thread, sorted.

        Reads records of tags alone, in a few round trips: what they name may be damaged, pruned, or, of all tags,
        deleted. Raises ThreadNotFoundError.
        """
        if thread is None:
            return sorted(tag.name for tag in self._tags.all())
        check_text("the name of a thread", thread)
        number = self._admin.require(thread)[0].number
        return sorted(tag.name for tag in self._tags.all() if tag.thread == number)

    def delete(self, thread: str) -> None:
        """Delete a thread so that `undo` can bring it back until `gc` passes. Raises ThreadNotFoundError."""
        check_text("the name of a thread", thread)
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

        What either option says to keep stays; without both InvalidInputError is raised. Returns one report for each
        thread, also where it is named twice. Each thread is pruned in a transaction of its own, and none when one is
        not there (ThreadNotFoundError). One that is damaged stays as it is: PartlyDoneError, whose `done` are the
        reports, is raised when the others are pruned, and IntegrityError where there are none.
        """
        policy = Retention.keeping(keep_last, keep_within)
        keep = policy.keep(clock.now_ms())
        if keep is None:
            raise InvalidInputError("nothing says what to keep", hints=["give keep_last=, keep_within= or both"])
        names = several(threads, "threads")
        check_text("the name of a thread", *names)
        return self._acts.prune([*dict.fromkeys(names)], keep, str(policy), dry_run=dry_run)

    def operations(self, limit: int | None = None) -> list[Operation]:
        """Return what people did to threads, the last first."""
        return list(islice(self._operations.newest_first(), checked_limit(limit)))

    def undo(self, operation: str | Operation | None = None, *, dry_run: bool = False) -> Operation:
        """Take back the last operation that is not undone, or another, named by its id (`3f` or `op:3f`).

        See `Undoer.undo`.
        """
        wanted = operation.id if isinstance(operation, Operation) else operation
        check_text("the id of an operation", "" if wanted is None else wanted)
        return self._undoer.undo(wanted if wanted is None else wanted.removeprefix("op:"), dry_run=dry_run)

    # -- upkeep ---------------------------------------------------------------------------------------

    def expire(self, thread: str, after: str | timedelta | None) -> datetime | None:
        """Give a thread a lifetime of its own, counted from now and renewed by each write; None: it lives for ever.

        Returns when it ends if nothing is written any more. Raises ThreadNotFoundError, InvalidInputError.
        """
        check_text("the name of a thread", thread)
        ttl = timedelta(0) if after is None else duration(after, "after")
        text = "never" if after is None else duration_text(ttl)
        return expiry(self._acts.expire(thread, ttl // timedelta(milliseconds=1), text))

    def sweep(self) -> int:
        """Let go of the threads of this graph that have expired; return how many. `gc` does so, and frees them."""
        return self._upkeep.sweep()

    def stats(self) -> Stats:
        """Return how much the whole store holds and where it goes; reads every commit of every graph."""
        return self._core.consistently(lambda: collect_stats(self._core, self.format, DEFAULT_GRACE))

    def fsck(self, *, read_data: bool = True) -> FsckReport:
        """Check every record and object of the whole store; see `Checker.run`."""
        return Checker(self._core).run(read_data=read_data)

    def gc(self, *, grace: str | timedelta = DEFAULT_GRACE, dry_run: bool = False) -> GcReport:
        """Free what was let go longer ago than `grace` ("14d", "0s"), and rewrite loose packs, in the whole store.

        First prunes this graph's threads by its retention policy (but not in a dry run). See `Collector.collect`.
        """
        if isinstance(grace, str):
            grace = parse_duration(grace)
        if not isinstance(grace, timedelta):
            raise InvalidInputError(f"grace={grace!r} is not a duration", hints=[DURATION_FORMS])
        if not dry_run:
            self._upkeep.prune_all()
        return self._collector.collect(grace=grace, dry_run=dry_run)


@contextmanager
def _after(done: str) -> Iterator[None]:
    """Have the error of a store that goes away tell what was done before: who does it again has done it twice."""
    try:
        yield
    except StoreUnavailableError as error:
        hints = ["look at it before doing it again", *error.hints]
        raise type(error)(f"{done}, but then the store went away: {error}", hints=hints) from error


def _check_expected(head: object) -> None:
    if head is not None:
        check_info(head)


def _gone(thread: str) -> ThreadDeletedError:
    return ThreadDeletedError(f"thread {thread!r} was deleted meanwhile")

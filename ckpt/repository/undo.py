"""Taking back what people did to threads: what has to be as it was left for that, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from shlex import quote
from typing import NoReturn

from ckpt.errors import AmbiguousRevisionError, ConflictError, NotFoundError
from ckpt.history import clock, keys
from ckpt.history.checkpoints import current_put, decode_events, newest
from ckpt.history.records import ThreadRecord, decode_line
from ckpt.repository.acts import Parts
from ckpt.repository.directory import Change
from ckpt.repository.mark import forks_of, rows
from ckpt.repository.operations import Operation
from ckpt.repository.tags import decode_tag
from ckpt.repository.timeline import Timeline
from ckpt.storage.base import Batch

_CANDIDATES_MAX = 10

_CHANGED = "ckpt op log shows what people did after it, ckpt log what runs did"
_UNDONE = "ckpt op log shows by which operation"
_FINAL = "nothing takes it back any more"


class Undoer:
    """Takes operations back, each in one transaction together with its log entry."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def undo(self, wanted: str | None, *, dry_run: bool = False) -> Operation:
        """Take back the newest operation that is not undone, or the one whose id is `wanted` or alone begins with it.

        Returns the undo itself; with `dry_run`, which looks at the same and writes nothing, what would be undone.
        Raises NotFoundError, AmbiguousRevisionError, or ConflictError when something was built on it or the collector
        has passed.
        """
        target = self._target(wanted)
        if target.kind == "undo":
            _refuse(target, "it is an undo itself", "do again what it took back")
        change: Callable[[], tuple[Change, str]] = {
            "fork": lambda: self._fork(target),
            "checkout": lambda: self._checkout(target),
            "rewind": lambda: self._checkout(target),
            "tag": lambda: self._tag(target),
            "untag": lambda: self._tag(target),
            "delete": lambda: self._delete(target),
            "prune": lambda: self._prune(target),
            "expire": lambda: self._expire(target),
        }.get(target.kind, lambda: _refuse(target, "this version does not know how", "a newer version of ckpt may"))
        done: list[Operation] = []

        def act() -> tuple[Batch, None]:
            now = self._parts.operations.get(target.number)
            if now.undone:
                _refuse(target, "it is undone already", _UNDONE)
            if not now.facts:
                _refuse(target, "gc has run since, and keeps this only for as long as its grace", _FINAL)
            undone, text = change()
            if dry_run:
                done[:] = [now]
                return Batch(), None
            entry, operation = self._parts.operations.undone(now, text)
            done[:] = [operation]
            return Batch({**undone.expected, **entry.expected}, {**undone.records, **entry.records}), None

        self._parts.admin.atomically(_names(target), act)
        return done[0]

    def _target(self, wanted: str | None) -> Operation:
        if wanted is None:
            for operation in self._parts.operations.newest_first():
                if operation.kind != "undo" and not operation.undone:
                    return operation
            raise NotFoundError("there is no operation to undo", hints=["ckpt op log lists all"])
        found = [each for each in self._parts.operations.newest_first() if each.id.startswith(wanted)]
        exact = [each for each in found if each.id == wanted]
        if not found:
            raise NotFoundError(f"no operation begins with {wanted!r}", hints=["ckpt op log lists all"])
        if len(exact or found) > 1:
            names = [f"op:{each.id}" for each in found]
            raise AmbiguousRevisionError(
                f"{len(found)} operations begin with {wanted!r}",
                candidates=names,
                hints=[f"the last are: {', '.join(names[:_CANDIDATES_MAX])}", "give all digits"],
            )
        (operation,) = exact or found
        if operation.undone:
            _refuse(operation, "it is undone already", _UNDONE)
        return operation

    def _still_there(self, target: Operation, number: object) -> tuple[ThreadRecord, bytes]:
        """Return the thread that an operation needs. What has expired does not come back."""
        raw = self._parts.core.storage.read([keys.thread_key(int(str(number)))])[0]
        if raw is None:
            _refuse(target, "gc has removed what it needs", _FINAL)
        thread = ThreadRecord.decode(int(str(number)), raw)
        if thread.lapsed(clock.now_ms()):
            _refuse(target, f"thread {thread.name!r} has expired since", _FINAL)
        return thread, raw

    # -- each kind ------------------------------------------------------------------------------------

    def _fork(self, target: Operation) -> tuple[Change, str]:
        number, name, count = target.facts
        thread, raw = self._still_there(target, number)
        # With one row too few it was made, and then the store went away before its values were there.
        built_on = thread.sequence > int(str(count)) or (thread.forks > 0 and self._is_seen(thread.number, 0))
        if thread.deleted or built_on:
            _refuse(target, f"thread {thread.name!r} has changed since", _CHANGED)
        return self._parts.admin.released(thread, raw), f"Undid op {target.id}: thread {quote(str(name))} is gone"

    def _checkout(self, target: Operation) -> tuple[Change, str]:
        name, made, head = target.facts[:3]
        found = self._parts.directory.find(str(name))
        if found is None:
            _refuse(target, f"thread {name!r} is gone", _CHANGED)
        thread, raw = found
        key, head_key = (keys.checkpoint_key(thread.number, "", str(each)) for each in (made, head))
        record, of_head = self._parts.core.storage.read([key, head_key])
        put = current_put(decode_events(key, record)) if record is not None else None
        if put is None or thread.root.head != made or not self._is_untouched(thread, put.sequence):
            _refuse(target, f"thread {name!r} has changed since", _CHANGED)
        if ("", made) in self._parts.tags.protected(thread):
            _refuse(target, "the checkpoint that it made carries a tag", _CHANGED)
        short = self._short(target, thread, str(head))
        root = thread.counted(thread.root, key, record, None)._replace(
            head=str(head) if head is not None else None, moved=thread.sequence, newest=newest(head_key, of_head)
        )
        resets = tuple(reset for reset in thread.resets if reset.at != put.sequence)
        before = thread._replace(root=root, resets=resets, sequence=thread.sequence + 1)
        change = Change(
            {keys.thread_key(thread.number): raw, key: record},
            {keys.thread_key(thread.number): before.encode(), key: None},
        )
        return change, f"Undid op {target.id}: {quote(str(name))} is back at {short}"

    def _is_untouched(self, thread: ThreadRecord, since: int) -> bool:
        """Whether nothing was built on the checkpoint that a thread's event of this number put.

        What was done and undone since has raised the thread's number, and left nothing else.
        """
        storage, number = self._parts.core.storage, thread.number
        if thread.sequence > since:
            events = (newest(row.key, row.value) for row in rows(storage, keys.checkpoints_range(number, None)))
            moves = (decode_line(*row).moved for row in storage.scan(*keys.lines_range(number)))
            if max([*events, *moves, *[reset.at for reset in thread.resets]]) > since:
                return False
        return not (thread.forks and self._is_seen(number, since))

    def _is_seen(self, number: int, since: int) -> bool:
        """Whether a thread that lives, or can be brought back, sees this event of another thread."""
        deleted = {
            each.facts[0]
            for each in self._parts.operations.newest_first()
            if each.kind == "delete" and not each.undone and each.facts
        }
        return any(
            moments[-1] >= since and (not fork.deleted or fork.number in deleted)
            for fork, moments in forks_of(self._parts.core.storage, number)
        )

    def _short(self, target: Operation, thread: ThreadRecord, checkpoint_id: str) -> str:
        """Return the short id of what was the head before, which must be there."""
        found = Timeline(self._parts.core, thread).find("", checkpoint_id)
        if found is None or found.shown is None:
            _refuse(target, "what was the head before was pruned", _CHANGED)
        return found.shown.commit.hex()[:8]

    def _tag(self, target: Operation) -> tuple[Change, str]:
        name, before, after = target.facts
        raw = self._parts.tags.get(str(name))[1]
        if raw != after:
            _refuse(target, f"tag {name!r} has changed since", _CHANGED)
        if isinstance(before, bytes):
            self._require_tagged(target, str(name), before)
        state = "gone" if before is None else "back"
        change = self._parts.tags.changed(str(name), raw, before)  # type: ignore[arg-type]
        return change, f"Undid op {target.id}: tag {name} is {state}"

    def _require_tagged(self, target: Operation, name: str, record: bytes) -> None:
        tag = decode_tag(keys.tag_key(name), record)
        thread, _ = self._still_there(target, tag.thread)
        if thread.deleted:
            _refuse(target, f"thread {thread.name!r} is deleted", _CHANGED)
        found = Timeline(self._parts.core, thread).find(tag.namespace, tag.checkpoint_id)
        if found is None or found.shown is None or found.shown.commit != tag.commit:
            _refuse(target, "the checkpoint that carried the tag is gone", _CHANGED)

    def _delete(self, target: Operation) -> tuple[Change, str]:
        self._still_there(target, target.facts[0])
        change, thread = self._parts.admin.restored(int(str(target.facts[0])))
        return change, f"Undid op {target.id}: thread {quote(thread.name)} is back"

    def _prune(self, target: Operation) -> tuple[Change, str]:
        number, sequence = (int(str(fact)) for fact in target.facts)
        self._still_there(target, number)
        change, count = self._parts.pruner.unhide(number, sequence)
        back = "1 checkpoint is back" if count == 1 else f"{count:,} checkpoints are back"
        return change, f"Undid op {target.id}: {back}"

    def _expire(self, target: Operation) -> tuple[Change, str]:
        number, before, after = target.facts
        thread, _ = self._still_there(target, number)
        change = self._parts.admin.lifetime_restored(thread.number, before, after)  # type: ignore[arg-type]
        if change is None or thread.deleted:
            _refuse(target, f"thread {thread.name!r} has changed since", _CHANGED)
        return change, f"Undid op {target.id}: {quote(thread.name)} lives as long as before, from now on"


def _names(target: Operation) -> Collection[str]:
    return tuple(fact for fact in target.facts if isinstance(fact, str))


def _refuse(operation: Operation, why: str, *hints: str) -> NoReturn:
    raise ConflictError(f"op {operation.id} ({operation.text}) cannot be undone: {why}", hints=hints)

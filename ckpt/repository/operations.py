"""The operation log: what people did to threads, so that it can be read and undone.

Runs of agents are not operations. Each entry is written in the transaction of the act itself. An act can be
undone as long as nothing was built on it and the collector has not passed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ckpt.history import keys
from ckpt.history.clock import TIME_END
from ckpt.history.records import Tally
from ckpt.history.seal import (
    Census,
    check_numbers,
    damaged,
    entry,
    miscounted,
    missing,
    outdated,
    seal,
    shaped,
    unseal,
)
from ckpt.repository.core import Core
from ckpt.repository.directory import Change
from ckpt.storage.base import Batch

_PAGE = 100

_SHAPE = (float, str, str, str, bool, list)

_HEADS = (str, str, str | None)
_TAG = (str, bytes | None, bytes | None)
_FACTS: dict[str, tuple[Any, ...]] = {
    "fork": (int, str, int),
    "checkout": _HEADS,
    "rewind": _HEADS,
    "tag": _TAG,
    "untag": _TAG,
    "delete": (int,),
    "prune": (int, int),
    "expire": (int, list, list),
    "undo": (int,),
}
"""What undoing takes, of the operations that can be undone; of others nobody asks."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One entry. `id` is its number in hex, `time` seconds since 1970, `facts` what undoing it takes."""

    number: int
    time: float
    kind: str
    text: str
    actor: str
    undone: bool
    facts: tuple[object, ...]

    @property
    def id(self) -> str:
        """The name by which `undo` takes it."""
        return f"{self.number:03x}"

    @property
    def undoable(self) -> bool:
        """Whether `undo` may take it; it refuses where something was built on it since, and always where this is False.

        False for an undo, for what is undone already, and for what gc has made final.
        """
        return self.kind != "undo" and not self.undone and bool(self.facts)

    @property
    def restores(self) -> tuple[int, int] | None:
        """The number of the thread of which undoing this brings checkpoints back; None if it does not.

        With it from which of the thread's sequence numbers on: what was pruned at that one, or 0 for all of the thread.
        """
        if self.kind not in ("delete", "prune") or not self.undoable:
            return None
        number, since = (int(str(fact)) for fact in (*self.facts, 0)[:2])
        return number, since

    def note_restorable(self, found: dict[int, int]) -> None:
        """Add what this `restores` to that of other operations: of each thread, from where on any brings back."""
        if self.restores is not None:
            number, since = self.restores
            found[number] = min(found.get(number, since), since)

    def encode(self) -> bytes:
        """Return the record's bytes."""
        fields = [self.time, self.kind, self.text, self.actor, self.undone, list(self.facts)]
        return seal(keys.operation_key(self.number), fields)


class OperationLog:
    """Reads and writes operations."""

    def __init__(self, core: Core, actor: str) -> None:
        self._core = core
        self._actor = actor

    def newest_first(self) -> Iterator[Operation]:
        """Yield all operations, the last one first.

        Raises DamagedRecordError where one is missing or put back; the latter at the latest before those of the last
        page are yielded, which are all of a short log.
        """
        self._core.storage.check()
        start, end = keys.ALL_OPERATIONS
        tally, counted = self._tally()
        found, undone = Census(), set[object]()
        below: int | None = None
        while below != 0:
            page = self._core.storage.scan(start, end, limit=_PAGE, reverse=True)
            operations = [_decode(key, raw) for key, raw in page]
            if below is None:
                below = max([tally.census.count, *[each.number for each in operations[:1]]])
                if below > tally.census.count and self._tally()[1] == counted:
                    raise outdated("the list of operations")
            if below and not page:
                raise missing("an operation")
            for operation, (key, raw) in zip(operations, page, strict=True):
                if operation.number != below:
                    raise missing("an operation")
                if operation.number in undone and not operation.undone:
                    raise outdated(f"op {operation.id}")
                if operation.kind == "undo":
                    undone.update(operation.facts)
                if operation.number <= tally.census.count:
                    found = found.changed(None, entry(tally.salt, key, raw))
                below -= 1
            if below == 0 and found != tally.census and self._tally()[1] == counted:
                raise miscounted("an operation", found, tally.census)
            yield from operations
            end = keys.operation_key(below + 1)

    def get(self, number: int) -> Operation:
        """Return an operation that must exist, as it is now."""
        key = keys.operation_key(number)
        raw = self._core.storage.read([key])[0]
        if raw is None:
            raise missing("an operation")
        return _decode(key, raw)

    def entry(self, kind: str, text: str, facts: list[object]) -> Change:
        """Return the change that adds an operation."""
        tally, counted = self._tally()
        return self._written(tally, counted, [(None, self._new(tally, kind, text, tuple(facts)))])

    @staticmethod
    def _written(tally: Tally, counted: bytes | None, changes: Sequence[tuple[Operation | None, Operation]]) -> Change:
        """Return the change that writes operations over what they were (None: added), given what counts them now."""
        expected: dict[bytes, bytes | None] = {keys.OPERATIONS: counted}
        records: dict[bytes, bytes | None] = {}
        for before, after in changes:
            key = keys.operation_key(after.number)
            expected[key] = before.encode() if before is not None else None
            records[key] = after.encode()
            tally = tally.replaced(key, expected[key], records[key])
        return Change(expected, {**records, keys.OPERATIONS: tally.encode(keys.OPERATIONS)})

    def _tally(self) -> tuple[Tally, bytes | None]:
        """Return what counts the operations, and its record's bytes."""
        for key, raw in self._core.storage.scan(keys.OPERATIONS, keys.ALL_OPERATIONS[1], limit=1):
            if key != keys.OPERATIONS:
                raise missing("how many operations there are")
            return Tally.decode(key, raw), raw
        return Tally.decode(keys.OPERATIONS, None), None

    def settled(self, numbers: Sequence[int]) -> Batch:
        """Return the batch after which operations can no longer be undone; their entries stay readable."""
        tally, counted = self._tally()
        wanted = [keys.operation_key(number) for number in numbers]
        raws = zip(wanted, self._core.storage.read(wanted), strict=True)
        operations = [_decode(key, raw) for key, raw in raws if raw is not None]
        change = self._written(tally, counted, [(each, replace(each, facts=())) for each in operations])
        return Batch(change.expected, change.records) if operations else Batch()

    def undone(self, operation: Operation, text: str) -> tuple[Change, Operation]:
        """Return the change that marks an operation as undone and adds the undo itself, and the undo."""
        tally, counted = self._tally()
        undo = self._new(tally, "undo", text, (operation.number,))
        return self._written(tally, counted, [(operation, replace(operation, undone=True)), (None, undo)]), undo

    def _new(self, tally: Tally, kind: str, text: str, facts: tuple[object, ...]) -> Operation:
        return Operation(tally.census.count + 1, time.time(), kind, text, self._actor, False, facts)


def _decode(key: bytes, raw: bytes) -> Operation:
    number = int.from_bytes(key[2:], "big")
    what = f"op {number:03x}"
    when, kind, text, actor, undone, facts = shaped(unseal(key, raw, what), _SHAPE, what)
    if not 0 <= when < TIME_END:
        raise damaged(what)
    if facts and (shape := _FACTS.get(kind)) is not None:
        # Those of a rewind once were more.
        known = shaped(facts[: len(shape)] if shape is _HEADS else facts, shape, what)
        terms = [shaped(fact, (int, bool), what)[0] for fact in known if _is_terms(fact)]
        check_numbers(what, *[fact for fact in known if isinstance(fact, int)], *terms)
    return Operation(number, when, kind, text, actor, undone, tuple(facts))


def _is_terms(fact: object) -> bool:
    """Whether a fact says how long a thread lived: its ttl, and whether that was its own; [] for no lifetime."""
    return isinstance(fact, list) and fact != []

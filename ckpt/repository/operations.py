"""The operation log: what people did to threads, so that it can be read and undone.

Runs of agents are not operations. Each entry is written in the transaction of the act itself. An act can be
undone as long as nothing was built on it and the collector has not passed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ckpt.history import keys
from ckpt.history.seal import missing, outdated, seal, unseal
from ckpt.repository.core import Core
from ckpt.repository.directory import Change
from ckpt.storage.base import Batch


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
        """Yield all operations, the last one first. Raises DamagedRecordError where one is missing or put back."""
        self._core.storage.check()
        start, end = keys.ALL_OPERATIONS
        count, _ = self._count()
        below: int | None = None
        undone: set[object] = set()
        while page := self._core.storage.scan(start, end, limit=100, reverse=True):
            for key, raw in page:
                operation = _decode(key, raw)
                if operation.number < count if below is None else operation.number != below:
                    raise missing("an operation")
                if operation.number in undone and not operation.undone:
                    raise outdated(f"op {operation.id}")
                if operation.kind == "undo":
                    undone.update(operation.facts)
                below = operation.number - 1
                yield operation
            end = page[-1][0]
        if count if below is None else below:
            raise missing("an operation")

    def get(self, number: int) -> Operation:
        """Return an operation that must exist, as it is now."""
        key = keys.operation_key(number)
        raw = self._core.storage.read([key])[0]
        if raw is None:
            raise missing("an operation")
        return _decode(key, raw)

    def entry(self, kind: str, text: str, facts: list[object]) -> Change:
        """Return the change that adds an operation."""
        return self._added(kind, text, tuple(facts))[0]

    def _added(self, kind: str, text: str, facts: tuple[object, ...]) -> tuple[Change, Operation]:
        count, raw = self._count()
        operation = Operation(count + 1, time.time(), kind, text, self._actor, False, facts)
        key = keys.operation_key(operation.number)
        return Change(
            {keys.OPERATIONS: raw, key: None},
            {keys.OPERATIONS: seal(keys.OPERATIONS, operation.number), key: operation.encode()},
        ), operation

    def _count(self) -> tuple[int, bytes | None]:
        """Return how many operations there are, and the record that says so."""
        for key, raw in self._core.storage.scan(keys.OPERATIONS, keys.ALL_OPERATIONS[1], limit=1):
            if key != keys.OPERATIONS:
                raise missing("how many operations there are")
            return unseal(key, raw, "how many operations there are"), raw
        return 0, None

    def settled(self, key: bytes) -> Batch:
        """Return the batch after which an operation can no longer be undone; its entry stays readable."""
        raw = self._core.storage.read([key])[0]
        if raw is None:
            return Batch()
        return Batch({key: raw}, {key: replace(_decode(key, raw), facts=()).encode()})

    def undone(self, operation: Operation, text: str) -> tuple[Change, Operation]:
        """Return the change that marks an operation as undone and adds the undo itself, and the undo."""
        change, undo = self._added("undo", text, (operation.number,))
        key = keys.operation_key(operation.number)
        change.expected[key], change.records[key] = operation.encode(), replace(operation, undone=True).encode()
        return change, undo


def _decode(key: bytes, raw: bytes) -> Operation:
    when, kind, text, actor, undone, facts = unseal(key, raw, "an operation")
    number = int.from_bytes(key[2:], "big")
    return Operation(number, when, kind, text, actor, undone, tuple(facts))

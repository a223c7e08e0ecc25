"""The operation log: what people did to threads, so that it can be read and undone.

Runs of agents are not operations. Each entry is written in the transaction of the act itself. An act can be
undone as long as nothing was built on it and the collector has not passed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ckpt.history import keys
from ckpt.history.seal import seal, unseal
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
        """Yield all operations, the last one first."""
        self._core.storage.check()
        start, end = keys.ALL_OPERATIONS
        while page := self._core.storage.scan(start, end, limit=100, reverse=True):
            for key, raw in page:
                yield _decode(key, raw)
            end = page[-1][0]

    def entry(self, kind: str, text: str, facts: list[object]) -> Change:
        """Return the change that adds an operation."""
        number = next((operation.number for operation in self.newest_first()), 0) + 1
        operation = Operation(number, time.time(), kind, text, self._actor, False, tuple(facts))
        key = keys.operation_key(number)
        return Change({key: None}, {key: operation.encode()})

    def settled(self, key: bytes) -> Batch:
        """Return the batch after which an operation can no longer be undone; its entry stays readable."""
        raw = self._core.storage.read([key])[0]
        if raw is None:
            return Batch()
        return Batch({key: raw}, {key: replace(_decode(key, raw), facts=()).encode()})

    def undone(self, operation: Operation, text: str) -> tuple[Change, Operation]:
        """Return the change that marks an operation as undone and adds the undo itself, and the undo."""
        number = next((each.number for each in self.newest_first()), 0) + 1
        undo = Operation(number, time.time(), "undo", text, self._actor, False, (operation.number,))
        old, new = keys.operation_key(operation.number), keys.operation_key(number)
        return Change(
            {old: operation.encode(), new: None},
            {old: replace(operation, undone=True).encode(), new: undo.encode()},
        ), undo


def _decode(key: bytes, raw: bytes) -> Operation:
    when, kind, text, actor, undone, facts = unseal(key, raw, "an operation")
    number = int.from_bytes(key[2:], "big")
    return Operation(number, when, kind, text, actor, undone, tuple(facts))

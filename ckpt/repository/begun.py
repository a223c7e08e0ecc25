"""Whose run made a subgraph's checkpoint: what a root checkpoint's run made is not there yet where a fork left at it.

A subgraph may store its first checkpoints before the root's, under which it runs, has reached the store: LangGraph's
durability "async" does not wait. So sequence numbers alone do not tell.
"""

from __future__ import annotations

from collections.abc import Sequence

from ckpt.history import keys
from ckpt.history.checkpoints import Event, Put, decode_events
from ckpt.history.records import ThreadRecord
from ckpt.objects.ids import ObjectId
from ckpt.repository.core import Core
from ckpt.repository.lineage import root_parent
from ckpt.repository.proofs import Proofs
from ckpt.storage.base import Reading


class Begun:
    """Looks up when the runs began that made checkpoints of subgraphs, each once; not for the root's own."""

    def __init__(self, core: Core, reading: Reading, proofs: Proofs) -> None:
        self._core = core
        self._reading = reading
        self._proofs = proofs
        self._known: dict[tuple[int, ObjectId], int] = {}

    def since(self, thread: ThreadRecord, put: Put, moment: int) -> bool:
        """Whether a subgraph's checkpoint was made by a run of the root's at this moment, or a later one."""
        slot = thread.number, put.commit
        if slot not in self._known:
            self._known[slot] = self._when(thread, put.commit)
        return self._known[slot] >= moment

    def before(self, thread: ThreadRecord, events: Sequence[Event], moment: int) -> list[Event]:
        """Return the events of a subgraph's checkpoint but the puts since this moment; of no other put, none."""
        left = [each for each in events if not isinstance(each, Put) or not self.since(thread, each, moment)]
        return left if len(left) == len(events) or any(isinstance(each, Put) for each in left) else []

    def _when(self, thread: ThreadRecord, commit: ObjectId) -> int:
        """Return when the root checkpoint was first put by whose run a checkpoint was made; 0 when nothing says it."""
        above = root_parent(self._core, self._core.commit(commit))
        if above is None:
            return 0
        key = keys.checkpoint_key(thread.number, "", above)
        raw = self._reading.read([key])[0]
        if raw is None:
            self._proofs.around(thread, "", above)
            return 0
        return next((event.sequence for event in decode_events(key, raw) if isinstance(event, Put)), 0)

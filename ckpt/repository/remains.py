"""What is there of one graph, and what a collection would leave of it: told beforehand, with nothing changed.

Three kinds of rows: those that a thread shows; those of what was deleted or pruned while `undo` can bring it back; and
those that the next collection takes, because nothing needs them. `ckpt.repository.remove` is what takes them.
"""

from __future__ import annotations

from collections.abc import Iterable

from ckpt.history import clock, keys
from ckpt.history.checkpoints import Event, as_left, decode_events, is_hidden, shown_put
from ckpt.history.records import ThreadRecord
from ckpt.objects.ids import ObjectId
from ckpt.repository.core import Core
from ckpt.repository.mark import Row, thread_records
from ckpt.repository.operations import OperationLog
from ckpt.repository.plan import Plan


class Left:
    """What a collection would leave of the threads of one graph, if it left `staying` to be restored."""

    def __init__(
        self, core: Core, threads: dict[int, ThreadRecord], gone: Iterable[int], staying: Iterable[int]
    ) -> None:
        self._core = core
        self._threads = threads
        self._staying = set(staying)
        self.going = set(gone) - self._staying
        left = _with_bases(threads, threads.keys() - self.going)
        self.moments: dict[int, int] = {}
        """The last moments at which threads that are left, were left by others that are."""
        for number in left:
            if (base := threads[number].base) is not None:
                self.moments[base.thread] = max(self.moments.get(base.thread, 0), base.moment)
        self._droppable: dict[int, set[bytes]] = {}

    def row(self, row: Row) -> Row | None:
        """Return what is left of a row; None for nothing."""
        number, moment = row.thread, self.moments.get(row.thread)
        if number in self.going:
            return row.as_of(moment) if moment is not None else None
        if row.part != "c" or moment is not None or number in self._staying:
            return row
        if not is_hidden(decode_events(row.key, row.value)):
            return row
        return None if row.key in self._dropped(number) else row

    def stands_for(self, number: int) -> tuple[bool, int | None, bool]:
        """Return all that decides what is left of a thread."""
        return number in self.going, self.moments.get(number), number in self._staying

    def _dropped(self, number: int) -> set[bytes]:
        """Return the rows of a thread's pruned checkpoints that no DeltaChannel needs."""
        found, thread = self._droppable.get(number), self._threads.get(number)
        if found is None and thread is not None:
            plan = Plan(
                self._core,
                thread._replace(forks=0),
                lambda namespace, visible, head: [row.checkpoint_id for row, _ in visible],
                (),
                hide=False,
                namespace=None,
                exactly=True,
            )
            found = self._droppable[number] = {keys.checkpoint_key(number, *slot) for slot in plan.droppable}
        return found or set()


class Remains:
    """What there is of one graph. Costs a read of its threads' records and of its log of operations."""

    def __init__(self, core: Core, until: float) -> None:
        """See what `undo` can bring back after a collection that goes back to `until`, in seconds since 1970."""
        now = clock.now_ms()
        # Before the log: of what is listed here, the log then tells what can be restored.
        threads = {number: ThreadRecord.decode(number, raw) for number, raw in thread_records(core.storage)}
        over = {number for number, thread in threads.items() if thread.lapsed(now)}
        gone = {number for number, thread in threads.items() if thread.deleted} | over
        restorable = {
            int(str(operation.facts[0]))
            for operation in OperationLog(core, "").newest_first()
            if operation.kind in ("delete", "prune")
            and not operation.undone
            and operation.facts
            and operation.time > until
        } - over
        self.threads = [thread for number, thread in threads.items() if number not in gone]
        """Those that are there."""
        self.core = core
        self.next = Left(core, threads, gone, restorable)
        """What the next collection leaves."""
        self.last = Left(core, threads, gone, ())
        """What one leaves once nothing of what was deleted and pruned can be brought back."""
        self.differing = [each for each in threads if self.next.stands_for(each) != self.last.stands_for(each)]
        """The threads of which the last one leaves less."""
        self._gone = gone
        self._views: dict[int, set[tuple[int, int]]] = {}
        for number in _with_bases(threads, threads.keys() - gone):
            if (base := threads[number].base) is not None:
                self._views.setdefault(base.thread, set()).add((base.moment, base.made))

    def shows(self, number: int) -> bool:
        """Whether anything of a thread is to be seen: in itself or in a fork."""
        return number not in self._gone or number in self._views

    def shown(self, row: Row) -> tuple[ObjectId | None, list[ObjectId]]:
        """Return the commit that a checkpoint's row is for its own thread, and all that threads show of it."""
        events = decode_events(row.key, row.value)
        own = _shown(events) if row.thread not in self._gone else None
        found = [own]
        for moment, made in self._views.get(row.thread, ()):
            found.append(_shown(as_left(events, moment, made)))
        return own, list(dict.fromkeys(commit for commit in found if commit is not None))


def _shown(events: list[Event]) -> ObjectId | None:
    put = shown_put(events)
    return put.commit if put is not None else None


def _with_bases(threads: dict[int, ThreadRecord], numbers: Iterable[int]) -> set[int]:
    """Return threads and those that they were forked from, directly or not."""
    found: set[int] = set()
    for number in numbers:
        each: int | None = number
        while each is not None and each in threads and each not in found:
            found.add(each)
            base = threads[each].base
            each = base.thread if base is not None else None
    return found

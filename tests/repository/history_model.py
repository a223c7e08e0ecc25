"""What a thread is, without segments, records or packs: a list of what happened to it.

A fork copies the list, or its beginning. Heads follow from the list by the rule of the design and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Writes = tuple[tuple[int, str, str], ...]


@dataclass(frozen=True)
class Put:
    namespace: str
    checkpoint_id: str
    parent: str | None
    values: Mapping[str, str]
    by: int = 0
    """The line, among those of a thread, that it was put in: a thread's own is the last."""


@dataclass(frozen=True)
class Wrote:
    namespace: str
    checkpoint_id: str
    task: str
    writes: Writes


@dataclass(frozen=True)
class Forked:
    """From here on the root's head is this one."""

    head: str


@dataclass(frozen=True)
class Reset:
    """From here on the namespaces stand where they stood after the first `length` events."""

    length: int


@dataclass(frozen=True)
class Pruned:
    """These are not seen any more, here and in what is copied from here.

    A fork that leaves at a checkpoint of a thread further down (see `by` of its put) does not know of it.
    """

    gone: frozenset[tuple[str, str]]
    by: int
    collected: bool = False
    """Whether a collector came by since: what no thread shows is gone for good then."""


@dataclass
class Line:
    head: str | None = None
    greatest: str = ""


@dataclass
class View:
    """What a thread is, once its events have been told."""

    puts: dict[tuple[str, str], Put] = field(default_factory=dict)
    wrote: dict[tuple[str, str], list[Wrote]] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)

    def ids(self, namespace: str) -> list[str]:
        """The ids of a namespace, greatest first."""
        return sorted((each for ns, each in self.puts if ns == namespace), reverse=True)

    def pending(self, namespace: str, checkpoint_id: str) -> list[tuple[str, str, int, str, str]]:
        slots: dict[tuple[str, int], tuple[str, str, int, str, str]] = {}
        for batch in self.wrote.get((namespace, checkpoint_id), ()):
            for index, channel, value in batch.writes:
                if index < 0 or (batch.task, index) not in slots:
                    slots[batch.task, index] = (path_of(batch.task), batch.task, index, channel, value)
        return sorted(slots.values(), key=lambda write: write[:3])


Event = Put | Wrote | Forked | Reset | Pruned


def path_of(task: str) -> str:
    """Paths sort the other way round than tasks, so that the order tells them apart."""
    return f"path {ord('z') - ord(task[0])}"


def view(events: list[Event]) -> View:
    """Tell what happened."""
    told = View()
    for event in events:
        if isinstance(event, Put):
            told.puts[event.namespace, event.checkpoint_id] = event
            line = told.lines.setdefault(event.namespace, Line())
            follows = line.head is None or (event.parent is not None and event.parent == line.head)
            line.greatest = max(line.greatest, event.checkpoint_id)
            if follows or event.checkpoint_id == line.greatest:
                line.head = event.checkpoint_id
        elif isinstance(event, Wrote):
            told.wrote.setdefault((event.namespace, event.checkpoint_id), []).append(event)
        elif isinstance(event, Forked):
            told.lines[""].head = event.head
        elif isinstance(event, Reset):
            before = view(events[: event.length])
            for namespace, line in told.lines.items():
                if namespace:
                    line.head = before.lines.get(namespace, Line()).head
        else:
            for slot in event.gone:
                told.puts.pop(slot)
                told.wrote.pop(slot, None)
    return told


def length_at(events: list[Event], checkpoint_id: str) -> int:
    """Return how many events there were just after this root checkpoint was put last.

    The reset that a rewind makes belongs to the checkpoint it puts.
    """
    last = max(
        i
        for i, event in enumerate(events)
        if isinstance(event, Put) and (event.namespace, event.checkpoint_id) == ("", checkpoint_id)
    )
    rewound = last + 1 < len(events) and isinstance(events[last + 1], Reset)
    return last + 2 if rewound else last + 1

"""Tags: names for checkpoints, which they also protect from pruning."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ckpt.history import clock, keys
from ckpt.history.records import Tally, ThreadRecord
from ckpt.history.seal import check_numbers, seal, shaped, unseal
from ckpt.repository.core import Core
from ckpt.repository.directory import Change
from ckpt.storage.base import Reading

_SHAPE = (str, int, str, str, bytes)


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag: the number of the thread, the checkpoint in it, and the commit it had when it was tagged."""

    name: str
    thread: int
    namespace: str
    checkpoint_id: str
    commit: bytes

    def encode(self) -> bytes:
        """Return the record's bytes."""
        fields = [self.name, self.thread, self.namespace, self.checkpoint_id, self.commit]
        return seal(keys.tag_key(self.name), fields)


@dataclass(frozen=True, slots=True)
class Protected:
    """The (namespace, checkpoint id) pairs that tags keep, by the number of a thread.

    A tag keeps its checkpoint in the thread that it was put on and in all that this one was forked from, whose it is
    once the fork is gone (`kept`). That of a thread that is gone is shown by those that were forked from it, which
    keep it then (`shown_by_forks`).
    """

    kept: Mapping[int, set[tuple[str, str]]]
    shown_by_forks: Mapping[int, set[tuple[str, str]]]

    def of(self, number: int, bases: Iterable[int]) -> set[tuple[str, str]]:
        """Return the pairs of a thread, given the numbers of all that it was forked from; its own may be among them."""
        return self.kept.get(number, set()).union(*(self.shown_by_forks.get(base, ()) for base in bases))


class Guard(NamedTuple):
    """What must not be pruned from a thread, and the records by which a change can tell that this is so still."""

    kept: Collection[tuple[str, str]] = ()
    expected: Mapping[bytes, bytes | None] = {}


class Tags:
    """Reads tags, all at a time: none is believed to be there, or absent, before they are counted."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def all(self, reading: Reading | None = None) -> list[Tag]:
        """Return every tag, in no useful order, in one round trip. Raises DamagedRecordError as `get` does."""
        self._core.storage.check()
        return [decode_tag(key, raw) for key, raw in self._counted(reading)[1].items()]

    def get(self, name: str, reading: Reading | None = None) -> tuple[Tag | None, bytes | None]:
        """Return a tag and its record's bytes, or (None, None).

        Costs reading all tags, in one round trip. Raises DamagedRecordError when one is missing or old.
        """
        key = keys.tag_key(name)
        raw = self._counted(reading)[1].get(key)
        if raw is None:
            self._core.storage.check()
        return (decode_tag(key, raw), raw) if raw is not None else (None, None)

    def changed(self, name: str, before: bytes | None, after: bytes | None) -> Change:
        """Return the change that puts, moves or removes (None) a tag whose record is `before` now."""
        key = keys.tag_key(name)
        raw = self._core.storage.read([keys.TAGS])[0]
        tally = Tally.decode(keys.TAGS, raw).replaced(key, before, after)
        counted = tally.encode(keys.TAGS) if tally.census.count else None
        return Change({key: before, keys.TAGS: raw}, {key: after, keys.TAGS: counted})

    def _counted(self, reading: Reading | None = None) -> tuple[bytes | None, dict[bytes, bytes]]:
        """Return the record that counts the tags, and theirs by their keys."""
        (raw,), (rows,) = (reading or self._core.storage).view([keys.TAGS], [keys.ALL_TAGS])
        Tally.decode(keys.TAGS, raw).prove("a tag", rows)
        return raw, dict(rows)

    def by_commit(self) -> dict[str, list[str]]:
        """Return the names of the tags of each commit, by its id in hex."""
        return by_commit(self.all())

    def protected(self, thread: ThreadRecord) -> Collection[tuple[str, str]]:
        """Return the (namespace, checkpoint id) pairs of a thread that tags keep in it.

        Costs a round trip, with tags another, and of forks one more for each step down to what they were forked from.
        """
        return self.guard(thread).kept

    def guard(self, thread: ThreadRecord) -> Guard:
        """Return what `protected` does, and what says that no tag has come or gone since; costs the same."""
        self._core.storage.check()
        tally, raws = self._counted()
        kept = self._protected([decode_tag(key, raw) for key, raw in raws.items()])
        below = self._with_bases({thread.number}) if kept.shown_by_forks and thread.base is not None else {}
        return Guard(kept.of(thread.number, below), {keys.TAGS: tally})

    def all_protected(self) -> Protected:
        """Return what `protected` does for every thread."""
        return self._protected(self.all())

    def _protected(self, tags: Sequence[Tag]) -> Protected:
        now = clock.now_ms()
        threads = self._with_bases({tag.thread for tag in tags})
        kept: defaultdict[int, set[tuple[str, str]]] = defaultdict(set)
        shown_by_forks: defaultdict[int, set[tuple[str, str]]] = defaultdict(set)
        for tag in tags:
            number: int | None = tag.thread
            gone = True
            while number is not None:
                thread = threads.get(number)
                kept[number].add((tag.namespace, tag.checkpoint_id))
                gone = gone and (thread is None or thread.deleted or thread.lapsed(now))
                if gone:
                    shown_by_forks[number].add((tag.namespace, tag.checkpoint_id))
                number = thread.base.thread if thread is not None and thread.base is not None else None
        return Protected(kept, shown_by_forks)

    def _with_bases(self, numbers: set[int]) -> dict[int, ThreadRecord]:
        """Return threads, what they were forked from, what that was, and so on, as far as they are there."""
        found: dict[int, ThreadRecord] = {}
        while numbers:
            raws = self._core.storage.read([keys.thread_key(number) for number in numbers])
            level = {
                number: ThreadRecord.decode(number, raw)
                for number, raw in zip(numbers, raws, strict=True)
                if raw is not None
            }
            found |= level
            numbers = {thread.base.thread for thread in level.values() if thread.base is not None} - found.keys()
        return found


def by_commit(tags: Iterable[Tag]) -> dict[str, list[str]]:
    """Return the names of tags of each commit, by its id in hex."""
    names: dict[str, list[str]] = {}
    for tag in tags:
        names.setdefault(tag.commit.hex(), []).append(tag.name)
    return names


def decode_tag(key: bytes, raw: bytes) -> Tag:
    """Undo `Tag.encode`, or raise DamagedRecordError."""
    tag = Tag(*shaped(unseal(key, raw, "a tag"), _SHAPE, "a tag"))
    check_numbers("a tag", tag.thread)
    return tag

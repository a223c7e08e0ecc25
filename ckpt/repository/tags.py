"""Tags: names for checkpoints, which they also protect from pruning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ckpt.history import keys
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


class Tags:
    """Reads tags, all at a time: none is believed to be there, or absent, before they are counted."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def all(self, reading: Reading | None = None) -> list[Tag]:
        """Return every tag, in no useful order, in one round trip. Raises DamagedRecordError as `get` does."""
        self._core.storage.check()
        return [decode_tag(key, raw) for key, raw in self._counted(reading).items()]

    def get(self, name: str, reading: Reading | None = None) -> tuple[Tag | None, bytes | None]:
        """Return a tag and its record's bytes, or (None, None).

        Costs reading all tags, in one round trip. Raises DamagedRecordError when one is missing or old.
        """
        key = keys.tag_key(name)
        raw = self._counted(reading).get(key)
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

    def _counted(self, reading: Reading | None) -> dict[bytes, bytes]:
        (raw,), (rows,) = (reading or self._core.storage).view([keys.TAGS], [keys.ALL_TAGS])
        Tally.decode(keys.TAGS, raw).prove("a tag", rows)
        return dict(rows)

    def by_commit(self) -> dict[str, list[str]]:
        """Return the names of the tags of each commit, by its id in hex."""
        names: dict[str, list[str]] = {}
        for tag in self.all():
            names.setdefault(tag.commit.hex(), []).append(tag.name)
        return names

    def protected(self, thread: ThreadRecord) -> set[tuple[str, str]]:
        """Return the (namespace, checkpoint id) pairs of a thread that carry a tag, put on it or on a fork of it.

        A fork's tag counts for all that the fork was made from: it is theirs once the fork is gone. One round trip
        and, for a thread with forks, one more for each step from a tagged thread down to what it was forked from.
        """
        tags = self.all()
        if not thread.forks:
            return {(tag.namespace, tag.checkpoint_id) for tag in tags if tag.thread == thread.number}
        return self._by_thread(tags).get(thread.number, set())

    def all_protected(self) -> dict[int, set[tuple[str, str]]]:
        """Return what `protected` does for every thread with tags, by its number."""
        return self._by_thread(self.all())

    def _by_thread(self, tags: Sequence[Tag]) -> dict[int, set[tuple[str, str]]]:
        bases = self._bases({tag.thread for tag in tags})
        found: dict[int, set[tuple[str, str]]] = {}
        for tag in tags:
            number: int | None = tag.thread
            while number is not None:
                found.setdefault(number, set()).add((tag.namespace, tag.checkpoint_id))
                number = bases[number]
        return found

    def _bases(self, numbers: set[int]) -> dict[int, int | None]:
        """Return what each of some threads was forked from, and what that was, down to those that are no forks."""
        bases: dict[int, int | None] = {}
        while numbers:
            raws = self._core.storage.read([keys.thread_key(number) for number in numbers])
            for number, raw in zip(numbers, raws, strict=True):
                base = ThreadRecord.decode(number, raw).base if raw is not None else None
                # A fork is younger than what it was made from: nothing goes round in circles.
                bases[number] = base.thread if base is not None else None
            numbers = {base for base in bases.values() if base is not None} - bases.keys()
        return bases


def decode_tag(key: bytes, raw: bytes) -> Tag:
    """Undo `Tag.encode`, or raise DamagedRecordError."""
    tag = Tag(*shaped(unseal(key, raw, "a tag"), _SHAPE, "a tag"))
    check_numbers("a tag", tag.thread)
    return tag

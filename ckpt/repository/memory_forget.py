"""Forgetting: taking versions that nobody is to see any more out of the history of a memory.

What counts at a moment stays, and what counted when a fork left. Works in bounded steps, each one transaction, and
can be stopped between any two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from ckpt.history import keys
from ckpt.history.items import ItemRecord, Version
from ckpt.history.records import ThreadRecord
from ckpt.objects.store import Draft
from ckpt.repository.core import Core
from ckpt.repository.directory import Directory
from ckpt.repository.mark import forks_of
from ckpt.repository.memory_writer import MemoryWriter, count_items, now
from ckpt.repository.versions import all_versions, put_away
from ckpt.storage.base import Batch

_PAGE = 200


class Forgetter:
    """Takes old versions out of the memories of one graph."""

    def __init__(self, core: Core, directory: Directory, writer: MemoryWriter) -> None:
        self._core = core
        self._directory = directory
        self._writer = writer

    def forget(self, name: str, before: int) -> int:
        """Remove the versions that no longer counted at a moment; return how many."""
        found = self._directory.find(name)
        if found is None:
            return 0
        number = found[0].number
        return sum(
            self._writer.atomically(name, partial(self._page, number, page, before)) for page in self._pages(number)
        )

    def _pages(self, number: int) -> Iterator[list[bytes]]:
        start, end = keys.items_range(number, b"")
        while rows := self._core.storage.scan(start, end, limit=_PAGE):
            yield [key for key, _ in rows]
            start = rows[-1][0] + b"\x00"

    def _page(self, number: int, page: Sequence[bytes], before: int, epoch: int) -> tuple[Batch, Draft, int]:
        thread_key = keys.thread_key(number)
        namespaces = dict.fromkeys(keys.namespace_key(number, keys.path_of(key, number)) for key in page)
        wanted = [thread_key, *namespaces, *page]
        read = dict(zip(wanted, self._core.storage.read(wanted), strict=True))
        if (raw := read[thread_key]) is None:
            return Batch(), Draft(), 0
        thread = ThreadRecord.decode(number, raw)
        # Read after the thread's record, which changes with every fork that is made of it; so do those of its forks.
        left, behind = self._left(number)
        before, read = min([before, *left]), {**read, **behind}
        rows = {key: ItemRecord.decode(key, row) for key in page if (row := read[key]) is not None}
        told = all_versions(list(rows.values()), self._core.objects.load)
        draft = Draft()
        records: dict[bytes, bytes | None] = {}
        count = 0
        for (key, record), versions in zip(rows.items(), told, strict=True):
            kept = _kept(versions, before, thread.base.moment if thread.base is not None else None)
            if kept == versions:
                continue
            count += len(set(versions) - set(kept))
            records[key] = _made_of(record, kept, draft).encode(key) if kept else None
        if records:
            thread = count_items(thread, read, records)
            records[thread_key] = thread._replace(sequence=max(now(), thread.sequence + 1)).encode()
        # Without new objects nothing is relied on but the rows, and each step that removes one raises the epoch.
        return Batch(read, records, epoch=epoch if draft.objects else None), draft, count

    def _left(self, number: int) -> tuple[list[int], dict[bytes, bytes]]:
        """Return the moments at which a memory is seen by its forks and by theirs, and the records of them all.

        A fork of a fork may have left at an earlier moment than that.
        """
        forks = list(forks_of(self._core.storage, number))
        behind = {keys.thread_key(fork.number): fork.encode() for fork, _ in forks}
        return [min(moments) for _, moments in forks], behind


def _kept(versions: list[Version], before: int, left: int | None) -> list[Version]:
    """Return the versions that count at a moment or later; `left` is when the memory left its base, if it has one.

    What was forgotten of an item reads as absent. Where that is not said, what the base has would be read instead:
    before what is forgotten there is an absence then, and a deletion stays.
    """
    first = max((at for at, version in enumerate(versions) if version.moment <= before), default=0)
    kept = versions[first:]
    if left is not None:
        gone = next((version.moment for version in versions[:first] if version.moment > left), None)
        return kept if gone is None else [Version(gone, gone, 0, None), *kept]
    if kept and kept[0].value is None and kept[0].moment <= before:
        return kept[1:]
    return kept


def _made_of(record: ItemRecord, versions: Sequence[Version], draft: Draft) -> ItemRecord:
    made = record._replace(recent=(), older=())
    for version in versions:
        made = put_away(made._replace(recent=(*made.recent, version)), draft.add)
    return made

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
from ckpt.repository.mark import thread_records
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
        # Read after the thread's record, which changes with every fork that is made of it.
        before = min([before, *self._left(number)])
        rows = {key: ItemRecord.decode(key, row) for key in page if (row := read[key]) is not None}
        told = all_versions(list(rows.values()), self._core.objects.load)
        draft = Draft()
        records: dict[bytes, bytes | None] = {}
        count = 0
        for (key, record), versions in zip(rows.items(), told, strict=True):
            kept = _kept(versions, before, hides=thread.base is not None)
            if len(kept) == len(versions):
                continue
            count += len(versions) - len(kept)
            records[key] = _made_of(record, kept, draft).encode(key) if kept else None
        if records:
            thread = count_items(thread, read, records)
            records[thread_key] = thread._replace(sequence=max(now(), thread.sequence + 1)).encode()
        # Without new objects nothing is relied on but the rows, and each step that removes one raises the epoch.
        return Batch(read, records, epoch=epoch if draft.objects else None), draft, count

    def _left(self, number: int) -> Iterator[int]:
        """Yield the moments at which forks left a memory."""
        for fork, raw in thread_records(self._core.storage):
            base = ThreadRecord.decode(fork, raw).base
            if base is not None and base.thread == number:
                yield base.moment


def _kept(versions: Sequence[Version], before: int, *, hides: bool) -> Sequence[Version]:
    """Return the versions that count at a moment or later; a deletion that `hides` a base's item is one of them."""
    first = max((at for at, version in enumerate(versions) if version.moment <= before), default=0)
    kept = versions[first:]
    if kept and kept[0].value is None and kept[0].moment <= before and not hides:
        return kept[1:]
    return kept


def _made_of(record: ItemRecord, versions: Sequence[Version], draft: Draft) -> ItemRecord:
    made = record._replace(recent=(), older=())
    for version in versions:
        made = put_away(made._replace(recent=(*made.recent, version)), draft.add)
    return made

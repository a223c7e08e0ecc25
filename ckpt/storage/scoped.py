"""Several ordered maps of records in one store: a prefix before every key.

What lies in frames is shared by all scopes of a store, and so are the index and the epoch; only records are
apart. A scope sees its own records under the keys it gave them, and no others but the header.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from ckpt.storage.base import (
    Batch,
    Exclusive,
    Fetched,
    Range,
    Ranking,
    Reading,
    RecordChangedError,
    Storage,
    View,
)
from ckpt.storage.lending import LendingReads

HEADER_KEY = b"k\x00"
"""The key of the one record that all scopes see, and none writes: it says how the whole store is encrypted."""

_T = TypeVar("_T")


class ScopedReading(LendingReads):
    """The reading half of one scope. Each call is one call of the store."""

    def __init__(self, reading: Reading, prefix: bytes) -> None:
        self._reading = reading
        self._prefix = prefix

    def _lend(self, call: Callable[[Reading], _T]) -> _T:
        return call(self._reading)

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._reading.read(self._outer(keys))

    def view(self, keys: Sequence[bytes], ranges: Sequence[Range], *, last: int | None = None) -> View:
        prefix = self._prefix
        outer = [(prefix + start, prefix + end) for start, end in ranges]
        found = self._reading.view(self._outer(keys), outer, last=last)
        return View(found.values, [self._inside(rows) for rows in found.ranges])

    def scan(
        self, start: bytes, end: bytes, *, limit: int | None = None, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        rows = self._reading.scan(self._prefix + start, self._prefix + end, limit=limit, reverse=reverse)
        return self._inside(rows)

    def _outer(self, keys: Iterable[bytes]) -> list[bytes]:
        prefix = self._prefix
        return [prefix + key if key != HEADER_KEY else key for key in keys]

    def _inside(self, rows: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        length = len(self._prefix)
        return [(key[length:], value) for key, value in rows]


class ScopedStorage(ScopedReading):
    """One scope of a store, itself a storage. Keys may be `RECORD_KEY_MAX` bytes long, less the prefix.

    `registration` is a record of the whole store that says that the scope exists: it is written in the
    transaction of the scope's first record. Closing a scope closes the store.
    """

    def __init__(self, root: Storage, prefix: bytes, registration: tuple[bytes, bytes] | None = None) -> None:
        super().__init__(root, prefix)
        self.root = root
        self._registration = registration

    @property
    def url(self) -> str:
        return self.root.url

    @property
    def remote(self) -> bool:
        return self.root.remote

    @property
    def ranking(self) -> Ranking | None:
        return self.root.ranking

    def fetch(self, keys: Collection[bytes], known: Collection[int] = ()) -> Fetched:
        return self.root.fetch(keys, known)

    def publish(self, batch: Batch) -> list[int]:
        with self._told_inside():
            numbers = self.root.publish(self._outside(batch))
        if batch.records:
            self._registration = None
        return numbers

    @contextmanager
    def exclusive(self) -> Iterator[Exclusive]:
        with self.root.exclusive() as session:
            yield _ScopedExclusive(session, self._prefix, self)

    def _outside(self, batch: Batch) -> Batch:
        """Return a batch of the scope as one of the store."""
        prefix = self._prefix
        expected = dict(zip(self._outer(batch.expected), batch.expected.values(), strict=True))
        records = {prefix + key: value for key, value in batch.records.items()}
        # Taken once: another thread may have written it by the next line.
        registration = self._registration
        if registration is not None and records:
            # Unconditionally: it is the same for all who write it, and nobody removes it.
            records[registration[0]] = registration[1]
        return replace(batch, expected=expected, records=records)

    @contextmanager
    def _told_inside(self) -> Iterator[None]:
        try:
            yield
        except RecordChangedError as lost:
            length = len(self._prefix)
            inside = {key[length:] if key != HEADER_KEY else key: value for key, value in lost.current.items()}
            raise RecordChangedError(inside) from lost

    def check(self) -> None:
        self.root.check()

    def verify(self) -> list[str]:
        return self.root.verify()

    def compact(self) -> None:
        self.root.compact()

    def close(self) -> None:
        self.root.close()


class _ScopedExclusive(ScopedReading):
    """A scope of a store while no one else can publish."""

    def __init__(self, session: Exclusive, prefix: bytes, scope: ScopedStorage) -> None:
        super().__init__(session, prefix)
        self._session = session
        self._scope = scope

    def write(self, batch: Batch) -> list[int]:
        with self._scope._told_inside():
            return self._session.write(self._scope._outside(batch))

    def forget(self, keys: Collection[bytes]) -> None:
        self._session.forget(keys)

    def drop(self, frames: Collection[int]) -> None:
        self._session.drop(frames)

    def raise_epoch(self) -> None:
        self._session.raise_epoch()

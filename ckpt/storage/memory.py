"""The store that lives in this process and ends with it; also the simplest statement of the seam."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from threading import Lock, RLock
from typing import TypeVar

from ckpt.errors import StoreUnavailableError
from ckpt.storage.base import (
    CHAINED,
    Batch,
    Exclusive,
    Place,
    Range,
    Ranking,
    Reading,
    StoredFrame,
    Usage,
    View,
    check_conditions,
    view_in_parts,
)
from ckpt.storage.lending import LendingReads

_T = TypeVar("_T")


class _Tables:
    """The state of a memory store, without locking. A copy is what an exclusive session works on."""

    def __init__(self) -> None:
        self._epoch = 0
        self._keys: list[bytes] = []
        self._records: dict[bytes, bytes] = {}
        self._index_keys: list[bytes] = []
        self._index: dict[bytes, Place] = {}
        self._frames: dict[int, StoredFrame] = {}
        self._next_frame = 1
        self.changed = False

    def __copy__(self) -> _Tables:
        twin = _Tables()
        twin._epoch, twin._next_frame = self._epoch, self._next_frame
        twin._keys, twin._index_keys = self._keys.copy(), self._index_keys.copy()
        twin._records, twin._index, twin._frames = (
            self._records.copy(),
            self._index.copy(),
            self._frames.copy(),
        )
        return twin

    def epoch(self) -> int:
        return self._epoch

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._records.get(key) for key in keys]

    def scan(
        self, start: bytes, end: bytes, *, limit: int | None = None, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        keys = self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, end)]
        if reverse:
            keys.reverse()
        return [(key, self._records[key]) for key in keys[:limit]]

    def view(self, keys: Sequence[bytes], ranges: Sequence[Range], *, last: int | None = None) -> View:
        return view_in_parts(self, keys, ranges, last)

    def locate(self, keys: Collection[bytes]) -> dict[bytes, Place]:
        return {key: self._index[key] for key in keys if key in self._index}

    def load(self, frames: Collection[int], known: Collection[int] = ()) -> dict[int, StoredFrame]:
        found: dict[int, StoredFrame] = {}
        for number in frames:
            while number not in found and number in self._frames:
                found[number] = self._frames[number]
                number = found[number].previous
                if number in known:
                    break
        return found

    def scan_index(self, after: bytes, limit: int) -> list[tuple[bytes, Place]]:
        start = bisect_right(self._index_keys, after)
        return [(key, self._index[key]) for key in self._index_keys[start : start + limit]]

    def scan_frames(self, after: int, limit: int) -> list[tuple[int, int, int]]:
        numbers = sorted(number for number in self._frames if number > after)[:limit]
        return [(number, self._frames[number].previous, len(self._frames[number].data)) for number in numbers]

    def usage(self) -> Usage:
        frames = sum(len(frame.data) for frame in self._frames.values())
        records = sum(len(key) + len(value) for key, value in self._records.items())
        index = sum(len(key) + 8 for key in self._index)
        return Usage(frames + records + index, frames, records, 0, len(self._index))

    def write(self, batch: Batch, *, replace: bool = True) -> list[int]:
        check_conditions(self, batch)
        self.changed = True
        for key, value in batch.records.items():
            if value is not None:
                if key not in self._records:
                    insort(self._keys, key)
                self._records[key] = value
            elif self._records.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
                self._epoch += 1
        numbers: list[int] = []
        for frame in batch.frames:
            if frame.optional and all(key in self._index for key in frame.keys):
                numbers.append(0)
                continue
            previous = numbers[-1] if frame.previous == CHAINED else frame.previous
            number = self._next_frame
            self._next_frame += 1
            self._frames[number] = StoredFrame(previous, frame.data)
            numbers.append(number)
            for position, key in enumerate(frame.keys):
                if key not in self._index:
                    insort(self._index_keys, key)
                elif not replace:
                    continue
                self._index[key] = Place(number, position)
        return numbers

    def raise_epoch(self) -> None:
        self.changed = True
        self._epoch += 1

    def forget(self, keys: Collection[bytes]) -> None:
        self.changed = True
        for key in keys:
            if self._index.pop(key, None) is not None:
                del self._index_keys[bisect_left(self._index_keys, key)]

    def drop(self, frames: Collection[int]) -> None:
        self.changed = True
        for number in frames:
            self._frames.pop(number, None)


class MemoryStorage(LendingReads):
    """A store in memory; nothing survives `close`.

    Writers hold one lock for as long as they write, an exclusive one included; the other is held by every call
    for the moment in which it looks at the state, so that readers go on meanwhile.
    """

    def __init__(self) -> None:
        self._writing = Lock()
        self._lock = RLock()
        self._state: _Tables | None = _Tables()

    @property
    def url(self) -> str:
        return "memory://"

    @property
    def remote(self) -> bool:
        return False

    @property
    def ranking(self) -> Ranking | None:
        return None

    @contextmanager
    def _tables(self) -> Iterator[_Tables]:
        with self._lock:
            if self._state is None:
                raise StoreUnavailableError("the store has been closed", hints=["open it again"])
            yield self._state

    def _lend(self, call: Callable[[Reading], _T]) -> _T:
        with self._tables() as tables:
            return call(tables)

    def publish(self, batch: Batch) -> list[int]:
        with self._writing, self._tables() as tables:
            return tables.write(batch, replace=False)

    @contextmanager
    def exclusive(self) -> Iterator[Exclusive]:
        with self._writing:
            with self._tables() as tables:
                session = copy(tables)
            yield session
            if session.changed:
                session.raise_epoch()
                with self._tables():
                    self._state = session

    def check(self) -> None:
        pass

    def verify(self) -> list[str]:
        with self._tables():
            return []

    def compact(self) -> None:
        with self._tables():
            pass

    def close(self) -> None:
        with self._lock:
            self._state = None

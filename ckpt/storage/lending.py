"""The reading half of a storage that hands each call on to something it lends for it: a session, a part of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from ckpt.storage.base import Fetched, Place, Range, Reading, StoredFrame, Usage, View

_T = TypeVar("_T")


class LendingReads(ABC):
    """Implements `Reading` by one loan for each call."""

    @abstractmethod
    def _lend(self, call: Callable[[Reading], _T]) -> _T:
        """Return what `call` returns of something that can be read, which is its own until it returns."""

    def epoch(self) -> int:
        return self._lend(lambda lent: lent.epoch())

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._lend(lambda lent: lent.read(keys))

    def view(self, keys: Sequence[bytes], ranges: Sequence[Range], *, last: int | None = None) -> View:
        return self._lend(lambda lent: lent.view(keys, ranges, last=last))

    def scan(
        self, start: bytes, end: bytes, *, limit: int | None = None, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        return self._lend(lambda lent: lent.scan(start, end, limit=limit, reverse=reverse))

    def locate(self, keys: Collection[bytes]) -> dict[bytes, Place]:
        return self._lend(lambda lent: lent.locate(keys))

    def load(self, frames: Collection[int], known: Collection[int] = ()) -> dict[int, StoredFrame]:
        return self._lend(lambda lent: lent.load(frames, known))

    def fetch(self, keys: Collection[bytes], known: Collection[int] = ()) -> Fetched:
        """Do as `Storage.fetch` says, by two calls to what is lent."""

        def both(lent: Reading) -> Fetched:
            places = lent.locate(keys)
            return Fetched(places, lent.load({place.frame for place in places.values()}, known))

        return self._lend(both)

    def scan_index(self, after: bytes, limit: int) -> list[tuple[bytes, Place]]:
        return self._lend(lambda lent: lent.scan_index(after, limit))

    def scan_frames(self, after: int, limit: int) -> list[tuple[int, int, int]]:
        return self._lend(lambda lent: lent.scan_frames(after, limit))

    def usage(self) -> Usage:
        return self._lend(lambda lent: lent.usage())

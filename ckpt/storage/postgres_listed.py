"""Where objects lie, by the lists of keys that come along with frames."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping
from itertools import accumulate, chain

from ckpt.storage.base import Place
from ckpt.storage.postgres_arrays import read_bytea_array

_LOOKED_FOR_MAX = 4
"""Keys that are looked for in the bytes of the lists; of more, all lists are read sooner than looked through."""


class Listed:
    """The lists of some frames, by their numbers, as the server sends them: read when somebody asks for many objects.

    A new process that asks for one, the head of a thread, comes by the lists of hundreds of frames.
    """

    def __init__(self, sent: Mapping[int, bytes]) -> None:
        self._sent = sent
        self._read: _Read | None = None

    def find(self, keys: Collection[bytes]) -> dict[bytes, Place]:
        """Do as `Whereabouts.find` says."""
        if self._read is None:
            if len(keys) <= _LOOKED_FOR_MAX:
                return _Read({at: sent for at, sent in self._sent.items() for key in keys if key in sent}).find(keys)
            self._read = _Read(self._sent)
        return self._read.find(keys)


class _Read:
    """All that some lists have, numbered as it lies one behind the other: no pair is made of what nobody asks for."""

    def __init__(self, sent: Mapping[int, bytes]) -> None:
        # Of frames that list the same key the greatest number counts, so it comes last.
        self._frames = sorted(sent)
        lists = [read_bytea_array(sent[frame]) for frame in self._frames]
        self._starts = list(accumulate(map(len, lists), initial=0))
        # Nulls and the first bytes that stand behind the keys are numbered too: nobody asks for them.
        self._numbers = dict(zip(chain.from_iterable(lists), range(self._starts[-1]), strict=True))

    def find(self, keys: Collection[bytes]) -> dict[bytes, Place]:
        numbers, frames, starts = self._numbers, self._frames, self._starts
        found = {}
        for key in keys:
            number = numbers.get(key)
            if number is not None:
                at = bisect_right(starts, number) - 1
                found[key] = Place(frames[at], number - starts[at])
        return found

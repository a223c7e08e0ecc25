"""What this process wrote last to memories, so that a put need not ask for it while nobody else writes there.

Nothing here is believed: whoever builds on it names it in the transaction. Should it be wrong, a trip was for nothing,
so it is built on only where it was right the time before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ckpt.objects.cache import Cache
from ckpt.repository.core import Core

_SIZE = 4 << 20
_NAMES_MAX = 1024


class MemoryRecent:
    """Records of memories by key, within a bound. Safe for many threads."""

    def __init__(self, core: Core) -> None:
        self._rows: Cache[bytes, bytes] = Cache(_SIZE)
        self._calm: Cache[str, bool] = Cache(_NAMES_MAX)
        core.on_removal(self._forget)

    def _forget(self) -> None:
        self._rows.clear()
        self._calm.clear()

    def rows(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return those of these records that were written last, by key."""
        return self._rows.get_many(keys)[0]

    def wrote(self, records: Mapping[bytes, bytes | None]) -> None:
        """Remember what was written (None: removed)."""
        for key, raw in records.items():
            if raw is None:
                self._rows.drop(key)
            else:
                self._rows.put(key, raw, len(key) + len(raw) + 200)

    def is_calm(self, name: str) -> bool:
        """Whether what was remembered of a memory was right when somebody looked last."""
        return self._calm.get(name) is not None

    def looked(self, name: str, *, right: bool) -> None:
        """Take note of whether what was remembered of a memory was what is there."""
        if right:
            self._calm.put(name, True, 1)
        else:
            self._calm.drop(name)

"""What tests of objects share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ckpt.storage.base import Place


class Told:
    """Where objects lie, by the keys of each frame; None for one whose place is another."""

    def __init__(self, keys: Mapping[int, Sequence[bytes | None]]) -> None:
        self.keys = keys

    def find(self, keys: Collection[bytes]) -> dict[bytes, Place]:
        return {
            key: Place(number, position)
            for number, held in self.keys.items()
            for position, key in enumerate(held)
            if key is not None and key in keys
        }

"""Tags: names for checkpoints, which they also protect from pruning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ckpt.history import keys
from ckpt.history.seal import seal, unseal
from ckpt.repository.core import Core
from ckpt.storage.base import Reading


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
    """Reads tags."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def all(self) -> Iterator[Tag]:
        """Yield every tag."""
        self._core.storage.check()
        start, end = keys.ALL_TAGS
        while page := self._core.storage.scan(start, end, limit=500):
            for key, raw in page:
                yield Tag(*unseal(key, raw, "a tag"))
            start = page[-1][0] + b"\x00"

    def get(self, name: str, reading: Reading | None = None) -> tuple[Tag | None, bytes | None]:
        """Return a tag and its record's bytes, or (None, None)."""
        self._core.storage.check()
        key = keys.tag_key(name)
        raw = (reading or self._core.storage).read([key])[0]
        return (Tag(*unseal(key, raw, "a tag")), raw) if raw is not None else (None, None)

    def by_commit(self) -> dict[str, list[str]]:
        """Return the names of the tags of each commit, by its id in hex."""
        names: dict[str, list[str]] = {}
        for tag in self.all():
            names.setdefault(tag.commit.hex(), []).append(tag.name)
        return names

    def protected(self, thread: int) -> list[tuple[str, str]]:
        """Return the (namespace, checkpoint id) pairs of a thread that carry a tag."""
        return [(tag.namespace, tag.checkpoint_id) for tag in self.all() if tag.thread == thread]

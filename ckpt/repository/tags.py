"""Tags: names for checkpoints, which they also protect from pruning."""

from __future__ import annotations

from dataclasses import dataclass

from ckpt.history import keys
from ckpt.history.records import decode_census, encode_census
from ckpt.history.seal import census, missing, seal, unseal
from ckpt.repository.core import Core
from ckpt.repository.directory import Change
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
    """Reads tags, and counts them before one is believed to be absent."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def all(self) -> list[Tag]:
        """Return every tag, in no useful order, in one round trip. Raises DamagedRecordError when one is missing."""
        _, rows = self._counted([])
        return [_decode(key, raw) for key, raw in rows.items()]

    def get(self, name: str, reading: Reading | None = None) -> tuple[Tag | None, bytes | None]:
        """Return a tag and its record's bytes, or (None, None).

        Costs reading all tags when there are some, but none of this name. Raises DamagedRecordError when it may have
        been lost.
        """
        key = keys.tag_key(name)
        raw, counted = (reading or self._core.storage).read([key, keys.TAGS])
        if raw is None:
            self._core.storage.check()
        if raw is None and counted is not None:
            (raw,), rows = self._counted([key], reading)
            if raw is None and key in rows:
                raise missing("a tag")
        return (_decode(key, raw), raw) if raw is not None else (None, None)

    def changed(self, name: str, before: bytes | None, after: bytes | None) -> Change:
        """Return the change that puts, moves or removes (None) a tag whose record is `before` now."""
        key = keys.tag_key(name)
        change = Change({key: before}, {key: after})
        by = (after is not None) - (before is not None)
        if by:
            raw = self._core.storage.read([keys.TAGS])[0]
            counted = decode_census(keys.TAGS, raw).toggled(key, by)
            change.expected[keys.TAGS] = raw
            change.records[keys.TAGS] = encode_census(keys.TAGS, counted) if counted.count else None
        return change

    def _counted(
        self, wanted: list[bytes], reading: Reading | None = None
    ) -> tuple[list[bytes | None], dict[bytes, bytes]]:
        self._core.storage.check()
        (counted, *values), (rows,) = (reading or self._core.storage).view([keys.TAGS, *wanted], [keys.ALL_TAGS])
        if census(key for key, _ in rows) != decode_census(keys.TAGS, counted):
            raise missing("a tag")
        return values, dict(rows)

    def by_commit(self) -> dict[str, list[str]]:
        """Return the names of the tags of each commit, by its id in hex."""
        names: dict[str, list[str]] = {}
        for tag in self.all():
            names.setdefault(tag.commit.hex(), []).append(tag.name)
        return names

    def protected(self, thread: int) -> list[tuple[str, str]]:
        """Return the (namespace, checkpoint id) pairs of a thread that carry a tag."""
        return [(tag.namespace, tag.checkpoint_id) for tag in self.all() if tag.thread == thread]


def _decode(key: bytes, raw: bytes) -> Tag:
    return Tag(*unseal(key, raw, "a tag"))

"""Objects in memory, for what makes and loads them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ckpt.objects.ids import ObjectId, object_id


class Stored:
    """Objects by id, in which order they were emitted, and what was loaded together."""

    def __init__(self) -> None:
        self.stored: dict[ObjectId, bytes] = {}
        self.emitted: list[ObjectId] = []
        self.loads: list[set[ObjectId]] = []

    def emit(self, kind: int, data: bytes) -> ObjectId:
        oid = object_id(kind, data)
        self.stored[oid] = data
        self.emitted.append(oid)
        return oid

    def load(self, ids: Collection[ObjectId]) -> Mapping[ObjectId, bytes]:
        self.loads.append(set(ids))
        return {oid: self.stored[oid] for oid in ids}

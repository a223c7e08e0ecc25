"""A storage that stores other bytes than it is given: damage that every backend may come to hold."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import ckpt
from ckpt.encryption import protected
from ckpt.repository import Repository
from ckpt.storage.base import Batch, Storage
from ckpt.storage.urls import open_storage


class Flipping:
    """Hands everything on, and flips one bit at the beginning of each frame that it stores: none of it unfolds.

    With `largest` only that of the largest frame of a transaction, which holds what is large of the values.
    """

    def __init__(self, storage: Storage, *, largest: bool = False) -> None:
        self._storage = storage
        self._largest = largest
        self.flips = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def publish(self, batch: Batch) -> list[int]:
        chosen = sorted(batch.frames, key=lambda frame: len(frame.data))[-1:] if self._largest else batch.frames
        if not self.flips:
            return self._storage.publish(batch)
        batch.frames = [
            frame._replace(data=flipped(frame.data)) if frame in chosen else frame for frame in batch.frames
        ]
        return self._storage.publish(batch)


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 4]) + data[1:]


def damaging(storage: Storage, **options: Any) -> Repository:
    """Return a repository of which nothing can be read again that it writes."""
    return Repository(Flipping(storage), **options)  # type: ignore[arg-type]


def texts(number: int) -> dict[str, object]:
    """Return values that take objects of their own."""
    return {"n": number, "text": f"{number}: " + " ".join(str(each * 7919 % 1000) for each in range(100))}


def fill_with_one_damaged(url: str, key: str | None = None) -> Repository:
    """Return an open repository with the threads `good`, `bad` and `fine`; the newest checkpoint of `bad` is damaged.

    What was damaged is not in any cache of it. With a key it is the encrypted bytes that are.
    """
    repository = ckpt.open(url, encryption_key=key)
    for number in range(3):
        for thread in ("good", "bad", "fine"):
            repository.commit(thread, texts(number))
    if key is None:
        damaging(repository.storage).commit("bad", texts(99))
    else:
        with closing(protected(Flipping(open_storage(url)), key)) as storage:  # type: ignore[arg-type]
            Repository(storage).commit("bad", texts(99))
    return repository

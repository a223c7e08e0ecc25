"""What the tests of memory share: the stores they run on, a clock, and an embedding that needs no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path

import pytest
from redis_server import prefixed

STORES: dict[str, Callable[[pytest.FixtureRequest, Path], str]] = {
    "memory": lambda request, folder: "memory://",
    "sqlite": lambda request, folder: str(folder / "store.db"),
    "postgres": lambda request, folder: request.getfixturevalue("postgres_url"),
    "redis": lambda request, folder: prefixed(request.getfixturevalue("redis_url"), folder),
}
"""Makes the URL of an empty store, by the name of the backend."""


class Clock:
    """Stands still until told otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_800_000_000_000_000
        for module in ("memory", "memory_writer", "memory_forget"):
            monkeypatch.setattr(f"ckpt.repository.{module}.now", lambda: self.now)

    def later(self, **by: float) -> None:
        self.now += timedelta(**by) // timedelta(microseconds=1)


DIMS = 8


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Return a vector per text that depends on its words alone, so that texts with common words are near."""
    return [[sum(column) for column in zip(*map(_word, text.lower().split() or [""]), strict=True)] for text in texts]


def _word(word: str) -> list[float]:
    return [(byte - 127.5) / 127.5 for byte in blake2b(word.encode("utf-8", "replace"), digest_size=DIMS).digest()]


async def aembed(texts: Sequence[str]) -> list[list[float]]:
    return embed(texts)

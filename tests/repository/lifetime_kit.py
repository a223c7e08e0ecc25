"""What the tests of lifetimes and retention share: repositories over one store, and a store that fails on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ckpt
from ckpt.errors import StoreUnavailableError
from ckpt.objects.ids import index_key, object_id
from ckpt.objects.packs import unpack
from ckpt.repository import Repository
from ckpt.repository.incoming import Channel, NewCheckpoint, Typed

Opener = Callable[..., Repository]


@contextmanager
def opener(url: str) -> Iterator[Opener]:
    """A function that opens repositories with options of their own, all over one store."""
    repositories: list[Repository] = []

    def opened(**options: Any) -> Repository:
        if url == "memory://" and repositories:
            repositories.append(Repository(repositories[0].storage, **options))
        else:
            repositories.append(ckpt.open(url, **options))
        return repositories[-1]

    yield opened
    for repository in repositories:
        repository.close()


class FailingStorage:
    """A store whose calls fail while `fails` says so, given the method's name and its arguments."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.fails: Callable[[str, tuple[Any, ...]], bool] = lambda method, arguments: False
        self.failed = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._storage, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            if self.fails(name, arguments):
                self.failed += 1
                raise StoreUnavailableError("the disk is on fire")
            return found(*arguments, **named)

        return call


def typed(text: str) -> Typed:
    return Typed("bytes", text.encode())


def put(repository: Repository, thread: str, checkpoint_id: str, parent: str | None = None, **more: Any) -> None:
    """Put a checkpoint as a framework does, whose one channel holds its id."""
    timestamp = more.pop("timestamp", None)
    repository.put(
        NewCheckpoint(
            thread,
            more.pop("namespace", ""),
            checkpoint_id,
            parent,
            timestamp,
            typed(""),
            typed(""),
            {"id": Channel(lambda: typed(checkpoint_id))},
            **more,
        )
    )


def ids(repository: Repository, thread: str, namespace: str | None = "") -> list[str]:
    return [row.checkpoint_id for row in repository.read_all(thread, namespace)]


def records(repository: Repository) -> dict[bytes, bytes]:
    """All records but the thread counter and the directory's counts."""
    found = dict(repository.storage.scan(b"", b"\xff"))
    return {key: raw for key, raw in found.items() if key[:1] not in (b"c", b"d")}


def laid_down(repository: Repository) -> list[bytes]:
    """The index keys of all objects that lie in frames, indexed or not, in order."""
    storage = repository.storage
    numbers = [number for number, _, _ in storage.scan_frames(0, 1000)]
    stored = storage.load(numbers)
    frames = [unpack(stored, number)[number] for number in numbers]
    return sorted(index_key(object_id(*obj)) for frame in frames for obj in frame.objects())

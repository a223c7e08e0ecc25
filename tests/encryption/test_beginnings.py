"""A store that is still empty: of one who encrypts it and one who writes in plain only the first succeeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest
from stores import BACKENDS, store_url

from ckpt.encryption import encrypted, protected
from ckpt.errors import WrongKeyError
from ckpt.langgraph import CkptStore
from ckpt.repository import Repository
from ckpt.storage.base import Batch, Exclusive, Storage
from ckpt.storage.memory import MemoryStorage
from ckpt.storage.urls import open_storage

KEY = bytes(range(32))
SECRET = "an-owl-in-plain-sight"

Write = Callable[[Repository], object]


def commit(repository: Repository) -> object:
    return repository.thread("t").commit({"text": SECRET})


def remember(repository: Repository) -> object:
    store = CkptStore(repository)
    store.put(("notes",), "k", {"text": SECRET})
    return store.get(("notes",), "k")


WRITES = [pytest.param("", commit, id="thread"), pytest.param("g", commit, id="graph"),
          pytest.param("", remember, id="memory"), pytest.param("g", remember, id="memory of a graph")]  # fmt: skip


@pytest.fixture(params=BACKENDS)
def opens(request: pytest.FixtureRequest) -> Iterator[Callable[[], Storage]]:
    """Open one new store, again and again, as several processes would."""
    url = store_url(request.param, request)
    with ExitStack() as stack:
        if url == "memory://":
            storage = MemoryStorage()
            yield lambda: storage
        else:
            yield lambda: stack.enter_context(closing(open_storage(url)))


def everything(storage: Storage) -> bytes:
    rows = storage.scan(b"", b"\xff" * 1101)
    frames = storage.load([number for number, _, _ in storage.scan_frames(0, 1000)])
    return b"".join([key + value for key, value in rows] + [frame.data for frame in frames.values()])


@pytest.mark.parametrize(("graph", "write"), WRITES)
@pytest.mark.parametrize("began", [False, True])
def test_who_has_an_empty_store_open_in_plain_writes_nothing_once_it_is_encrypted(
    opens: Callable[[], Storage], graph: str, write: Write, began: bool
) -> None:
    plain = Repository(protected(opens(), None), graph=graph)
    sealed = Repository(encrypted(opens(), KEY), graph=graph)
    if began:
        write(sealed)
    for _ in range(2):
        with pytest.raises(WrongKeyError, match="is encrypted, and no key was given"):
            write(plain)
    with pytest.raises(WrongKeyError):
        plain.threads()
    assert SECRET.encode() not in everything(opens())
    assert write(sealed)
    again = Repository(encrypted(opens(), KEY), graph=graph)
    assert write(again)
    assert again.fsck().problems == []


@pytest.mark.parametrize(("graph", "write"), WRITES)
def test_a_store_that_somebody_wrote_to_in_plain_is_not_encrypted_any_more(
    opens: Callable[[], Storage], graph: str, write: Write
) -> None:
    plain = Repository(protected(opens(), None), graph=graph)
    write(plain)
    with pytest.raises(WrongKeyError, match="is not encrypted"):
        encrypted(opens(), KEY)
    assert write(plain)
    assert plain.fsck().problems == []


class Meeting:
    """A storage in which something happens just before the first change."""

    def __init__(self, inner: Storage, before: Callable[[], object]) -> None:
        self._inner = inner
        self._before = [before]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def publish(self, batch: Batch) -> list[int]:
        while self._before:
            self._before.pop()()
        return self._inner.publish(batch)

    @contextmanager
    def exclusive(self) -> Iterator[Exclusive]:
        while self._before:
            self._before.pop()()
        with self._inner.exclusive() as session:
            yield session


@pytest.mark.parametrize(("graph", "write"), WRITES)
def test_a_plain_write_gets_ahead_of_the_header(opens: Callable[[], Storage], graph: str, write: Write) -> None:
    plain = Repository(protected(opens(), None), graph=graph)
    late: Any = Meeting(opens(), lambda: write(plain))
    with pytest.raises(WrongKeyError, match="is not encrypted"):
        encrypted(late, KEY)
    assert write(plain)
    assert plain.fsck().problems == []


@pytest.mark.parametrize(("graph", "write"), WRITES)
def test_the_header_gets_ahead_of_a_plain_write(opens: Callable[[], Storage], graph: str, write: Write) -> None:
    storage: Any = Meeting(protected(opens(), None), lambda: encrypted(opens(), KEY))
    with pytest.raises(WrongKeyError, match="is encrypted, and no key was given"):
        write(Repository(storage, graph=graph))
    assert SECRET.encode() not in everything(opens())
    sealed = Repository(encrypted(opens(), KEY), graph=graph)
    assert write(sealed)
    assert sealed.fsck().problems == []

"""A value that is put again after it was found damaged is stored again, and what else needs it is mended."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest
from damage_kit import Flipping
from stores import BACKENDS, new_store

import ckpt
from ckpt.encryption import protected
from ckpt.errors import IntegrityError
from ckpt.repository import Repository
from ckpt.storage.base import Storage
from ckpt.storage.urls import open_storage

_CHANCE = random.Random(5)
BIG, OTHER = ({"texts": [_CHANCE.randbytes(3000).hex() for _ in range(12)], "n": n} for n in range(2))


@pytest.fixture(params=BACKENDS)
def storage(request: pytest.FixtureRequest) -> Iterator[Storage]:
    """A store whose threads `a` and `c` hold `BIG` and `OTHER`, which are damaged; their commits are not."""
    with new_store(request.param, request) as url, ckpt.open(url) as repository:
        storage = repository.storage
        for thread, values in (("a", BIG), ("c", OTHER)):
            Repository(Flipping(storage, largest=True)).commit(thread, values)  # type: ignore[arg-type]
        yield storage


def found_damaged(storage: Storage, *threads: str) -> Repository:
    repository = Repository(storage)
    for thread in threads:
        with pytest.raises(IntegrityError):
            repository.state(thread)
    return repository


def test_what_is_put_again_can_be_read_and_mends_what_else_needs_it(storage: Storage) -> None:
    repository = found_damaged(storage, "a", "c")
    repository.commit("b", BIG)
    assert Repository(storage).state("b") == BIG
    assert Repository(storage).state("a") == BIG
    # What was found damaged as well is not forgotten for that.
    repository.memory("notes").put(("x",), "k", OTHER)
    item = Repository(storage).memory("notes").get(("x",), "k")
    assert item is not None and item.value == OTHER
    found = Repository(storage)
    assert found.state("c") == OTHER
    assert found.fsck().problems == []
    found.gc(grace=timedelta(0))
    assert found.fsck().problems == []
    assert [found.state(name) for name in "abc"] == [BIG, BIG, OTHER]


def test_a_value_that_has_much_in_common_with_a_damaged_one_can_be_read(storage: Storage) -> None:
    repository = found_damaged(storage, "a")
    repository.thread("a").commit({"texts": [*BIG["texts"], "more"]})
    assert Repository(storage).state("a") == {"texts": [*BIG["texts"], "more"]}


def test_the_writer_of_a_value_mends_it_too(storage: Storage) -> None:
    """He remembers how he cut it, and must not go by that."""
    writer = Repository(Flipping(storage, largest=True))  # type: ignore[arg-type]
    value = {"texts": [_CHANCE.randbytes(3000).hex() for _ in range(12)]}
    writer.commit("d", value)
    writer._core.objects._objects.clear()
    writer._core._values.clear()
    with pytest.raises(IntegrityError):
        writer.state("d")
    writer._core.storage = storage
    writer._core.objects._storage = storage
    writer.commit("d", {**value, "n": 2})
    assert Repository(storage).state("d") == {**value, "n": 2}


@pytest.mark.parametrize("finder", ["writer", "another"])
@pytest.mark.parametrize("key", [None, bytes(range(32))], ids=["plain", "encrypted"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_put_by_who_has_found_damage_can_be_read(
    backend: str, key: bytes | None, finder: str, request: pytest.FixtureRequest
) -> None:
    """Also where only the storage knows that a frame was changed, and where he would write on behind that frame."""
    with new_store(backend, request) as url, closing(open_storage(url)) as storage:
        inner = Flipping(storage, largest=True)
        inner.flips = False
        writer = Repository(protected(inner, key))  # type: ignore[arg-type]
        inner.flips = True
        writer.commit("a", BIG)
        inner.flips = False
        writer._core.objects._objects.clear()
        writer._core.objects._forget_frames()
        writer._core._values.clear()
        repository = writer if finder == "writer" else Repository(protected(storage, key))
        with pytest.raises(IntegrityError):
            repository.state("a")
        for thread, values in (("a", OTHER), ("fresh", {"n": 1}), ("b", BIG)):
            repository.commit(thread, values)
            assert Repository(protected(storage, key)).state(thread) == values


def test_what_nobody_found_damaged_costs_no_look(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository(storage)
    monkeypatch.setattr(repository._core.objects, "_mend", None)
    repository.commit("e", {"n": 1})
    assert Repository(storage).state("e") == {"n": 1}

"""Puts that build on what was written last without asking: right wherever others write too, and seldom for nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from memory_kit import Clock

import ckpt
from ckpt.history import keys
from ckpt.repository import Memory, Put, Repository

ANA, BOB = ("users", "ana"), ("users", "bob")

Calls = list[str]


@pytest.fixture
def pair(store_url: str) -> Iterator[tuple[Repository, Repository]]:
    """Two processes on one store, as far as they know."""
    with ckpt.open(store_url) as one:
        if store_url == "memory://":
            yield one, Repository(one.storage)
            return
        with ckpt.open(store_url) as other:
            yield one, other


@pytest.fixture
def calls(pair: tuple[Repository, Repository], monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The calls that any of them makes of its storage, from here on."""
    made: Calls = []

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(type(pair[0].storage), name)
        return lambda self, *given, **options: (made.append(name), real(self, *given, **options))[1]

    for name in ("read", "view", "scan", "load", "locate", "fetch", "publish"):
        monkeypatch.setattr(type(pair[0].storage), name, counted(name))
    return made


def calm(memory: Memory) -> Memory:
    """Write until it is known that nobody else does."""
    for number in range(3):
        memory.put(("warm",), "k", {"n": number})
    return memory


def values(memory: Memory, namespace: tuple[str, ...], key: str) -> list[Any]:
    """Return all versions of an item, oldest first."""
    return [version.value for version in reversed(memory.history(namespace, key))]


def test_one_writer_asks_for_nothing(pair: tuple[Repository, Repository], calls: Calls) -> None:
    memory = calm(pair[0].memory())
    calls.clear()
    for number in range(5):
        memory.put(ANA, "same", {"n": number})
        memory.put((*ANA, str(number)), "new", {"n": number})
    assert calls == ["publish"] * 10
    assert values(memory, ANA, "same") == [{"n": number} for number in range(5)]
    assert pair[1].fsck().problems == []


def test_two_writers_in_turns_ask_no_more_than_they_must(pair: tuple[Repository, Repository], calls: Calls) -> None:
    one, other = (each.memory() for each in pair)
    for number in range(3):
        one.put(ANA, "k", {"one": number})
        other.put(ANA, "k", {"other": number})
    calls.clear()
    for number in range(3, 8):
        one.put(ANA, "k", {"one": number})
        other.put(ANA, "k", {"other": number})
    assert calls == ["view", "publish"] * 10
    assert values(one, ANA, "k") == [{name: number} for number in range(8) for name in ("one", "other")]


def test_what_another_put_is_not_written_over_unseen(pair: tuple[Repository, Repository], calls: Calls) -> None:
    one, other = calm(pair[0].memory()), pair[1].memory()
    other.put(ANA, "k", {"n": 1})
    created = other.history(ANA, "k")[0].when
    calls.clear()
    one.put(ANA, "k", {"n": 2})
    assert calls == ["publish", "view", "publish"]
    assert values(other, ANA, "k") == [{"n": 1}, {"n": 2}]
    found = other.get(ANA, "k")
    assert found is not None
    assert found.created == created
    # Having been wrong once, it is not built upon before it has been right once.
    calls.clear()
    one.put(ANA, "k", {"n": 3})
    one.put(ANA, "k", {"n": 4})
    assert calls == ["view", "publish", "publish"]


def test_what_another_deleted_is_no_damage(pair: tuple[Repository, Repository]) -> None:
    one, other = pair[0].memory(), pair[1].memory()
    one.put(ANA, "gone", {"n": 1})
    calm(one)
    other.delete(ANA, "gone")
    other.prune(timedelta(0))
    one.put(ANA, "other", {"n": 2})
    one.put(ANA, "gone", {"n": 3})
    assert {item.key: item.value["n"] for item in other.items(ANA)} == {"gone": 3, "other": 2}
    assert pair[1].fsck().problems == []


def test_what_is_not_remembered_is_asked_for_before_it_is_deleted(pair: tuple[Repository, Repository]) -> None:
    one, other = calm(pair[0].memory()), pair[1].memory()
    other.put(ANA, "k", {"n": 1})
    one.delete(ANA, "k")
    assert other.get(ANA, "k") is None
    other.put(ANA, "k", {"n": 2})
    one.apply([Put(ANA, "k", None), Put(BOB, "k", {"n": 3})])
    assert other.get(ANA, "k") is None
    assert other.get(BOB, "k") is not None


def test_a_memory_that_was_dropped_is_begun_anew(pair: tuple[Repository, Repository]) -> None:
    one, other = calm(pair[0].memory()), pair[1].memory()
    assert other.drop()
    one.put(ANA, "k", {"n": 1})
    assert [item.key for item in other.items()] == ["k"]
    assert other.drop()
    pair[1].gc(grace=timedelta(0))
    other.put(BOB, "k", {"n": 2})
    one.put(ANA, "k", {"n": 3})
    assert {item.namespace: item.value["n"] for item in other.items()} == {ANA: 3, BOB: 2}
    assert pair[0].fsck().problems == []


def test_a_fork_that_another_made_does_not_see_what_comes_later(pair: tuple[Repository, Repository]) -> None:
    one = calm(pair[0].memory())
    one.put(ANA, "k", {"n": 1})
    fork = pair[1].memory().fork("fork")
    one.put(ANA, "k", {"n": 2})
    found = fork.get(ANA, "k")
    assert found is not None
    assert found.value == {"n": 1}


def test_a_fork_asks_what_its_base_has(pair: tuple[Repository, Repository], calls: Calls) -> None:
    base = calm(pair[0].memory())
    base.put(ANA, "k", {"n": 1})
    fork = calm(base.fork("fork"))
    calls.clear()
    fork.put(ANA, "k", {"n": 2})
    assert calls == ["view", "publish"]
    assert values(fork, ANA, "k") == [{"n": 1}, {"n": 2}]
    assert values(base, ANA, "k") == [{"n": 1}]


def test_an_item_that_had_expired_is_created_anew(pair: tuple[Repository, Repository], clock: Clock) -> None:
    memory = calm(pair[0].memory())
    memory.put(ANA, "k", {"n": 1}, ttl=timedelta(minutes=1))
    first = memory.get(ANA, "k")
    clock.later(minutes=2)
    memory.put(ANA, "k", {"n": 2})
    second = memory.get(ANA, "k")
    assert first is not None
    assert second is not None
    assert second.created > first.created + timedelta(minutes=1)


def test_after_a_collection_values_are_stored_again(pair: tuple[Repository, Repository]) -> None:
    one, other = calm(pair[0].memory()), pair[1].memory()
    long = {"text": "long enough to be an object of its own " * 9}
    one.put(ANA, "k", long)
    other.delete(ANA, "k")
    other.prune(timedelta(0))
    pair[1].gc(grace=timedelta(0))
    one.put(ANA, "k", long)
    found = other.get(ANA, "k")
    assert found is not None
    assert found.value == long
    assert pair[1].fsck().problems == []


def test_what_a_base_has_from_another_is_not_taken_to_be_absent(pair: tuple[Repository, Repository]) -> None:
    one, other = pair[0].memory(), pair[1].memory()
    other.put(ANA, "k", {"n": 1})
    created = other.history(ANA, "k")[0].when
    fork = one.fork("fork")
    calm(one)
    calm(fork)
    fork.put(ANA, "k", {"n": 2})
    found = fork.get(ANA, "k")
    assert found is not None
    assert found.created == created


def test_half_of_what_was_remembered_is_no_damage(pair: tuple[Repository, Repository]) -> None:
    memory = calm(pair[0].memory())
    memory.put(ANA, "k", {"n": 1})
    number = memory._memories.directory.find("default")
    assert number is not None
    namespace = keys.namespace_key(number[0].number, keys.namespace_path(ANA))
    recent = memory._memories.writer._recent
    assert recent.rows([namespace])
    recent.wrote({namespace: None})  # as when there is no room for it any more
    assert not recent.rows([namespace])
    memory.put(ANA, "k", {"n": 2})
    assert values(memory, ANA, "k") == [{"n": 1}, {"n": 2}]


def test_nothing_is_remembered_beyond_a_removal(pair: tuple[Repository, Repository]) -> None:
    memory = calm(pair[0].memory())
    found = memory._memories.directory.find("default")
    assert found is not None
    recent, key = memory._memories.writer._recent, keys.thread_key(found[0].number)
    assert recent.rows([key])
    assert recent.is_calm("default")
    memory._memories.core.removed()
    assert not recent.rows([key])
    assert not recent.is_calm("default")

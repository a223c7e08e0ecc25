"""Arguments of the wrong kind to a memory: an error that says what and why, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

import ckpt
from ckpt.errors import InvalidInputError
from ckpt.langgraph import CkptStore
from ckpt.repository import Memory, Repository

THING = SimpleNamespace()
NO_TEXT: list[Any] = [None, 0, 1.5, True, b"x", [], ["a"], {}, ("a",), THING]
NO_NAMESPACE: list[Any] = [None, 0, 1.5, True, "a", b"a", {"a"}, {"a": 1}, ("a", 1), [None], THING, object]
NO_MOMENT: list[Any] = [datetime(2026, 1, 1), "x", "2026-01-01", 1.5, True, float("nan"), [], timedelta(1), THING]

Refused = tuple[list[Any], Callable[[Memory, Any], object]]
REFUSED: dict[str, Refused] = {
    "get: namespace": (NO_NAMESPACE, lambda memory, odd: memory.get(odd, "k")),
    "get: key": (NO_TEXT, lambda memory, odd: memory.get(("a",), odd)),
    "get: as_of": (NO_MOMENT, lambda memory, odd: memory.get(("a",), "k", as_of=odd)),
    "items": (NO_NAMESPACE, lambda memory, odd: memory.items(odd)),
    "items: as_of": (NO_MOMENT, lambda memory, odd: memory.items(as_of=odd)),
    "namespaces": (NO_NAMESPACE, lambda memory, odd: memory.namespaces(odd)),
    "history": (NO_NAMESPACE, lambda memory, odd: memory.history(odd, "k")),
    "put: namespace": (NO_NAMESPACE, lambda memory, odd: memory.put(odd, "k", {"v": 2})),
    "put: key": (NO_TEXT, lambda memory, odd: memory.put(("a",), odd, {"v": 2})),
    "put: value": ([0, "ab", [("a", 1)], {1}, THING], lambda memory, odd: memory.put(("a",), "k", odd)),
    "put: ttl": (
        ["1d", 5, 1.5, float("nan"), [], {}, THING, timedelta(0), timedelta(-1), timedelta.max],
        lambda memory, odd: memory.put(("a",), "k", {"v": 2}, ttl=odd),
    ),
    "apply": ([None, 0, "ab", b"x", THING, [None], [1], [("a", "k", {})]], lambda memory, odd: memory.apply(odd)),
    "delete": (NO_NAMESPACE, lambda memory, odd: memory.delete(odd, "k")),
    "prune": ([None, *NO_MOMENT[:-2]], lambda memory, odd: memory.prune(odd)),
    "fork": (NO_TEXT, lambda memory, odd: memory.fork(odd)),
    "fork: as_of": (NO_MOMENT, lambda memory, odd: memory.fork("new", as_of=odd)),
    "diff": ([0, 1.5, "x", b"x", [], THING], lambda memory, odd: memory.diff(odd)),
    "diff: since": (NO_MOMENT, lambda memory, odd: memory.diff(since=odd)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_nothing_is_written(repository: Repository, memory: Memory, name: str) -> None:
    memory.put(("a",), "k", {"v": 1})
    before = repository.storage.scan(b"", b"\xff" * 8)
    odds, call = REFUSED[name]
    for odd in odds:
        with pytest.raises(InvalidInputError) as caught:
            call(memory, odd)
        assert caught.value.message, odd
        assert repository.storage.scan(b"", b"\xff" * 8) == before, odd
    memory.put(("a",), "k", {"v": 3})
    assert [version.value for version in memory.history(("a",), "k")] == [{"v": 3}, {"v": 1}]


def test_a_moment_before_or_after_all_times(memory: Memory) -> None:
    memory.put(("a",), "k", {"v": 1})
    for early in (-1, -(10**30), datetime.min.replace(tzinfo=UTC)):
        assert memory.get(("a",), "k", as_of=early) is None
    for late in (10**30, datetime.max.replace(tzinfo=UTC)):
        found = memory.get(("a",), "k", as_of=late)
        assert found is not None
        assert found.value == {"v": 1}


def test_the_store_of_langgraph_says_the_same() -> None:
    with ckpt.open("memory://") as repository, CkptStore(repository) as store:
        store.put(("a",), "k", {"v": 1})
        for odd in NO_MOMENT:
            for call in (
                lambda odd=odd: store.get(("a",), "k", as_of=odd),
                lambda odd=odd: store.fork("new", as_of=odd),
                lambda odd=odd: store.diff(odd),
            ):
                with pytest.raises(InvalidInputError):
                    call()

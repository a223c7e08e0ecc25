"""Arguments of the wrong kind to the store of long-term memory: an error that says what and why, nothing written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from langgraph.store.base import ListNamespacesOp, PutOp, SearchOp, TTLConfig

from ckpt.errors import InvalidInputError
from ckpt.langgraph import CkptStore

THING = SimpleNamespace()
NO_MAPPING: list[Any] = [0, 1, "ab", b"x", [1], [("a", 1)], {1}, THING, object]
NO_COUNT: list[Any] = ["5", 1.5, True, float("nan"), float("inf"), [], b"1", THING, -1]
NO_MINUTES: list[Any] = ["x", "5", 0, -1, True, float("nan"), float("inf"), 1e300, 10**12, [], THING]
NO_TEXT: list[Any] = [0, 1.5, True, b"x", [], ["a"], {}, ("a",), THING]

Refused = tuple[list[Any], Callable[[CkptStore, Any], object]]
REFUSED: dict[str, Refused] = {
    "put: ttl": (NO_MINUTES, lambda store, odd: store.put(("a",), "k", {"v": 2}, ttl=odd)),
    "put: value": ([each for each in NO_MAPPING if each], lambda store, odd: store.put(("a",), "k", odd)),
    "search: filter": (NO_MAPPING, lambda store, odd: store.search(("a",), filter=odd)),
    "search: limit": (NO_COUNT, lambda store, odd: store.search(("a",), limit=odd)),
    "search: offset": (NO_COUNT, lambda store, odd: store.search(("a",), offset=odd)),
    "search: query": (NO_TEXT, lambda store, odd: store.search(("a",), query=odd)),
    "namespaces: limit": (NO_COUNT, lambda store, odd: store.list_namespaces(limit=odd)),
    "namespaces: offset": (NO_COUNT, lambda store, odd: store.list_namespaces(offset=odd)),
    "namespaces: depth": (NO_COUNT, lambda store, odd: store.list_namespaces(max_depth=odd)),
    "batch": ([None, 0, "ab", b"x", THING, [None], [1], ["put"], {"a": 1}], lambda store, odd: store.batch(odd)),
    "batch: a put besides": (
        [SearchOp(("a",), limit=-1), ListNamespacesOp(max_depth=-1), PutOp(("a",), "k", {"v": 2}, ttl=-1)],
        lambda store, odd: store.batch([PutOp(("a",), "other", {"v": 3}), odd]),
    ),
}
OPTIONS: dict[str, list[Any]] = {
    "index": NO_MAPPING,
    "ttl": [*NO_MAPPING, *({"default_ttl": each} for each in NO_MINUTES)],
    "name": [None, *NO_TEXT],
    "graph": [None, *NO_TEXT],
}


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CkptStore]:
    with CkptStore("memory://" if request.param == "memory" else tmp_path / "store.db") as store:
        store.put(("a",), "k", {"v": 1})
        yield store


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_nothing_is_written(store: CkptStore, name: str) -> None:
    before = store.repository.storage.scan(b"", b"\xff" * 8)
    odds, call = REFUSED[name]
    for odd in odds:
        with pytest.raises(InvalidInputError) as caught:
            call(store, odd)
        assert caught.value.message, odd
        assert store.repository.storage.scan(b"", b"\xff" * 8) == before, odd
    store.put(("a",), "k", {"v": 4}, ttl=5)
    found = store.get(("a",), "k")
    assert found is not None
    assert found.value == {"v": 4}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_refused(name: str) -> None:
    for odd in OPTIONS[name]:
        given: dict[str, Any] = {name: odd}
        with pytest.raises(InvalidInputError):
            CkptStore("memory://", **given)


def test_a_lifetime_that_is_misspelt_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="ttl: 'default' is not known") as caught:
        CkptStore("memory://", ttl={"default": 5})  # type: ignore[typeddict-unknown-key]
    assert caught.value.hints == ("known are default_ttl, omit_expired, refresh_on_read, sweep_interval_minutes",)
    for name in TTLConfig.__annotations__:
        CkptStore("memory://", ttl={name: None}).close()  # type: ignore[misc]


def test_an_interval_that_is_no_number_is_refused_before_the_first_write() -> None:
    for odd in ([5], -1, float("nan"), True):
        with pytest.raises(InvalidInputError, match="sweep_interval_minutes"):
            CkptStore("memory://", ttl={"sweep_interval_minutes": odd})  # type: ignore[typeddict-item]

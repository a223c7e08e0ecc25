"""Arguments of the wrong kind to the store of long-term memory: an error that says what and why, nothing written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from inspect import signature
from types import SimpleNamespace
from typing import Any

import pytest
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchOp,
    TTLConfig,
)
from stores import store_url

from ckpt.errors import InvalidInputError
from ckpt.langgraph import CkptStore

THING = SimpleNamespace()
NO_MAPPING: list[Any] = [0, 1, "ab", b"x", [1], [("a", 1)], {1}, THING, object]
NO_COUNT: list[Any] = ["5", 1.5, True, float("nan"), float("inf"), [], b"1", THING, -1]
NO_MINUTES: list[Any] = ["x", "5", 0, -1, True, float("nan"), float("inf"), 1e300, 10**12, [], THING]
NO_TEXT: list[Any] = [0, 1.5, True, b"x", [], ["a"], {}, ("a",), THING]
NO_NAMESPACE: list[Any] = ["a", "", 5, 0, True, b"a", {"a": 1}, {"a"}, iter(["a"]), THING, None]


def ops_of(namespace: Any) -> list[Op]:
    """Return each kind of operation, on a namespace."""
    conditions = [(MatchCondition("prefix", namespace),), (MatchCondition("suffix", namespace),)]
    return [
        PutOp(namespace, "k", {"v": 2}),
        PutOp(namespace, "k", None),
        GetOp(namespace, "k"),
        SearchOp(namespace),
        *map(ListNamespacesOp, conditions),
    ]


Refused = tuple[list[Any], Callable[[CkptStore, Any], object]]
REFUSED: dict[str, Refused] = {
    "put: ttl": (NO_MINUTES, lambda store, odd: store.put(("a",), "k", {"v": 2}, ttl=odd)),
    "put: value": ([each for each in NO_MAPPING if each], lambda store, odd: store.put(("a",), "k", odd)),
    "put: namespace": (NO_NAMESPACE, lambda store, odd: store.put(odd, "k", {"v": 2})),
    "put: namespace by name": (NO_NAMESPACE, lambda store, odd: store.put(namespace=odd, key="k", value={"v": 2})),
    "get: namespace": (NO_NAMESPACE, lambda store, odd: store.get(odd, "k")),
    "get: namespace in the past": (NO_NAMESPACE, lambda store, odd: store.get(odd, "k", as_of=5)),
    "delete: namespace": (NO_NAMESPACE, lambda store, odd: store.delete(odd, "k")),
    "search: namespace": (NO_NAMESPACE, lambda store, odd: store.search(odd)),
    "namespaces: prefix": (NO_NAMESPACE[:-1], lambda store, odd: store.list_namespaces(prefix=odd)),
    "namespaces: suffix": (NO_NAMESPACE[:-1], lambda store, odd: store.list_namespaces(suffix=odd)),
    "batch: namespace": (
        [op for odd in [*NO_NAMESPACE, (5,), [None]] for op in ops_of(odd)],
        lambda store, odd: store.batch([PutOp(("a",), "other", {"v": 3}), odd]),
    ),
    "batch: key": (
        [op for odd in NO_TEXT for op in (GetOp(("a",), odd), PutOp(("a",), odd, {"v": 2}))],
        lambda store, odd: store.batch([PutOp(("a",), "other", {"v": 3}), odd]),
    ),
    "batch: conditions": (
        [5, "ab", [("prefix", ("a",))], [None]],
        lambda store, odd: store.batch([ListNamespacesOp(odd)]),
    ),
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


@pytest.fixture
def store(backend: str, request: pytest.FixtureRequest) -> Iterator[CkptStore]:
    with CkptStore(store_url(backend, request)) as store:
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
        given: Any = {name: name == "refresh_on_read" or None}
        CkptStore("memory://", ttl=given).close()


def test_a_refreshing_that_is_neither_true_nor_false_is_refused() -> None:
    for odd in (None, 0, 1, "no", "true", 1.5, []):
        given: Any = {"default_ttl": 5, "refresh_on_read": odd}
        with pytest.raises(InvalidInputError, match=r"ttl: refresh_on_read=.* is neither True nor False"):
            CkptStore("memory://", ttl=given)


async def test_the_async_calls_refuse_what_is_no_namespace(store: CkptStore) -> None:
    for odd in NO_NAMESPACE:
        for call in (
            store.aput(odd, "k", {"v": 2}),
            store.aput(namespace=odd, key="k", value={"v": 2}),
            store.aget(odd, "k"),
            store.aget(odd, "k", as_of=5),
            store.adelete(odd, "k"),
            store.asearch(odd),
            *([] if odd is None else [store.alist_namespaces(prefix=odd), store.alist_namespaces(suffix=odd)]),
            *(store.abatch([op]) for op in ops_of(odd)),
        ):
            with pytest.raises(InvalidInputError, match="is no sequence of texts") as caught:
                await call
            assert caught.value.hints == ("write it as in ('users', 'ana'), and one label as ('users',)",)


def test_what_langgraph_takes_and_refuses_stays_as_it_is(store: CkptStore) -> None:
    store.put(["b"], "k", {"v": 2})  # type: ignore[arg-type]
    found = store.get(("b",), "k")
    assert found is not None
    assert found.namespace == ("b",)
    assert [item.value for item in store.search(())] == [{"v": 2}, {"v": 1}]
    assert store.list_namespaces(prefix=["b"]) == [("b",)]  # type: ignore[arg-type]
    assert store.list_namespaces(prefix=None, suffix=("*",)) == [("a",), ("b",)]
    for bad in ((), (5,), ("",), ("a.b",), ("langgraph",)):
        with pytest.raises(InvalidNamespaceError):
            store.put(bad, "k", {"v": 3})  # type: ignore[arg-type]
    assert signature(CkptStore.put) == signature(BaseStore.put)


def test_an_interval_that_is_no_number_is_refused_before_the_first_write() -> None:
    for odd in ([5], -1, float("nan"), True):
        with pytest.raises(InvalidInputError, match="sweep_interval_minutes"):
            CkptStore("memory://", ttl={"sweep_interval_minutes": odd})  # type: ignore[typeddict-item]

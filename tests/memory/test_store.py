"""`CkptStore`: what LangGraph's stores promise, and what this one adds."""

from __future__ import annotations

import asyncio
import collections
import enum
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy
import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, StateGraph
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore
from memory_kit import DIMS, Clock, aembed, embed

import ckpt
from ckpt.errors import AlreadyExistsError, InvalidInputError, UnstorableValueError
from ckpt.langgraph import CkptSaver, CkptStore, vectors
from ckpt.repository import Put, Repository

ANA = ("users", "ana")
LONG = "a text that is long enough to be an object of its own, so that it can be shared: " * 3
INDEX: Any = {"dims": DIMS, "embed": embed, "fields": ["text"]}


@pytest.fixture
def store(store_url: str) -> Iterator[CkptStore]:
    with CkptStore(store_url) as store:
        yield store


# -- what LangGraph's stores promise -------------------------------------------------------------------


def test_it_is_a_base_store(store: CkptStore) -> None:
    assert isinstance(store, BaseStore)
    assert store.supports_ttl


def test_items_have_aware_times(store: CkptStore) -> None:
    store.put(ANA, "k", {"n": 1})
    store.put(ANA, "k", {"n": 2})
    item = store.get(ANA, "k")
    assert item is not None
    assert (item.namespace, item.key, item.value) == (ANA, "k", {"n": 2})
    assert item.created_at.tzinfo is item.updated_at.tzinfo is UTC
    assert item.created_at < item.updated_at
    (found,) = store.search(ANA)
    assert found == item and found.score is None
    assert item.dict()["created_at"] == item.created_at.isoformat()


def test_what_is_returned_may_be_changed_by_the_caller(store: CkptStore) -> None:
    given = {"list": [1]}
    store.put(ANA, "k", given)
    given["list"].append(2)
    for _ in range(2):
        found = store.search(ANA, filter={"list": [1]})[0]
        found.value["list"].append(3)
        item = store.get(ANA, "k")
        assert item is not None and item.value == {"list": [1]}
        item.value["list"].append(4)


def test_a_value_of_none_deletes(store: CkptStore) -> None:
    store.put(ANA, "k", {"n": 1})
    store.batch([PutOp(ANA, "k", None)])
    assert store.get(ANA, "k") is None
    store.delete(ANA, "k")


def test_reads_of_a_batch_see_what_was_before_it(store: CkptStore) -> None:
    store.put(ANA, "k", {"n": 1})
    results = store.batch(
        [
            PutOp(ANA, "k", {"n": 2}),
            GetOp(ANA, "k"),
            PutOp(ANA, "k", {"n": 3}),
            SearchOp(("users",)),
            ListNamespacesOp(),
        ]
    )
    assert [results[0], results[2]] == [None, None]
    assert results[1].value == {"n": 1}  # type: ignore[union-attr]
    assert [item.value for item in results[3]] == [{"n": 1}]  # type: ignore[union-attr]
    assert results[4] == [ANA]
    assert [version.value for version in store.history(ANA, "k")] == [{"n": 3}, {"n": 1}]


def test_namespaces_are_checked_as_langgraph_does(store: CkptStore) -> None:
    for namespace in ((), ("a.b",), ("",), ("langgraph", "x"), (1,)):
        with pytest.raises(InvalidNamespaceError):
            store.put(namespace, "k", {})  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="Unknown operation"):
        store.batch(["nonsense"])  # type: ignore[list-item]


def test_namespaces_are_listed_by_conditions(store: CkptStore) -> None:
    for namespace in (("a", "x", "v1"), ("a", "y", "v1"), ("a", "y", "v2"), ("b", "x", "v1"), ("ab", "x")):
        store.put(namespace, "k", {})
    assert store.list_namespaces(prefix=("a",)) == [("a", "x", "v1"), ("a", "y", "v1"), ("a", "y", "v2")]
    assert store.list_namespaces(prefix=("a", "*"), suffix=("v1",)) == [("a", "x", "v1"), ("a", "y", "v1")]
    assert store.list_namespaces(suffix=("x", "*")) == [("a", "x", "v1"), ("b", "x", "v1")]
    assert store.list_namespaces(prefix=("a",), max_depth=2) == [("a", "x"), ("a", "y")]
    assert store.list_namespaces(max_depth=1, limit=1, offset=1) == [("ab",)]
    with pytest.raises(InvalidInputError, match="Unsupported match type"):
        store.batch([ListNamespacesOp((MatchCondition("middle", ("a",)),))])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        ({"n": {"$gt": 1}}, "bc"),
        ({"n": {"$gte": 1, "$lt": 3}}, "ab"),
        ({"n": {"$gt": 10**400}}, ""),
        ({"n": {"$ne": 1}}, "bcd"),
        ({"n": {"$eq": None}}, "d"),
        ({"when": {"$gt": "2026-01-15"}}, "bc"),
        ({"deep": {"n": {"$lte": 1}}}, "a"),
        ({"deep": {"n": 2}, "n": 2}, "b"),
        ({"tags": ["x", {"$ne": "y"}]}, "b"),
    ],
)
def test_filters(store: CkptStore, wanted: dict[str, Any], keys: str) -> None:
    store.put(ANA, "a", {"n": 1, "when": "2026-01-01", "deep": {"n": 1}, "tags": ["x", "y"]})
    store.put(ANA, "b", {"n": 2, "when": "2026-02-01", "deep": {"n": 2}, "tags": ["x", "z"]})
    store.put(ANA, "c", {"n": 3, "when": "2026-03-01", "deep": 7})
    store.put(ANA, "d", {"when": 5})
    for _ in range(2):
        assert "".join(sorted(item.key for item in store.search(("users",), filter=wanted))) == keys


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        ({"$ref": "x"}, "a"),
        ({"$ref": {"$ne": "x"}}, "bc"),
        ({"$eq": 1}, "b"),
        ({"$gt": {"$gt": 1}}, "b"),
        ({"deep": {"$eq": {"$ref": 1}}}, "a"),
        ({"deep": {"$ne": {"$ref": 1}}}, "bc"),
        ({"deep": {"n": {"$eq": {"$ref": 1}}}}, "b"),
        ({"deep": [{"$eq": {"$ref": 1}}]}, "c"),
    ],
)
def test_a_key_may_begin_as_operators_do(store: CkptStore, wanted: dict[str, Any], keys: str) -> None:
    model = InMemoryStore()
    for each in (store, model):
        each.put(ANA, "a", {"$ref": "x", "deep": {"$ref": 1}, "$gt": 1})
        each.put(ANA, "b", {"$ref": "y", "deep": {"n": {"$ref": 1}}, "$eq": 1, "$gt": 2})
        each.put(ANA, "c", {"deep": [{"$ref": 1}], "$gt": 0})
        assert "".join(sorted(item.key for item in each.search(ANA, filter=wanted))) == keys


@pytest.mark.parametrize(
    "wanted",
    [
        {"n": {"$near": 1}},
        {"deep": {"n": {"$in": [1]}}},
        {"n": [{"$regex": "x"}]},
        {"n": {"$eq": 1, "regex": 1}},
        {"n": {"regex": 1, "$eq": 1}},
    ],
)
def test_an_unknown_operator_is_an_error(store: CkptStore, wanted: dict[str, Any]) -> None:
    for _ in range(2):
        with pytest.raises(InvalidInputError, match=r"Unsupported operator: [$]?(near|in|regex)") as caught:
            store.search(ANA, filter=wanted)
        assert "$gte" in caught.value.hints[0]
        assert '{"$eq": {"$key": 1}}' in caught.value.hints[1]
        store.put(ANA, "a", {"n": 2, "deep": {"n": 2}})


def test_pages_of_a_search_add_up(store: CkptStore) -> None:
    for number in range(25):
        store.put(ANA, f"{number}", {"even": number % 2 == 0})
    pages = [store.search(ANA, limit=10, offset=offset) for offset in (0, 10, 20, 30)]
    assert [len(page) for page in pages] == [10, 10, 5, 0]
    assert [item.key for page in pages for item in page] == [f"{number}" for number in range(24, -1, -1)]
    assert [item.key for item in store.search(ANA, filter={"even": True}, limit=3, offset=2)] == ["20", "18", "16"]


# -- lifetimes ------------------------------------------------------------------------------------------


def test_operations_of_a_batch_have_the_lifetime_that_they_say(store_url: str, clock: Clock) -> None:
    with CkptStore(store_url, ttl={"default_ttl": 10, "refresh_on_read": False}) as store:
        store.put(ANA, "put", {"n": 1})
        store.batch([PutOp(ANA, "said", {"n": 2}, ttl=10), PutOp(ANA, "plain", {"n": 3})])
        clock.later(minutes=9)
        store.batch([GetOp(ANA, "said")])
        clock.later(minutes=9)
        assert {item.key for item in store.search(ANA)} == {"said", "plain"}


def test_lifetimes_in_minutes(store_url: str, clock: Clock) -> None:
    with CkptStore(store_url, ttl={"default_ttl": 10, "refresh_on_read": False}) as store:
        store.put(ANA, "default", {"n": 1})
        store.put(ANA, "own", {"n": 2}, ttl=0.5)
        store.put(ANA, "ever", {"n": 3}, ttl=None)
        clock.later(minutes=0.51)
        assert {item.key for item in store.search(ANA)} == {"default", "ever"}
        clock.later(minutes=9.5)
        assert store.get(ANA, "default") is None
        assert store.list_namespaces() == [ANA]
        assert store.sweep_ttl() == 2
        assert [version.deleted for version in store.history(ANA, "own")] == [True, False]


def test_reading_refreshes_unless_told_not_to(store_url: str, clock: Clock) -> None:
    with CkptStore(store_url) as store:
        for key in ("got", "searched", "filtered", "not", "peeked"):
            store.put(("n", key), key, {"n": 1}, ttl=10)
        for _ in range(3):
            clock.later(minutes=6)
            assert store.get(("n", "got"), "got") is not None
            assert store.search(("n", "searched"))
            assert store.search(("n", "filtered"), filter={"n": 1})
            store.get(("n", "peeked"), "peeked", refresh_ttl=False)
            store.search(("n", "not"), refresh_ttl=False)
        assert {item.key for item in store.search(("n",), refresh_ttl=False)} == {"got", "searched", "filtered"}


def test_writers_sweep_in_passing(store_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with CkptStore(store_url, ttl={"sweep_interval_minutes": 5}) as store:
        store.put(ANA, "k", {"n": 1}, ttl=1)
        clock.later(minutes=1)
        store.put(ANA, "l", {"n": 1})
        assert len(store.history(ANA, "k")) == 1
        started = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: started + 301)
        store.put(ANA, "m", {"n": 1})
        store._shared.pool().shutdown(wait=True)
        store._shared._pools = {}
        assert len(store.history(ANA, "k")) == 2


def test_a_lifetime_must_be_one(store: CkptStore) -> None:
    for ttl in (0, -1, float("nan"), float("inf"), 1e300):
        with pytest.raises(InvalidInputError, match="ttl"):
            store.put(ANA, "k", {"n": 1}, ttl=ttl)
    assert store.get(ANA, "k") is None


# -- search by meaning -----------------------------------------------------------------------------------


class Counting(Embeddings):
    """Counts what it embeds."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.texts += texts
        return embed(texts)

    def embed_query(self, text: str) -> list[float]:
        self.texts.append(f"query: {text}")
        return embed([text])[0]


def test_the_nearest_comes_first(store_url: str) -> None:
    with CkptStore(store_url, index=INDEX) as store:
        store.put(ANA, "cat", {"text": "the cat sat", "n": 1})
        store.put(ANA, "dog", {"text": "dogs bark loudly", "n": 2})
        store.put(ANA, "none", {"other": "the cat sat"})
        store.put(ANA, "unindexed", {"text": "the cat sat"}, index=False)
        store.put(ANA, "elsewhere", {"title": "the cat"}, index=["title"])
        found = store.search(ANA, query="the cat sat")
        assert [item.key for item in found][:2] == ["cat", "elsewhere"]
        assert found[0].score == pytest.approx(1.0)
        assert {item.key: item.score is None for item in found} == {
            "cat": False, "dog": False, "elsewhere": False, "none": True, "unindexed": True,
        }  # fmt: skip
        assert [item.key for item in store.search(ANA, query="the cat sat", filter={"n": 2})] == ["dog"]
        assert [item.key for item in store.search(ANA, query="the cat sat", limit=1, offset=1)] == ["elsewhere"]
        store.put(ANA, "cat", {"text": "something else"})
        assert store.search(ANA, query="the cat sat")[0].key == "elsewhere"


def test_a_new_process_searches_without_embedding_again(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    with CkptStore(tmp_path / "a.db", index={"dims": DIMS, "embed": first}) as store:
        store.batch([PutOp(ANA, f"{number}", {"text": "same" if number < 3 else f"{number}"}) for number in range(5)])
        assert len(first.texts) == 3
        fork = store.fork("fork")
    with CkptStore(tmp_path / "a.db", index={"dims": DIMS, "embed": second}, name="fork") as store:
        assert store.search(ANA, query='{"text": "4"}')[0].key == "4"
        assert second.texts == ['query: {"text": "4"}']
    assert fork.memory.name == "fork"


def test_what_is_wrong_with_an_index_is_said(store_url: str) -> None:
    with CkptStore(store_url, index={**INDEX, "dims": DIMS + 1}) as store:
        with pytest.raises(InvalidInputError, match=f"{DIMS} dimensions, and the index has {DIMS + 1}"):
            store.put(ANA, "k", {"text": "x"})
        assert store.get(ANA, "k") is None
        with pytest.raises(InvalidInputError, match=f"{DIMS} dimensions, and the index has {DIMS + 1}"):
            store.search(ANA, query="x")
        with pytest.raises(InvalidInputError, match=f"{DIMS} dimensions, and the index has {DIMS + 1}"):
            asyncio.run(store.asearch(ANA, query="x"))
    with (
        CkptStore(store_url, index={**INDEX, "embed": lambda texts: []}) as store,
        pytest.raises(InvalidInputError, match="0 vectors for 1 texts"),
    ):
        store.put(ANA, "k", {"text": "x"})


NO_VECTORS: list[Any] = [
    [float("nan")] * DIMS,
    [1.0] * (DIMS - 1) + [float("-inf")],
    [1e39] * DIMS,
    [None] * DIMS,
    ["1.0"] * DIMS,
    [[1.0]] * DIMS,
    "1" * DIMS,
    1.0,
    None,
]


@pytest.mark.parametrize("odd", NO_VECTORS, ids=repr)
def test_what_is_no_vector_of_finite_numbers_is_refused(odd: Any) -> None:
    index: Any = {"dims": DIMS, "embed": lambda texts: [odd if text == "odd" else embed([text])[0] for text in texts]}
    with CkptStore("memory://", index={**index, "fields": ["text"]}) as store:
        store.put(ANA, "k", {"text": "the cat"})
        for act in (lambda: store.put(ANA, "l", {"text": "odd"}), lambda: store.search(ANA, query="odd")):
            with pytest.raises(InvalidInputError, match="the embedding function returned"):
                act()
        for call in (store.aput(ANA, "l", {"text": "odd"}), store.asearch(ANA, query="odd")):
            with pytest.raises(InvalidInputError, match="the embedding function returned"):
                asyncio.run(call)  # type: ignore[arg-type]
        assert [item.key for item in store.search(ANA)] == ["k"]


@pytest.mark.parametrize("numpy", [True, False])
@pytest.mark.parametrize("distance", ["cosine", "inner_product", "l2"])
def test_stored_vectors_that_cannot_be_compared_have_no_score(
    store_url: str, distance: str, numpy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of another model, and what earlier versions stored of one that failed."""
    if not numpy:
        monkeypatch.setattr(vectors, "_numpy", lambda: None)
    with CkptStore(store_url, index={"dims": 2, "embed": lambda texts: [[1, 0]], "distance_type": distance}) as store:  # type: ignore[typeddict-unknown-key]
        stored = {
            "far": [[0.5, -3.0]],
            "nan": [[float("nan"), 1.0]],
            "near": [[1.0, 0.5]],
            "inf": [[float("inf"), 0.0]],
            "longer": [[1.0, 0.0, 0.0]],
            "none": [],
            "shorter": [[1.0]],
            "nearest": [[float("nan"), 0.0], [1.0, 0.0]],
        }
        for key, each in stored.items():
            named = {f"{number}": vector for number, vector in enumerate(each)}
            packed = vectors.encode_vectors({path: path for path in named}, named)
            store.memory.apply([Put(ANA, key, {"n": 1}, vectors=packed)])
        for _ in range(2):
            found = store.search(ANA, query="x", limit=20)
            assert [item.key for item in found][:3] == ["nearest", "near", "far"]
            assert [item.key for item in found][3:] == ["shorter", "none", "longer", "inf", "nan"]
            assert [type(item.score) for item in found] == [float] * 3 + [type(None)] * 5
            pages = [store.search(ANA, query="x", limit=2, offset=offset) for offset in range(0, 10, 2)]
            assert [item.key for page in pages for item in page] == [item.key for item in found]


def test_scores_are_floats_whatever_the_model_returns() -> None:
    numpy = pytest.importorskip("numpy")
    with CkptStore("memory://", index={"dims": 2, "embed": lambda texts: numpy.ones((len(texts), 2), "f4")}) as store:
        store.put(ANA, "k", {"text": "x"})
        (found,) = store.search(ANA, query="x")
        assert json.loads(json.dumps(found.dict()))["score"] == pytest.approx(1.0)


def test_pages_of_a_search_by_meaning_add_up(store_url: str) -> None:
    with CkptStore(store_url, index=INDEX) as store:
        for number in range(5):
            store.put(ANA, f"{number}", {"text": "the cat"})
            store.put(ANA, f"none {number}", {"other": 1})
        expected = [f"{number}" for number in range(4, -1, -1)] + [f"none {number}" for number in range(4, -1, -1)]
        for size in (1, 3, 4, 5, 10):
            pages = [store.search(ANA, query="the cat", limit=size, offset=at) for at in range(0, 11 + size, size)]
            assert [item.key for page in pages for item in page] == expected
            assert pages[-1] == []


@dataclass
class Note:
    text: str
    when: date


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"at": datetime(2026, 1, 2, tzinfo=UTC)}, '{"at": "2026-01-02 00:00:00+00:00"}'),
        ({"of": {"b", "a"}, "n": (1, None)}, '{"n": [1, null], "of": ["a", "b"]}'),
        ({"note": Note("green tea", date(2026, 1, 2))}, '{"note": {"text": "green tea", "when": "2026-01-02"}}'),
        ({"by": {1: b"x", "2": Decimal("1.50")}}, '{"by": {"1": "b\'x\'", "2": "1.50"}}'),
        ({"on": True, "n": 1.0, "text": "Ü"}, '{"n": 1.0, "on": true, "text": "Ü"}'),
    ],
)
def test_texts_are_taken_of_what_may_be_stored(value: dict[str, Any], text: str) -> None:
    counting = Counting()
    with CkptStore("memory://", index={"dims": DIMS, "embed": counting}) as store:
        store.put(ANA, "k", value)
        found = store.get(ANA, "k")
        assert found is not None and found.value == value
    assert counting.texts == [text]


def test_texts_are_taken_of_what_stands_in_objects() -> None:
    counting = Counting()
    with CkptStore(
        "memory://", index={"dims": DIMS, "embed": counting, "fields": ["said.content", "at", "n"]}
    ) as store:
        store.put(ANA, "k", {"said": HumanMessage("green tea"), "at": date(2026, 1, 2), "n": 1})
    assert counting.texts == ["green tea", "2026-01-02", "1"]


@pytest.mark.parametrize("value", [{"o": object()}, {1: object(), "1": 2}, [1], "text"])
def test_what_cannot_be_stored_is_refused_with_an_index_too(value: Any) -> None:
    deep: Any = {}
    round_about: Any = {}
    round_about["again"] = round_about
    for _ in range(5000):
        deep = {"deeper": deep}
    with CkptStore("memory://", index={"dims": DIMS, "embed": embed}) as store:
        for each in (value, deep, round_about):
            with pytest.raises(InvalidInputError):
                store.put(ANA, "k", each)
        assert store.search(ANA) == []


def test_scores_are_the_same_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    query = embed(["the cat sat"])[0]
    packed = [
        vectors.decode_vectors(vectors.encode_vectors({"p": text}, {text: embed([text])[0]}))[0]
        for text in ("the cat", "a dog", "", "the cat sat")
    ]
    packed.append(bytes(4 * DIMS))
    assert vectors._numpy() is not None
    fast = vectors.similarities(query, packed)
    monkeypatch.setattr(vectors, "_numpy", lambda: None)
    slow = vectors.similarities(query, packed)
    assert fast == pytest.approx(slow, abs=1e-12)
    assert slow[-2:] == [pytest.approx(1.0), 0.0]
    assert vectors.similarities(query, []) == []


def test_equal_vectors_have_equal_scores() -> None:
    """To the last digit, wherever they stand: items that are equally near keep their order."""
    query, other = embed(["the cat sat", "a dog barks"])
    packed = vectors.decode_vectors(vectors.encode_vectors({"p": "t"}, {"t": other * 50}))
    for count in range(1, 40):
        assert len(set(vectors.similarities(query * 50, packed * count))) == 1


# -- async ------------------------------------------------------------------------------------------------


async def test_everything_is_async_too(store_url: str) -> None:
    async with CkptStore(store_url, index={**INDEX, "embed": aembed}) as store:
        await store.setup()
        await store.aput(ANA, "k", {"text": "the cat sat"})
        await store.aput(ANA, "l", {"text": "a dog"})
        item = await store.aget(ANA, "k")
        assert item is not None and item.value == {"text": "the cat sat"}
        assert [item.key for item in await store.asearch(ANA, query="the cat sat")] == ["k", "l"]
        assert await store.alist_namespaces() == [ANA]
        await store.adelete(ANA, "k")
        history = await store.ahistory(ANA, "k")
        assert [version.deleted for version in history] == [True, False]
        past = await store.aget(ANA, "k", as_of=history[1].moment)
        assert past is not None and past.value == {"text": "the cat sat"}
        fork = await store.afork("fork", as_of=history[1].when)
        assert {change.key for change in await store.adiff(fork)} == {"k", "l"}
        assert [change.key for change in await store.adiff(history[1].moment)] == ["k", "l"]
        assert await store.asweep_ttl() == 0


async def test_the_loop_is_never_blocked(tmp_path: Path) -> None:
    async with CkptStore(tmp_path / "a.db") as store:
        publish = store.repository.storage.publish
        ticked = threading.Event()

        def slowly(batch: Any) -> Any:
            # A loop that is held up does not get there.
            assert ticked.wait(20)
            return publish(batch)

        type(store.repository.storage).publish, restore = (  # type: ignore[method-assign]
            lambda self, batch: slowly(batch),
            type(store.repository.storage).publish,
        )
        try:
            ticks = 0
            put = asyncio.ensure_future(store.aput(ANA, "k", {"n": 1}))
            while not put.done():
                await asyncio.sleep(0.001)
                ticks += 1
                if ticks >= 10:
                    ticked.set()
            await put
        finally:
            type(store.repository.storage).publish = restore  # type: ignore[method-assign]
        assert ticks >= 10


async def test_many_at_once(store_url: str) -> None:
    async with CkptStore(store_url) as store:
        await asyncio.gather(*(store.aput(("n",), f"{number}", {"n": number}) for number in range(40)))
        found = await asyncio.gather(*(store.aget(("n",), f"{number}") for number in range(40)))
        assert [item.value["n"] for item in found if item is not None] == list(range(40))


# -- the past ---------------------------------------------------------------------------------------------


def test_items_as_of_a_moment(store: CkptStore) -> None:
    for number in range(3):
        store.put(ANA, "k", {"n": number})
    store.delete(ANA, "k")
    history = store.history(ANA, "k")
    assert [version.value for version in history] == [None, {"n": 2}, {"n": 1}, {"n": 0}]
    for version in history:
        for moment in (version.moment, version.when, version.when.astimezone()):
            item = store.get(ANA, "k", as_of=moment)
            assert (item.value if item is not None else None) == version.value
    assert store.get(ANA, "k", as_of=history[-1].when - timedelta(microseconds=1)) is None


def test_branches(store: CkptStore) -> None:
    store.put(ANA, "k", {"n": 1})
    branch = store.fork("what-if")
    branch.put(ANA, "k", {"n": 2})
    store.put(ANA, "l", {"n": 3})
    assert [(change.key, change.old, change.new) for change in branch.diff(store)] == [
        ("k", {"n": 1}, {"n": 2}),
        ("l", {"n": 3}, None),
    ]
    with pytest.raises(AlreadyExistsError):
        store.fork("what-if")
    branch.close()
    assert store.get(ANA, "k") is not None
    assert CkptStore(store.repository, name="what-if").get(ANA, "k").value == {"n": 2}  # type: ignore[union-attr]


# -- beside a saver ---------------------------------------------------------------------------------------


class State(TypedDict):
    notes: Annotated[list[str], lambda old, new: old + new]


def test_a_graph_uses_a_saver_and_a_store_on_one_file(tmp_path: Path) -> None:
    def remember(state: State, store: BaseStore) -> State:
        store.put(ANA, f"note-{len(state['notes'])}", {"notes": state["notes"]})
        return {"notes": [f"{len(store.search(ANA))} remembered"]}

    builder = StateGraph(State)
    builder.add_node("remember", remember)
    builder.add_edge(START, "remember")
    path = tmp_path / "a.db"
    with ckpt.open(path, graph="support") as repository:
        saver, store = CkptSaver(repository), CkptStore(repository)
        graph = builder.compile(checkpointer=saver, store=store)
        config: Any = {"configurable": {"thread_id": "t"}}
        graph.invoke({"notes": [LONG]}, config)
        assert graph.invoke({"notes": ["more"]}, config)["notes"] == [LONG, "1 remembered", "more", "2 remembered"]
    with CkptStore(path, graph="support") as store, CkptStore(path) as other:
        assert {item.key for item in store.search(ANA)} == {"note-1", "note-3"}
        assert other.search(()) == []
        assert store.repository.fsck().problems == []
        store.repository.gc(grace=timedelta(0))
        assert store.get(ANA, "note-1").value == {"notes": [LONG]}  # type: ignore[union-attr]


def test_an_open_repository_stays_open(store_url: str) -> None:
    with ckpt.open(store_url) as repository:
        with CkptStore(repository) as store:
            store.put(ANA, "k", {"n": 1})
        assert repository.memory().get(ANA, "k") is not None
        with pytest.raises(InvalidInputError, match="opened on graph ''"):
            CkptStore(repository, graph="other")


def test_from_conn_string(tmp_path: Path) -> None:
    with CkptStore.from_conn_string(str(tmp_path / "a.db"), graph="g") as store:
        store.put(ANA, "k", {"n": 1})
        assert isinstance(store.repository, Repository) and store.repository.graph == "g"


def test_a_store_open_for_reading_only_is_read(tmp_path: Path) -> None:
    with CkptStore(tmp_path / "a.db") as store:
        store.put(ANA, "k", {"n": 1}, ttl=100)
    with ckpt.open(tmp_path / "a.db", readonly=True) as repository:
        reading = CkptStore(repository)
        assert reading.get(ANA, "k") is not None
        with pytest.raises(ckpt.CkptError):
            reading.put(ANA, "k", {"n": 2})


def test_equal_texts_in_one_put_are_embedded_once() -> None:
    seen: list[Sequence[str]] = []

    def counting(texts: Sequence[str]) -> list[list[float]]:
        seen.append(texts)
        return embed(texts)

    index: Any = {"dims": DIMS, "embed": counting, "fields": ["a", "b"]}
    with CkptStore("memory://", index=index) as store:
        store.put(ANA, "k", {"a": "same", "b": "same"})
        assert store.search(ANA, query="same")[0].score == pytest.approx(1.0)
    assert seen == [["same"], ["same"]]
    with pytest.raises(ValueError, match="does not match"):
        InMemoryStore(index=index).put(ANA, "k", {"a": "same", "b": "same"})


def test_an_encrypted_store_shows_nothing_of_a_memory(tmp_path: Path) -> None:
    key = bytes(range(32))
    with CkptStore(tmp_path / "a.db", encryption_key=key, name="notes of ana", index=INDEX, graph="support") as store:
        for number in range(20):
            store.put(("customers", "ana"), "favourite", {"text": "likes lapsang souchong", "n": number})
        store.fork("another")
        raw = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (b"customers", b"ana", b"favourite", b"lapsang", b"another", b"support"):
        assert secret not in raw
    with CkptStore(tmp_path / "a.db", encryption_key=key, name="another", index=INDEX, graph="support") as store:
        assert store.search(("customers",), query="lapsang")[0].value["n"] == 19
        assert len(store.history(("customers", "ana"), "favourite")) == 20
        store.repository.gc(grace=timedelta(0))
        assert store.repository.fsck().problems == []


def test_a_put_that_was_cancelled_does_not_come_over_a_later_one(
    store: CkptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, released = threading.Event(), threading.Event()
    write = store.memory.write

    def slow(versions: Any) -> None:
        if not entered.is_set():
            entered.set()
            assert released.wait(30)
        write(versions)

    async def run() -> None:
        monkeypatch.setattr(store.memory, "write", slow)
        first = asyncio.create_task(store.aput(ANA, "k", {"v": "old"}))
        await asyncio.to_thread(entered.wait, 30)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        second = asyncio.create_task(store.aput(ANA, "k", {"v": "new"}))
        await asyncio.sleep(0.05)
        assert not second.done()
        released.set()
        await second
        assert [version.value for version in await store.ahistory(ANA, "k")] == [{"v": "new"}, {"v": "old"}]

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_value_that_was_collected_meanwhile_is_stored_again(store_url: str) -> None:
    value = {"text": LONG}
    with ckpt.open(store_url) as writer:
        shared = store_url == "memory://"
        with Repository(writer.storage) if shared else ckpt.open(store_url) as other:
            writer.memory("m").put(ANA, "k", value)
            other.memory("m").delete(ANA, "k")
            assert other.memory("m").prune(timedelta(0)) > 0
            other.gc(grace=timedelta(0))
            # The writer remembers the object as stored, and nothing but the epoch tells it otherwise.
            writer.memory("m").put(ANA, "again", value)
            found = other.memory("m").get(ANA, "again")
            assert found is not None
            assert found.value == value
            assert other.fsck().problems == []


# -- what is a text or a number by inheritance ------------------------------------------------------------------


class Tier(enum.IntEnum):
    GOLD = 3


class Role(str, enum.Enum):  # noqa: UP042 - of which `str` is another text
    ADMIN = "admin"


class Listed(list):  # type: ignore[type-arg]
    pass


class Named(dict):  # type: ignore[type-arg]
    pass


def test_texts_numbers_lists_and_dicts_of_other_classes_are_stored_plain(store: CkptStore) -> None:
    said = AIMessage("likes tea").text
    assert type(said) is not str
    value = {
        said: said,
        "deep": Listed([{"said": (said, 1)}, Named(n=Tier.GOLD)]),
        "role": Role.ADMIN,
        "number": numpy.float64(0.5),
        "kept": collections.OrderedDict(a=1),
        "true": True,
    }
    store.put(ANA, "k", value)
    (item,) = store.search(ANA, filter={"role": "admin", "deep": {"$ne": 1}})
    found = store.get(ANA, "k")
    assert found is not None and item.value == found.value == value
    plain = json.loads(json.dumps(found.value))
    assert plain == {
        "likes tea": "likes tea",
        "deep": [{"said": ["likes tea", 1]}, {"n": 3}],
        "role": "admin",
        "number": 0.5,
        "kept": {"a": 1},
        "true": True,
    }
    for part, kind in ((found.value["role"], str), (found.value["number"], float), (found.value["deep"], list)):
        assert type(part) is kind
    assert type(found.value["deep"][1]["n"]) is int and type(found.value["kept"]) is collections.OrderedDict
    assert type(found.value["true"]) is bool and type(next(iter(found.value))) is str


def test_what_is_nested_in_itself_is_refused_and_not_followed(store: CkptStore) -> None:
    value: dict[str, Any] = {"n": 1}
    value["self"] = value
    with pytest.raises(UnstorableValueError):
        store.put(ANA, "k", value)
    assert store.get(ANA, "k") is None

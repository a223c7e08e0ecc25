"""The same operations on `CkptStore` and on LangGraph's `InMemoryStore` have the same results."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.store.base import GetOp, Item, ListNamespacesOp, MatchCondition, Op, PutOp, SearchItem, SearchOp
from langgraph.store.memory import InMemoryStore
from memory_kit import DIMS, embed

from ckpt.langgraph import CkptStore
from ckpt.repository import Repository

LABELS = st.sampled_from(["a", "b", "users", "Ünï", "x/y", "*", "\ud800"])
NAMESPACES = st.lists(LABELS, min_size=1, max_size=3).map(tuple)
PREFIXES = st.lists(LABELS, max_size=3).map(tuple)
KEYS = st.sampled_from(["k", "l", "", "a\x00b", "long " * 50])
LEAVES = st.sampled_from([0, 1, 1.5, -3, "1", "2026-01-01", "x", None, True])
# Keys of values may begin as operators do, at any depth.
VALUES = st.dictionaries(
    st.sampled_from(["n", "s", "deep", "many", "$ref", "$eq"]),
    LEAVES | st.lists(LEAVES, max_size=2) | st.dictionaries(st.sampled_from(["n", "m", "$ref"]), LEAVES, max_size=2),
    max_size=3,
)
NUMBERS = st.sampled_from([0, 1, 1.5, "1", -3])
# A value that is no number makes InMemoryStore raise, so what is compared by order is always a number there.
FILTERS = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from(["n", "s", "deep", "many", "absent"]), LEAVES | st.lists(LEAVES, max_size=2)),
    st.dictionaries(st.sampled_from(["n", "s"]), st.fixed_dictionaries({}, optional={"$eq": LEAVES, "$ne": LEAVES})),
    st.dictionaries(st.sampled_from(["$ref", "$eq", "n"]), LEAVES | st.fixed_dictionaries({"$eq": LEAVES}), max_size=2),
    st.fixed_dictionaries({"deep": st.dictionaries(st.sampled_from(["n", "m"]), LEAVES, max_size=2)}),
    st.dictionaries(
        st.sampled_from(["deep", "$ref"]),
        st.dictionaries(
            st.sampled_from(["$eq", "$ne"]),
            st.dictionaries(st.sampled_from(["n", "$ref"]), LEAVES, max_size=2),
            min_size=1,
        ),
    ),
    st.fixed_dictionaries({"deep": st.fixed_dictionaries({"n": st.fixed_dictionaries({"$ne": LEAVES})})}),
)
CONDITIONS = st.lists(
    st.builds(MatchCondition, st.sampled_from(["prefix", "suffix"]), st.lists(LABELS, max_size=2).map(tuple)),
    max_size=2,
).map(tuple)
SMALL = st.integers(0, 3)
OPS = st.one_of(
    st.tuples(NAMESPACES, KEYS, VALUES).map(lambda given: PutOp(*given)),
    st.tuples(NAMESPACES, KEYS, VALUES).map(lambda given: PutOp(*given)),
    st.tuples(NAMESPACES, KEYS, st.none()).map(lambda given: PutOp(*given)),
    st.tuples(NAMESPACES, KEYS).map(lambda given: GetOp(*given)),
    st.tuples(PREFIXES, FILTERS, SMALL, SMALL).map(lambda given: SearchOp(*given)),
    st.tuples(PREFIXES, FILTERS, st.just(1000)).map(lambda given: SearchOp(*given)),
    st.tuples(CONDITIONS, st.none() | st.integers(1, 3), st.just(100), SMALL).map(
        lambda given: ListNamespacesOp(*given)
    ),
)


class Model:
    """InMemoryStore, with what this project decides otherwise: see docs/memory.md.

    A search without a query has the item changed last first, as LangGraph's stores on databases have it, and a
    namespace without items is not listed. `created_at` stays when an item is put again.
    """

    def __init__(self) -> None:
        self.store = InMemoryStore()
        self.order: dict[tuple[tuple[str, ...], str], int] = {}
        self.batches = 0

    def batch(self, ops: list[Op]) -> list[Any]:
        for namespace in [each for each, items in self.store._data.items() if not items]:
            del self.store._data[namespace]
        widened = [op._replace(limit=1_000_000, offset=0) if isinstance(op, SearchOp) else op for op in ops]
        # A get makes an empty namespace there, which must not be listed by an operation behind it.
        results: list[Any] = [None] * len(ops)
        reads = sorted(range(len(ops)), key=lambda at: isinstance(ops[at], GetOp))
        for at, result in zip(reads, self.store.batch([widened[at] for at in reads]), strict=True):
            results[at] = result
        for at, op in enumerate(ops):
            if isinstance(op, SearchOp):
                found = sorted(
                    results[at],
                    key=lambda item: (-self.order[item.namespace, item.key], item.namespace, item.key),
                )
                results[at] = found[op.offset : op.offset + op.limit]
        self.batches += 1
        self.order |= {(op.namespace, op.key): self.batches for op in ops if isinstance(op, PutOp)}
        return results


def plain(results: Iterable[Any]) -> list[Any]:
    """Return results without their times."""
    return [
        [plain_item(each) for each in result] if isinstance(result, list) else plain_item(result) for result in results
    ]


def plain_item(item: Any) -> Any:
    if isinstance(item, SearchItem):
        return (item.namespace, item.key, item.value, item.score)
    if isinstance(item, Item):
        return (item.namespace, item.key, item.value)
    return item


# One store for all examples, each with a memory of its own.
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(batches=st.lists(st.lists(OPS, min_size=1, max_size=6), min_size=1, max_size=12), name=st.uuids())
def test_the_same_operations_have_the_same_results(repository: Repository, batches: list[list[Op]], name: UUID) -> None:
    with CkptStore(repository, name=str(name)) as store:
        repository.memory(str(name)).drop()
        model = Model()
        for batch in batches:
            assert plain(store.batch(batch)) == plain(model.batch(batch))
        everything: list[Op] = [SearchOp((), limit=1000), ListNamespacesOp()]
        assert plain(store.batch(everything)) == plain(model.batch(everything))
        assert store.repository.fsck().problems == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batches=st.lists(st.lists(OPS, min_size=1, max_size=6), min_size=1, max_size=8))
def test_the_async_ones_too(batches: list[list[Op]]) -> None:
    async def run() -> None:
        async with CkptStore("memory://") as store:
            model = Model()
            for batch in batches:
                assert plain(await store.abatch(batch)) == plain(model.batch(batch))

    asyncio.run(run())


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.dictionaries(st.sampled_from(["n", "s"]), NUMBERS, min_size=2, max_size=2), max_size=6),
    wanted=st.dictionaries(
        st.sampled_from(["n", "s"]),
        st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), NUMBERS, min_size=1),
        min_size=1,
    ),
)
def test_filters_by_order(values: list[dict[str, Any]], wanted: dict[str, Any]) -> None:
    model = InMemoryStore()
    with CkptStore("memory://") as store:
        for at, value in enumerate(values):
            for each in (store, model):
                each.put(("a",), f"{at}", value)
        found = {item.key for item in store.search(("a",), filter=wanted, limit=100)}
        assert found == {item.key for item in model.search(("a",), filter=wanted, limit=100)}


TEXTS = st.lists(st.sampled_from(["the", "cat", "sat", "on", "mat", "dog", "barks"]), min_size=1, max_size=4)


@pytest.mark.parametrize("fields", [None, ["text"], ["text", "parts[*].text"]])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    texts=st.lists(st.tuples(TEXTS, st.lists(TEXTS, max_size=2)), min_size=1, max_size=6, unique_by=str),
    query=TEXTS,
    limit=SMALL,
    offset=SMALL,
    name=st.uuids(),
)
def test_search_by_meaning(
    repository: Repository,
    fields: list[str] | None,
    texts: list[tuple[list[str], list[list[str]]]],
    query: list[str],
    limit: int,
    offset: int,
    name: UUID,
) -> None:
    index: Any = {"dims": DIMS, "embed": embed} | ({"fields": fields} if fields else {})
    model = InMemoryStore(index=index)
    with CkptStore(repository, index=index, name=str(name)) as store:
        repository.memory(str(name)).drop()
        for at, (words, parts) in enumerate(texts):
            # InMemoryStore mistakes two equal texts in one put for a missing vector.
            seen = {" ".join(words): None} | {" ".join(part): None for part in parts}
            value = {"text": next(iter(seen)), "parts": [{"text": text} for text in list(seen)[1:]]}
            for each in (store, model):
                each.put(("a",), f"{at}", value)
        for each_limit, each_offset in ((limit, offset), (100, 0)):
            found = store.search(("a",), query=" ".join(query), limit=each_limit, offset=each_offset)
            expected = model.search(("a",), query=" ".join(query), limit=each_limit, offset=each_offset)
            assert [item.score for item in found] == pytest.approx([item.score for item in expected], abs=1e-6)
        assert {item.key: item.value for item in found} == {item.key: item.value for item in expected}

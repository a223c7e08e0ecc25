"""An `index` configuration of LangGraph's PostgresStore finds here what it finds there."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.store.base import BaseStore, PutOp, get_text_at_path
from langgraph.store.postgres import PostgresStore
from psycopg.rows import dict_row
from vector_kit import kept, new_database, run

from ckpt.errors import InvalidInputError
from ckpt.langgraph import CkptStore
from ckpt.langgraph import store as store_module
from ckpt.langgraph import vectors as module

NOTES = ("notes",)
LETTERS = "abcd"
# Of different lengths and directions, so that each way to compare has an order of its own.
TEXTS = ["aab", "aaaaaabb", "abb", "abbbbb", "cccccc", "ccd", "cdd", "aad", "aaaaaaaaad", "bbbbbbbbbbcc", "acd", "d"]
DISTANCES = ["cosine", "inner_product", "l2"]
ANN: list[dict[str, Any]] = [
    {"kind": "hnsw", "m": 8, "ef_construction": 32},
    {"kind": "ivfflat", "nlist": 1},
    {"kind": "flat", "vector_type": "vector"},
]


def embed(texts: Sequence[str]) -> list[list[float]]:
    return [[float(text.count(letter)) for letter in LETTERS] for text in texts]


def index(**more: Any) -> Any:
    return {"dims": len(LETTERS), "embed": embed, "fields": "text", **more}


def found(store: BaseStore, query: str) -> list[tuple[str, float | None]]:
    return [(item.value["text"], item.score) for item in store.search(NOTES, query=query, limit=4)]


def fill(store: BaseStore) -> None:
    store.batch([PutOp(NOTES, text, {"text": text}) for text in TEXTS])


@pytest.fixture(scope="module")
def server(postgres_dsn: str) -> Iterator[str]:
    with new_database(postgres_dsn) as url:
        run(url, "CREATE EXTENSION vector")
        yield url


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("approximate", ANN, ids=lambda config: config["kind"])
def test_the_same_configuration_finds_the_same(server: str, approximate: dict[str, Any], distance: str) -> None:
    config = index(ann_index_config=approximate, distance_type=distance)
    place = f"{approximate['kind']}_{distance}"
    with psycopg.connect(server, autocommit=True, row_factory=dict_row) as connection:
        connection.execute(f"CREATE SCHEMA peer_{place}; SET search_path = peer_{place}, public".encode())
        theirs = PostgresStore(connection, index=config)
        theirs.setup()
        fill(theirs)
        with CkptStore(f"{server}&schema=ours_{place}", index=config) as ours:
            fill(ours)
            for _ in range(2):
                for query in ("aaab", "ccccd"):
                    expected = found(theirs, query)
                    assert [text for text, _ in found(ours, query)] == [text for text, _ in expected]
                    assert [score for _, score in found(ours, query)] == pytest.approx(
                        [score for _, score in expected], abs=1e-5
                    )


def test_each_way_to_compare_has_an_order_of_its_own() -> None:
    orders = set()
    for distance in DISTANCES:
        with CkptStore("memory://", index=index(distance_type=distance)) as store:
            fill(store)
            orders.add(tuple(text for text, _ in found(store, "aaab")))
    assert len(orders) == 3


def test_only_angles_are_left_to_the_server(server: str) -> None:
    with CkptStore(server, index=index(distance_type="l2")) as store:
        fill(store)
        assert found(store, "cdd")[0] == ("cdd", 0)
        assert kept(server) is None
    with CkptStore(server, index=index()) as store:
        assert found(store, "cdd")[0][1] == pytest.approx(1)
        assert kept(server) == len(TEXTS)
    with CkptStore(server, index=index(distance_type="inner_product")) as store:
        assert found(store, "c")[0] == ("cccccc", 6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_without_numpy_it_is_the_same(distance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (query, *others), short = embed(["aaab", *TEXTS]), embed(["ab"])[0][:2]
    packed = [module.struct.pack(f"<{len(vector)}f", *vector) for vector in others]
    fast = module.similarities(query, packed, distance)
    monkeypatch.setattr(module, "_numpy", lambda: None)
    assert module.similarities(query, packed, distance) == pytest.approx(fast)
    assert len(module.similarities(query, [*packed, module.struct.pack("<2f", *short)], distance)) == len(TEXTS) + 1


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"distance_type": "hamming"}, "distance_type"),
        ({"distance_type": ["l2"]}, "distance_type"),
        ({"ann_index_config": {"kind": "tree"}}, "kind"),
        ({"ann_index_config": {"vector_type": "bit"}}, "vector_type"),
        ({"ann_index_config": "hnsw"}, "ann_index_config"),
        ({"field": ["text"]}, "index: 'field' is not known"),
        ({"dims": "many"}, "dims of the index is 'many', which is no number"),
        ({"dims": 0}, "dims of the index is 0; a vector has at least one dimension"),
    ],
)
def test_what_is_not_known_is_refused(more: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        CkptStore("memory://", index=index(**more))


def test_dimensions_may_be_given_as_text() -> None:
    with CkptStore("memory://", index=index(dims="4")) as store:
        store.put(NOTES, "k", {"text": "ab"})
        assert found(store, "ab") == [("ab", pytest.approx(1))]
    with CkptStore("memory://", index=index(dims="3")) as store, pytest.raises(InvalidInputError, match="has 3"):
        store.put(NOTES, "k", {"text": "ab"})


def test_fields_may_be_one_text() -> None:
    with CkptStore("memory://", index=index(fields="text")) as store:
        store.put(NOTES, "k", {"t": "ccc", "text": "ab"})
        assert found(store, "ab") == [("ab", pytest.approx(1))]


async def test_the_event_loop_does_nothing_but_embed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[int]] = {}

    def note(where: Any, name: str) -> None:
        call = getattr(where, name)

        def noting(*given: Any) -> Any:
            seen.setdefault(name, []).append(threading.get_ident())
            return call(*given)

        monkeypatch.setattr(where, name, noting)

    for name in ("_texts_at", "_legible", "_floats"):
        note(module, name)
    note(store_module, "different")

    async def embedding(texts: Sequence[str]) -> list[list[float]]:
        seen.setdefault("embed", []).append(threading.get_ident())
        return embed(texts)

    with CkptStore("memory://", index=index(embed=embedding)) as store:
        await store.aput(NOTES, "k", {"text": "ab", "rows": [*range(100)]})
        [item] = await store.asearch(NOTES, query="ab")
        assert item.score == pytest.approx(1)
    assert {name: threading.get_ident() in threads for name, threads in seen.items()} == {
        "_texts_at": False, "_legible": False, "_floats": False, "different": False, "embed": True,
    }  # fmt: skip
    assert len(seen["_floats"]) == 2


def test_only_what_is_embedded_is_made_legible(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    legible = module._legible
    monkeypatch.setattr(module, "_legible", lambda value: seen.append(value) or legible(value))
    with CkptStore("memory://", index=index(fields=["text", "of.parts[*].text"])) as store:
        store.put(NOTES, "k", {"text": "ab", "rows": [*range(100)], "of": {"parts": [{"text": "cd"}], "more": 1}})
        assert seen == ["ab", [{"text": "cd"}]]


PATHS = [
    "$",
    "",
    "a",
    "a.b",
    "a[0]",
    "a[-1].b",
    "a[*]",
    "a.*",
    "*",
    "*.b",
    "{a,b}",
    "a.{b,a}",
    "b.a.b",
    "1",
    "[0]",
    "a.1",
]
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.text("ab", max_size=2)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("ab1"), inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from("ab1"), JSON, max_size=3), st.sampled_from(PATHS))
def test_texts_of_json_are_those_that_langgraph_takes(value: dict[str, Any], path: str) -> None:
    assert module._texts_at(value, "" if path == "$" else path) == get_text_at_path(value, path)


def test_keys_that_json_lacks_are_found_as_texts() -> None:
    assert module._texts_at({"a": {date(2026, 1, 2): "x", "b": 1}}, "a.2026-01-02") == ["x"]
    assert module._texts_at({"a": {1: "x"}}, "a.1") == []

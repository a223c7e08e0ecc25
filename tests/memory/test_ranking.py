"""Search by meaning where PostgreSQL compares the vectors: the results are those of the exact scan."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.store.base import SearchItem
from vector_kit import ANA, INDEX, name, new_database, packed, run

import ckpt
from ckpt.langgraph import CkptStore
from ckpt.langgraph.vectors import best_similarities
from ckpt.repository import Repository
from ckpt.storage.base import Ranking
from ckpt.storage.postgres import PostgresStorage


@pytest.fixture(scope="module")
def server(postgres_dsn: str) -> Iterator[str]:
    """A database with the extension, for tests that take a memory or a store of their own in it."""
    with new_database(postgres_dsn) as url:
        yield url


# -- the same results --------------------------------------------------------------------------------

WORDS = st.lists(st.sampled_from(["the", "cat", "sat", "on", "mat", "dog", "barks"]), min_size=1, max_size=3)
PUTS = st.tuples(
    st.sampled_from(["a", "b", "c", "d", "e"]),
    st.fixed_dictionaries(
        {"text": WORDS.map(" ".join), "n": st.integers(0, 2)},
        optional={"parts": st.lists(st.fixed_dictionaries({"text": WORDS.map(" ".join)}), max_size=2)},
    ),
    st.sampled_from([None, None, None, False, ["other"]]),
)
STEPS = st.lists(PUTS | st.sampled_from(["a", "b", "fork", "search"]), min_size=1, max_size=12)
SEARCHES = st.tuples(WORDS.map(" ".join), st.none() | st.integers(0, 2), st.integers(0, 4), st.integers(0, 4))


@pytest.fixture(scope="module")
def repository(server: str) -> Iterator[Repository]:
    with ckpt.open(server) as repository:
        yield repository


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, searches=st.lists(SEARCHES, min_size=1, max_size=3), memory=st.uuids())
def test_results_are_those_of_the_exact_scan(
    repository: Repository, steps: list[Any], searches: list[tuple[str, int | None, int, int]], memory: UUID
) -> None:
    for each in repository.memories():
        repository.memory(each).drop()
    stores = [CkptStore(repository, name=str(memory), index=INDEX), CkptStore("memory://", index=INDEX)]
    for number, step in enumerate(steps):
        for at, store in enumerate(stores):
            if step == "fork" and store.memory.moment:
                stores[at] = store.fork(f"{memory} {number}")
            elif step == "search":
                store.search((), query="the cat")
            elif isinstance(step, tuple):
                store.put(ANA, step[0], step[1], index=step[2])
            elif step != "fork":
                store.delete(ANA, step)
    ours, exact = stores
    for query, n, limit, offset in [*searches, ("the cat", None, 100, 0)]:
        wanted = {"n": n} if n is not None else None
        everything = exact.search((), query=query, limit=100)
        expected = exact.search((), query=query, filter=wanted, limit=limit, offset=offset)
        first, second = (ours.search((), query=query, filter=wanted, limit=limit, offset=offset) for _ in range(2))
        assert_as_near(first, expected, everything)
        # To the last digit, or pages of before and after would not fit together.
        assert [(item.key, item.score) for item in first] == [(item.key, item.score) for item in second]


def assert_as_near(found: list[SearchItem], expected: list[SearchItem], everything: list[SearchItem]) -> None:
    """The same scores at the same ranks; which items these are may differ where scores do by their rounding only."""
    assert [item.score for item in found] == pytest.approx([item.score for item in expected], abs=1e-6)
    scores = {item.key: item.score for item in everything}
    assert [scores[item.key] for item in found] == pytest.approx([item.score for item in found], abs=1e-6)
    assert len({item.key for item in found}) == len(found)
    values = {item.key: item.value for item in everything}
    assert all(item.value == values[item.key] for item in found)
    unscored = [item.key for item in expected if item.score is None]
    assert [item.key for item in found if item.score is None] == unscored


def test_equal_scores_come_in_the_order_of_the_exact_scan(repository: Repository) -> None:
    with CkptStore(repository, name="ties", index=INDEX) as ours, CkptStore("memory://", index=INDEX) as exact:
        for part in range(3):
            for number in range(part * 5, part * 5 + 5):
                for store in (ours, exact):
                    store.put(ANA, f"{number}", {"text": ["the cat", "a dog", "the cat"][number % 3]})
            for limit, offset in ((4, 0), (4, 3), (100, 0)):
                for _ in range(2):
                    found = ours.search(ANA, query="the cat", limit=limit, offset=offset)
                    expected = exact.search(ANA, query="the cat", limit=limit, offset=offset)
                    assert [item.key for item in found] == [item.key for item in expected]


@pytest.fixture
def ranking(server: str) -> Iterator[Ranking]:
    """A ranking that knows nothing yet."""
    with closing(PostgresStorage(server, schema="alone")) as storage:
        yield storage.ranking
    run(server, "DROP SCHEMA alone CASCADE")


def test_scores_of_odd_vectors(ranking: Ranking) -> None:
    query = [0.3, -1.2, 0.5]
    vectors = [
        packed([1e30, 2e30, 0.0]),
        packed([1e-30, 2e-30, 3e-30]),
        packed([0.0, 0.0, 0.0]),
        packed([-0.3, 1.2, -0.5]),
        packed([3.0, 1.0, 2.0], [0.3, -1.2, 0.5], [0.0, 0.0, 0.0]),
        packed([-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    ]
    names = [name(number) for number in range(len(vectors))]
    ranking.add(dict(zip(names, vectors, strict=True)))
    for scale in (1.0, 1e-20, 1e25):
        asked = [scale * each for each in query]
        expected = dict(zip(names, best_similarities(asked, vectors), strict=True))
        found = ranking.nearest(asked, names, 100)
        assert found.unknown == set()
        assert dict(found.ranked) == pytest.approx(expected, abs=1e-6)
        assert [score for _, score in found.ranked] == sorted((score for _, score in found.ranked), reverse=True)
    assert dict(ranking.nearest([0.0, 0.0, 0.0], names, 100).ranked) == dict.fromkeys(names, 0.0)


def test_what_cannot_be_compared_there_is_left_to_the_caller(ranking: Ranking) -> None:
    ranking.add(
        {
            name(1): packed([1.0, 2.0]),
            name(2): packed([1.0, 2.0, 3.0]),
            name(3): packed([1.0, 2.0], [1.0, 2.0, 3.0]),
            name(4): packed([float("inf"), 0.0]),
            name(5): packed([float("nan"), 0.0], [1.0, 2.0]),
            name(6): packed([]),
            name(7): packed([1.0] * 16_001),
        }
    )
    names = [name(number) for number in range(9)]
    found = ranking.nearest([2.0, 4.0], names, 10)
    assert found.ranked == [(name(1), pytest.approx(1.0))]
    assert found.unknown == {*names} - {name(1)}
    assert ranking.names(b"", 10) == [name(1), name(2)]
    for query in ([float("nan"), 1.0], [float("inf"), 1.0], [], [1.0] * 16_001):
        assert ranking.nearest(query, names, 10) == ([], {*names})


def test_items_of_other_dimensions_are_not_compared(repository: Repository) -> None:
    """As when the model behind an index was replaced: InMemoryStore never sees vectors of both."""
    lengths = {"two": [1.0, 1.0], "three": [1.0, 1.0, 1.0], "four": [4.0, 0.0, 0.0, 3.0]}
    index: Any = {"embed": lambda texts: [lengths[text] for text in texts], "fields": ["text"]}
    with CkptStore(repository, name="lengths", index=index) as ours, CkptStore("memory://", index=index) as exact:
        for text in lengths:
            for store in (ours, exact):
                store.put(ANA, text, {"text": text})
        there = known(repository)
        for _ in range(2):
            ours.search(ANA, query="two")
            # The others would be sent for nothing.
            assert len(known(repository) - there) == 1
        for text in (*lengths, *lengths):
            found, expected = (store.search(ANA, query=text) for store in (ours, exact))
            assert [(item.key, item.score) for item in found] == [
                (item.key, pytest.approx(1.0) if item.key == text else None) for item in expected
            ]
        assert len(known(repository) - there) == 3


def known(repository: Repository) -> set[bytes]:
    ranking = repository.storage.ranking
    assert ranking is not None
    return set(ranking.names(b"", 1_000_000))


def test_collecting_keeps_what_searches_of_other_graphs_ask_for(server: str) -> None:
    url = f"{server}{'&' if '?' in server else '?'}schema=several"
    for graph in ("", "a", "b"):
        with ckpt.open(url, graph=graph) as repository, CkptStore(repository, index=INDEX) as store:
            store.put(ANA, "kept", {"text": f"the cat {graph}"})
            store.put(ANA, "gone", {"text": f"a dog {graph}"})
            store.search(ANA, query="the cat")
            store.memory.delete(ANA, "gone")
    with ckpt.open(url) as repository:
        assert len(known(repository)) == 6
        repository.gc(grace="0s")
        assert len(known(repository)) == 3
    for graph in ("", "a", "b"):
        with ckpt.open(url, graph=graph) as repository, CkptStore(repository, index=INDEX) as store:
            assert [item.key for item in store.search(ANA, query="the cat")] == ["kept"]
            assert len(known(repository)) == 3
    run(server, "DROP SCHEMA several CASCADE")


def test_a_ranking_keeps_its_contract(ranking: Ranking) -> None:
    assert ranking.nearest([1.0, 0.0], [], 5) == ([], set())
    assert ranking.nearest([1.0, 0.0], [name(1)], 5) == ([], {name(1)})
    assert ranking.names(b"", 5) == []
    ranking.remove([name(1)])
    ranking.add({})
    vectors = {name(number): packed([1.0, float(number)]) for number in range(1, 8)}
    for _ in range(2):
        ranking.add(vectors)
    # What is there stays.
    ranking.add({name(1): packed([0.0, 1.0])})
    found = ranking.nearest([1.0, 0.0], [*reversed(vectors), name(9)], 2)
    assert [each for each, _ in found.ranked] == [name(1), name(2)]
    assert found.unknown == {name(9)}
    assert ranking.nearest([1.0, 0.0], [*vectors, name(9)], 0) == ([], {name(9)})
    assert ranking.names(b"", 3) == [name(1), name(2), name(3)]
    assert ranking.names(name(3), 100) == [name(number) for number in range(4, 8)]
    ranking.remove([name(1), name(9)])
    ranking.remove([name(1)])
    assert ranking.nearest([1.0, 0.0], [name(1), name(2)], 5).unknown == {name(1)}
    ranking.add({name(10 * number): packed([0.0, 2.0**number]) for number in (1, 2, 3, 4)})
    for order in ([20, 40, 10, 30], [40, 30, 20, 10]):
        found = ranking.nearest([0.0, 1.0], [name(number) for number in order], 3)
        assert found.ranked == [(name(number), 1.0) for number in order[:3]]

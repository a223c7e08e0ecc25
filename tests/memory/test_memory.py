"""A memory: what it keeps, how it is read as of a moment, forked, compared and forgotten."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from memory_kit import Clock

import ckpt
from ckpt.errors import AlreadyExistsError, InvalidInputError, NotFoundError, UnstorableValueError
from ckpt.history import keys
from ckpt.history.items import ItemRecord
from ckpt.repository import Memory, Put, Repository, memory_look, memory_writer
from ckpt.repository.scopes import MEMORY
from ckpt.storage.base import Batch

ANA = ("users", "ana")
LONG = "a text that is long enough to be an object of its own, so that it can be shared: " * 3


def values(memory: Memory, prefix: tuple[str, ...] = (), **at: Any) -> dict[tuple[tuple[str, ...], str], Any]:
    return {(item.namespace, item.key): item.value for item in memory.items(prefix, **at)}


# -- what is kept ---------------------------------------------------------------------------------------


def test_a_memory_that_was_never_used_is_empty(repository: Repository) -> None:
    memory = repository.memory("m")
    assert memory.get(ANA, "k") is None
    assert memory.items() == [] == memory.namespaces() == memory.history(ANA, "k") == memory.diff()
    memory.delete(ANA, "k")
    assert (memory.sweep(), memory.prune(timedelta(0)), memory.drop(), memory.moment) == (0, 0, False, 0)
    assert repository.memories() == []


def test_an_item_is_put_replaced_and_deleted(memory: Memory) -> None:
    memory.put(ANA, "k", {"n": 1})
    first = memory.get(ANA, "k")
    memory.put(ANA, "k", {"n": 2})
    second = memory.get(ANA, "k")
    assert first is not None and second is not None
    assert (first.value, second.value) == ({"n": 1}, {"n": 2})
    assert first.created == first.updated == second.created < second.updated
    memory.delete(ANA, "k")
    assert memory.get(ANA, "k") is None and memory.items() == []
    memory.put(ANA, "k", {"n": 3})
    third = memory.get(ANA, "k")
    assert third is not None and third.created == third.updated > second.updated


def test_values_are_what_the_serializer_takes(memory: Memory) -> None:
    value = {"t": (1, 2), "d": datetime(2026, 1, 1, tzinfo=UTC), "b": b"\0", "deep": {"x": [1.5, None, {"y": LONG}]}}
    memory.put((), "", value)
    found = memory.get((), "")
    assert found is not None and found.value == value
    with pytest.raises(UnstorableValueError, match="k"):
        memory.put(ANA, "k", {"o": object()})
    with pytest.raises(InvalidInputError, match="no mapping but of type list"):
        memory.put(ANA, "k", [1])  # type: ignore[arg-type]
    assert memory.get(ANA, "k") is None


HOSTILE = ["", "a.b", "a\x00b", "\ud800", "Ü", "%", "*", "x" * 16_384]


def test_labels_and_keys_are_any_text(memory: Memory) -> None:
    places = [((label,), key) for label in HOSTILE for key in HOSTILE]
    places += [((label, "b"), "k") for label in HOSTILE[:-1]] + [((), key) for key in HOSTILE]
    memory.apply(Put(*place, {"at": number}) for number, place in enumerate(places))
    assert values(memory) == {place: {"at": number} for number, place in enumerate(places)}
    for number, place in enumerate(places):
        found = memory.get(*place)
        assert found is not None and (found.namespace, found.key, found.value) == (*place, {"at": number})
    # ("a", "b") and ("ab",) and ("a.b",) are three namespaces.
    memory.put(("p", "q"), "k", {"n": 1})
    assert memory.get(("pq",), "k") is None and memory.get(("p.q",), "k") is None and memory.get(("p",), "q") is None


@pytest.mark.parametrize(
    ("namespace", "key", "message"),
    [
        (("a",) * 51, "k", "a namespace of 51 labels is too long"),
        (("x" * 16_000, "y" * 1000), "k", "a namespace of 2 labels is too long"),
        (("a",), "k" * 16_385, "a key of 16,385 bytes is too long"),
        ("abc", "k", "is no sequence of texts"),
        ((1,), "k", "is no sequence of texts"),
        (("a",), 1, "the key 1 is no text"),
    ],
)
def test_what_cannot_be_an_address(memory: Memory, namespace: Any, key: Any, message: str) -> None:
    for act in (memory.get, memory.history, memory.delete):
        with pytest.raises(InvalidInputError, match=message):
            act(namespace, key)
    with pytest.raises(InvalidInputError, match=message):
        memory.apply([Put(("a",), "good", {"n": 1}), Put(namespace, key, {})])
    assert memory.items() == []


def test_the_deepest_namespace_fits_into_a_key_of_every_graph(store_url: str) -> None:
    with ckpt.open(store_url, graph="g") as repository:
        memory = repository.memory()
        deepest = tuple(f"{number}" for number in range(50))
        memory.put(deepest, "k", {"n": 1})
        assert memory.namespaces(deepest[:49]) == [deepest]
        (key, _), *_ = repository.memory()._memories.core.storage.scan(*keys.items_range(1, b""))
        assert len(key) + 17 <= 1100 - 8


def test_a_batch_is_one_transaction(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.put(ANA, "old", {"n": 0})
    published = []
    publish = memory._memories.core.storage.publish
    monkeypatch.setattr(
        type(memory._memories.core.storage), "publish", lambda self, batch: (published.append(1), publish(batch))[1]
    )
    memory.apply(
        [Put(ANA, "a", {"n": 1}), Put(ANA, "old", None), Put(ANA, "a", {"n": 2}), Put(("other",), "a", {"n": 3})]
    )
    assert published == [1]
    assert values(memory) == {(ANA, "a"): {"n": 2}, (("other",), "a"): {"n": 3}}
    assert len({item.moment for item in memory.items()}) == 1
    with pytest.raises(UnstorableValueError):
        memory.apply([Put(ANA, "b", {"n": 1}), Put(ANA, "c", {"o": object()})])
    assert memory.get(ANA, "b") is None


def test_items_and_namespaces_below_a_prefix(memory: Memory) -> None:
    places = [("a",), ("a", "b"), ("a", "b", "c"), ("ab",), ("b", "a"), ()]
    for number, namespace in enumerate(places):
        memory.put(namespace, "k", {"n": number})
    assert [item.namespace for item in memory.items(("a",))] == [("a", "b", "c"), ("a", "b"), ("a",)]
    assert [item.namespace for item in memory.items(("a", "b"))] == [("a", "b", "c"), ("a", "b")]
    assert memory.items(("c",)) == []
    assert memory.namespaces() == sorted(places)
    memory.delete(("a", "b"), "k")
    assert memory.namespaces(("a",)) == [("a",), ("a", "b", "c")]
    memory.put(("a",), "k", {"n": 9})
    assert [item.value["n"] for item in memory.items(("a",))] == [9, 2]


def test_memories_and_graphs_are_apart(store_url: str) -> None:
    with ckpt.open(store_url) as default:
        shared = {name: Repository(default.storage, graph=name) for name in ("", "one")}
        for graph, repository in shared.items():
            for name in ("default", "b"):
                repository.memory(name).put(ANA, "k", {"in": f"{graph}/{name}"})
            repository.thread("t").commit({"x": 1})
        for graph, repository in shared.items():
            assert repository.memories() == ["b", "default"]
            assert repository.thread_names() == ["t"]
            for name in ("default", "b"):
                assert values(repository.memory(name)) == {(ANA, "k"): {"in": f"{graph}/{name}"}}
        assert [(info.name, info.threads) for info in default.graphs()] == [("", 1), ("one", 1)]
        assert default.stats().threads == 2


def test_a_value_is_stored_once_wherever_it_stands(repository: Repository) -> None:
    big = {"text": LONG * 100}
    repository.thread("t").commit({"note": big})
    before = repository.stats()
    for name in ("a", "b"):
        for number in range(20):
            repository.memory(name).put(("n", f"{number}"), "k", big)
    after = repository.stats()
    assert after.objects == before.objects
    assert (before.items, after.items) == (0, 40)
    repository.memory("a").delete(("n", "3"), "k")
    assert repository.stats().items == 39
    checked = repository.fsck()
    assert (checked.items, checked.checkpoints, checked.problems) == (40, 1, [])
    assert after.bytes_unique - before.bytes_unique < 100 + 40 * 80
    assert after.bytes_logical - before.bytes_logical == 40 * before.channels[0].logical


# -- the past -----------------------------------------------------------------------------------------


def test_the_history_of_an_item(memory: Memory) -> None:
    for number in range(3):
        memory.put(ANA, "k", {"n": number})
    memory.delete(ANA, "k")
    memory.delete(ANA, "k")
    memory.put(ANA, "k", {"n": 9})
    memory.put(ANA, "other", {"n": 100})
    history = memory.history(ANA, "k")
    assert [version.value for version in history] == [{"n": 9}, None, {"n": 2}, {"n": 1}, {"n": 0}]
    assert [version.deleted for version in history] == [False, True, False, False, False]
    assert [version.when for version in history] == sorted((version.when for version in history), reverse=True)
    for version in history:
        at_moment, at_time = memory.get(ANA, "k", as_of=version.moment), memory.get(ANA, "k", as_of=version.when)
        assert (at_moment and at_moment.value) == (at_time and at_time.value) == version.value
    assert memory.get(ANA, "k", as_of=history[-1].moment - 1) is None
    assert memory.get(ANA, "k", as_of=datetime(2020, 1, 1, tzinfo=UTC)) is None
    assert values(memory, as_of=history[1].moment) == {}
    assert values(memory, as_of=history[2].when) == {(ANA, "k"): {"n": 2}}
    assert memory.namespaces(as_of=history[1].moment) == []
    with pytest.raises(InvalidInputError, match="does not say in which timezone"):
        memory.get(ANA, "k", as_of=datetime(2026, 1, 1))


def test_moments_grow_whatever_the_clock_says(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.put(ANA, "k", {"n": 1})
    later = memory.moment
    monkeypatch.setattr(memory_writer, "now", lambda: 1_000_000)
    memory.put(ANA, "k", {"n": 2})
    assert memory.moment == later + 1
    assert [version.moment for version in memory.history(ANA, "k")] == [later + 1, later]


def test_a_record_stays_short_however_often_an_item_is_put(repository: Repository) -> None:
    memory = repository.memory()
    for number in range(600):
        memory.put(ANA, "k", {"n": number, "text": LONG if number % 7 == 0 else "x" * (number % 100)})
    storage = memory._memories.core.storage
    ((key, raw),) = storage.scan(*keys.items_range(1, b""))
    assert len(raw) < 3000
    assert len(ItemRecord.decode(key, raw).recent) < 40
    history = memory.history(ANA, "k")
    assert [version.value["n"] for version in history if version.value] == list(range(599, -1, -1))
    for at in (0, 1, 7, 8, 100, 333, 598, 599):
        found = memory.get(ANA, "k", as_of=history[at].moment)
        assert found is not None and found.value == history[at].value
        assert found.created == history[-1].when
    assert memory.get(ANA, "k", as_of=history[-1].moment - 1) is None
    assert values(memory, as_of=history[300].moment) == {(ANA, "k"): history[300].value}
    repository.gc(grace=timedelta(0))
    assert memory.history(ANA, "k") == history
    assert repository.fsck().problems == []


# -- forks and differences --------------------------------------------------------------------------------


def test_a_fork_and_its_base_go_apart(repository: Repository) -> None:
    base = repository.memory()
    base.put(ANA, "k", {"n": 1})
    base.put(ANA, "gone", {"n": 1})
    base.put(("x",), "k", {"n": 1})
    fork = base.fork("fork")
    assert values(fork) == values(base)
    base.put(ANA, "k", {"n": 2})
    fork.put(ANA, "k", {"n": 3})
    fork.delete(ANA, "gone")
    fork.put(("y",), "k", {"n": 4})
    base.delete(("x",), "k")
    base.put(("z",), "k", {"n": 5})
    assert values(base) == {(ANA, "k"): {"n": 2}, (ANA, "gone"): {"n": 1}, (("z",), "k"): {"n": 5}}
    assert values(fork) == {(ANA, "k"): {"n": 3}, (("x",), "k"): {"n": 1}, (("y",), "k"): {"n": 4}}
    assert fork.namespaces() == [ANA, ("x",), ("y",)]
    assert [version.value for version in fork.history(ANA, "k")] == [{"n": 3}, {"n": 1}]
    found = fork.get(ANA, "k")
    assert found is not None and found.created == base.history(ANA, "k")[-1].when
    changes = {(change.namespace, change.key): (change.old, change.new) for change in fork.diff(base)}
    assert changes == {
        (ANA, "k"): ({"n": 2}, {"n": 3}),
        (ANA, "gone"): ({"n": 1}, None),
        (("x",), "k"): (None, {"n": 1}),
        (("y",), "k"): (None, {"n": 4}),
        (("z",), "k"): ({"n": 5}, None),
    }
    assert repository.fsck().problems == []


def test_a_fork_of_the_past(memory: Memory) -> None:
    for number in range(4):
        memory.put(ANA, "k", {"n": number})
    moments = [version.moment for version in memory.history(ANA, "k")][::-1]
    early = memory.fork("early", as_of=moments[1])
    assert values(early) == {(ANA, "k"): {"n": 1}}
    early.put(ANA, "k", {"n": 10})
    # A fork of a fork, from before the first fork was made.
    first = early.fork("first", as_of=moments[0])
    assert values(first) == {(ANA, "k"): {"n": 0}}
    again = early.fork("again")
    early.put(ANA, "k", {"n": 11})
    assert values(again) == {(ANA, "k"): {"n": 10}}
    assert [version.value for version in again.history(ANA, "k")] == [{"n": 10}, {"n": 1}, {"n": 0}]
    assert values(memory.fork("empty", as_of=datetime(2000, 1, 1, tzinfo=UTC))) == {}
    with pytest.raises(AlreadyExistsError, match="a memory 'early' already"):
        memory.fork("early")
    with pytest.raises(NotFoundError, match="no memory 'nobody'"):
        Memory(memory._memories, "nobody").fork("x")


def test_a_fork_costs_the_same_however_much_there_is(repository: Repository) -> None:
    memory = repository.memory()
    memory.apply(Put(("n", f"{number}"), "k", {"n": number}) for number in range(300))
    before = repository.storage.usage()
    memory.fork("fork")
    after = repository.storage.usage()
    assert after.objects == before.objects and after.frames == before.frames
    assert after.records - before.records < 500


def test_differences_between_moments(memory: Memory) -> None:
    memory.put(ANA, "same", {"n": 1})
    memory.put(ANA, "k", {"n": 1})
    first = memory.moment
    memory.put(ANA, "same", {"n": 1})
    memory.put(ANA, "k", {"n": 2})
    second = memory.moment
    memory.delete(ANA, "k")
    (change,) = memory.diff(since=first)
    assert (change.namespace, change.key, change.old, change.new) == (ANA, "k", {"n": 1}, None)
    (change,) = memory.diff(since=first, as_of=second)
    assert (change.old, change.new) == ({"n": 1}, {"n": 2})
    assert memory.diff(since=memory.moment) == []
    assert [change.key for change in memory.diff()] == ["same"]


@dataclass(eq=False)
class Stubborn:
    """Cannot be compared, as arrays cannot."""

    n: int

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = object.__hash__


def test_equal_values_are_no_difference(memory: Memory) -> None:
    values = [{"a": 1, "b": [2, 3]}, {"b": [2, 3], "a": 1}, {"a": 1.0, "b": [2, 3]}, {"a": 1, "b": [3, 2]}]
    moments = []
    for value in values:
        memory.put(ANA, "k", value)
        moments.append(memory.moment)
    assert memory.diff(since=moments[0], as_of=moments[2]) == []
    (change,) = memory.diff(since=moments[0])
    assert (change.old, change.new) == (values[0], values[3])
    memory.put(ANA, "k", {"a": Stubborn(1)})
    moment = memory.moment
    assert memory.diff(since=moment) == []
    memory.put(ANA, "k", {"a": Stubborn(2)})
    (change,) = memory.diff(since=moment)
    assert change.old and change.new and (change.old["a"].n, change.new["a"].n) == (1, 2)


# -- lifetimes ------------------------------------------------------------------------------------------


def test_what_has_expired_is_absent_at_once(memory: Memory, clock: Clock) -> None:
    memory.put(ANA, "short", {"n": 1}, ttl=timedelta(minutes=1))
    memory.put(ANA, "long", {"n": 2}, ttl=timedelta(hours=1))
    memory.put(ANA, "ever", {"n": 3})
    before = memory.moment
    clock.later(seconds=59)
    assert len(memory.items()) == 3
    clock.later(seconds=1)
    assert memory.get(ANA, "short") is None
    assert set(values(memory)) == {(ANA, "long"), (ANA, "ever")}
    clock.later(hours=1)
    assert set(values(memory)) == {(ANA, "ever")}
    assert len(values(memory, as_of=before)) == 3
    memory.put(ANA, "short", {"n": 4})
    found = memory.get(ANA, "short")
    assert found is not None and found.created == found.updated


def test_reading_renews_when_asked(memory: Memory, clock: Clock) -> None:
    memory.put(ANA, "k", {"n": 1}, ttl=timedelta(minutes=10))
    for _ in range(5):
        clock.later(minutes=9)
        (entry,), _none = memory.read([(ANA, "k")])
        assert entry is not None
        memory.renew([entry])
    assert memory.get(ANA, "k") is not None
    clock.later(minutes=9)
    assert memory.get(ANA, "k") is not None
    clock.later(minutes=1)
    assert memory.get(ANA, "k") is None
    assert len(memory.history(ANA, "k")) == 1
    memory.put(ANA, "k", {"n": 2}, ttl=timedelta(minutes=1))
    clock.later(minutes=1)
    assert memory.get(ANA, "k") is None


def test_a_lifetime_that_cannot_be_renewed_fails_no_reader(memory: Memory, clock: Clock) -> None:
    memory.put(ANA, "k", {"n": 1}, ttl=timedelta(minutes=10))
    memory.put(ANA, "l", {"n": 1}, ttl=timedelta(minutes=10))
    clock.later(minutes=5)
    entries, _ = memory.read([(ANA, "k"), (ANA, "l")])
    memory.put(ANA, "k", {"n": 2}, ttl=timedelta(minutes=6))
    memory.renew(entry for entry in entries if entry is not None)
    clock.later(minutes=7)
    assert values(memory) == {(ANA, "l"): {"n": 1}}


def test_sweeping_deletes_what_has_expired(repository: Repository, clock: Clock) -> None:
    memory = repository.memory()
    memory.apply(Put(ANA, f"{number}", {"n": number}, timedelta(minutes=1 + number % 2)) for number in range(1200))
    memory.put(ANA, "ever", {"n": 0})
    clock.later(minutes=1)
    assert memory.sweep() == 600
    assert memory.sweep() == 0
    assert len(memory.items()) == 601
    assert [version.deleted for version in memory.history(ANA, "0")] == [True, False]
    fork = memory.fork("fork")
    clock.later(minutes=1)
    assert fork.sweep() == 600
    assert (len(fork.items()), len(memory.items())) == (1, 1)
    assert repository.fsck().problems == []


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=-1)])
def test_no_lifetime_at_all(memory: Memory, ttl: timedelta) -> None:
    with pytest.raises(InvalidInputError, match="longer than no time"):
        memory.put(ANA, "k", {}, ttl=ttl)


# -- forgetting and collecting -------------------------------------------------------------------------------


def test_pruning_forgets_what_was_replaced_or_deleted(repository: Repository) -> None:
    memory = repository.memory()
    for number in range(30):
        memory.put(ANA, "k", {"n": number, "text": f"{number} " + LONG})
    memory.put(ANA, "gone", {"secret": "forget me " + LONG})
    memory.delete(ANA, "gone")
    memory.put(("only",), "gone", {"n": 1})
    memory.delete(("only",), "gone")
    history = memory.history(ANA, "k")
    assert memory.prune(history[10].moment) == 19
    assert memory.history(ANA, "k") == history[:11]
    assert memory.prune(timedelta(days=1)) == 0
    assert memory.prune(timedelta(0)) == 14
    assert memory.history(ANA, "k") == history[:1]
    assert memory.history(ANA, "gone") == []
    assert values(memory) == {(ANA, "k"): history[0].value}
    assert repository.fsck().problems == []
    repository.gc(grace=timedelta(0))
    assert repository.stats().objects == 1
    memory.put(("only",), "gone", {"n": 2})
    assert memory.namespaces() == [("only",), ANA]


def test_what_a_fork_sees_is_not_pruned(repository: Repository) -> None:
    memory = repository.memory()
    memory.put(ANA, "k", {"n": 1})
    memory.put(ANA, "gone", {"n": 1})
    fork = memory.fork("fork")
    memory.put(ANA, "k", {"n": 2})
    memory.delete(ANA, "gone")
    fork.delete(ANA, "gone")
    fork.put(ANA, "k", {"n": 3})
    assert memory.prune(timedelta(0)) == 0
    assert fork.prune(timedelta(0)) == 0
    assert values(fork) == {(ANA, "k"): {"n": 3}}
    assert fork.drop()
    repository.gc(grace=timedelta(0))
    assert memory.prune(timedelta(0)) == 3
    assert values(memory) == {(ANA, "k"): {"n": 2}}


def test_collecting_keeps_what_memories_need(store_url: str) -> None:
    with ckpt.open(store_url) as default:
        graphs = [default, Repository(default.storage, graph="one")]
        for number, graph in enumerate(graphs):
            memory = graph.memory()
            for turn in range(40):
                memory.put(ANA, "k", {"n": turn, "text": f"{number}/{turn} {LONG}"})
            memory.fork("fork", as_of=memory.history(ANA, "k")[20].moment)
            graph.memory("gone").put(ANA, "k", {"text": f"gone {number} {LONG}"})
            graph.memory("gone").drop()
        # A memory that has a fork is deleted: the fork keeps what it shares.
        assert graphs[1].memory().drop()
        histories = [graph.memory("fork").history(ANA, "k") for graph in graphs]
        for collector in (*graphs[::-1], *graphs):
            collector.gc(grace=timedelta(0))
            assert default.fsck().problems == []
            for number, graph in enumerate(graphs):
                memory = graph.memory("fork")
                assert memory.history(ANA, "k") == histories[number]
                found = memory.get(ANA, "k")
                assert found is not None and found.value == {"n": 19, "text": f"{number}/19 {LONG}"}
                assert graph.memory("gone").items() == []
        assert len(graphs[0].memory().history(ANA, "k")) == 40
        assert graphs[1].memory().items() == []


# -- many at once -----------------------------------------------------------------------------------------


def test_writers_of_one_memory_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    failures: list[BaseException] = []

    def write(writer: int) -> None:
        try:
            with ckpt.open(path) as repository:
                memory = repository.memory()
                for turn in range(20):
                    memory.put(("w", f"{writer}"), f"{turn}", {"n": turn})
                    memory.put(ANA, "shared", {"writer": writer, "turn": turn})
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    with ckpt.open(path) as repository:
        for thread in writers:
            thread.start()
        while any(thread.is_alive() for thread in writers):
            repository.gc(grace=timedelta(0))
            assert len({item.key for item in repository.memory().items(("w",))}) <= 20
        assert failures == []
        memory = repository.memory()
        assert len(memory.items(("w",))) == 80
        history = memory.history(ANA, "shared")
        assert sorted((version.value["writer"], version.value["turn"]) for version in history if version.value) == [
            (writer, turn) for writer in range(4) for turn in range(20)
        ]
        assert repository.fsck().problems == []


def test_a_memory_deleted_and_made_again_elsewhere_is_noticed(tmp_path: Path) -> None:
    with ckpt.open(tmp_path / "a.db") as one, ckpt.open(tmp_path / "a.db") as two:
        one.memory().put(ANA, "k", {"n": 1})
        assert values(two.memory()) == {(ANA, "k"): {"n": 1}}
        one.memory().drop()
        assert values(two.memory()) == {} and two.memory().get(ANA, "k") is None
        one.memory().put(ANA, "l", {"n": 2})
        assert values(two.memory()) == {(ANA, "l"): {"n": 2}}
        two.memory().put(ANA, "m", {"n": 3})
        assert set(values(one.memory())) == {(ANA, "l"), (ANA, "m")}


def test_what_is_remembered_is_never_stale(tmp_path: Path) -> None:
    with ckpt.open(tmp_path / "a.db") as one, ckpt.open(tmp_path / "a.db") as two:
        for number in range(5):
            one.memory().put(ANA, "k", {"n": number})
            assert values(two.memory())[ANA, "k"] == values(two.memory())[ANA, "k"] == {"n": number}
            two.memory().put(ANA, "l", {"n": number})
            assert values(one.memory(), ANA)[ANA, "l"] == {"n": number}


def test_reading_takes_as_many_calls_for_many_items_as_for_one(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = repository.memory()
    calls: list[str] = []
    root = type(repository.storage)

    def counted(name: str) -> Any:
        real = getattr(root, name)
        return lambda self, *given, **more: (calls.append(name), real(self, *given, **more))[1]

    def cost() -> list[str]:
        with ckpt_again(repository) as fresh:
            fresh.memory().get(ANA, "warm")
            calls.clear()
            assert fresh.memory().items()
            return sorted(calls)

    memory.put(ANA, "0", {"text": LONG})
    for name in ("read", "view", "scan", "locate", "load"):
        monkeypatch.setattr(root, name, counted(name))
    one = cost()
    memory.apply(Put(("n", f"{number}"), "k", {"n": number, "text": f"{number} {LONG}"}) for number in range(500))
    assert cost() == one
    assert len(one) <= 3


def test_a_put_takes_one_call_to_read_and_one_to_write_at_most(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = repository.memory()
    memory.put(ANA, "warm", {"n": 0})
    calls: list[str] = []
    root = type(repository.storage)

    def counted(name: str) -> Any:
        real = getattr(root, name)
        return lambda self, *given, **named: (calls.append(name), real(self, *given, **named))[1]

    memory.get(ANA, "warm")
    for name in ("read", "view", "scan", "load", "publish"):
        monkeypatch.setattr(root, name, counted(name))
    memory.put(ANA, "new", {"text": LONG})
    memory.put(ANA, "warm", {"n": 1})
    memory.apply([Put(("n", f"{number}"), "k", {"n": number, "text": LONG}) for number in range(50)])
    memory.delete(ANA, "warm")
    # That nobody else writes here shows with the first one; deleting what is not there would be compared with nothing.
    assert calls == ["view", "publish", "publish", "publish", "view", "publish"]


def ckpt_again(repository: Repository) -> Any:
    """Return another engine on the same open storage, which remembers nothing and does not close it."""

    class Again(Repository):
        def close(self) -> None:
            pass

    return Again(repository.storage)


# -- damage ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["item", "namespace", "changed"])
def test_a_lost_or_changed_row_is_never_an_absence(repository: Repository, what: str) -> None:
    memory = repository.memory()
    for number in range(5):
        memory.put(ANA, f"{number}", {"n": number})
    storage = memory._memories.core.storage
    path = keys.namespace_path(ANA)
    key = keys.namespace_key(1, path) if what == "namespace" else keys.item_key(1, path, "3")
    raw = storage.read([key])[0]
    assert raw is not None
    storage.publish(Batch(records={key: raw[:-1] + bytes([raw[-1] ^ 1]) if what == "changed" else None}))
    with ckpt_again(repository) as fresh:
        again = fresh.memory()
        for act in (again.items, again.namespaces, lambda: again.items(ANA), again.fork("f").items):
            with pytest.raises(ckpt.CkptError, match="memory"):
                act()
        if what != "namespace":
            with pytest.raises(ckpt.CkptError, match="memory"):
                again.get(ANA, "3")
        problems = fresh.fsck().problems
    assert {problem.needed_by for problem in problems} >= {("default memory: default",)}


def test_a_lost_object_is_named_by_fsck(repository: Repository) -> None:
    memory = repository.memory()
    memory.put(ANA, "k", {"text": LONG})
    with repository.storage.exclusive() as session:
        session.forget([key for key, _ in session.scan_index(b"", 10)])
    problems = repository.fsck().problems
    assert [problem.kind for problem in problems] == ["object"]
    assert problems[0].needed_by == ("default memory: default users/ana k",)
    with ckpt_again(repository) as fresh, pytest.raises(ckpt.CkptError, match="missing from the store"):
        fresh.memory().get(ANA, "k")


def test_large_namespaces_are_not_counted_for_every_miss(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_look, "_COUNTED_MAX", 3)
    for number in range(3):
        memory.put(ANA, f"{number}", {"n": number})
    looked: list[int] = []
    storage = memory._memories.core.storage
    view = type(storage).view
    monkeypatch.setattr(
        type(storage), "view", lambda self, wanted, ranges: (looked.append(len(ranges)), view(self, wanted, ranges))[1]
    )
    assert memory.get(ANA, "absent") is None
    assert sum(looked) == 1
    memory.put(ANA, "3", {"n": 3})
    looked.clear()
    assert memory.get(ANA, "absent") is None
    assert sum(looked) == 0


def test_the_scope_of_memories_is_registered(repository: Repository) -> None:
    repository.memory().put(ANA, "k", {"n": 1})
    prefix = keys.scope_prefix(MEMORY, "")
    assert repository.storage.read([keys.registration_key(prefix)]) != [None]
    assert all(key.startswith(prefix) for key, _ in repository.storage.scan(*keys.ALL_SCOPES))


def test_a_sweep_spares_what_was_put_since_it_looked(
    memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.put(("a",), "k", {"n": 1}, ttl=timedelta(minutes=1))
    memory.put(("a",), "over", {"n": 1}, ttl=timedelta(minutes=1))
    clock.later(minutes=2)
    reader = memory._memories.reader
    read = reader.read
    late = [{"n": 2}]

    def looking(*arguments: Any, **options: Any) -> Any:
        found = read(*arguments, **options)
        if late:
            memory.put(("a",), "k", late.pop())
        return found

    monkeypatch.setattr(reader, "read", looking)
    assert memory.sweep() == 1
    assert [(item.key, item.value) for item in memory.items()] == [("k", {"n": 2})]


# -- what is not lost -----------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2])
def test_a_prune_keeps_what_a_fork_of_a_fork_sees_of_an_earlier_moment(memory: Memory, depth: int) -> None:
    memory.put(ANA, "k", {"v": LONG})
    left = memory.moment
    memory.put(ANA, "k", {"v": 2})
    fork = memory
    for number in range(depth):
        fork = fork.fork(f"fork {number}")
    last = fork.fork("last", as_of=left)
    memory.prune(timedelta(0))
    assert values(last) == {(ANA, "k"): {"v": LONG}}
    assert values(fork) == {(ANA, "k"): {"v": 2}}


def test_a_fork_of_a_fork_that_is_made_while_its_base_is_pruned_loses_nothing(
    memory: Memory, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.put(ANA, "k", {"v": LONG})
    left = memory.moment
    memory.put(ANA, "k", {"v": 2})
    fork = memory.fork("fork")
    storage = repository._core.storage
    publish = storage.publish

    def forked_before(batch: Batch) -> list[int]:
        monkeypatch.setattr(storage, "publish", publish)
        fork.fork("last", as_of=left)
        return publish(batch)

    monkeypatch.setattr(storage, "publish", forked_before)
    assert memory.prune(timedelta(0)) == 0
    assert values(repository.memory("last")) == {(ANA, "k"): {"v": LONG}}


def test_what_a_fork_has_forgotten_reads_as_absent_and_not_as_what_its_base_has(memory: Memory) -> None:
    for key in ("k", "deleted"):
        memory.put(ANA, key, {"v": "base"})
    fork = memory.fork("fork")
    fork.put(ANA, "k", {"v": 1})
    fork.put(ANA, "k", {"v": 2})
    fork.delete(ANA, "deleted")
    forgotten = fork.moment
    fork.put(ANA, "deleted", {"v": 3})
    before = fork.history(ANA, "k")
    assert fork.prune(timedelta(0)) == 1
    assert fork.prune(timedelta(0)) == 0
    assert values(fork) == {(ANA, "k"): {"v": 2}, (ANA, "deleted"): {"v": 3}}
    assert values(fork, as_of=forgotten) == {(ANA, "k"): {"v": 2}}
    assert values(fork.fork("there", as_of=before[1].moment)) == {(ANA, "deleted"): {"v": "base"}}
    assert [each.value for each in fork.history(ANA, "k")] == [{"v": 2}, None, {"v": "base"}]


def test_what_is_replaced_and_collected_between_reading_and_loading_is_read_again(
    repository: Repository, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Memory.load

    def forgotten_first(memory: Memory, entries: Any) -> Any:
        monkeypatch.setattr(Memory, "load", load)
        mine.put(ANA, "k", {"v": LONG + "2"})
        mine.prune(timedelta(0))
        repository.gc(grace=timedelta(0))
        return load(memory, entries)

    mine = repository.memory("m")
    with ExitStack() as opened:
        # A store in memory is shared by being passed on.
        other = repository if store_url == "memory://" else opened.enter_context(ckpt.open(store_url))
        theirs = (Repository(other.storage) if other is repository else other).memory("m")
        for read in (lambda: theirs.get(ANA, "k"), theirs.items, theirs.diff):
            mine.put(ANA, "k", {"v": LONG + "1"})
            monkeypatch.setattr(Memory, "load", forgotten_first)
            found: Any = read()
            value = found if not isinstance(found, list) else found[0]
            assert (value.new if read == theirs.diff else value.value) == {"v": LONG + "2"}
    assert repository.fsck().problems == []


def test_memories_of_two_files_are_compared(tmp_path: Path) -> None:
    with ckpt.open(tmp_path / "a.db") as one, ckpt.open(tmp_path / "b.db") as another:
        one.memory().put(ANA, "k", {"v": LONG})
        another.memory().put(ANA, "k", {"v": LONG + "!"})
        (change,) = one.memory().diff(another.memory())
        assert (change.old, change.new) == ({"v": LONG + "!"}, {"v": LONG})


def test_a_fork_of_a_moment_before_all_time_is_empty(memory: Memory) -> None:
    memory.put(ANA, "k", {"v": 1})
    fork = memory.fork("fork", as_of=-(2**70))
    assert (fork.items(), fork.moment) == ([], 0)

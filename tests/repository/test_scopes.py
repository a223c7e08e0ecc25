"""Several graphs in one store: none sees another's, all share objects, and nobody frees what another needs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import ckpt
from ckpt.errors import InvalidInputError, NotFoundError, RevisionNotFoundError, ThreadNotFoundError
from ckpt.history import keys
from ckpt.langgraph import CkptSaver
from ckpt.repository import Repository, gc
from ckpt.repository.scopes import GRAPH, MEMORY, Scope, prefixes, registered, within
from ckpt.storage.base import Batch
from ckpt.storage.memory import MemoryStorage
from ckpt.storage.scoped import ScopedStorage

TEXT = "a line of some length that is worth an object of its own, and then some more of it " * 4 + "{}"
NAMES = ["", "billing", "billing ", "g", "a" * 5000, "\ud800", "s\x00", "Ünï"]


def state(what: object) -> dict[str, Any]:
    return {"text": TEXT.format(what), "own": f"{what}"}


@pytest.fixture(params=["memory", "sqlite"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], Repository]]:
    """Opens graphs of one store."""
    shared = MemoryStorage()
    repositories: list[Repository] = []

    def open_graph(name: str) -> Repository:
        found = (
            Repository(shared, graph=name) if request.param == "memory" else ckpt.open(tmp_path / "a.db", graph=name)
        )
        repositories.append(found)
        return found

    yield open_graph
    for repository in repositories:
        repository.close()


Opened = Callable[[str], Repository]


def test_graphs_do_not_see_each_other(opened: Opened) -> None:
    graphs = {name: opened(name) for name in NAMES}
    made = {}
    for name, graph in graphs.items():
        made[name] = graph.thread("t").commit(state(name))
        graph.thread(f"only {name}").commit(state(f"only {name}"))
        graph.tag(f"tag{NAMES.index(name)}", "@", thread=f"only {name}")
    for name, graph in graphs.items():
        assert graph.graph == name
        assert graph.thread_names() == sorted(["t", f"only {name}"])
        assert graph.state("@", thread="t") == state(name)
        assert list(graph.tags()) == [f"tag{NAMES.index(name)}"]
        assert [operation.kind for operation in graph.operations()] == ["tag"]
        assert {info.thread for info in graph.log()} == {"t", f"only {name}"}
        assert graph.read("t", "", made[name].checkpoint_id) is not None
        for other in set(NAMES) - {name}:
            assert graph.read("t", "", made[other].checkpoint_id) is None
            assert graph.timeline(f"only {other}") is None
            with pytest.raises(RevisionNotFoundError):
                graph.resolve(f"id:{made[other].id}")
            with pytest.raises(NotFoundError):
                graph.resolve(f"tag:tag{NAMES.index(other)}")
            with pytest.raises(ThreadNotFoundError):
                graph.delete(f"only {other}")


def test_acts_in_one_graph_leave_the_others_alone(opened: Opened) -> None:
    one, two = opened("one"), opened("two")
    for graph in (one, two):
        for turn in range(3):
            graph.thread("t").commit(state(f"{graph.graph}/{turn}"))
    before = two.log()
    one.rewind("t", 2)
    one.fork("t", "copy")
    one.prune(["t"], keep_last=1)
    one.delete("t")
    one.undo()
    one.delete("t")
    one.gc(grace=timedelta(0))
    assert two.log() == before
    assert two.state("t~1") == state("two/1")
    assert one.state("copy") == state("one/0")
    with pytest.raises(NotFoundError):
        two.undo()


def test_equal_values_are_stored_once_for_all_graphs(opened: Opened) -> None:
    first = opened("")
    big = {"text": TEXT * 200}
    first.thread("t").commit(big)
    alone = first.stats()
    for number in range(5):
        opened(f"g{number}").thread("t").commit(big)
    together = first.stats()
    assert together.bytes_unique == alone.bytes_unique
    assert together.bytes_logical == 6 * alone.bytes_logical
    assert together.bytes_stored - alone.bytes_stored < 5 * 1500
    assert (together.threads, together.checkpoints, together.heads) == (6, 6, 6)
    assert opened("g1").stats() == together


def test_the_default_graph_is_the_store_as_it_always_was(opened: Opened) -> None:
    default = opened("")
    default.thread("t").commit(state("x"))
    assert not isinstance(default.storage, ScopedStorage)
    assert default.storage.scan(*keys.ALL_SCOPES) == [] == default.storage.scan(*keys.ALL_REGISTRATIONS)
    assert [(info.name, info.threads) for info in default.graphs()] == [("", 1)]


def test_graphs_are_listed_once_they_have_something(opened: Opened) -> None:
    one, two = opened("one"), opened("two")
    assert [(info.name, info.threads) for info in one.graphs()] == [("", 0)]
    two.thread("a").commit(state(1))
    two.thread("b").commit(state(2))
    assert [(info.name, info.threads) for info in one.graphs()] == [("", 0), ("two", 2)]
    two.delete("a")
    assert [(info.name, info.threads) for info in one.graphs()] == [("", 0), ("two", 1)]
    assert registered(one.storage) == {keys.scope_prefix(GRAPH, "two"): Scope(GRAPH, "two")}


def test_a_graph_and_its_memory_are_different_scopes() -> None:
    found = {keys.scope_prefix(kind, graph) for kind in (GRAPH, MEMORY) for graph in NAMES}
    assert len(found) == 2 * len(NAMES)
    storage = MemoryStorage()
    inner = within(storage, GRAPH, "a")
    assert within(inner, GRAPH, "") is storage
    assert within(inner, MEMORY, "").root is storage  # type: ignore[attr-defined]


def test_the_name_of_a_graph_is_a_text() -> None:
    with pytest.raises(InvalidInputError, match="graph=7"):
        Repository(MemoryStorage(), graph=7)  # type: ignore[arg-type]


# -- collecting ---------------------------------------------------------------------------------------


def test_a_collection_on_one_graph_keeps_what_others_need(opened: Opened) -> None:
    """Forks of deleted threads, tagged and pruned ones, pending writes, in every graph, from every graph."""
    wanted: dict[str, dict[str, dict[str, Any]]] = {}
    for name in ("", "one", "two"):
        graph = opened(name)
        thread = graph.thread("t")
        for turn in range(4):
            thread.commit(state(f"{name}/{turn}"))
        thread.tag("kept", "@~2")
        thread.fork("fork", "@~1")
        graph.thread("fork").commit(state(f"{name}/fork"))
        graph.thread("gone").commit(state(f"{name}/gone"))
        graph.delete("gone")
        graph.prune(["t"], keep_last=1)
        wanted[name] = {
            "t": state(f"{name}/3"),
            "tag:kept": state(f"{name}/1"),
            "fork": state(f"{name}/fork"),
            "fork~1": state(f"{name}/2"),
        }
    opened("two").delete("t")
    del wanted["two"]["t"], wanted["two"]["tag:kept"]
    for collector in ("one", "", "two"):
        opened(collector).gc(grace=timedelta(0))
        for name, states in wanted.items():
            graph = opened(name)
            for revision, values in states.items():
                assert graph.state(revision) == values, (collector, name, revision)
        found = opened(collector).fsck()
        assert found.problems == []
    with pytest.raises(NotFoundError):
        opened("one").resolve("gone")


def test_what_only_another_graph_lets_go_is_freed(opened: Opened) -> None:
    one, default = opened("one"), opened("")
    one.thread("t").commit(state("a"))
    before = default.stats().objects
    default.thread("t").commit(state("b"))
    default.delete("t")
    assert one.gc(grace=timedelta(0)).threads_removed == 1
    assert default.stats().objects == before
    assert one.state("t") == state("a")


def test_operations_of_every_graph_can_be_undone_within_the_grace(opened: Opened) -> None:
    one, two = opened("one"), opened("two")
    two.thread("t").commit(state("kept"))
    two.delete("t")
    assert one.gc().threads_removed == 0
    two.undo()
    assert two.state("t") == state("kept")
    two.delete("t")
    one.gc(grace=timedelta(0))
    with pytest.raises(ckpt.CkptError):
        two.undo()


def test_a_graph_that_begins_while_a_collection_runs_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes over a dead object between the marking and the removal."""
    path = tmp_path / "a.db"
    with ckpt.open(path) as default, ckpt.open(path, graph="late") as late:
        default.thread("t").commit(state("x"))
        default.thread("u").commit(state("kept"))
        default.delete("t")
        packed = gc._packed

        def slowly(*args: Any) -> Any:
            if not late.thread_names():
                late.thread("t").commit(state("x"))
            return packed(*args)

        monkeypatch.setattr(gc, "_packed", slowly)
        default.gc(grace=timedelta(0))
        monkeypatch.undo()
        with ckpt.open(path, graph="late") as fresh:
            assert fresh.state("t") == state("x")
        assert default.fsck().problems == []


def test_graphs_are_written_while_another_collects(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    failures: list[BaseException] = []

    def write(name: str) -> None:
        try:
            with ckpt.open(path, graph=name) as graph:
                for turn in range(30):
                    graph.thread(f"t{turn % 3}").commit(state(f"{turn % 5}"))
                    if turn % 10 == 9:
                        graph.delete("t0")
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(name,)) for name in ("", "one", "two")]
    with ckpt.open(path, graph="collector") as collector:
        for writer in writers:
            writer.start()
        while any(writer.is_alive() for writer in writers):
            collector.gc(grace=timedelta(0))
        collector.gc(grace=timedelta(0))
        assert failures == []
        assert collector.fsck().problems == []
    for name in ("", "one", "two"):
        with ckpt.open(path, graph=name) as graph:
            assert graph.state("t1") == state("3")


# -- damage ---------------------------------------------------------------------------------------------


def test_marking_does_not_depend_on_the_registry(opened: Opened) -> None:
    one, default = opened("one"), opened("")
    one.thread("t").commit(state("x"))
    prefix = keys.scope_prefix(GRAPH, "one")
    default.storage.publish(Batch(records={keys.registration_key(prefix): None}))
    assert list(prefixes(default.storage)) == [b"", prefix]
    default.gc(grace=timedelta(0))
    assert opened("one").state("t") == state("x")
    problems = default.fsck().problems
    assert [(problem.kind, problem.id) for problem in problems] == [("graph", prefix.hex())]


def test_damage_names_the_graph(opened: Opened) -> None:
    graph, default = opened("billing"), opened("")
    graph.thread("inv").commit(state("x"))
    (key, raw), *_ = graph.storage.scan(*keys.checkpoints_range(1, None))
    assert isinstance(graph.storage, ScopedStorage)
    graph.storage.publish(Batch(records={key: raw[:-1] + bytes([raw[-1] ^ 1])}))
    found = default.fsck().problems
    assert {problem.kind for problem in found} == {"checkpoint", "thread"}
    assert all(each.startswith("billing: inv") for problem in found for each in problem.needed_by)


# -- the saver --------------------------------------------------------------------------------------------


def test_savers_of_two_graphs_share_a_file(tmp_path: Path) -> None:
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    with CkptSaver(tmp_path / "a.db", graph="one") as one, CkptSaver(tmp_path / "a.db", graph="two") as two:
        for saver in (one, two):
            checkpoint: Any = {
                "v": 4,
                "id": "1f0",
                "ts": "2026-01-01T00:00:00+00:00",
                "channel_values": {"graph": saver.repository.graph},
                "channel_versions": {"graph": "1"},
                "versions_seen": {},
            }
            saver.put(config, checkpoint, {"source": "input", "step": -1}, {"graph": "1"})
        for saver in (one, two):
            found = saver.get_tuple(config)
            assert found is not None
            assert found.checkpoint["channel_values"] == {"graph": saver.repository.graph}
            assert len(list(saver.list(None))) == 1
        one.delete_thread("t")
        assert one.get_tuple(config) is None
        assert two.get_tuple(config) is not None


def test_a_saver_takes_the_graph_of_an_open_repository() -> None:
    with Repository(MemoryStorage(), graph="one") as repository:
        assert CkptSaver(repository).repository is repository
        assert CkptSaver(repository, graph="one").repository is repository
        with pytest.raises(InvalidInputError, match="graph='two', but the repository was opened on graph 'one'"):
            CkptSaver(repository, graph="two")

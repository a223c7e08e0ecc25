"""What concerns all threads of a store: the same answers as thread by thread, in few calls of the storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from stores import BACKENDS, new_store
from test_round_trips import Counted, Process, config, first_steps, name_of

from ckpt.errors import IntegrityError
from ckpt.history import keys
from ckpt.langgraph import CkptSaver
from ckpt.repository import Repository
from ckpt.storage.base import Batch, Storage
from ckpt.storage.urls import open_storage

THREADS = 130
"""More than are read together."""


@pytest.fixture(params=BACKENDS)
def storage(request: pytest.FixtureRequest) -> Iterator[Storage]:
    with new_store(request.param, request) as url, closing(open_storage(url)) as storage:
        yield storage


def filled(storage: Storage, threads: int = THREADS) -> Repository:
    """Return a repository with threads of different lengths, some with a subgraph, every tenth of them forked twice."""
    process = Process(storage)
    for number in range(threads):
        first_steps(process, f"t{number}", 1 + number % 4)
        if number % 5 == 0:
            first_steps(process, f"t{number}", 1, "sub:1")
    repository = Repository(storage)
    for number in range(0, threads, 10):
        repository.fork(f"t{number}", f"f{number}")
        repository.fork(f"f{number}", f"g{number}")
        process.put(f"f{number}", 7, first=7)
    repository.tag("good", "t3")
    # Bases without a name, and numbers that are not in use.
    for number in (0, 11, 12, 50):
        repository.delete(f"t{number}")
    repository.expire("t13", "30d")
    return repository


def listed(saver: CkptSaver, thread: str | None) -> list[Any]:
    found = saver.list(config(thread) if thread is not None else None)
    return sorted((each.config["configurable"]["thread_id"], each.checkpoint["id"], repr(each)) for each in found)


def all_namespaces(thread: str) -> Any:
    return {"configurable": {"thread_id": thread}}


def test_all_threads_are_told_as_each_by_itself(storage: Storage) -> None:
    repository = filled(storage)
    names = repository.thread_names()
    assert len(names) == THREADS + 2 * len(range(0, THREADS, 10)) - 4
    infos = {info.name: info for info in repository.threads()}
    assert sorted(infos) == names
    for name in names:
        assert [infos[name]] == repository.threads(name)
        assert infos[name].head == repository.resolve(name)
    assert infos["f10"].forked_from == "t10" and infos["g0"].forked_from == "f0" and infos["f0"].forked_from == "t0"
    assert infos["t13"].expires is not None and infos["t14"].expires is None
    assert infos["t3"].head is not None and infos["t3"].head.tags == ("good",)
    for limit in (None, 2):
        for subgraphs in (False, True):
            each = [
                info for name in names for info in repository.log(thread=name, limit=limit, subgraphs=subgraphs)[:limit]
            ]
            of_each = repository.log_of_each(limit=limit, subgraphs=subgraphs)
            # Of each namespace so many: of each thread more than the limit where it has subgraphs.
            assert {repr(info) for info in each} <= {repr(info) for info in of_each}
            assert subgraphs or len(of_each) == len(each)
            assert [info.checkpoint_id for info in of_each] == sorted(
                (info.checkpoint_id for info in of_each), reverse=True
            )
    assert repository.log(limit=3) == repository.log_of_each(limit=3)[:3]

    saver = CkptSaver(repository)
    rows = [row for name in names for row in saver.list(all_namespaces(name))]
    found = list(saver.list(None))
    assert sorted(map(repr, found)) == sorted(map(repr, rows)) and len(rows) > 300
    ids = [row.checkpoint["id"] for row in found]
    assert ids == sorted(ids, reverse=True)
    before = config("t1", name_of(2))
    expected = [repr(row) for row in rows if row.checkpoint["id"] < name_of(2)]
    assert sorted(map(repr, saver.list(None, before=before))) == sorted(expected)


def test_looking_at_all_threads_costs_calls_by_hundreds_of_them(storage: Storage) -> None:
    filled(storage)
    counted: Any = Counted(storage)

    def calls(act: Callable[[CkptSaver], object]) -> int:
        saver = CkptSaver(Repository(counted))
        counted.calls.clear()
        act(saver)
        return len(counted.calls)

    assert calls(lambda saver: saver.repository.threads()) <= 16
    assert calls(lambda saver: saver.repository.log()) <= 16
    assert calls(lambda saver: saver.repository.log(limit=5)) <= 16
    # The values of so many checkpoints are loaded page by page.
    assert calls(lambda saver: list(saver.list(None))) <= 32
    assert calls(lambda saver: list(saver.list(None, limit=3))) <= 16
    assert calls(lambda saver: saver.delete_for_runs(["of no run"])) <= 16


def test_deleting_runs_leaves_alone_what_they_did_not_make(storage: Storage) -> None:
    process = Process(storage)
    for thread in ("a", "b", "c"):
        first_steps(process, thread, 3)
    saver = process.saver
    made: Any = {"source": "loop", "step": 3, "run_id": "r1", "parents": {}}
    for thread, step in (("a", 3), ("c", 3)):
        checkpoint = saver.get_tuple(config(thread)).checkpoint  # type: ignore[union-attr]
        saver.put(config(thread, name_of(2)), checkpoint | {"id": name_of(step)}, made, {})
    before = storage.scan(*keys.ALL_THREADS)
    process.storage.calls.clear()
    saver.delete_for_runs(["r1", "r2"])
    ids = {thread: [row.checkpoint["id"] for row in saver.list(config(thread))] for thread in "abc"}
    assert all(each == [name_of(2), name_of(1), name_of(0)] for each in ids.values())
    number = saver.repository.timeline("b").thread.number  # type: ignore[union-attr]
    start, end = keys.thread_range(number)
    of_b = [row for row in before if start <= row[0] < end]
    assert storage.scan(start, end) == of_b and of_b


class Meanwhile:
    """A storage with which something happens once, right after the rows of many threads were read."""

    remote = True

    def __init__(self, storage: Storage, act: Callable[[], object]) -> None:
        self._storage = storage
        self._act: Callable[[], object] | None = act

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def view(self, wanted: Any, ranges: Any) -> Any:
        found = self._storage.view(wanted, ranges)
        if self._act is not None and ranges and ranges[0][0][:1] == b"t":
            act, self._act = self._act, None
            act()
        return found


def test_a_thread_that_goes_meanwhile_is_left_out_and_others_are_told_as_they_are(storage: Storage) -> None:
    looks: list[Callable[[CkptSaver], set[str]]] = [
        lambda saver: {info.name for info in saver.repository.threads()},
        lambda saver: {info.thread for info in saver.repository.log()},
        lambda saver: {row.config["configurable"]["thread_id"] for row in saver.list(None)},
    ]
    for number, look in enumerate(looks):
        names = {f"{letter}{number}" for letter in "abcd"}
        writer = Process(storage)
        for name in names:
            first_steps(writer, name, 3)

        def act(number: int = number, writer: Process = writer) -> None:
            other = Repository(storage)
            other.delete_thread(f"b{number}")
            other.gc(grace="0s")
            writer.put(f"c{number}", 3)

        reader: Any = Meanwhile(storage, act)
        found = look(CkptSaver(Repository(reader)))
        assert {name for name in found if name.endswith(str(number))} == names - {f"b{number}"}


def test_a_lost_row_of_one_thread_is_told_and_not_passed_over(storage: Storage) -> None:
    process = Process(storage)
    for thread in ("a", "b", "c"):
        first_steps(process, thread, 3)
    timeline = process.saver.repository.timeline("b")
    assert timeline is not None
    storage.publish(Batch(records={keys.checkpoint_key(timeline.thread.number, "", name_of(1)): None}))
    saver = CkptSaver(Repository(storage))
    for look in (
        saver.repository.threads,
        saver.repository.log,
        lambda: list(saver.list(None)),
        lambda: saver.delete_for_runs(["r"]),
    ):
        with pytest.raises(IntegrityError):
            look()
    assert [info.name for info in saver.repository.threads("a")] == ["a"]

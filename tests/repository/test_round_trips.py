"""How many calls of the storage an agent's step costs, where each is a round trip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from langgraph.checkpoint.base import INTERRUPT
from stores import SERVERS, new_store

from ckpt.history.commits import StoredValue
from ckpt.langgraph import CkptSaver
from ckpt.repository import Repository
from ckpt.repository.core import Core
from ckpt.storage.base import Storage
from ckpt.storage.urls import open_storage

TEXT = "a message of some length, as agents write them; " * 20


class Counted:
    """A storage that writes down its calls, and says that each is a round trip."""

    remote = True

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._storage, name)
        # `check` looks at a file; on a server there is nothing to look at.
        if not callable(found) or name in ("check", "close"):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self.calls.append(name)
            return found(*arguments, **named)

        return call


class Process:
    """A saver on a store, as a process of its own has it."""

    def __init__(self, storage: Storage, **options: Any) -> None:
        self.storage: Any = Counted(storage)
        self.saver = CkptSaver(Repository(self.storage, **options))

    def trips(self, name: str, *arguments: Any, **named: Any) -> list[str]:
        """Return the calls of the storage that a call of the saver takes."""
        self.storage.calls.clear()
        getattr(self.saver, name)(*arguments, **named)
        return list(self.storage.calls)

    def put(self, thread: str, step: int, namespace: str = "", size: int = 1, first: int = 0) -> list[str]:
        versions: Any = {"messages": f"{step}", "n": f"{step}"}
        checkpoint: Any = {
            "v": 4,
            "id": name_of(step),
            "ts": "2026-01-31T12:00:00+00:00",
            "channel_values": {"messages": [f"{number} {thread} {TEXT * size}" for number in range(step)], "n": step},
            "channel_versions": versions,
            "versions_seen": {},
            "updated_channels": None,
        }
        parent = name_of(step - 1) if step > first else None
        metadata = {"source": "loop", "step": step, "parents": {"": name_of(step)} if namespace else {}}
        return self.trips("put", config(thread, parent, namespace), checkpoint, metadata, versions)

    def put_writes(self, thread: str, step: int, namespace: str = "", size: int = 1) -> list[str]:
        writes = [("messages", f"{step} {thread} {TEXT * size}"), ("n", step), (INTERRUPT, f"{step}")]
        return self.trips("put_writes", config(thread, name_of(step), namespace), writes, f"task {step}")


def name_of(step: int) -> str:
    return f"{step:03}"


def config(thread: str, checkpoint_id: str | None = None, namespace: str = "") -> Any:
    configurable = {"thread_id": thread, "checkpoint_ns": namespace}
    return {"configurable": configurable | ({"checkpoint_id": checkpoint_id} if checkpoint_id is not None else {})}


@pytest.fixture(params=["memory", *SERVERS])
def storage(request: pytest.FixtureRequest) -> Iterator[Storage]:
    with new_store(request.param, request) as url, closing(open_storage(url)) as storage:
        yield storage


def first_steps(process: Process, thread: str, count: int, namespace: str = "") -> None:
    for step in range(count):
        process.put(thread, step, namespace)
        process.put_writes(thread, step, namespace)


@pytest.mark.parametrize("size", [1, 40], ids=["small", "large"])
@pytest.mark.parametrize("namespace", ["", "sub:1"], ids=["root", "subgraph"])
def test_a_step_of_a_running_thread_is_a_call_for_each_thing_written(
    storage: Storage, namespace: str, size: int
) -> None:
    process = Process(storage)
    first_steps(process, "t", 2, namespace)
    for step in range(2, 12):
        assert process.put("t", step, namespace, size) == ["publish"]
        assert process.put_writes("t", step, namespace, size) == ["publish"]
        # A second task of the same step.
        assert process.trips("put_writes", config("t", name_of(step), namespace), [("n", TEXT)], "b") == ["publish"]


def test_retention_costs_more_calls_only_where_it_prunes(storage: Storage) -> None:
    process = Process(storage, retention={"keep_last": 3})
    process.trips("get_tuple", config("t"))
    trips = [(len(process.put("t", step)), len(process.put_writes("t", step))) for step in range(65)]
    # The namespace has grown to 24 each time, and the next write finds what it remembers outdated.
    pruned = [step for step, counts in enumerate(trips) if counts != (1, 1)]
    assert pruned == [23, 43, 63]
    assert all(1 < max(trips[step]) <= 10 for step in pruned)


def test_a_thread_begins_with_a_call_for_each_thing_written(storage: Storage) -> None:
    process = Process(storage)
    for thread in ("the first of all", "another", "a third"):
        looked = process.trips("get_tuple", config(thread))
        assert len(looked) <= 2
        assert process.put(thread, 0) == ["publish"]
        assert process.put_writes(thread, 0) == ["publish"]
        assert process.put(thread, 1) == ["publish"]
    # Without a look at what is there, as a run begins that was not asked to continue anything.
    assert process.put("unseen", 0) == ["view", "publish"]


def test_who_lost_a_name_to_another_looks_again(storage: Storage) -> None:
    one, two = Process(storage), Process(storage)
    for process in (one, two):
        process.trips("get_tuple", config("t"))
        process.trips("get_tuple", config("u"))
    one.put("t", 0)
    # The name is another's, and so is the number that was seen to be free.
    assert two.put("t", 1, first=1)[0] == "publish"
    two.put("u", 0)
    one.put("u", 1, first=1)
    for thread in "tu":
        found = sorted(each.checkpoint["id"] for each in CkptSaver(Repository(storage)).list(config(thread)))
        assert found == [name_of(0), name_of(1)]
    assert Repository(storage).thread_names() == ["t", "u"]


def test_a_subgraph_begins_with_two_calls_at_most(storage: Storage) -> None:
    process = Process(storage)
    first_steps(process, "t", 3)
    assert len(process.put("t", 5, "sub:1", first=5)) <= 2
    assert process.put_writes("t", 5, "sub:1") == ["publish"]
    assert process.put("t", 6, "sub:1") == ["publish"]


def test_the_head_is_read_by_one_call_in_the_process_that_wrote_it(storage: Storage) -> None:
    process = Process(storage)
    for step in range(10):
        process.put("t", step)
        process.put_writes("t", step)
        assert process.trips("get_tuple", config("t")) == ["read"]
        assert process.trips("get_tuple", config("t", name_of(step))) == ["read"]


def test_who_resumes_a_thread_reads_it_and_writes_by_one_call_each(storage: Storage) -> None:
    one, two = Process(storage), Process(storage)
    first_steps(one, "t", 3)
    cold = two.trips("get_tuple", config("t"))
    assert two.put("t", 3) == ["publish"]
    assert two.put_writes("t", 3) == ["publish"]
    # To have seen the thread before is no hindrance.
    assert len(one.trips("get_tuple", config("t"))) <= len(cold)
    assert one.put("t", 4) == ["publish"]


def test_who_resumes_a_large_state_asks_once_what_of_it_is_stored(storage: Storage) -> None:
    one, two = Process(storage), Process(storage)
    for step in range(30):
        one.put("t", step)
    two.trips("get_tuple", config("t"))
    assert two.put("t", 30) in (["publish"], ["locate", "publish"])
    assert two.put_writes("t", 30) == ["publish"]
    assert two.put("t", 31) == ["publish"]


def test_listing_costs_calls_by_pages_not_by_checkpoints(storage: Storage) -> None:
    one, two = Process(storage), Process(storage)
    first_steps(one, "t", 60)
    two.storage.calls.clear()
    assert len(list(two.saver.list(config("t"), limit=40))) == 40
    # Name, thread, bases; the rows counted, and in a page; commits and values of pages of 1, 4, 16 and so on.
    assert len(two.storage.calls) <= 12


def test_reading_a_thread_costs_calls_by_the_depth_of_its_values_not_by_their_length(storage: Storage) -> None:
    writer = Process(storage)
    calls = {}
    for count in (2, 10, 80):
        thread = f"of {count} steps"
        first_steps(writer, thread, count)
        calls[count] = len(Process(storage).trips("get_tuple", config(thread)))
    # Name, thread with its checkpoint; then the commit, and what is not found beside it by one call for each level of
    # ropes.
    assert calls == {2: 4, 10: 4, 80: 4}


def test_who_reads_the_head_first_has_it_with_the_thread_unless_another_id_is_greater(storage: Storage) -> None:
    writer = Process(storage)
    first_steps(writer, "t", 3)
    assert Process(storage).trips("get_tuple", config("t"))[:3] == ["read", "view", "fetch"]
    # A host whose clock is behind continues from the head.
    found = writer.saver.get_tuple(config("t"))
    assert found is not None
    writer.saver.put(found.config, {**found.checkpoint, "id": "0015"}, found.metadata, {})
    reader = Process(storage)
    assert reader.trips("get_tuple", config("t"))[:4] == ["read", "view", "read", "fetch"]
    head = reader.saver.get_tuple(config("t"))
    assert head is not None and head.checkpoint["id"] == "0015"


def test_a_thread_made_behind_a_look_that_found_none_is_continued(storage: Storage) -> None:
    repository = Repository(storage)
    repository.thread("base").commit({"n": 1})
    assert repository.read("branch") is None
    Repository(storage).fork("base", "branch")
    repository.thread("branch").commit({"n": 2})
    assert [repository.state(each.id)["n"] for each in repository.log("branch")] == [2, 1]


def test_listing_threads_reads_what_heads_hold_and_of_other_checkpoints_the_commits(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_steps(Process(storage), "t", 100)
    asked: list[int] = []
    load = Core.value_bytes

    def counted(self: Core, values: Sequence[StoredValue]) -> list[bytes]:
        asked.append(len(values))
        return load(self, values)

    monkeypatch.setattr(Core, "value_bytes", counted)
    (info,) = Process(storage).saver.repository.threads()
    assert (info.checkpoints, info.heads, info.head.step if info.head else None) == (100, 1, 99)
    assert 0 < sum(asked) < 20


def test_forks_of_forks_are_listed_by_a_call_for_each_step_back_and_not_for_each_pair(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 40
    monkeypatch.setattr("ckpt.repository.gathered._THREADS_MAX", 10)
    repository = Repository(storage)
    repository.commit("fork 0", {"n": 0})
    for number in range(1, count):
        repository.fork(f"fork {number - 1}", f"fork {number}")
        repository.commit(f"fork {number}", {"n": number})
    process = Process(storage)
    found = {info.name: info.checkpoints for info in process.saver.repository.threads()}
    assert found == {f"fork {number}": number + 1 for number in range(count)}
    # Four groups of ten, of which the last has thirty steps to go back.
    assert len(process.storage.calls) < 3 * count

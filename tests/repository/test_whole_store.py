"""What concerns all threads of a store: the same answers as thread by thread, in few calls of the storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from typing import Any

import pytest
from clock_kit import Clock
from stores import BACKENDS, new_store
from test_round_trips import Counted, Process, config, first_steps, name_of

from ckpt.errors import CkptError, IntegrityError
from ckpt.history import keys
from ckpt.history.records import NameRecord
from ckpt.langgraph import CkptSaver
from ckpt.repository import Repository, remove_short
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

    assert calls(lambda saver: saver.repository.threads()) <= 20
    assert calls(lambda saver: saver.repository.log()) <= 16
    assert calls(lambda saver: saver.repository.log(limit=5)) <= 16
    # The values of so many checkpoints are loaded page by page.
    assert calls(lambda saver: list(saver.list(None))) <= 32
    # Of the threads that come first in it alone.
    assert calls(lambda saver: list(saver.list(None, limit=3))) <= 8
    assert calls(lambda saver: saver.delete_for_runs(["of no run"])) <= 16
    # Each commit and rope, but not each by itself.
    assert calls(lambda saver: saver.repository.stats()) <= 60
    counted.calls.clear()
    assert Repository(counted).fsck().problems == []
    assert sum(name in ("load", "locate") for name in counted.calls) <= 40


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


def test_what_was_pruned_of_a_run_goes_with_it(storage: Storage) -> None:
    repository = Repository(storage)
    for number in range(3):
        repository.thread("t").commit({"n": number}, metadata={"run_id": f"r{number}"})
    repository.prune(["t"], keep_last=1)
    CkptSaver(repository).delete_for_runs(["r0"])
    with suppress(CkptError):
        repository.undo()
    assert "r0" not in [info.run_id for info in repository.log(thread="t")]


class Measured(Counted):
    """Writes down of how many ranges each view is, and how many rows it returns."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.sizes: list[tuple[int, int]] = []

    def view(self, wanted: Any, ranges: Any) -> Any:
        found = self._storage.view(wanted, ranges)
        self.sizes.append((len(ranges), sum(map(len, found.ranges))))
        return found


def test_what_is_read_at_once_is_bounded(storage: Storage) -> None:
    """A hundred forks of long threads, and forks of forks of forks."""
    process = Process(storage)
    repository = Repository(storage)
    for number in range(40):
        for step in range(60):
            process.put(f"long{number}", step)
        repository.copy_thread(f"long{number}", f"fork{number}")
    name = "fork0"
    for number in range(150):
        repository.copy_thread(name, name := f"deep{number}")
    measured: Any = Measured(storage)
    assert len(Repository(measured).threads()) == 40 + 40 + 150
    assert len(Repository(measured).log_of_each(limit=2)) == 2 * (40 + 40 + 150)
    assert max(count for count, _ in measured.sizes) <= 256 and max(rows for _, rows in measured.sizes) <= 5000


def test_the_log_of_one_namespace_reads_no_other(storage: Storage) -> None:
    process = Process(storage)
    for thread in ("a", "b"):
        first_steps(process, thread, 2)
        for step in range(30):
            process.put(thread, step, "sub:1")
    for namespace, rows in (("", 4), ("sub:1", 60)):
        measured: Any = Measured(storage)
        found = Repository(measured).log_of_each(namespace=namespace, limit=1)
        assert [info.namespace for info in found] == [namespace] * 2
        # Beside them all names are read, and all tags.
        assert sorted(count for _, count in measured.sizes)[-1] == rows
    assert len(Repository(storage).log_of_each(limit=1, subgraphs=True)) == 4


class Meanwhile:
    """A storage with which something happens once, right before or after the rows of many threads were read."""

    remote = True

    def __init__(self, storage: Storage, act: Callable[[], object], *, before: bool) -> None:
        self._storage = storage
        self._act: Callable[[], object] | None = act
        self._before = before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def view(self, wanted: Any, ranges: Any) -> Any:
        found = None if self._before else self._storage.view(wanted, ranges)
        if self._act is not None and ranges and ranges[0][0][:1] == b"t":
            act, self._act = self._act, None
            act()
        return found or self._storage.view(wanted, ranges)


@pytest.mark.parametrize("before", [False, True], ids=["after", "before"])
@pytest.mark.parametrize("collected", [True, False], ids=["collected", "deleted"])
def test_a_thread_that_goes_meanwhile_is_left_out_and_others_are_told_as_they_are(
    storage: Storage, collected: bool, before: bool
) -> None:
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
            if collected:
                other.gc(grace="0s")
            writer.put(f"c{number}", 3)

        reader: Any = Meanwhile(storage, act, before=before)
        found = {name for name in look(CkptSaver(Repository(reader))) if name.endswith(str(number))}
        # One that was there when its rows were read, and can be read still, may be told.
        assert found == names - {f"b{number}"} or (found == names and not (collected or before))


def test_a_lost_row_of_one_thread_is_told_and_not_passed_over(storage: Storage) -> None:
    process = Process(storage)
    for thread in ("a", "b", "c"):
        first_steps(process, thread, 3)
    timeline = process.saver.repository.timeline("b")
    assert timeline is not None
    storage.publish(Batch(records={keys.checkpoint_key(timeline.thread.number, "", name_of(1)): None}))
    saver = CkptSaver(Repository(storage))
    *others, last = [(info.name, info.status) for info in saver.repository.threads()]
    assert last == ("b", "damaged")
    assert sorted(others) == [("a", "idle"), ("c", "idle")]
    for look in (
        saver.repository.log,
        lambda: list(saver.list(None)),
        lambda: saver.delete_for_runs(["r"]),
    ):
        with pytest.raises(IntegrityError):
            look()
    assert [info.name for info in saver.repository.threads("a")] == ["a"]


def test_retention_looks_at_all_threads_by_hundreds_and_prunes_those_that_have_grown(storage: Storage) -> None:
    filled(storage)
    counted: Any = Counted(storage)
    repository = Repository(counted, retention={"keep_last": 3})
    grown = sum(info.checkpoints > 3 for info in repository.threads())
    assert 25 < grown < 50
    counted.calls.clear()
    repository.gc(grace="14d")
    first = len(counted.calls)
    assert max(len(repository.log(thread=name)) for name in repository.thread_names()) == 3
    counted.calls.clear()
    repository.gc(grace="14d")
    # Of those that could be pruned further nothing would go.
    assert len(counted.calls) < 60 < first


def test_listing_all_renews_lifetimes_if_asked_for_and_looking_for_runs_does_not(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    saver = CkptSaver(Repository(storage, ttl={"default_ttl": 60, "refresh_on_read": True}))
    for thread in ("a", "b"):
        saver.put(config(thread), checkpoint_of("0"), {"source": "input", "step": -1, "parents": {}}, {})
    expires = {info.name: info.expires for info in saver.repository.threads()}
    clock.after(minutes=30)
    saver.delete_for_runs(["r"])
    assert {info.name: info.expires for info in saver.repository.threads()} == expires
    assert len(list(saver.list(None))) == 2
    later = {info.name: info.expires for info in saver.repository.threads()}
    assert all(later[name] - each == timedelta(minutes=30) for name, each in expires.items())  # type: ignore[operator]
    clock.after(minutes=61)
    saver.put(config("b"), checkpoint_of("1"), {"source": "input", "step": -1, "parents": {}}, {})
    # Whoever swept may have looked before another wrote.
    assert saver.repository._admin.release_expired(["a", "b", "never there"]) == 1
    assert saver.repository.thread_names() == ["b"]


# -- removing many ----------------------------------------------------------------------------------------


def let_go(storage: Storage, *, threads: int) -> Repository:
    """Return a repository in which of four threads one has expired, one was deleted, one was deleted twice over."""
    repository = Repository(storage)
    process = Process(storage)
    names = [f"t{number}" for number in range(threads)]
    for number, name in enumerate(names):
        first_steps(process, name, 1 + number % 3)
        if number % 8 == 5:
            first_steps(process, name, 1, "sub:1")
    for name in names[::8]:
        repository.fork(name, f"fork of {name}")
    repository.tag("expired", names[4])
    repository.tag("deleted", names[13])
    repository.tag("kept", names[7])
    for name in names[::4]:
        repository.expire(name, timedelta(milliseconds=1))
    repository.expire("fork of t8", timedelta(milliseconds=1))
    for name in names[1::4]:
        repository.delete(name)
    repository.delete("fork of t0")
    for name in names[2::4]:
        repository.delete_thread(name)
        process.put(name, 5, first=5)
        repository.delete_thread(name)
        # Some are in use again.
        if name.endswith("2"):
            process.put(name, 6, first=6)
    # Of the two that had this name the first stays for its fork.
    first_steps(process, "twice", 1)
    repository.fork("twice", "holder")
    repository.delete_thread("twice")
    process.put("twice", 7, first=7)
    repository.expire("twice", timedelta(milliseconds=1))
    memory = repository.memory("m")
    memory.put(("a", "b"), "k", {"text": "x"})
    repository.fork("t3", "gone soon")
    repository.delete("gone soon")
    return repository


def left(storage: Storage) -> Any:
    """Return what is in the records of a store, but for what is random: digests and the salts of them."""
    names = [NameRecord.decode(key, raw) for key, raw in storage.scan(*keys.ALL_NAMES)]
    told = [(each.name, each.thread, each.former, sorted(ghosts(each))) for each in names]
    repository = Repository(storage)
    return (
        sorted(told),
        [key for key, _ in storage.scan(*keys.ALL_THREADS)],
        sorted(repository.thread_names()),
        sorted(repository.tags()),
        listed(CkptSaver(repository), None),
    )


def ghosts(record: NameRecord) -> list[bytes]:
    return [record.ghosts[at : at + 8] for at in range(0, len(record.ghosts), 8)]


def test_many_that_go_together_leave_what_they_leave_one_by_one(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for rows in (remove_short.ROWS_MAX, 7, -1):
        monkeypatch.setattr(remove_short, "ROWS_MAX", rows)
        with new_store("memory", request) as url, closing(open_storage(url)) as storage:
            repository = let_go(storage, threads=40)
            counted = repository.gc(grace="0s", dry_run=True).threads_removed
            removed = repository.gc(grace="0s").threads_removed
            # Three stay for their forks.
            assert removed == counted == 10 - 3 + 10 + 2 * 10 + 4
            assert repository.fsck().problems == []
            assert repository.gc(grace="0s").threads_removed == 0
            found.append(left(storage))
    assert found[0] == found[1] == found[2]
    assert found[0][3] == ["kept"]
    names = {name: rest for name, *rest in found[0][0]}
    assert len(names["twice"][1]) == 1
    # Of what has expired nothing is remembered; of what was deleted each checkpoint once.
    assert "t4" not in names and len(names["t1"][2]) == 2
    assert all(len(hashes) == len(set(hashes)) for _, _, hashes in names.values())


def test_short_threads_are_removed_by_calls_for_hundreds_of_them(storage: Storage) -> None:
    repository = let_go(storage, threads=120)
    # The last two of those with forks or tags go one by one.
    for tag in ("expired", "deleted"):
        repository.untag(tag)
    counted: Any = Counted(storage)
    collector = Repository(counted)
    counted.calls.clear()
    assert collector.gc(grace="0s").threads_removed > 100
    removing = counted.calls[: counted.calls.index("scan_frames")]
    assert len(removing) < 60 + 26 * 17
    assert repository.fsck().problems == []


@pytest.mark.parametrize("together", [True, False])
def test_a_tag_stays_where_an_equal_checkpoint_of_another_thread_goes(
    storage: Storage, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not together:
        monkeypatch.setattr(remove_short, "ROWS_MAX", -1)
    process, repository = Process(storage), Repository(storage)
    for thread in ("original", "copy"):
        process.saver.put(config(thread), checkpoint_of("000"), {"source": "input", "step": -1, "parents": {}}, {})
    repository.tag("good", "original")
    assert repository.resolve("original").id == repository.resolve("copy").id
    repository.delete("copy")
    assert repository.gc(grace="0s").threads_removed == 1
    assert repository.resolve("tag:good").thread == "original"
    # One put through a fork goes with the last thread that sees what it names.
    repository.fork("original", "fork")
    repository.tag("through-the-fork", "fork")
    repository.untag("good")
    for thread, tags in (("fork", ["through-the-fork"]), ("original", [])):
        repository.delete(thread)
        repository.gc(grace="0s")
        assert list(repository.tags()) == tags
        assert len(storage.scan(*keys.ALL_TAGS)) == len(tags)
    assert repository.fsck().problems == []


@pytest.mark.parametrize("together", [True, False])
def test_a_tag_put_through_a_fork_protects_in_its_source_once_the_fork_is_gone(
    storage: Storage, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not together:
        monkeypatch.setattr(remove_short, "ROWS_MAX", -1)
    repository = Repository(storage)
    for number in range(4):
        repository.commit("original", {"n": number})
    repository.fork("original", "fork")
    repository.fork("fork", "fork of it")
    repository.tag("good", "@~2", thread="fork of it")
    for thread in ("fork of it", "fork"):
        repository.delete(thread)
        repository.gc(grace="0s")
        assert repository.tags()["good"].thread == "original"
    repository.prune(["original"], keep_last=1)
    assert [info.tags for info in repository.log(thread="original")] == [(), ("good",)]
    assert repository.fsck().problems == []


def checkpoint_of(checkpoint_id: str) -> Any:
    return {
        "v": 4,
        "id": checkpoint_id,
        "ts": "2026-01-31T12:00:00+00:00",
        "channel_values": {},
        "channel_versions": {},
        "versions_seen": {},
        "updated_channels": None,
    }

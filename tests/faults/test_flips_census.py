"""What proves that nothing is missing: what it costs, and that it holds while several write at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from engine_kit import put, put_writes

from ckpt.errors import DamagedRecordError
from ckpt.history import keys
from ckpt.history.records import ThreadRecord
from ckpt.history.seal import Census, census
from ckpt.repository import Repository
from ckpt.storage.base import Batch
from ckpt.storage.memory import MemoryStorage


class Counting(MemoryStorage):
    """Counts the rows that scans return."""

    def __init__(self) -> None:
        super().__init__()
        self.scanned = 0

    def scan(
        self, start: bytes, end: bytes, *, limit: int | None = None, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        rows = super().scan(start, end, limit=limit, reverse=reverse)
        self.scanned += len(rows)
        return rows


def thread_record(storage: MemoryStorage, number: int) -> ThreadRecord:
    raw = storage.read([keys.thread_key(number)])[0]
    assert raw is not None
    return ThreadRecord.decode(number, raw)


def low(storage: MemoryStorage) -> Census:
    return thread_record(storage, 2).root.low


def counted(storage: MemoryStorage, own: list[bytes]) -> Census:
    """Return the census of some records of thread 2, all of which are there."""
    values = [value for value in storage.read(own) if value is not None]
    return census(thread_record(storage, 2).salt, zip(own, values, strict=True))


def forked(storage: MemoryStorage, own: int) -> Repository:
    """Return a store with a thread of ten checkpoints, and a fork with as many more as asked for."""
    repository = Repository(storage)
    for n in range(10):
        put(repository, "base", f"c{n:03}", {"n": n}, parent=f"c{n - 1:03}")
    repository.copy_thread("base", "fork")
    for n in range(10, 10 + own):
        put(repository, "fork", f"c{n:03}", {"n": n}, parent=f"c{n - 1:03}")
    return repository


@pytest.mark.parametrize("own", [0, 300])
def test_a_checkpoint_of_a_base_costs_no_count_of_what_the_fork_has_done(own: int) -> None:
    storage = Counting()
    repository = forked(storage, own)
    assert thread_record(storage, 2).root.low == Census()
    storage.scanned = 0
    assert repository.read("fork", "", "c003") is not None
    assert storage.scanned == 0
    put_writes(repository, "fork", "c003", "late", [(0, "n", "of the fork")])
    storage.scanned = 0
    assert repository.read("fork", "", "c005") is not None
    assert storage.scanned == 1, "its one row below the border"
    found = repository.read("fork", "", "c003")
    assert found is not None
    assert [write.task_id for write in found.writes] == ["late"]


def test_what_the_fork_has_of_its_bases_checkpoints_is_counted_apart() -> None:
    storage = MemoryStorage()
    repository = forked(storage, 3)
    own = [keys.checkpoint_key(2, "", f"c{n:03}") for n in range(13)]
    put_writes(repository, "fork", "c009", "late", [(0, "n", 1)])
    put_writes(repository, "fork", "c009", "later", [(0, "n", 2)])
    put(repository, "fork", "c0091", {"n": "above the border"})
    assert low(storage) == counted(storage, own[9:10])
    repository.prune(["fork"], keep_last=1)
    assert low(storage) == counted(storage, own[:10])
    repository.undo()
    assert low(storage) == counted(storage, own[:10]), "rows that are empty now"
    assert thread_record(storage, 1).root.low == Census()
    repository.copy_thread("fork", "fork of it")
    repository.delete("fork")
    repository.gc(grace=timedelta(0))
    assert low(storage) == counted(storage, own[:10])
    assert repository.fsck().problems == []


def test_a_lost_row_of_the_fork_does_not_show_the_bases_instead() -> None:
    storage = MemoryStorage()
    repository = forked(storage, 3)
    put(repository, "fork", "c003", {"n": "another"}, parent="c002")
    lost = keys.checkpoint_key(2, "", "c003")
    storage.publish(Batch(records={lost: None}))
    fresh = Repository(storage)
    with pytest.raises(DamagedRecordError):
        fresh.read("fork", "", "c003")
    with pytest.raises(DamagedRecordError):
        fresh.fork("ckpt:c003", "more", thread="fork")
    assert fresh.read("base", "", "c003") is not None


def test_a_lost_row_of_a_forked_memory_does_not_show_the_bases_instead() -> None:
    storage = MemoryStorage()
    memory = Repository(storage).memory("notes")
    memory.put(("users",), "a", {"n": "first"})
    memory.put(("users",), "a", {"n": "second"})
    memory.fork("copy").put(("users",), "a", {"n": "of the copy"})
    rows = storage.scan(*keys.ALL_SCOPES)
    base, own = (keys.item_key(number, keys.namespace_path(["users"]), "a") for number in (1, 2))
    for lost, asks in ((own, ("get", "history")), (base, ("history",))):
        ((key, value),) = (row for row in rows if row[0].endswith(lost))
        storage.publish(Batch(records={key: None}))
        copy = Repository(storage).memory("copy")
        for ask in asks:
            with pytest.raises(DamagedRecordError):
                getattr(copy, ask)(("users",), "a")
        storage.publish(Batch(records={key: value}))
    copy = Repository(storage).memory("copy")
    told = [version.value for version in copy.history(("users",), "a")]
    assert told == [{"n": "of the copy"}, {"n": "second"}, {"n": "first"}]


def test_tags_made_and_removed_at_once_are_all_counted() -> None:
    storage = MemoryStorage()
    put(Repository(storage), "t", "c0", {"n": 0})
    names = [f"tag-{n}" for n in range(24)]

    def tag(name: str) -> None:
        repository = Repository(storage)
        repository.tag(name, "thread:t")
        if name.endswith("3"):
            repository.untag(name)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tag, names))
    kept = sorted(name for name in names if not name.endswith("3"))
    repository = Repository(storage)
    assert [*repository.tags()] == kept
    repository.untag(kept[0])
    assert [*repository.tags()] == kept[1:]
    repository.undo()
    assert [*repository.tags()] == kept
    repository.delete("t")
    repository.gc(grace=timedelta(0))
    assert storage.read([keys.tag_key(kept[1])]) == [None]
    assert repository.tags() == {}


@pytest.mark.parametrize("name", ["t2", "thread 75", "t"])
def test_a_number_of_a_thread_is_not_given_out_again_when_the_counter_is_lost(name: str) -> None:
    storage = MemoryStorage()
    put(Repository(storage), "t", "c0", {"n": 0})
    Repository(storage).delete_thread("t")
    Repository(storage).gc(grace=timedelta(0))
    storage.publish(Batch(records={keys.COUNTERS: None}))
    with pytest.raises(DamagedRecordError):
        put(Repository(storage), name, "c1", {"n": 1})
    assert storage.scan(*keys.ALL_THREADS) == []


def test_a_lost_operation_counter_is_noticed_by_the_next_operation() -> None:
    storage = MemoryStorage()
    put(Repository(storage), "t", "c0", {"n": 0})
    Repository(storage).tag("v1", "thread:t")
    storage.publish(Batch(records={keys.OPERATIONS: None}))
    with pytest.raises(DamagedRecordError):
        Repository(storage).tag("v2", "thread:t")


def test_a_graph_whose_registration_is_lost_is_noticed() -> None:
    storage = MemoryStorage()
    put(Repository(storage, graph="second"), "t", "c0", {"n": 0})
    ((key, _),) = storage.scan(*keys.ALL_REGISTRATIONS)
    storage.publish(Batch(records={key: None}))
    with pytest.raises(DamagedRecordError):
        Repository(storage).graphs()

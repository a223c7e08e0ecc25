"""Lifetimes in a memory and its forks: what is read in one lives on there, and nowhere else."""

from __future__ import annotations

from datetime import timedelta

import pytest
from memory_kit import STORES, Clock

import ckpt
from ckpt.repository import Memory, Repository

ANA = ("users", "ana")
TTL = timedelta(minutes=10)
LONG = "a text that is long enough to be an object of its own, so that it can be shared: " * 3


def read(memory: Memory, *names: str) -> list[object]:
    """Return what stands at some keys after reading it as LangGraph does, which renews it."""
    entries, _ = memory.read([(ANA, name) for name in names])
    memory.renew(entry for entry in entries if entry is not None)
    return [item.value["v"] if item is not None else None for item in memory.load(entries)]


def there(memory: Memory) -> dict[str, object]:
    """Return what there is, without renewing it."""
    return {item.key: item.value["v"] for item in memory.items()}


def versions(memory: Memory, key: str) -> list[object]:
    return [version.value and version.value["v"] for version in memory.history(ANA, key)]


def test_each_renews_for_itself(repository: Repository, clock: Clock) -> None:
    base = repository.memory()
    for key in ("base", "fork", "both", "none"):
        base.put(ANA, key, {"v": key, "text": LONG}, ttl=TTL)
    fork = base.fork("fork")
    for _ in range(3):
        clock.later(minutes=6)
        assert read(base, "base", "both") == ["base", "both"]
        assert read(fork, "fork", "both") == ["fork", "both"]
    # Each has what was read in it, and nothing else; what neither reads goes from both at the same time.
    assert there(base) == {"base": "base", "both": "both"}
    assert there(fork) == {"fork": "fork", "both": "both"}
    assert versions(fork, "fork") == ["fork"] and versions(base, "fork") == ["fork"]
    assert repository.stats().items == 4
    assert repository.fsck().problems == []


def test_what_the_base_replaced_or_deleted_is_renewed_in_the_fork(repository: Repository, clock: Clock) -> None:
    base = repository.memory()
    base.put(ANA, "replaced", {"v": 1}, ttl=TTL)
    base.put(ANA, "deleted", {"v": 2}, ttl=TTL)
    fork = base.fork("fork")
    base.put(ANA, "replaced", {"v": 3})
    base.delete(ANA, "deleted")
    for _ in range(3):
        clock.later(minutes=6)
        assert read(fork, "replaced", "deleted") == [1, 2]
        repository.gc(grace=timedelta(0))
    assert there(base) == {"replaced": 3}
    clock.later(minutes=10)
    assert there(fork) == {}


@pytest.mark.parametrize("then", ["replaces", "deletes", "sweeps", "drops"])
def test_a_fork_begins_with_the_lifetimes_of_its_base(repository: Repository, clock: Clock, then: str) -> None:
    base = repository.memory()
    base.put(ANA, "k", {"v": 1}, ttl=TTL)
    clock.later(minutes=9)
    assert read(base, "k") == [1]
    clock.later(minutes=3)
    fork = base.fork("fork")
    if then == "replaces":
        base.put(ANA, "k", {"v": 2}, ttl=timedelta(minutes=1))
    elif then == "deletes":
        base.delete(ANA, "k")
    elif then == "drops":
        base.drop()
        repository.gc(grace=timedelta(0))
    # Put at 0 and read at 9: in the fork, which was made at 12 and never read, it lives until 19.
    clock.later(minutes=6.9)
    assert there(fork) == {"k": 1}
    clock.later(minutes=0.2)
    if then == "sweeps":
        assert base.sweep() == 1
    assert there(fork) == {}
    assert fork.sweep() == 1
    assert versions(fork, "k") == [None, 1]
    assert repository.fsck().problems == []


def test_reads_in_the_base_prolong_little_in_the_fork(repository: Repository, clock: Clock) -> None:
    base = repository.memory()
    base.put(ANA, "k", {"v": 1}, ttl=TTL)
    clock.later(minutes=3)
    fork = base.fork("fork")
    for _ in range(3):
        clock.later(minutes=3)
        assert read(base, "k") == [1]
    assert there(fork) == {"k": 1}
    # No longer than a lifetime from when the fork was made, at 3.
    clock.later(minutes=1)
    assert there(fork) == {} and there(base) == {"k": 1}


def test_what_had_expired_is_not_in_a_fork_made_later(repository: Repository, clock: Clock) -> None:
    base = repository.memory()
    base.put(ANA, "k", {"v": 1}, ttl=TTL)
    clock.later(minutes=10)
    fork = base.fork("fork")
    assert there(fork) == {} and read(fork, "k") == [None]


def test_forks_of_forks(repository: Repository, clock: Clock) -> None:
    base = repository.memory()
    base.put(ANA, "k", {"v": 1}, ttl=TTL)
    first = base.fork("first")
    clock.later(minutes=9)
    assert read(first, "k") == [1]
    clock.later(minutes=2)
    second = first.fork("second")
    third = second.fork("third")
    first.put(ANA, "k", {"v": 2})
    clock.later(minutes=7)
    assert read(second, "k") == [1]
    # Ten minutes after it was made the third has nothing, though the second was read at 18.
    clock.later(minutes=3)
    assert (there(base), there(first), there(second), there(third)) == ({}, {"k": 2}, {"k": 1}, {})
    assert versions(first, "k") == [2, 1] and versions(second, "k") == [1]
    first.drop()
    repository.gc(grace=timedelta(0))
    assert read(second, "k") == [1]
    assert repository.fsck().problems == []


def test_the_copy_changes_nothing_of_the_past(repository: Repository, clock: Clock) -> None:
    base = repository.memory()
    base.put(ANA, "k", {"v": 0})
    clock.later(minutes=1)
    base.put(ANA, "k", {"v": 1, "text": LONG}, ttl=TTL)
    left = base.moment
    fork = base.fork("fork")
    clock.later(minutes=5)
    assert read(fork, "k") == [1]
    assert fork.moment == left
    found, kept = fork.get(ANA, "k"), base.get(ANA, "k")
    assert found is not None and found == kept
    assert fork.diff(base) == [] == fork.diff(since=left)
    fork.put(ANA, "k", {"v": 2})
    assert versions(fork, "k") == [2, 1, 0]
    for moment, value in ((left - 1, 0), (left, 1), (fork.moment, 2)):
        past = fork.get(ANA, "k", as_of=moment)
        assert past is not None and past.value["v"] == value
    before = repository.stats()
    assert (before.items, before.bytes_logical > 0) == (2, True)
    fork.prune(fork.moment)
    repository.gc(grace=timedelta(0))
    assert versions(fork, "k") == [2, 1, 0] and versions(base, "k") == [1, 0]
    again = fork.fork("again", as_of=left)
    assert there(again) == {"k": 1}
    assert repository.fsck().problems == []


def test_an_inherited_item_counts_once(repository: Repository, clock: Clock) -> None:
    base = repository.memory()
    base.put(ANA, "k", {"v": 1, "text": LONG}, ttl=TTL)
    fork = base.fork("fork")
    before = repository.stats()
    clock.later(minutes=5)
    assert read(fork, "k") == [1]
    after = repository.stats()
    assert (after.items, after.bytes_logical, after.objects) == (before.items, before.bytes_logical, before.objects)


def test_what_was_changed_meanwhile_is_left_as_it_is(repository: Repository, clock: Clock) -> None:
    base = repository.memory()
    for key in ("put", "deleted", "renewed", "kept"):
        base.put(ANA, key, {"v": key}, ttl=TTL)
    fork = base.fork("fork")
    clock.later(minutes=5)
    entries, _ = fork.read([(ANA, key) for key in ("put", "deleted", "renewed", "kept")])
    fork.put(ANA, "put", {"v": "new"}, ttl=timedelta(minutes=6))
    fork.delete(ANA, "deleted")
    clock.later(minutes=1)
    assert read(fork, "renewed") == ["renewed"]
    fork.renew(entry for entry in entries if entry is not None)
    clock.later(minutes=9.5)
    assert there(fork) == {"renewed": "renewed", "kept": "kept"}
    clock.later(minutes=0.5)
    assert there(fork) == {}


def test_renewing_many_takes_one_step_more(
    repository: Repository, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = repository.memory()
    keys = [f"{number}" for number in range(50)]
    for key in keys:
        base.put(ANA, key, {"v": key}, ttl=TTL)
    fork = base.fork("fork")
    clock.later(minutes=5)
    entries, _ = fork.read([(ANA, key) for key in keys])
    storage = repository.storage
    calls: list[str] = []
    for name in ("view", "read", "publish"):
        act = getattr(storage, name)
        monkeypatch.setattr(
            storage, name, lambda *given, act=act, name=name, **more: (calls.append(name), act(*given, **more))[1]
        )
    for _ in range(2):
        fork.renew(entry for entry in entries if entry is not None)
        entries, _ = fork.read([(ANA, key) for key in keys])
        clock.later(minutes=5)
    assert calls.count("publish") == 2
    assert len(calls) <= 6
    assert len(there(fork)) == 50


# A store in memory is nobody else's to open.
@pytest.mark.parametrize("store_url", [name for name in STORES if name != "memory"], indirect=True)
def test_a_fork_open_for_reading_only_is_read(store_url: str, clock: Clock) -> None:
    with ckpt.open(store_url) as repository:
        base = repository.memory()
        base.put(ANA, "k", {"v": 1}, ttl=TTL)
        base.fork("fork")
        clock.later(minutes=5)
        with ckpt.open(store_url, readonly=True) as reading:
            assert read(reading.memory("fork"), "k") == [1]

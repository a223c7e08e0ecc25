"""Collectors that meet: two at once, one after another that was killed, and one while threads are let go."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from ckpt.errors import ConflictError, DamagedRecordError, ThreadDeletedError
from ckpt.history import keys
from ckpt.repository import remove, remove_short
from ckpt.repository.incoming import NewCheckpoint, Typed
from ckpt.repository.repository import Repository
from ckpt.storage.base import Batch, Exclusive
from ckpt.storage.memory import MemoryStorage

NOTHING = Typed("msgpack", b"\x80")
AT_ONCE = timedelta(0)
STATE = {"text": "what the fork still sees " * 40}


@pytest.fixture(autouse=True, params=["together", "one by one"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short threads go many in one transaction, all others one after the other."""
    if request.param == "one by one":
        monkeypatch.setattr(remove_short, "ROWS_MAX", -1)


class Killed(BaseException):
    """The process ends here."""


class Met:
    """A store in whose use something happens once armed, before a call. Nobody comes between what is exclusive."""

    def __init__(self, inner: MemoryStorage, happens: Callable[[], object], names: frozenset[str]) -> None:
        self._inner, self._happens, self._names = inner, happens, names
        self._left: int | None = None
        self._exclusive = False

    def arm(self, calls: int) -> None:
        self._left = calls

    @property
    def armed(self) -> bool:
        return self._left is not None

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)
        return call if name not in self._names else lambda *args, **named: self._before() or call(*args, **named)

    @contextmanager
    def exclusive(self) -> Iterator[Exclusive]:
        self._before()
        with self._inner.exclusive() as session:
            self._exclusive = True
            try:
                yield session
            finally:
                self._exclusive = False

    def _before(self) -> None:
        if self._exclusive or self._left is None:
            return
        self._left -= 1
        if self._left < 0:
            self._left = None
            self._happens()


CALLS = frozenset({"read", "view", "scan", "locate", "load", "scan_index", "scan_frames", "publish"})


def collected(
    prepare: Callable[[Repository], object],
    happens: Callable[[Repository], object],
    *,
    grace: timedelta,
    names: frozenset[str] = CALLS,
) -> Iterator[Repository]:
    """Yield what is left of a store when something happens before the first, second, third... call of a collection."""
    for calls in itertools.count():
        inner = MemoryStorage()
        prepare(Repository(inner))
        storage = Met(inner, partial(happens, Repository(inner)), names)
        collector = Repository(storage)  # type: ignore[arg-type]
        storage.arm(calls)
        with suppress(Killed):
            collector.gc(grace=grace)
        if storage.armed:
            assert calls > 2
            return
        yield Repository(inner)


def killed(repository: Repository) -> None:
    raise Killed


def deleted_base(repository: Repository) -> None:
    repository.thread("base").commit(STATE)
    repository.fork("base", "keeper")
    repository.fork("base", "gone")
    # A row of the fork's own under an id that its base has.
    head = repository.resolve("gone").checkpoint_id
    repository.put_writes("gone", "", head, "task", "", [(0, "x", NOTHING)])
    repository.delete("gone")
    repository.delete("base")


@pytest.mark.parametrize("happens", [lambda other: other.gc(grace=AT_ONCE), killed], ids=["another", "killed"])
def test_a_fork_is_removed_by_two_collectors_at_once_or_after_each_other(
    happens: Callable[[Repository], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remove, "_ROWS", 1)
    for left in collected(deleted_base, happens, grace=AT_ONCE):
        left.gc(grace=AT_ONCE)
        assert left.thread("keeper").state() == STATE
        assert left.fsck().problems == []
        left.delete("keeper")
        assert left.gc(grace=AT_ONCE).threads_removed == 2
        assert left.stats().checkpoints == 0
        assert left.storage.scan(*keys.ALL_THREADS) == []


def test_a_thread_that_stays_for_its_forks_is_not_counted_as_removed() -> None:
    repository = Repository(MemoryStorage())
    deleted_base(repository)
    assert [repository.gc(grace=AT_ONCE, dry_run=dry).threads_removed for dry in (True, False, True, False)] == [
        1,
        1,
        0,
        0,
    ]
    repository.fork("keeper", "another")
    repository.delete("keeper")
    assert [repository.gc(grace=AT_ONCE, dry_run=dry).threads_removed for dry in (True, False)] == [0, 0]
    repository.delete("another")
    assert [repository.gc(grace=AT_ONCE, dry_run=dry).threads_removed for dry in (True, False)] == [3, 3]
    assert repository.storage.scan(*keys.ALL_THREADS) == []


def test_a_thread_that_is_missing_while_its_name_names_it_is_damage() -> None:
    repository = Repository(MemoryStorage())
    repository.thread("t").commit(STATE)
    repository.delete("t")
    repository.storage.publish(Batch(records={keys.thread_key(1): None}))
    with pytest.raises(DamagedRecordError, match="thread number 1"):
        repository.gc(grace=AT_ONCE)


def let_go_in_steps(repository: Repository) -> None:
    for namespace in ("", "sub"):
        for number in range(4):
            parent = f"{number - 1}" if number else None
            repository.put(NewCheckpoint("t", namespace, f"{number}", parent, None, NOTHING, NOTHING))
    repository.delete("t")


@pytest.mark.parametrize("steps", [1, 3, 500])
def test_a_collector_goes_on_where_another_was_killed(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remove, "_ROWS", steps)
    for left in collected(let_go_in_steps, killed, grace=AT_ONCE, names=frozenset({"publish"})):
        assert left.fsck().problems == []
        left.gc(grace=AT_ONCE)
        assert left.fsck().problems == []
        assert left.stats().checkpoints == 0
        assert left.storage.scan(*keys.ALL_THREADS) == []
        for namespace in ("", "sub"):
            for number in range(4):
                with pytest.raises(ThreadDeletedError):
                    left.put(NewCheckpoint("t", namespace, "9", f"{number}", None, NOTHING, NOTHING))


def test_what_is_deleted_during_a_collection_can_be_restored() -> None:
    def prepare(repository: Repository) -> None:
        repository.thread("t").commit(STATE)
        repository.thread("tagged").commit(STATE)
        repository.tag("v1", "tagged")
        let_go_in_steps(repository)

    def happens(other: Repository) -> None:
        other.delete("t") if "t" in other.thread_names() else None
        other.delete("tagged")

    for left in collected(prepare, happens, grace=timedelta(days=14)):
        left.undo()
        assert left.thread("tagged").state() == STATE
        assert left.state("v1") == STATE
        left.undo()
        assert left.fsck().problems == []


def restorable(repository: Repository) -> None:
    """Delete a thread that goes on behind its fork, and one without a fork."""
    repository.thread("t").commit(STATE)
    repository.fork("t", "fork")
    repository.thread("t").commit({"text": "after the fork"})
    repository.thread("alone").commit(STATE)
    repository.tag("v1", "alone")
    repository.delete("t")
    repository.delete("alone")


def test_a_thread_is_restored_wholly_or_not_at_all() -> None:
    restored: set[bool] = set()

    def happens(other: Repository) -> None:
        for _ in range(2):
            with suppress(ConflictError):
                other.undo()

    for left in collected(restorable, happens, grace=AT_ONCE):
        names = set(left.thread_names())
        restored.add("alone" in names)
        if "t" in names:
            assert left.thread("t").state() == {"text": "after the fork"}
        if "alone" in names:
            assert left.thread("alone").state() == STATE
            assert left.state("v1") == STATE
        assert left.thread("fork").state() == STATE
        assert left.fsck().problems == []
    assert restored == {True, False}


def test_a_second_deletion_has_a_grace_period_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    again: list[bool] = []

    def prepare(repository: Repository) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("time.time", lambda: 0.0)
            restorable(repository)

    def happens(other: Repository) -> None:
        again.clear()
        with suppress(ConflictError):
            other.undo()
            other.delete("alone")
            again.append(True)

    for left in collected(prepare, happens, grace=timedelta(days=14)):
        if again:
            left.undo()
            assert left.thread("alone").state() == STATE
            assert left.state("v1") == STATE
        assert left.fsck().problems == []


def test_a_thread_that_comes_back_during_a_collection_stays_for_what_became_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing but the thread's own record and the log say so: it has no tag and no base."""

    def prepare(repository: Repository) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("time.time", lambda: 0.0)
            for name in ("t", "beside it"):
                repository.thread(name).commit(STATE)
                repository.delete(name)

    became: list[str] = []

    def deleted_again(other: Repository) -> None:
        other.delete("t")
        became.append("deleted")

    def forked(other: Repository) -> None:
        other.fork("t", "fork")
        other.delete_thread("t")
        became.append("forked")

    for then in (deleted_again, forked, lambda other: became.append("restored")):

        def happens(other: Repository, then: Callable[[Repository], object] = then) -> None:
            became.clear()
            with suppress(ConflictError):
                other.undo(next(each.id for each in other.operations() if each.text == "delete t"))
                then(other)

        for left in collected(prepare, happens, grace=timedelta(days=14)):
            if became == ["deleted"]:
                left.undo()
            if became:
                assert left.thread("fork" if became == ["forked"] else "t").state() == STATE
            assert left.fsck().problems == []
            assert "beside it" not in left.thread_names()


def test_a_name_that_was_put_back_keeps_its_thread() -> None:
    repository = Repository(MemoryStorage())
    repository.thread("t").commit(STATE)
    (before,) = repository.storage.read([keys.name_key("t")])
    repository.delete_thread("t")
    repository.storage.publish(Batch(records={keys.name_key("t"): before}))
    rows = repository.storage.scan(*keys.ALL_THREADS)
    with pytest.raises(DamagedRecordError, match="earlier version"):
        repository.gc(grace=AT_ONCE)
    assert repository.storage.scan(*keys.ALL_THREADS) == rows


@pytest.mark.parametrize("before", [None, 2])
def test_what_is_pruned_during_a_collection_can_be_restored(
    before: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(repository: Repository) -> None:
        for turn in range(3):
            repository.thread("t").commit({"turn": turn})
        if before is not None:
            # Out of its grace period, so that the collector has rows of this thread to remove.
            with monkeypatch.context() as patch:
                patch.setattr("time.time", lambda: 0.0)
                repository.prune(["t"], keep_last=before)

    for left in collected(prepare, lambda other: other.prune(["t"], keep_last=1), grace=timedelta(days=14)):
        assert len(left.thread("t").log()) == 1
        left.undo()
        assert [left.state(info.id) for info in left.thread("t").log()] == [
            {"turn": turn} for turn in range(2, 2 - (before or 3), -1)
        ]
        assert left.fsck().problems == []


def test_a_fork_reads_a_head_from_which_later_writes_were_removed() -> None:
    """Those of the deleted thread: the fork does not see them, and its base has no newer head."""
    with Repository(MemoryStorage()) as repository:
        repository.put(NewCheckpoint("base", "", "1", None, None, NOTHING, NOTHING))
        repository.put_writes("base", "", "1", "task", "", [(0, "seen", NOTHING)])
        repository.copy_thread("base", "fork")
        repository.put_writes("base", "", "1", "late", "", [(0, "unseen", NOTHING)])
        repository.delete_thread("base")
        repository.gc(grace=AT_ONCE)
        stored = repository.read("fork", "", "1")
        assert stored is not None and [write.channel for write in stored.writes] == ["seen"]
        assert repository.fsck().problems == []

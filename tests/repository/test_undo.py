"""Taking operations back: in any order that nothing was built on, and refused, dry run or not, where something was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from clock_kit import Clock

from ckpt.errors import AmbiguousRevisionError, CkptError, ConflictError, NotFoundError
from ckpt.repository import Operation, Repository
from ckpt.storage.memory import MemoryStorage


@pytest.fixture
def repository() -> Iterator[Repository]:
    with Repository(MemoryStorage()) as repository:
        for number in range(5):
            repository.commit("t", {"n": number})
        yield repository


def told(repository: Repository) -> Any:
    """All that a user sees of a store: threads, heads, checkpoints, tags."""
    threads = {}
    for info in repository.threads():
        log = repository.log(thread=info.name)
        threads[info.name] = (info.head and info.head.id, [(each.id, each.is_current, each.tags) for each in log])
    return threads, {name: info.id for name, info in repository.tags().items()}


def refused(repository: Repository, operation: Operation | str | None, why: str, hint: str = "") -> None:
    before = told(repository)
    for dry_run in (True, False):
        with pytest.raises(ConflictError, match=why) as refusal:
            repository.undo(operation, dry_run=dry_run)
        assert hint in "".join(refusal.value.hints)
    assert told(repository) == before


ACTS: dict[str, Callable[[Repository, str], object]] = {
    "rewind": lambda repository, new: repository.rewind("t"),
    "checkout": lambda repository, new: repository.checkout("@~2", thread="t"),
    "fork": lambda repository, new: repository.fork("@~1", new, thread="t"),
    "fork with a value": lambda repository, new: repository.fork("@", new, thread="t", values={"n": 9}),
    "fork of the last fork": lambda repository, new: repository.fork("@", new, thread=repository.thread_names()[0]),
    "prune": lambda repository, new: repository.prune(["t"], keep_last=3),
    "tag": lambda repository, new: repository.tag(new, "@~1", thread="t"),
    "delete": lambda repository, new: repository.delete(repository.thread_names()[0]),
    "expire": lambda repository, new: repository.expire("t", timedelta(days=1)),
}


@pytest.mark.parametrize(("first", "second"), list(product(ACTS, ACTS)))
def test_undoing_twice_goes_back_two_changes(repository: Repository, first: str, second: str) -> None:
    repository.fork("@", "a fork", thread="t")
    before = told(repository)
    ACTS[first](repository, "A")
    between, count = told(repository), len(repository.operations())
    ACTS[second](repository, "B")
    if len(repository.operations()) > count:
        assert repository.undo(dry_run=True) == repository.operations()[0]
        repository.undo()
    assert told(repository) == between
    repository.undo()
    assert told(repository) == before
    repository.gc(grace=timedelta(0))
    assert told(repository) == before
    assert repository.fsck().problems == []


@pytest.mark.parametrize("gone", ["expired", "deleted"])
def test_a_rewind_is_not_undone_under_a_fork_of_what_it_made(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """However many forks there were before it: one of them may be collected, so that there are as many as then."""
    clock = Clock(monkeypatch)
    repository.fork("@", "before", thread="t")
    if gone == "expired":
        repository.expire("before", timedelta(hours=1))
    else:
        repository.delete_thread("before")
    clock.after(days=1)
    repository.rewind("t")
    (rewind, *_) = repository.operations()
    repository.fork("@", "behind", thread="t")
    repository.gc()
    assert repository.thread_names() == ["behind", "t"]
    refused(repository, rewind, "has changed since")
    repository.delete("behind")
    refused(repository, rewind, "has changed since")
    repository.undo()
    assert repository.state("behind") == {"n": 3}
    assert repository.fsck().problems == []


def test_a_rewind_is_not_undone_under_what_was_built_on_it(repository: Repository) -> None:
    repository.rewind("t")
    (rewind, *_) = repository.operations()
    repository.tag("kept", "@", thread="t")
    refused(repository, rewind, "carries a tag")
    repository.untag("kept")
    repository.commit("t", {"n": 9})
    refused(repository, rewind, "has changed since")
    repository.delete("t")
    refused(repository, rewind, "is gone")


def test_a_tag_does_not_come_back_to_nothing(repository: Repository) -> None:
    repository.tag("kept", "@~3", thread="t")
    repository.untag("kept")
    (untag, *_) = repository.operations()
    repository.prune(["t"], keep_last=1)
    refused(repository, untag, "is gone")
    repository.undo()
    repository.delete("t")
    refused(repository, untag, "is deleted")
    repository.undo()
    repository.undo(untag)
    assert list(repository.tags()) == ["kept"]


def test_an_operation_is_named_by_its_id_or_by_what_no_other_begins_with(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 0x11):
        repository.tag(f"tag{number:x}", "@", thread="t")
    assert repository.undo("op:001", dry_run=True).number == 1
    assert repository.undo("01", dry_run=True).number == 0x10
    with pytest.raises(AmbiguousRevisionError, match="15 operations begin with '00'") as error:
        repository.undo("00")
    assert error.value.candidates == tuple(f"op:00{number:x}" for number in range(15, 0, -1))
    with pytest.raises(NotFoundError):
        repository.undo("fff")
    # As from the 4,096th operation on: an id is what another begins with.
    monkeypatch.setattr(Operation, "id", property(lambda operation: f"{operation.number:x}"))
    first = repository.operations()[-1]
    assert repository.undo(first, dry_run=True) == repository.undo("1", dry_run=True) == first


def test_a_fork_whose_values_were_never_stored_can_be_undone(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise CkptError("gone")

    monkeypatch.setattr(type(repository._acts), "checkout", fail)
    with pytest.raises(CkptError, match="gone"):
        repository.fork("@", "fork", thread="t", values={"n": 9})
    assert repository.thread_names() == ["fork", "t"]
    repository.undo()
    assert repository.thread_names() == ["t"]


def test_a_rewind_of_a_fork_is_undone_after_a_prune_of_what_its_base_has() -> None:
    repository = Repository(MemoryStorage())
    for n in range(4):
        repository.thread("t").commit({"x": n})
    repository.thread("t").fork("f")
    repository.rewind("f")
    rewind = repository.operations()[0]
    assert repository.prune(["f"], keep_last=1)[0].removed
    repository.undo()
    repository.undo(rewind)
    assert repository.state("@", thread="f") == {"x": 3}


def test_a_refusal_hints_at_what_can_be_done_about_it(repository: Repository) -> None:
    repository.tag("a", "@", thread="t")
    repository.tag("b", "@", thread="t")
    repository.untag("a")
    untag, b, a = repository.operations()
    refused(repository, a, "tag 'a' has changed since", "ckpt op log shows")
    done = repository.undo(untag)
    refused(repository, done, "it is an undo itself", "do again what it took back")
    refused(repository, untag, "it is undone already", "ckpt op log shows by which operation")
    assert [each.undoable for each in repository.operations()] == [False, False, True, True]
    repository.gc(grace=timedelta(0))
    refused(repository, b, "gc has run since", "nothing takes it back any more")
    refused(repository, done, "it is an undo itself", "do again what it took back")
    assert [each.undoable for each in repository.operations()] == [False] * 4
    assert [each.undone for each in repository.operations()] == [False, True, False, False]

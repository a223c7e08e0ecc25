"""What logs tell of checkpoints, and how those are named."""

from __future__ import annotations

import pytest

from ckpt.errors import InvalidInputError
from ckpt.repository import Repository
from ckpt.repository.incoming import NewCheckpoint, Typed
from ckpt.storage.memory import MemoryStorage


def test_what_a_fork_shows_is_named_wherever_its_source_was_pruned() -> None:
    with Repository(MemoryStorage()) as repository:
        for number in range(4):
            repository.commit("t", {"n": number})
        repository.fork("@~1", "fork", thread="t")
        repository.prune(["t"], keep_last=1)
        repository.tag("kept", "@~1", thread="fork")
        for info in repository.log(thread="fork"):
            found = repository.resolve(info.spec)
            assert (found.id, found.thread) == (info.id, "fork")
        assert repository.tags()["kept"] == repository.resolve("@~1", thread="fork") == repository.resolve("kept")
        (head,) = repository.log(thread="t")
        assert repository.resolve(head.spec).thread == "t"


@pytest.mark.parametrize("start", ["@", "@~1", "@~7"])
def test_a_log_from_a_revision_tells_of_heads_what_that_of_the_thread_tells(start: str) -> None:
    with Repository(MemoryStorage()) as repository:
        for number in range(100):
            repository.commit("t", {"n": number})
        told = {info.id: info for info in repository.log(thread="t")}
        found = repository.log(start, thread="t")
        assert len(found) == 100 - int(start[2:] or 0)
        assert all(info == told[info.id] for info in found)


def test_subgraphs_are_listed_with_whole_threads_and_not_silently_left_out() -> None:
    nothing = Typed("null", b"")
    with Repository(MemoryStorage()) as repository:
        for namespace, name, parent in (("", "1", None), ("inner", "2", None), ("", "3", "1")):
            repository.put(NewCheckpoint("t", namespace, name, parent, None, nothing, nothing, {}))
        for found in (repository.log(thread="t", subgraphs=True), repository.log("t", all_heads=True, subgraphs=True)):
            assert [(info.namespace, info.checkpoint_id) for info in found] == [("", "3"), ("inner", "2"), ("", "1")]
        with pytest.raises(InvalidInputError, match="lists whole threads"):
            repository.log("t~1", subgraphs=True)


def test_a_child_that_comes_before_its_parent_leaves_one_head() -> None:
    """It was put by a host whose clock is behind."""
    with Repository(MemoryStorage()) as repository:
        parent = None
        for name in [*(f"9{number}" for number in range(9)), "80"]:
            repository.put(NewCheckpoint("t", "", name, parent, None, Typed("null", b""), Typed("null", b""), {}))
            parent = name
        (info,) = repository.threads()
        assert (info.checkpoints, info.heads, info.head and info.head.checkpoint_id) == (10, 1, "80")

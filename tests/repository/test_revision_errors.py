"""A revision that leads nowhere: the error says what was typed, why nothing is there, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import ckpt
from ckpt.errors import NotFoundError, RevisionNotFoundError, ThreadDeletedError
from ckpt.repository import Repository
from ckpt.repository.prune import keep_last
from ckpt.storage.memory import MemoryStorage


@pytest.fixture(scope="module")
def repository() -> Iterator[Repository]:
    with ckpt.open("memory://") as repository:
        thread = repository.thread("acme corp")
        for number in range(4):
            thread.commit({"number": number})
        repository.thread("acme").commit({"number": 0})
        yield repository


@pytest.mark.parametrize(
    ("revision", "thread", "why"),
    [
        ("acme corp~4", None, "~4 starts from a checkpoint with 3 ancestors"),
        ("acme corp~2~7", None, "~7 starts from a checkpoint with 1 ancestor"),
        ("acme~", None, "~1 starts from a checkpoint with 0 ancestors"),
        ("acme^", None, "^1 starts from a checkpoint with 0 ancestors"),
        ("acme^2", None, "^2 starts from a checkpoint with 0 parents"),
        ('thread:"acme corp"^3', None, "^3 starts from a checkpoint with 1 parent"),
        ("@{9}", "acme corp", "the head of thread 'acme corp' has moved 3 times"),
        ("@~1@{4}", "acme corp", "the head of thread 'acme corp' has moved 3 times"),
        ("#12", "acme", "none up to there is at step 12"),
        ("acme corp#12", None, "none up to there is at step 12"),
        ("@{next:tools}", "acme", "none up to there runs 'tools' next"),
        ("acme@{run:r1}", None, "none up to there was made by run r1"),
        ("acme@{2001-01-31T10:00Z}", None, "none up to there is from 2001-01-31T10:00:00+00:00 or earlier"),
    ],
)
def test_it_says_what_was_typed_and_why(repository: Repository, revision: str, thread: str | None, why: str) -> None:
    with pytest.raises(RevisionNotFoundError) as caught:
        repository.resolve(revision, thread=thread)
    within = f" in thread {thread!r}" if thread is not None else ""
    assert caught.value.message == f"no checkpoint matches {revision!r}{within}: {why}"
    assert len(caught.value.hints) == 1


def test_the_hint_names_the_earliest_head(repository: Repository) -> None:
    with pytest.raises(RevisionNotFoundError) as caught:
        repository.resolve("acme corp@{4}")
    assert caught.value.hints == ("the earliest head is @{3}",)
    assert repository.resolve("acme corp@{3}").step == 0


def test_an_earlier_head_that_was_pruned() -> None:
    with ckpt.open("memory://") as repository:
        for number in range(4):
            repository.thread("t").commit({"number": number})
        repository.thread("t").fork("f", "@~1")
        repository.prune_thread("t", keep_last(1))
        with pytest.raises(RevisionNotFoundError) as caught:
            repository.resolve("t@{1}")
        assert (
            caught.value.message
            == "no checkpoint matches 't@{1}': what was the head of thread 't' 1 move ago was pruned"
        )
        assert caught.value.hints == ("ckpt log shows what is left",)


def test_a_word_that_names_nothing(repository: Repository) -> None:
    for revision, hints in [
        ("acme corps", ("did you mean 'acme corp'?  ckpt threads lists all 2",)),
        ("acm", ("did you mean 'acme corp'?  ckpt threads lists all 2",)),
        ("zzz", ("ckpt threads lists all 2",)),
        (
            "zzz@{1d12h ago}",
            (
                "ckpt threads lists all 2",
                "a moment is written @{2h ago}, units s, min, h, d, w, or with its zone: @{2026-01-31T10:00Z}",
                "ckpt help revisions explains what may follow a name",
            ),
        ),
        ("acme@{now}", ("ckpt threads lists all 2", "ckpt help revisions explains what may follow a name")),
    ]:
        with pytest.raises(RevisionNotFoundError, match="no thread or checkpoint matches") as caught:
            repository.resolve(revision)
        assert caught.value.hints == hints
    with ckpt.open("memory://") as empty:
        with pytest.raises(RevisionNotFoundError) as caught:
            empty.resolve("t")
        assert caught.value.hints == ("there are no threads yet",)
        empty.commit("t", {"a": 1})
        with pytest.raises(RevisionNotFoundError) as caught:
            empty.resolve("zzz")
        assert caught.value.hints == ("ckpt threads lists them",)


def test_a_name_that_reads_as_something_else_is_written_out() -> None:
    with ckpt.open("memory://") as repository:
        repository.commit("thread:x", {"a": 1})
        with pytest.raises(RevisionNotFoundError) as caught:
            repository.resolve("thread:x")
        assert caught.value.hints == ("did you mean 'thread:\"thread:x\"'?  ckpt threads lists them",)
        assert repository.resolve('thread:"thread:x"').thread == "thread:x"


class _Interfering(MemoryStorage):
    """Has something happen before one of the reads."""

    def __init__(self) -> None:
        super().__init__()
        self.left = -1
        self.act: Callable[[], object] = int

    def _lend(self, call: Callable[[Any], Any]) -> Any:
        self.left -= 1
        if not self.left:
            self.act()
        return super()._lend(call)


@pytest.mark.parametrize(
    "ask",
    [
        lambda repository: repository.resolve("t~1"),
        lambda repository: repository.resolve("t@{1}"),
        lambda repository: repository.resolve("t#0"),
        lambda repository: repository.resolve("t^"),
        lambda repository: repository.log("t"),
        lambda repository: repository.log("@", thread="t"),
        lambda repository: repository.log(thread="t"),
        lambda repository: repository.state("t~1"),
        lambda repository: repository.diff("t~1", "t"),
        lambda repository: repository.checkout("t~1"),
    ],
    ids=[
        "ancestor",
        "earlier head",
        "step",
        "parent",
        "log",
        "log of @",
        "log of a thread",
        "state",
        "diff",
        "checkout",
    ],
)
def test_a_thread_deleted_meanwhile_is_not_found(ask: Callable[[Repository], object]) -> None:
    outcomes = []
    for read in range(1, 60):
        storage = _Interfering()
        with Repository(storage) as repository, Repository(storage) as other:
            for number in range(3):
                repository.thread("t").commit({"number": number})
            storage.act = partial(other.delete_thread, "t")
            storage.left = read
            try:
                ask(repository)
            except (NotFoundError, ThreadDeletedError) as error:
                outcomes.append(type(error))
            if storage.left > 0:
                break
    else:
        pytest.fail("it never ends undisturbed")
    assert outcomes

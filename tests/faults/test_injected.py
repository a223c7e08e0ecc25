"""A failure injected at the first, second, third … call to the storage, before and after the call took effect.

Whatever fails: the state is the old one or the new one, the repository stays usable, and doing it again ends well.

In memory and in a file every call fails in turn; of a collection on a file, which takes hundreds, every third. On the
servers, where to ask for the whole state takes as many round trips, those calls fail that change something, in one
operation of each kind: reading is the same code for all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any

import pytest
from engine_kit import everything, put, put_writes
from stores import BACKENDS, SERVERS, new_store

from ckpt.repository import Repository
from ckpt.repository.prune import keep_last
from ckpt.storage.base import Storage
from ckpt.storage.urls import open_storage

READS = frozenset({"epoch", "read", "view", "scan", "locate", "load", "scan_index", "scan_frames", "usage"})
WRITES = frozenset({"publish", "compact", "write", "forget", "drop", "raise_epoch"})


class InjectedFault(Exception):
    """Not an error of ckpt, so that nothing catches it by accident."""


class _Counter:
    """Counts calls of storage and sessions together, and fails one of them."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.late = False

    def around(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.left is None:
            return call(*args, **kwargs)
        self.left -= 1
        if self.left >= 0:
            return call(*args, **kwargs)
        self.left = None
        if self.late:
            call(*args, **kwargs)
        raise InjectedFault


class _Failing:
    """Forwards everything, counting the calls named."""

    def __init__(self, inner: Any, counter: _Counter, names: frozenset[str]) -> None:
        self._inner, self._counter, self._names = inner, counter, names

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name not in self._names:
            return value
        return lambda *args, **kwargs: self._counter.around(value, *args, **kwargs)


class FailAfter(_Failing):
    """A storage that fails once, `calls` calls after `arm`, before or after (`late`) that call takes effect."""

    def __init__(self, inner: Storage, names: frozenset[str] = READS | WRITES) -> None:
        super().__init__(inner, _Counter(), names)

    def arm(self, calls: int | None, *, late: bool = False) -> None:
        self._counter.left, self._counter.late = calls, late

    @property
    def armed(self) -> bool:
        return self._counter.left is not None

    @contextmanager
    def exclusive(self) -> Iterator[Any]:
        self._counter.around(lambda: None)
        with self._inner.exclusive() as session:
            yield _Failing(session, self._counter, self._names)
        self._counter.around(lambda: None)


def prepare(repository: Repository) -> None:
    """Make a history in which every operation has something to do."""
    text = "some text that is long enough to be an object of its own, unlike the short ones " * 3
    for step in range(6):
        put(
            repository,
            "main",
            f"c{step}",
            {"text": f"{step}{text}", "n": step},
            parent=f"c{step - 1}" if step else None,
        )
        put_writes(repository, "main", f"c{step}", "task", [(0, "n", f"{step}w{text}"), (-1, "__error__", step)])
    put(repository, "main", "s1", {"inner": text * 20}, namespace="sub")
    put(repository, "main", "s2", {"inner": text * 21}, namespace="sub", parent="s1")
    put(repository, "doomed", "d1", {"text": f"only here {text}"})
    put(repository, "doomed", "d2", {"text": f"only here too {text}"}, parent="d1")
    put(repository, "base", "b1", {"text": f"shared {text}"})
    put(repository, "base", "b2", {"text": f"of the base {text}"}, parent="b1")
    repository.copy_thread("base", "leaf")
    put(repository, "base", "b3", {"text": f"later {text}"}, parent="b2")
    repository.delete_thread("base")
    repository.delete_thread("doomed")


OPERATIONS: dict[str, Callable[[Repository], object]] = {
    "put": lambda repo: put(repo, "main", "c6", {"text": "new " * 100, "n": 6}, parent="c5"),
    "put in a new thread": lambda repo: put(repo, "fresh", "f0", {"text": "new " * 100}),
    "put again": lambda repo: put(repo, "main", "c5", {"text": "replaced " * 100}, parent="c4"),
    "put in a namespace": lambda repo: put(repo, "main", "s3", {"inner": "x" * 300}, namespace="sub", parent="s2"),
    "put in a new namespace": lambda repo: put(repo, "main", "t1", {"inner": "x" * 300}, namespace="other"),
    "put in a fork": lambda repo: put(repo, "leaf", "b3", {"text": "of the leaf " * 50}, parent="b2"),
    "put_writes": lambda repo: put_writes(repo, "main", "c5", "more", [(0, "n", "w" * 500), (-1, "__error__", 9)]),
    "put_writes early": lambda repo: put_writes(repo, "main", "c9", "early", [(0, "n", "w" * 500)]),
    "put_writes spilled": lambda repo: put_writes(repo, "main", "c4", "big", [(i, "n", "w" * 90) for i in range(30)]),
    "copy": lambda repo: repo.copy_thread("main", "copy"),
    "fork": lambda repo: repo.fork('thread:"main"~2', "branch"),
    "checkout": lambda repo: repo.checkout("@~2", thread="main"),
    "tag": lambda repo: repo.tag("v1", "@~1", thread="main"),
    "delete": lambda repo: repo.delete_thread("main"),
    "delete with a fork": lambda repo: repo.delete_thread("leaf"),
    "prune": lambda repo: repo.prune_thread("main", keep_last(2)),
    "gc": lambda repo: repo.gc(grace=timedelta(0)),
}


ON_SERVERS = ("put", "put in a new thread", "put_writes", "fork", "checkout", "delete with a fork", "prune", "gc")


def state(repository: Repository) -> dict[str, object]:
    """Return everything, including tags, operations and what waits for its checkpoint."""
    answers = everything(repository)
    answers["tags"] = {name: info.id for name, info in repository.tags().items()}
    answers["operations"] = [(done.kind, done.text) for done in repository.operations()]
    for thread in repository.thread_names():
        timeline = repository.timeline(thread)
        early = timeline.find("", "c9") if timeline is not None else None
        answers[f"waiting in {thread}"] = early and [write[:4] for write in timeline.writes(early)]  # type: ignore[union-attr]
    return answers


REPEATABLE = OPERATIONS.keys() - {"copy", "fork", "checkout", "tag"}
"""What may be done twice; the others say that their name is taken, or append another checkpoint."""


CASES = [
    pytest.param(backend, name, id=f"{backend}-{name}")
    for backend in BACKENDS
    for name in (ON_SERVERS if backend in SERVERS else OPERATIONS)
]


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("backend", "name"), CASES)
def test_a_failure_leaves_the_old_state_or_the_new(
    backend: str, name: str, late: bool, request: pytest.FixtureRequest
) -> None:
    operation = OPERATIONS[name]
    failing = WRITES if backend in SERVERS else READS | WRITES
    for calls in itertools.count(step=3 if (backend, name) == ("sqlite", "gc") else 1):
        assert calls < 1000, "the operation never passes"
        with new_store(backend, request) as url, closing(FailAfter(open_storage(url), failing)) as storage:
            prepare(Repository(storage))
            repository = Repository(storage)
            if calls % 2:
                # Every other time with a writer that remembers what it wrote.
                put(repository, "main", "c5", {"text": "warm", "n": 5}, parent="c4")
            old = state(Repository(storage))
            storage.arm(calls, late=late)
            try:
                operation(repository)
            except InjectedFault:
                passed = False
            else:
                passed = storage.armed
            storage.arm(None)
            found = state(repository)
            assert state(Repository(storage)) == found
            if found == old or name in REPEATABLE:
                operation(repository)
            again = state(Repository(storage))
            assert found in (old, again)
            assert Repository(storage).fsck().problems == []
            check_usable(repository)
            if passed:
                assert name == "gc" or again != old
                break


def check_usable(repository: Repository) -> None:
    """Assert that one can go on: a new thread, a new checkpoint on each head, all read back."""
    put(repository, "after", "a", {"text": "after the failure " * 30})
    for thread in repository.thread_names():
        head = repository.read(thread)
        assert head is not None
        put(repository, thread, f"{head.checkpoint_id}+", {"text": "going on " * 30}, parent=head.checkpoint_id)
        after = repository.read(thread)
        assert after is not None
        assert after.checkpoint_id == f"{head.checkpoint_id}+"
    everything(repository)

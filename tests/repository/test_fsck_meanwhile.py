"""`fsck` beside those who write, delete, collect and rotate keys: no false alarm, and no damage overlooked."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import timedelta
from threading import Event, Thread
from typing import Any, TypeVar

import pytest
from lifetime_kit import FailingStorage, put, typed
from stores import BACKENDS, store_url

import ckpt
from ckpt.encryption import encrypted
from ckpt.encryption.rotation import reseal
from ckpt.errors import ConflictError
from ckpt.history import keys
from ckpt.objects.ids import ObjectId, index_key
from ckpt.repository import Repository
from ckpt.storage.base import Batch, Storage
from ckpt.storage.memory import MemoryStorage

_T = TypeVar("_T")

KEY = bytes(range(32))
AT_ONCE = timedelta(0)
SECONDS = 1.0


def text(what: object) -> str:
    return f"{what}: a text that is long enough to be an object of its own\n" * 20


def fill(repository: Repository) -> None:
    for name in ("a", "b", "c"):
        for turn in range(4):
            repository.thread(name).commit({"text": text((name, turn)), "list": [text(n) for n in range(turn)]})
    repository.fork("a~1", "fork")
    repository.thread("fork").commit({"text": text("fork")})
    repository.tag("kept", "b~1")
    repository.memory().put(("who", "ana"), "likes", {"text": text("tea")})
    repository.delete("c")
    Repository(repository.storage, graph="other").thread("a").commit({"text": text("other")})


class Others:
    """What others do, a little more each time."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._turn = 0
        put(repository, "hot", "000")
        repository.thread("going0").commit({"text": text("going0")})

    def write(self) -> None:
        """Write to threads that are there, to new ones, to new graphs and to a memory."""
        self._turn += 1
        repository, turn = self._repository, self._turn
        put(repository, "hot", f"{turn:03}", f"{turn - 1:03}")
        put(repository, "hot", f"s{turn:03}", namespace="sub")
        for task in range(2):
            write = (0, "text", typed(text((turn, task))))
            repository.put_writes("hot", "", f"{turn:03}", f"task{task}", "", [write])
        repository.thread("a").commit({"text": text(("a", turn)), "list": [text(turn)]})
        repository.thread(f"new{turn}").commit({"text": text(f"new{turn}")})
        Repository(repository.storage, graph=f"new{turn}").thread("a").commit({"text": text(turn)})
        repository.memory().put(("who", f"u{turn % 3}"), f"k{turn}", {"text": text(turn)})
        repository.memory().put(("who", "ana"), "likes", {"text": text(f"tea {turn}")})
        repository.tag(f"tag{turn}", f"new{turn}")

    def tidy(self) -> None:
        """Delete, undo, prune and collect."""
        repository, turn = self._repository, self._turn
        repository.thread(f"going{turn}").commit({"text": text(f"going{turn}")})
        repository.delete(f"going{turn - 1}")
        if turn % 2:
            repository.undo()
            repository.delete(f"going{turn - 1}")
        repository.prune(["hot"], keep_last=3)
        repository.gc(grace=AT_ONCE)

    def all(self) -> None:
        self.write()
        self.tidy()


def sealed(storage: Storage, is_encrypted: bool) -> Storage:
    return encrypted(storage, KEY) if is_encrypted else storage


def reports(
    is_encrypted: bool, act: Callable[[Repository], Callable[[], object]], check: Callable[[Repository], _T]
) -> Iterator[_T]:
    """Yield what a check of one store after another says while an act is done before one of the calls that it makes.

    Before the first in the first store, and a few calls later in each that follows.
    """
    for step in itertools.count(0, 13):
        inner = MemoryStorage()
        other = Repository(sealed(inner, is_encrypted))
        fill(other)
        happens, calls = act(other), itertools.count()
        storage: Any = FailingStorage(sealed(inner, is_encrypted))
        checker = Repository(storage)

        def happening(
            method: str, arguments: object, happens: Callable[[], object] = happens, calls: Iterator[int] = calls,
            step: int = step,
        ) -> bool:  # fmt: skip
            if next(calls) == step:
                happens()
            return False

        storage.fails = happening
        yield check(checker)
        if next(calls) <= step:
            return


CHECKS: dict[str, Callable[[Repository], object]] = {
    "fsck": lambda repository: repository.fsck().problems,
    "fsck without data": lambda repository: repository.fsck(read_data=False).problems,
    "stats": lambda repository: repository.stats().bytes_reclaimable < 0,
    "gc": lambda repository: repository.gc(grace=AT_ONCE, dry_run=True).threads_removed > 2,
}


@pytest.mark.parametrize("is_encrypted", [False, True])
@pytest.mark.parametrize("check", CHECKS)
def test_whatever_happens_between_two_reads_is_no_problem(is_encrypted: bool, check: str) -> None:
    def act(other: Repository) -> Callable[[], object]:
        others = Others(other)

        def happens() -> None:
            others.all()
            others.write()
            if is_encrypted:
                other_process: Any = encrypted(other.storage.inner, KEY)  # type: ignore[attr-defined]
                reseal(other_process)

        return happens

    found = list(reports(is_encrypted, act, CHECKS[check]))
    assert len(found) > 3
    assert not any(found)


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_what_is_damaged_is_found_whatever_happens_between_two_reads(is_encrypted: bool) -> None:
    lost: list[bytes] = []

    def act(other: Repository) -> Callable[[], object]:
        lost[:] = [index_key(ObjectId(bytes.fromhex(other.resolve("b~2").id)))]
        with other.storage.exclusive() as session:
            session.forget(lost)
        return Others(other).write

    for problems in reports(is_encrypted, act, lambda checker: checker.fsck().problems):
        found = [problem for problem in problems if problem.kind == "object"]
        assert [(problem.id, problem.message) for problem in found] == [(lost[0].hex(), "it is not in the store")]
        assert [owner.split()[0] for owner in found[0].needed_by] == ["b"]
        assert {problem.kind for problem in problems} <= {"object", "thread"}


# -- live --------------------------------------------------------------------------------------------------


@contextmanager
def at_work(*acts: Callable[[], object]) -> Iterator[Callable[[], bool]]:
    """Have each act done over and over by a thread of its own; what it raises is raised at the end."""
    stop, failures = Event(), list[BaseException]()

    def work(act: Callable[[], object]) -> None:
        try:
            while not stop.is_set():
                with suppress(ConflictError):
                    act()
        except BaseException as error:
            failures.append(error)

    threads = [Thread(target=work, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    end = time.monotonic() + SECONDS
    try:
        yield lambda: time.monotonic() < end and not failures
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


@contextmanager
def several(url: str, count: int, is_encrypted: bool) -> Iterator[list[Repository]]:
    """Repositories over one store, each as another process would open it."""
    key: dict[str, Any] = {"encryption_key": KEY} if is_encrypted else {}
    with ExitStack() as stack:
        if url == "memory://":
            storage = MemoryStorage()
            yield [stack.enter_context(closing(Repository(sealed(storage, is_encrypted)))) for _ in range(count)]
        else:
            yield [stack.enter_context(closing(ckpt.open(url, **key))) for _ in range(count)]


@pytest.mark.parametrize("is_encrypted", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_store_that_others_work_on_has_no_problem(
    backend: str, is_encrypted: bool, request: pytest.FixtureRequest
) -> None:
    url = store_url(backend, request)
    with several(url, 3, is_encrypted) as (checker, writer, second):
        fill(writer)
        acts: list[Callable[[], object]] = [Others(writer).all, lambda: second.gc(grace=AT_ONCE)]
        if is_encrypted:
            storage: Any = second.storage
            acts.append(lambda: reseal(storage))
        rounds = 0
        with at_work(*acts) as go_on:
            while go_on() or not rounds:
                assert checker.fsck().problems == []
                assert checker.stats().bytes_reclaimable >= 0
                checker.gc(grace=AT_ONCE, dry_run=True)
                rounds += 1
        assert checker.fsck().problems == []


@pytest.mark.parametrize("is_encrypted", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_damage_is_found_while_others_work(backend: str, is_encrypted: bool, request: pytest.FixtureRequest) -> None:
    url = store_url(backend, request)
    with several(url, 2, is_encrypted) as (checker, writer):
        fill(writer)
        others = Others(writer)
        for _ in range(4):
            others.write()
        lost = index_key(ObjectId(bytes.fromhex(writer.resolve("b~2").id)))
        row = keys.checkpoint_key(writer.timeline("hot").thread.number, "", "001")  # type: ignore[union-attr]
        with at_work(others.write):
            with writer.storage.exclusive() as session:
                session.forget([lost])
            writer.storage.publish(Batch(records={row: None}))
            problems = checker.fsck().problems
        assert {(problem.kind, problem.id) for problem in problems} == {("object", lost.hex()), ("thread", "hot")}

"""Arguments of the wrong kind to the framework-free API: an error that says what and why, and nothing written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ckpt
from ckpt.errors import AlreadyExistsError, CkptError, InvalidInputError
from ckpt.repository import Repository
from ckpt.repository.incoming import NewCheckpoint, Typed

THING = SimpleNamespace()
NO_TEXT: list[Any] = [0, 1.5, True, b"x", [], ["a"], {}, ("a",), THING, object]
NO_MAPPING: list[Any] = [0, 1, "ab", b"x", [1], ["ab"], [("a", 1)], {1}, THING, object]
NO_CHANNELS: list[Any] = [*NO_MAPPING, {1: 2}, {None: 1}, {b"a": 1}, {"a": 1, ("b",): 2}]
NO_LIMIT: list[Any] = ["5", 1.5, 0.0, True, False, float("nan"), float("inf"), [], b"1", THING, -1]
NO_DURATION: list[Any] = ["5", "-1d", "", 5, 5.0, float("nan"), True, [], {}, THING, timedelta(-1), timedelta.max]
NO_INFO: list[Any] = ["t", "@", b"x", 0, {}, ("t",), THING]

Refused = tuple[list[Any], Callable[[Repository, Any], object]]
REFUSED: dict[str, Refused] = {
    "thread": ([None, *NO_TEXT], lambda r, odd: r.thread(odd)),
    "memory": ([None, *NO_TEXT], lambda r, odd: r.memory(odd)),
    "commit: thread": ([None, *NO_TEXT], lambda r, odd: r.commit(odd, {"a": 1})),
    "commit: values": ([None, *NO_CHANNELS], lambda r, odd: r.commit("t", odd)),
    "commit: a value": ([THING, object, iter(())], lambda r, odd: r.commit("t", {"a": odd})),
    "commit: metadata": (NO_MAPPING, lambda r, odd: r.commit("t", {"a": 1}, metadata=odd)),
    "commit: a value of metadata": ([THING, object], lambda r, odd: r.commit("t", {"a": 1}, metadata={"why": odd})),
    "resolve": ([None, *NO_TEXT], lambda r, odd: r.resolve(odd)),
    "resolve: thread": (NO_TEXT, lambda r, odd: r.resolve("@", thread=odd)),
    "resolve: namespace": ([None, *NO_TEXT], lambda r, odd: r.resolve("t", namespace=odd)),
    "state": ([None, *NO_TEXT], lambda r, odd: r.state(odd)),
    "threads": (NO_TEXT, lambda r, odd: r.threads(odd)),
    "log": (NO_TEXT, lambda r, odd: r.log(odd)),
    "log: thread": (NO_TEXT, lambda r, odd: r.log(thread=odd)),
    "log: namespace": ([None, *NO_TEXT], lambda r, odd: r.log(thread="t", namespace=odd)),
    "log: limit": (NO_LIMIT, lambda r, odd: r.log("t", limit=odd)),
    "log: limit of all": (NO_LIMIT, lambda r, odd: r.log(limit=odd)),
    "operations": (NO_LIMIT, lambda r, odd: r.operations(odd)),
    "channels": ([None, *NO_INFO], lambda r, odd: r.channels(odd)),
    "changes": ([None, *NO_INFO], lambda r, odd: r.changes(odd)),
    "writes": ([None, *NO_INFO], lambda r, odd: r.writes(odd)),
    "inert": ([None, *NO_INFO], lambda r, odd: r.inert(odd, "a")),
    "tree": ([None, *NO_INFO], lambda r, odd: r.tree(odd, "a")),
    "tree: channel": ([None, *NO_TEXT], lambda r, odd: r.tree(r.resolve("t"), odd)),
    "diff: old": (NO_INFO[2:], lambda r, odd: r.diff(odd, r.resolve("t"))),
    "diff: new": ([None, *NO_INFO[2:]], lambda r, odd: r.diff(None, odd)),
    "diff: paths": (
        [None, 0, "ab", b"ab", THING, ["ab"], [1], [None], [("a", None)], [("a", 1.5)]],
        lambda r, odd: r.diff(None, r.resolve("t"), paths=odd),
    ),
    "fork": ([None, *NO_TEXT], lambda r, odd: r.fork(odd, "new")),
    "fork: new thread": ([None, *NO_TEXT], lambda r, odd: r.fork("t", odd)),
    "fork: values": (NO_CHANNELS, lambda r, odd: r.fork("t", "new", values=odd)),
    "checkout": ([None, *NO_TEXT], lambda r, odd: r.checkout(odd)),
    "rewind": ([None, *NO_TEXT], lambda r, odd: r.rewind(odd)),
    "rewind: steps": ([None, *NO_TEXT, *NO_LIMIT], lambda r, odd: r.rewind("t", odd)),
    "tag": ([None, *NO_TEXT], lambda r, odd: r.tag(odd, "t")),
    "tag: revision": ([None, *NO_TEXT], lambda r, odd: r.tag("good", odd)),
    "untag": ([None, *NO_TEXT], lambda r, odd: r.untag(odd)),
    "delete": ([None, *NO_TEXT], lambda r, odd: r.delete(odd)),
    "undo": (NO_TEXT, lambda r, odd: r.undo(odd)),
    "prune": (
        [None, 0, "t", b"t", THING, ["t", None], [1], [["t"]]],
        lambda r, odd: r.prune(odd, keep_last=1),
    ),
    "prune: keep_last": ([*NO_LIMIT, 0], lambda r, odd: r.prune(["t"], keep_last=odd)),
    "prune: keep_within": (NO_DURATION, lambda r, odd: r.prune(["t"], keep_within=odd)),
    "expire": ([None, *NO_TEXT], lambda r, odd: r.expire(odd, "1d")),
    "expire: after": (NO_DURATION, lambda r, odd: r.expire("t", odd)),
    "gc": ([None, "5", "-1d", "", 5, 0, True, [], THING, timedelta(-1)], lambda r, odd: r.gc(grace=odd)),
    "put": ([None, *NO_TEXT], lambda r, odd: r.put(odd)),
    "put: header": (
        [Typed("json", "text"), Typed("json", None), Typed(None, b"")],  # type: ignore[arg-type]
        lambda r, odd: r.put(NewCheckpoint("t", "", "9", None, None, odd, Typed("json", b"{}"))),
    ),
    "put_writes": (
        [Typed("json", "text"), Typed("json", None), Typed(None, b"")],  # type: ignore[arg-type]
        lambda r, odd: r.put_writes("t", "", "9", "task", "", [(0, "a", odd)]),
    ),
    "timeline": ([None, *NO_TEXT], lambda r, odd: r.timeline(odd)),
    "read": ([None, *NO_TEXT], lambda r, odd: r.read(odd)),
    "read: namespace": ([None, *NO_TEXT], lambda r, odd: r.read("t", odd)),
    "read: id": (NO_TEXT, lambda r, odd: r.read("t", "", odd)),
    "read_all": ([None, *NO_TEXT], lambda r, odd: list(r.read_all(odd))),
    "read_all: namespace": (NO_TEXT, lambda r, odd: list(r.read_all("t", odd))),
    "read_all: before": (NO_TEXT, lambda r, odd: list(r.read_all("t", before=odd))),
    "copy_thread: source": ([None, *NO_TEXT], lambda r, odd: r.copy_thread(odd, "new")),
    "copy_thread: target": ([None, *NO_TEXT], lambda r, odd: r.copy_thread("t", odd)),
    "delete_thread": ([None, *NO_TEXT], lambda r, odd: r.delete_thread(odd)),
    "Thread.state": ([None, *NO_TEXT], lambda r, odd: r.thread("t").state(odd)),
    "Thread.log": (NO_LIMIT, lambda r, odd: r.thread("t").log(limit=odd)),
    "Thread.fork": ([None, *NO_TEXT], lambda r, odd: r.thread("t").fork(odd)),
    "Thread.rewind": (NO_LIMIT, lambda r, odd: r.thread("t").rewind(odd)),
    "Thread.tag": ([None, *NO_TEXT], lambda r, odd: r.thread("t").tag(odd)),
}

OPTIONS: dict[str, list[Any]] = {
    "url": [None, *NO_TEXT, "", ":memory:", "x://"],
    "graph": [None, *NO_TEXT],
    "actor": [None, *NO_TEXT],
    "max_checkpoint_size": [None, *NO_LIMIT, 0],
    "ttl": [*(each for each in NO_DURATION if each != {}), {"default_ttl": float("inf")}, {"default_ttl": True}],
    "retention": [*NO_DURATION, {"keep_last": 0}, {"keep_last": True}, {"keep_within": 5}, {"keep": 1}],
    "types": [None, 0, "dict", b"x", THING, object, ["dict"], [1], (None,)],
    "encryption_key": [0, 1.5, True, b"x", "", [], {}, THING],
}


@pytest.fixture(params=["memory", "sqlite"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Repository]:
    with ckpt.open("memory://" if request.param == "memory" else tmp_path / "store.db") as repository:
        repository.commit("t", {"a": 1})
        repository.commit("t", {"a": 2})
        yield repository


def refused(call: Callable[[], object]) -> CkptError:
    """Return the error of a call; its message and hints must be for people."""
    with pytest.raises(CkptError) as caught:
        call()
    assert all([caught.value.message, *caught.value.hints])
    return caught.value


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_nothing_is_written(repository: Repository, name: str) -> None:
    before = repository.storage.scan(b"", b"\xff" * 8)
    odds, call = REFUSED[name]
    for odd in odds:
        error = refused(lambda odd=odd: call(repository, odd))  # type: ignore[misc]
        assert isinstance(error, InvalidInputError), (odd, error)
        assert repository.storage.scan(b"", b"\xff" * 8) == before, odd
    assert repository.commit("t", {"a": 3}).step == 2
    assert repository.rewind("t", 2).step == 1
    assert repository.state("t") == {"a": 1}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_refused_when_the_store_is_opened(tmp_path: Path, name: str) -> None:
    for odd in OPTIONS[name]:
        given: dict[str, Any] = {"url": tmp_path / "store.db"} | {name: odd}
        assert isinstance(refused(lambda given=given: ckpt.open(**given)), InvalidInputError), odd  # type: ignore[misc]
        assert list(tmp_path.iterdir()) == [], f"{name}={odd!r} left a store behind"


def test_a_thread_is_no_copy_of_itself(repository: Repository) -> None:
    before = repository.storage.scan(b"", b"\xff" * 8)
    for call in (lambda: repository.copy_thread("t", "t"), lambda: repository.fork("t", "t")):
        with pytest.raises(AlreadyExistsError, match="there is a thread 't' already"):
            call()
    assert repository.storage.scan(b"", b"\xff" * 8) == before


@pytest.mark.parametrize("many", [2**31, 2**63, 10**30])
def test_numbers_beyond_all_counting_mean_as_many_as_there_are(repository: Repository, many: int) -> None:
    assert [info.step for info in repository.log("t", limit=many)] == [1, 0]
    assert [info.step for info in repository.log(limit=many)] == [1, 0]
    assert repository.operations(many) == []
    with ckpt.open("memory://", max_checkpoint_size=many) as other:
        assert other.commit("t", {"a": 1}).step == 0
    with pytest.raises(CkptError, match="starts from a checkpoint with 1 ancestor"):
        repository.rewind("t", many)

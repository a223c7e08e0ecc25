"""Tags: which thread they name, what they protect, and when they go."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from operator import add
from typing import Any

import pytest
from clock_kit import Clock
from hypothesis import given, settings
from hypothesis import strategies as st
from lifetime_kit import Opener
from test_round_trips import Counted

from ckpt.errors import AlreadyExistsError, CkptError, RevisionNotFoundError, ThreadNotFoundError
from ckpt.repository import Repository
from ckpt.repository.infos import CheckpointInfo
from ckpt.repository.prune import keep_last
from ckpt.storage.base import Batch, Storage
from ckpt.storage.memory import MemoryStorage


def test_a_tag_put_on_a_fork_names_the_fork_and_not_its_source(opened: Opener) -> None:
    repository = opened()
    repository.commit("a", {"n": 1})
    repository.fork("a", "b")
    repository.tag("good", "b")
    assert repository.resolve("good").thread == "b"
    assert repository.tags()["good"].thread == "b"
    assert repository.resolve("good", thread="a").thread == "a"
    repository.commit("a", {"n": 2})
    repository.delete("b")
    assert repository.resolve("good").thread == "a"
    repository.undo()
    assert repository.checkout("good").thread == "b"


@pytest.mark.parametrize("ends", ["deleted", "expired", "alive"])
def test_what_a_fork_has_tagged_is_not_pruned_in_its_source(
    opened: Opener, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, repository = Clock(monkeypatch), opened()
    for number in range(4):
        repository.commit("original", {"n": number})
    repository.fork("original", "fork")
    repository.fork("fork", "fork of it")
    repository.tag("good", "@~2", thread="fork of it")
    if ends == "deleted":
        repository.delete("fork of it")
    elif ends == "expired":
        repository.expire("fork of it", "1h")
        clock.after(hours=2)
    # Before the collector has handed the tag down.
    repository.prune(["fork"], keep_last=1)
    report = repository.prune(["original"], keep_last=1)
    assert [len(each.removed) for each in report] == [2]
    if ends == "alive":
        repository.delete("fork of it")
    repository.delete("fork")
    opened(retention="keep_latest").gc(grace="0s")
    assert repository.tags()["good"].thread == "original"
    assert [info.tags for info in repository.log(thread="original")] == [(), ("good",)]
    assert repository.fsck().problems == []


@pytest.mark.parametrize("ends", ["deleted", "expired"])
def test_what_a_thread_that_is_gone_has_tagged_stays_in_its_forks(
    opened: Opener, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, repository = Clock(monkeypatch), opened()
    for number in range(2):
        repository.commit("original", {"n": number})
    repository.tag("good", "original~1")
    for source, fork in (("original", "fork"), ("fork", "fork of it"), ("fork", "another")):
        repository.fork(source, fork)
        repository.commit(fork, {"n": fork})
    # As long as the thread is there that carries it, its forks are pruned as they like.
    assert [len(each.removed) for each in repository.prune(["another"], keep_last=1)] == [3]
    repository.delete("fork")
    if ends == "deleted":
        repository.delete("original")
    else:
        repository.expire("original", "1h")
        clock.after(hours=2)
    assert [len(each.removed) for each in repository.prune(["fork of it"], keep_last=1)] == [2]
    opened(retention="keep_latest").gc(grace="14d")
    assert repository.tags()["good"].thread == "fork of it"
    assert [info.tags for info in repository.log(thread="fork of it")] == [(), ("good",)]
    assert repository.fsck().problems == []


def each_alone(repository: Repository) -> dict[str, CheckpointInfo]:
    """Return what each tag leads to when it is asked for alone, in the order of their names."""
    found: dict[str, CheckpointInfo] = {}
    for name in sorted(repository.tag_names()):
        with suppress(RevisionNotFoundError):
            found[name] = repository.resolve(f"tag:{name}")
    return found


def test_many_tags_cost_what_the_threads_do_that_have_them(opened: Opener) -> None:
    repository = opened()
    for thread in ("a", "b"):
        for number in range(12):
            repository.tag(f"{thread}{number:02}", repository.commit(thread, {"n": number}).spec)
    repository.commit("c", {"n": 1})

    def cost() -> int:
        storage = Counted(repository.storage)
        assert list(Repository(storage).tags()) == repository.tag_names()  # type: ignore[arg-type]
        return len(storage.calls)

    many = cost()
    for name in repository.tag_names()[1:-1]:
        repository.untag(name)
    assert repository.tag_names() == ["a00", "b11"]
    # Of what is as old as the oldest of them, commits are read in one call or another.
    assert many <= cost() + 4
    assert repository.tag_names("b") == ["b11"]
    assert repository.tag_names("c") == []


_NAMES = st.sampled_from("abc")
_ACTS = st.one_of(
    st.tuples(st.sampled_from(["commit", "delete", "expire", "prune"]), _NAMES, st.none()),
    st.tuples(st.sampled_from(["fork", "tag"]), st.builds(add, _NAMES, st.sampled_from(["", "~1", "~2"])), _NAMES),
    st.tuples(st.sampled_from(["untag", "checkout", "gc", "undo", "wait"]), _NAMES, st.none()),
)


@given(acts=st.lists(_ACTS, min_size=10, max_size=40))
@settings(max_examples=300, deadline=None)
def test_what_is_tagged_goes_with_its_threads_alone(acts: list[tuple[str, str, str | None]]) -> None:
    """Tell of a random history that no commit, fork, prune, checkout or collection changes what the tags name."""
    with pytest.MonkeyPatch.context() as patch:
        clock, storage = Clock(patch), MemoryStorage()
        repository, keeps_one = Repository(storage), Repository(storage, retention="keep_latest")
        for number, (act, subject, other) in enumerate(acts):
            before = {name: info.id for name, info in repository.tags().items()}
            with suppress(CkptError):
                if act == "wait":
                    clock.after(hours=2)
                elif act in ("undo", "untag"):
                    repository.undo() if act == "undo" else repository.untag(subject)
                elif act == "gc":
                    keeps_one.gc(grace="0s" if subject == "a" else "14d")
                elif act == "commit":
                    repository.commit(subject, {"n": number})
                elif act == "expire":
                    repository.expire(subject, "1h")
                elif act == "prune":
                    repository.prune([subject], keep_last=1)
                elif act == "checkout":
                    repository.checkout(f"{subject}~1")
                elif act == "delete":
                    repository.delete(subject)
                elif act == "fork":
                    repository.fork(subject, str(other))
                else:
                    repository.tag(str(other), subject)
            tags = repository.tags()
            assert tags == each_alone(repository)
            if act in ("commit", "fork", "prune", "checkout", "gc"):
                assert {name: info.id for name, info in tags.items()} == before
        assert repository.fsck().problems == []


def test_a_tag_is_that_of_a_fork_beside_its_own_where_no_thread_below_shows_what_it_names(opened: Opener) -> None:
    repository = opened()
    for number in range(3):
        repository.commit("original", {"n": number})
    repository.fork("original~1", "fork")
    repository.commit("fork", {"n": 8})
    # That of what the fork shares with its source, which is its base.
    repository.fork("fork~1", "beside")
    repository.commit("beside", {"n": 9})
    repository.prune(["original"], keep_last=1)
    repository.tag("good", "fork~1")
    repository.delete("fork")
    repository.gc(grace="0s")
    assert repository.tags()["good"].thread == "beside"
    opened(retention="keep_latest").gc(grace="0s")
    assert [info.tags for info in repository.log(thread="beside")] == [(), ("good",)]


def test_a_tag_goes_with_the_last_thread_that_shows_what_it_names(opened: Opener) -> None:
    repository = opened()
    repository.commit("original", {"n": 1})
    repository.fork("original", "fork")
    repository.commit("original", {"n": 2})
    repository.prune(["original"], keep_last=1)
    repository.tag("good", "fork")
    repository.delete("fork")
    repository.gc(grace="0s")
    assert repository.tags() == {}
    # Nothing of it is left that would be in the way.
    assert repository.tag("good", "original").tags == ("good",)


def test_a_tag_whose_thread_has_expired_can_be_put_anew(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, repository = Clock(monkeypatch), opened()
    for thread in ("short", "long"):
        repository.commit(thread, {"n": thread})
    repository.tag("good", "short")
    with pytest.raises(AlreadyExistsError):
        repository.tag("good", "long")
    repository.expire("short", "1h")
    clock.after(hours=2)
    repository.tag("good", "long")
    assert repository.tags()["good"].thread == "long"
    # Its fork shows it still.
    repository.commit("base", {"n": 1})
    repository.tag("seen", "base")
    repository.fork("base", "of it")
    repository.expire("base", "1h")
    clock.after(hours=2)
    with pytest.raises(AlreadyExistsError):
        repository.tag("seen", "long")
    assert repository.resolve("tag:seen").thread == "of it"
    # What a fork that has expired shares with its source is there still.
    repository.fork("long", "fork")
    repository.tag("shared", "fork")
    repository.commit("long", {"n": 2})
    repository.expire("fork", "1h")
    clock.after(hours=2)
    with pytest.raises(AlreadyExistsError):
        repository.tag("shared", "long")


def test_what_is_tagged_while_others_remove_it(opened: Opener) -> None:
    """Just before the first change is written, another process prunes, deletes or tags what it is about."""

    def meanwhile(act: Callable[[], object], **options: Any) -> Repository:
        return Repository(Meddled(other.storage, act), **options)  # type: ignore[arg-type]

    other = opened()
    for name in "abcd":
        for number in range(4):
            other.commit(name, {"n": number})
    with pytest.raises(RevisionNotFoundError, match="no longer in thread 'a'"):
        meanwhile(lambda: other.prune(["a"], keep_last=1)).tag("one", "a~2")
    with pytest.raises(ThreadNotFoundError):
        meanwhile(lambda: other.delete("a")).tag("one", "a")
    assert other.tags() == {}
    meanwhile(lambda: other.tag("two", "b~2")).prune(["b"], keep_last=1)
    meanwhile(lambda: other.tag("three", "c~2")).prune_thread("c", keep_last(1))
    meanwhile(lambda: other.tag("four", "d~2"), retention="keep_latest").gc()
    assert {name: info.thread for name, info in other.tags().items()} == {"two": "b", "three": "c", "four": "d"}
    assert {info.name: info.checkpoints for info in other.threads()} == {"b": 2, "c": 2, "d": 2}


class Meddled:
    """A storage of which somebody else changes something just before it changes anything itself."""

    def __init__(self, storage: Storage, act: Callable[[], object]) -> None:
        self._storage = storage
        self._act: Callable[[], object] | None = act

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def publish(self, batch: Batch) -> list[int]:
        act, self._act = self._act, None
        if act is not None:
            act()
        return self._storage.publish(batch)

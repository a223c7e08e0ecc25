"""Tags: which thread they name, what they protect, and when they go."""

from __future__ import annotations

import pytest
from clock_kit import Clock
from lifetime_kit import Opener

from ckpt.errors import AlreadyExistsError


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
    # What a fork that has expired shares with its source is there still.
    repository.fork("long", "fork")
    repository.tag("shared", "fork")
    repository.commit("long", {"n": 2})
    repository.expire("fork", "1h")
    clock.after(hours=2)
    with pytest.raises(AlreadyExistsError):
        repository.tag("shared", "long")

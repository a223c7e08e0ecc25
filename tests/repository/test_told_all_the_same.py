"""What was stored is returned, although the thread expires or is deleted before anybody looks at it again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from clock_kit import Clock
from lifetime_kit import FailingStorage, Opener, ids, put

from ckpt.errors import RevisionNotFoundError, StoreUnavailableError
from ckpt.repository import CheckpointInfo, Repository

ACTS: dict[str, Callable[[Repository], CheckpointInfo]] = {
    "commit": lambda repository: repository.commit("t", {"a": 3}),
    "rewind": lambda repository: repository.rewind("t"),
    "checkout": lambda repository: repository.checkout("t~1"),
    "fork": lambda repository: repository.fork("t", "f"),
}


@pytest.mark.parametrize("act", [*ACTS, "fork with values"])
def test_a_store_that_goes_away_afterwards_does_not_hide_that_it_was_done(opened: Opener, act: str) -> None:
    other = opened()
    other.commit("t", {"a": 1})
    other.commit("t", {"a": 2})
    storage = FailingStorage(other.storage)
    repository = Repository(storage)
    published: list[bool] = []

    def away(method: str, arguments: tuple[Any, ...]) -> bool:
        if method == "publish":
            published.append(True)
            return False
        return bool(published)

    storage.fails = away
    done = "thread 'f' was made" if "fork" in act else "was stored in thread 't'"
    with pytest.raises(StoreUnavailableError, match=f"{done}.*disk is on fire") as caught:
        ACTS[act](repository) if act in ACTS else repository.fork("t", "f", values={"a": 9})
    assert "again" in caught.value.hints[0]
    assert published == [True]
    assert len(other.log(thread="t")) == (2 if "fork" in act else 3)
    assert other.thread_names() == (["f", "t"] if "fork" in act else ["t"])
    assert ("values" in str(caught.value)) is (act == "fork with values")


@pytest.mark.parametrize("gone", ["expired", "deleted"])
@pytest.mark.parametrize("act", ACTS)
def test_it_is_told_what_was_stored(opened: Opener, time: Clock, act: str, gone: str) -> None:
    other = opened(ttl=timedelta(days=1))
    other.commit("t", {"a": 1})
    other.commit("t", {"a": 2})
    storage = FailingStorage(other.storage)
    repository = Repository(storage, ttl=timedelta(days=1))
    published: list[bool] = []
    thread = "f" if act == "fork" else "t"

    def meanwhile(method: str, arguments: tuple[Any, ...]) -> bool:
        if method == "publish":
            published.append(True)
        elif published == [True]:
            published.append(False)
            if gone == "expired":
                time.after(days=2)
            else:
                other.delete(thread)
        return False

    storage.fails = meanwhile
    made = ACTS[act](repository)
    assert len(published) > 1
    assert (made.thread, made.is_current, made.step) == (thread, True, 2 if act == "commit" else 1)
    assert repository.channels(made)[0].name == "a"
    assert thread not in [info.name for info in opened().threads()]
    if gone == "deleted":
        other.undo()
        assert opened().resolve(thread).id == made.id


def test_a_checkout_does_not_reach_into_a_thread_begun_anew_with_the_same_ids(opened: Opener) -> None:
    other = opened()
    for number in range(8):
        put(other, "t", f"{number}", namespace="sub")
    put(other, "t", "2")
    put(other, "t", "4", "2")
    storage = FailingStorage(other.storage)
    repository = Repository(storage)
    published: list[bool] = []

    def meanwhile(method: str, arguments: tuple[Any, ...]) -> bool:
        if method == "publish" and not published:
            published.append(True)
            other.delete("t")
            put(other, "t", "2")
            put(other, "t", "3", namespace="sub")
            put(other, "t", "4", "2")
        return False

    storage.fails = meanwhile
    with pytest.raises(RevisionNotFoundError, match="no longer in thread 't'"):
        repository.checkout("t~1")
    assert published == [True]
    again = opened()
    assert (ids(again, "t"), ids(again, "t", "sub")) == (["4", "2"], ["3"])
    assert again.fsck().problems == []

"""What was stored is returned, although the thread expires or is deleted before anybody looks at it again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from clock_kit import Clock
from lifetime_kit import FailingStorage, Opener

from ckpt.repository import CheckpointInfo, Repository

ACTS: dict[str, Callable[[Repository], CheckpointInfo]] = {
    "commit": lambda repository: repository.commit("t", {"a": 3}),
    "rewind": lambda repository: repository.rewind("t"),
    "checkout": lambda repository: repository.checkout("t~1"),
    "fork": lambda repository: repository.fork("t", "f"),
}


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

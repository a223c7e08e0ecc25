"""Lifetimes: an expired thread is absent at once, a run under way is not cut off, and nothing stays behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import ckpt
from ckpt.errors import NotFoundError
from ckpt.history import clock
from ckpt.repository import Repository

NOW = 1_800_000_000_000


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now

    def after(self, **parts: float) -> None:
        self.now += timedelta(**parts) // timedelta(milliseconds=1)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr(clock, "now_ms", moved)
    return moved


Opener = Callable[..., Repository]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    repositories: list[Repository] = []

    def opened(**options: Any) -> Repository:
        repositories.append(ckpt.open(tmp_path / "store.db", **options))
        return repositories[-1]

    yield opened
    for repository in repositories:
        repository.close()


def test_an_expired_thread_reads_as_absent_at_once(opened: Opener, time: Clock) -> None:
    repository, other = opened(ttl="30d"), opened()
    repository.thread("t").commit({"n": 1})
    other.thread("kept").commit({"n": 2})
    time.after(days=30, milliseconds=-1)
    assert repository.thread("t").state() == other.thread("t").state() == {"n": 1}
    assert other.threads("t")[0].expires == datetime.fromtimestamp(NOW / 1000, UTC) + timedelta(days=30)
    time.after(milliseconds=1)
    for each in (repository, other):
        assert each.thread_names() == ["kept"]
        assert each.read("t") is None
        assert [info.name for info in each.threads()] == ["kept"]
        with pytest.raises(NotFoundError):
            each.fork("t@", "new")


def test_a_write_renews_and_a_read_does_when_asked(opened: Opener, time: Clock) -> None:
    plain, reading = opened(ttl="10d"), opened(ttl={"default_ttl": 10 * 24 * 60, "refresh_on_read": True})
    plain.thread("written").commit({"n": 1})
    plain.thread("read").commit({"n": 1})
    for _ in range(3):
        time.after(days=9)
        plain.thread("written").commit({"n": 2})
        assert plain.thread("written").state() == {"n": 2}
        assert reading.thread("read").state() == {"n": 1}
    time.after(days=9)
    assert plain.thread("read").state() == {"n": 1}
    time.after(days=1)
    assert plain.thread_names() == []


def test_a_new_run_on_the_name_of_an_expired_thread_starts_anew(opened: Opener, time: Clock) -> None:
    repository, other = opened(ttl="1h"), opened(ttl="1h")
    repository.thread("t").commit({"n": 1})
    time.after(hours=2)
    other.thread("t").commit({"n": 2})
    assert [info.checkpoint_id for info in repository.thread("t").log()] == [other.thread("t").log()[0].checkpoint_id]
    assert repository.thread("t").state() == {"n": 2}
    repository.gc(grace=timedelta(0))
    assert other.thread("t").state() == {"n": 2}
    assert repository.fsck().problems == []


def test_after_collection_nothing_of_an_expired_thread_remains(opened: Opener, time: Clock) -> None:
    repository = opened(ttl="1h")
    repository.thread("other").commit({"n": 1})
    repository.expire("other", None)
    kept = repository.storage.scan(b"", b"\xff")
    text = "a text of its own, which is long enough to be an object " * 9
    for turn in range(4):
        repository.thread("t").commit({"text": f"{text}{turn}"})
    assert len(repository.storage.scan(b"", b"\xff")) == len(kept) + 7
    time.after(hours=1)
    assert repository.gc(grace=timedelta(0), dry_run=True).threads_removed == 1
    assert repository.gc(grace=timedelta(0)).threads_removed == 1
    left = dict(repository.storage.scan(b"", b"\xff"))
    counters = {b"c", *(key for key in left if key.startswith(b"d"))}
    assert left.keys() - counters == dict(kept).keys() - counters
    assert repository.stats().objects == 1
    assert repository.fsck().problems == []
    assert repository.thread("other").state() == {"n": 1}

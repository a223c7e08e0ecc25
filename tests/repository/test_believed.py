"""What a writer believes to be stored is: not what it failed to store, and not what was removed meanwhile."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest
from lifetime_kit import Opener

from ckpt.errors import StoreUnavailableError
from ckpt.objects.store import ObjectStore
from ckpt.repository.incoming import Channel, NewCheckpoint, Typed
from ckpt.repository.repository import Repository
from ckpt.storage.base import Batch

NOTHING = Typed("msgpack", b"\x80")


def value(seed: int, size: int = 2000) -> Typed:
    return Typed("bytes", random.Random(seed).randbytes(size))


def put(repository: Repository, thread: str, number: int, held: Typed, *, kept: bool = False) -> None:
    """Put a checkpoint behind the one before; with `kept` the value is said to be the parent's."""
    channel = Channel(lambda: held, (lambda parent: True) if kept else None)
    parent = f"{number - 1:02}" if number else None
    repository.put(NewCheckpoint(thread, "", f"{number:02}", parent, None, NOTHING, NOTHING, {"a": channel}))


def held(repository: Repository, thread: str, number: int) -> bytes | None:
    stored = repository.read(thread, "", f"{number:02}")
    return repository.load([stored.commit.channels["a"]])[0] if stored is not None else None


def at_next_publish(repository: Repository, act: Callable[[Callable[[Batch], list[int]], Batch], list[int]]) -> None:
    """Have `act` called in place of the next publish, which it is given."""
    storage = repository._core.storage
    publish = storage.publish

    def once(batch: Batch) -> list[int]:
        storage.publish = publish  # type: ignore[method-assign]
        return act(publish, batch)

    storage.publish = once  # type: ignore[method-assign]


@pytest.mark.parametrize("error", [StoreUnavailableError("gone"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_what_could_not_be_put_is_nobodys_parent(opened: Opener, error: BaseException) -> None:
    repository = opened()

    def fail(_publish: Callable[[Batch], list[int]], batch: Batch) -> list[int]:
        if batch.meanwhile is not None:
            batch.meanwhile()
        raise error

    put(repository, "t", 0, value(0))
    at_next_publish(repository, fail)
    with pytest.raises(type(error)):
        put(repository, "t", 1, value(1))
    assert held(repository, "t", 1) is None
    put(repository, "t", 2, value(1), kept=True)
    for each in (repository, opened()):
        assert held(each, "t", 2) == value(1).data
        assert held(each, "t", 1) is None
        assert each.fsck().problems == []


def test_an_interrupt_after_a_put_was_stored_spoils_no_later_one(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the thread's packs it was that the put appended to."""
    repository = opened()
    stored = ObjectStore.stored

    def interrupted(*_: object) -> None:
        monkeypatch.setattr(ObjectStore, "stored", stored)
        raise KeyboardInterrupt

    last = 0
    for number in range(40):
        last = number if number % 5 in (0, 3) else last
        if number % 4 == 3:
            monkeypatch.setattr(ObjectStore, "stored", interrupted)
            with pytest.raises(KeyboardInterrupt):
                put(repository, "t", number, value(last), kept=number != last)
        else:
            put(repository, "t", number, value(last), kept=number != last)
    fresh = opened()
    for number in range(40):
        expected = max(each for each in range(number + 1) if each % 5 in (0, 3))
        assert held(fresh, "t", number) == value(expected).data
    assert fresh.fsck().problems == []


def test_what_was_removed_before_a_put_has_returned_is_stored_again(opened: Opener) -> None:
    """Another process deletes the thread and collects; a call of this one sees it before the put takes note."""
    repository, other = opened(), opened()
    put(repository, "z", 0, NOTHING)

    def removed(publish: Callable[[Batch], list[int]], batch: Batch) -> list[int]:
        numbers = publish(batch)
        other.delete_thread("t")
        assert other.gc(grace="0s").objects_removed
        noticing = threading.Thread(target=put, args=(repository, "z", 1, NOTHING))
        noticing.start()
        noticing.join()
        return numbers

    shared = Typed("msgpack", b"\xdc\x01\x00" + b"".join(b"\xc4\x40" + value(seed, 64).data for seed in range(256)))
    at_next_publish(repository, removed)
    put(repository, "t", 0, shared)
    put(repository, "u", 0, shared)
    fresh = opened()
    assert held(fresh, "u", 0) == shared.data
    assert fresh.fsck().problems == []


def test_who_writes_to_one_thread_waits_for_no_other(opened: Opener) -> None:
    repository = opened()
    others = [f"other-{number}" for number in range(300)]

    def beside(publish: Callable[[Batch], list[int]], batch: Batch) -> list[int]:
        writing = threading.Thread(target=lambda: [put(repository, name, 0, NOTHING) for name in others], daemon=True)
        writing.start()
        writing.join(60)
        assert not writing.is_alive()
        return publish(batch)

    at_next_publish(repository, beside)
    put(repository, "t", 0, NOTHING)
    assert {info.name for info in repository.threads()} == {"t", *others}


@pytest.mark.parametrize("how", ["undo", "delete", "delete_thread"])
def test_a_fork_under_a_name_that_was_free_and_taken_and_free_again_is_written_to(opened: Opener, how: str) -> None:
    repository = opened()
    for number in range(2):
        repository.commit("t", {"n": number})
    repository.fork("t", "f")
    getattr(repository, how)(*([] if how == "undo" else ["f"]))
    repository.fork("t", "f", values={"n": 5})
    assert repository.state("f") == {"n": 5}
    repository.commit("f", {"n": 6})
    assert [info.step for info in repository.log(thread="f")] == [3, 2, 1, 0]


def test_a_name_that_was_free_when_it_was_looked_for_is_looked_for_again(opened: Opener) -> None:
    repository, other = opened(), opened()
    assert held(repository, "t", 0) is None
    for number in range(2):
        put(other, "t", number, NOTHING)
    assert held(repository, "t", 1) == NOTHING.data
    put(other, "t", 2, NOTHING)
    repository.checkout('ckpt:"00"', thread="t")
    assert other.read("t", "", "02") is not None

"""A write that fails leaves a memory as it was; one whose answer is lost may have happened, whole."""

from __future__ import annotations

import pytest

from ckpt.errors import StoreUnavailableError
from ckpt.repository import Put, Repository
from ckpt.storage.base import Batch, RecordChangedError
from ckpt.storage.memory import MemoryStorage

ANA = ("users", "ana")
LONG = "a text that is long enough to be an object of its own, so that it can be shared: " * 3


class Failing(MemoryStorage):
    """Fails the n-th publish from now on, before or after applying it."""

    def __init__(self) -> None:
        super().__init__()
        self.countdown = -1
        self.lost_answer = False
        self.race = False

    def publish(self, batch: Batch) -> list[int]:
        self.countdown -= 1
        if self.countdown == 0:
            if self.race:
                raise RecordChangedError(dict.fromkeys(batch.expected))
            if self.lost_answer:
                super().publish(batch)
            raise StoreUnavailableError("it does not answer")
        return super().publish(batch)


def state(repository: Repository) -> dict[str, object]:
    return {item.key: item.value["n"] for item in repository.memory().items(ANA)}


@pytest.mark.parametrize("lost_answer", [False, True])
def test_a_batch_happens_whole_or_not_at_all(lost_answer: bool) -> None:
    storage = Failing()
    repository = Repository(storage)
    memory = repository.memory()
    memory.put(ANA, "old", {"n": 1, "text": LONG})
    for turn in range(2, 12):
        before = state(repository)
        storage.countdown, storage.lost_answer = 1, lost_answer
        changes = [Put(ANA, f"{turn}", {"n": turn, "text": f"{turn} {LONG}"}), Put(ANA, "old", {"n": turn})]
        with pytest.raises(StoreUnavailableError):
            memory.apply(changes)
        after = before | {"old": turn, f"{turn}": turn} if lost_answer else before
        assert state(repository) == state(Repository(storage)) == after
        # Done again it is the same, whether it happened before or not.
        memory.apply(changes)
        assert state(repository) == before | {"old": turn, f"{turn}": turn}
        assert len(memory.history(ANA, f"{turn}")) == (2 if lost_answer else 1)
    assert repository.fsck().problems == []


def test_a_lost_race_is_run_again() -> None:
    storage = Failing()
    repository = Repository(storage)
    memory = repository.memory()
    for turn in range(5):
        storage.countdown, storage.race = 1, True
        memory.put(ANA, "k", {"n": turn, "text": f"{turn} {LONG}"})
        storage.countdown, storage.race = 1, True
        memory.fork(f"fork {turn}")
    assert [version.value["n"] for version in memory.history(ANA, "k") if version.value] == [4, 3, 2, 1, 0]
    assert repository.memories() == ["default", *(f"fork {turn}" for turn in range(5))]
    assert repository.fsck().problems == []


def test_forgetting_can_stop_between_any_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckpt.repository.memory_forget._PAGE", 3)
    for step in range(1, 8):
        storage = Failing()
        repository = Repository(storage)
        memory = repository.memory()
        for number in range(10):
            memory.put(("n", f"{number % 3}"), f"{number}", {"n": number})
            memory.put(("n", f"{number % 3}"), f"{number}", {"n": -number})
            if number % 2:
                memory.delete(("n", f"{number % 3}"), f"{number}")
        before = {item.key: item.value for item in memory.items()}
        moment = memory.moment
        storage.countdown = step
        try:
            memory.prune(moment)
        except StoreUnavailableError:
            assert step <= 4
        else:
            assert step > 4
        assert {item.key: item.value for item in memory.items()} == before
        assert repository.fsck().problems == []
        memory.prune(moment)
        assert sum(len(memory.history(("n", f"{number % 3}"), f"{number}")) for number in range(10)) == 5
        assert {item.key: item.value for item in Repository(storage).memory().items()} == before

"""Random changes, reads, forks, prunes and collections on memories, against a model that keeps every state in full."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ckpt.repository import Put, Repository, remove_short
from ckpt.storage.memory import MemoryStorage

Place = tuple[tuple[str, ...], str]
Contents = dict[Place, dict[str, Any]]
PLACES: list[Place] = [(("a",), "k"), (("a", "b"), "k"), (("a",), "l"), ((), "k")]
NAMES = ["m", "n", "o", "p"]
TTL = timedelta(days=1)
TEXT = "a text that is long enough to be an object of its own, so that it can be shared: " * 3


@dataclass
class Told:
    """All states of one memory by their moments, and the versions of each item, oldest first."""

    states: list[tuple[int, Contents]] = field(default_factory=list)
    versions: dict[Place, list[tuple[int, dict[str, Any] | None]]] = field(default_factory=dict)
    pruned: int = 0
    """The moment before which nothing is told any more."""

    @property
    def now(self) -> Contents:
        return self.states[-1][1] if self.states else {}

    def until(self, moment: int) -> Told:
        return Told(
            [state for state in self.states if state[0] <= moment],
            {
                place: kept
                for place, versions in self.versions.items()
                if (kept := [version for version in versions if version[0] <= moment])
            },
            self.pruned,
        )


class MemoryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.storage = MemoryStorage()
        self.repository = Repository(self.storage, graph="g")
        self.told: dict[str, Told] = {}
        self.count = 0

    @initialize()
    def begins(self) -> None:
        """Puts everything once, as nothing is to be read, forked or pruned without."""
        self.changes(NAMES[0], [(place, False, 2) for place in PLACES])

    @rule(
        name=st.sampled_from(NAMES),
        places=st.lists(st.tuples(st.sampled_from(PLACES), st.booleans(), st.integers(1, 4)), min_size=1, max_size=3),
    )
    def changes(self, name: str, places: list[tuple[Place, bool, int]]) -> None:
        memory = self.repository.memory(name)
        told = self.told.get(name, Told())
        after = dict(told.now)
        puts: list[Put] = []
        for place, deleted, length in places:
            self.count += 1
            value = None if deleted else {"n": self.count, "text": f"{self.count} {TEXT[: 80 * length]}"}
            puts.append(Put(*place, value, TTL if self.count % 2 and value else None))
        last = {(put.namespace, put.key): put for put in puts}
        changed = {place: put for place, put in last.items() if put.value is not None or place in after}
        memory.apply(puts)
        if not changed:
            return
        for place, put in changed.items():
            if put.value is None:
                del after[place]
            else:
                after[place] = dict(put.value)
            told.versions.setdefault(place, []).append((memory.moment, after.get(place)))
        told.states.append((memory.moment, after))
        self.told[name] = told

    @precondition(lambda self: self.told)
    @rule(data=st.data(), places=st.lists(st.sampled_from(PLACES), min_size=1, unique=True))
    def reads(self, data: st.DataObject, places: list[Place]) -> None:
        """Renews what it reads, long after it was put."""
        memory = self.repository.memory(data.draw(st.sampled_from(sorted(self.told))))
        entries, _ = memory.read(places)
        self.count += 1
        later = time.time_ns() // 1000 + self.count * (TTL / 50) // timedelta(microseconds=1)
        memory._memories.writer.renew(memory.name, [entry for entry in entries if entry is not None], later)

    @rule(data=st.data(), new=st.sampled_from(NAMES))
    def forks(self, data: st.DataObject, new: str) -> None:
        if not self.told or new in self.told:
            return
        name = data.draw(st.sampled_from(sorted(self.told)))
        told = self.told[name]
        known = [moment for moment, _ in told.states if moment >= told.pruned]
        moment = data.draw(st.sampled_from(known)) if known else self.repository.memory(name).moment
        self.repository.memory(name).fork(new, as_of=moment)
        self.told[new] = told.until(moment)

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def drops(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.told)))
        assert self.repository.memory(name).drop()
        del self.told[name]

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def prunes(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.told)))
        told = self.told[name]
        if not told.states:
            return
        moment = data.draw(st.sampled_from([moment for moment, _ in told.states]))
        self.repository.memory(name).prune(moment)
        for other in self.told.values():
            if other is told or {at for at, _ in other.states} & {at for at, _ in told.states}:
                # What both have of an older history is forgotten for both.
                other.pruned = max(other.pruned, moment)

    @rule(one_by_one=st.booleans())
    def collects(self, one_by_one: bool) -> None:
        with pytest.MonkeyPatch.context() as patch:
            if one_by_one:
                patch.setattr(remove_short, "ROWS_MAX", -1)
            Repository(self.storage).gc(grace=timedelta(0))

    @rule()
    def opens_again(self) -> None:
        self.repository = Repository(self.storage, graph="g")

    @invariant()
    def agrees(self) -> None:
        assert self.repository.memories() == sorted(self.told)
        for name, told in self.told.items():
            memory = self.repository.memory(name)
            assert {(item.namespace, item.key): item.value for item in memory.items()} == told.now
            assert memory.namespaces() == sorted({namespace for namespace, _ in told.now})
            for moment, state in told.states:
                found = {(item.namespace, item.key): item.value for item in memory.items(as_of=moment)}
                if moment >= told.pruned:
                    assert found == state, (name, moment)
                # What was forgotten is absent, and nothing else is there instead.
                assert found == {place: state.get(place) for place in found}, (name, moment)
            for place in PLACES:
                item = memory.get(*place)
                assert (item.value if item is not None else None) == told.now.get(place)
                versions = told.versions.get(place, [])
                history = [(version.moment, version.value) for version in memory.history(*place)][::-1]
                counted = max((moment for moment, _ in versions if moment <= told.pruned), default=0)
                # In a fork an absence is left of what was forgotten, before which the base tells.
                forgotten = {(moment, None) for moment, _ in versions if moment < counted} - {*map(_hashable, versions)}
                history = [each for each in history if _hashable(each) not in forgotten]
                # Pruning may keep more, where a fork sees it; never less, and nothing else.
                assert [each for each in versions if each in history] == history
                needed = [each for each in versions if each[0] >= counted]
                if needed and needed[0][1] is None and needed[0][0] <= told.pruned:
                    needed = needed[1:]
                assert [each for each in needed if each not in history] == []

    def teardown(self) -> None:
        assert self.repository.fsck().problems == []


def _hashable(version: tuple[int, dict[str, Any] | None]) -> tuple[int, int | None]:
    moment, value = version
    return moment, value["n"] if value is not None else None


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)

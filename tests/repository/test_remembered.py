"""A process that stays open while others act on its threads: what it remembers of them is old."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from lifetime_kit import Opener

from ckpt.repository.incoming import NewCheckpoint, Typed
from ckpt.repository.repository import Repository
from ckpt.storage.memory import MemoryStorage

NOTHING = Typed("msgpack", b"\x80")
TURNS = 4

Act = Callable[[Repository], object]


def turn(repository: Repository, number: int) -> None:
    """Put a checkpoint on the head of each namespace, as a run of a graph with a subgraph that remembers does."""
    for place, namespace in enumerate(("", "sub")):
        head = repository.read("t", namespace)
        parent = head.checkpoint_id if head is not None else None
        repository.put(NewCheckpoint("t", namespace, f"{number}{place}", parent, None, NOTHING, NOTHING))


def test_two_who_store_the_same_checkpoint_store_one(opened: Opener) -> None:
    """As two servers do to which a client sent the same request: the second knows nothing of the first's commit."""
    with opened() as one, opened() as two:
        for repository in (one, two, one):
            for number in range(TURNS):
                parent = f"{number - 1}" if number else None
                repository.put(NewCheckpoint("t", "", f"{number}", parent, "then", NOTHING, NOTHING))
        found = [each.read("t", "", "2") for each in (one, two)]
        assert found[0] == found[1] is not None
        assert two.fsck().problems == one.fsck().problems == []
        one.gc(grace="0s")
        assert two.read("t", "", "2") == found[0]
        assert [info.checkpoint_id for info in two.thread("t").log()] == ["3", "2", "1", "0"]
        assert two.fsck().problems == []


def keep_one(repository: Repository) -> None:
    repository.prune(["t"], keep_last=1)


@pytest.mark.parametrize(
    "acts",
    [
        [lambda other: other.rewind("t", 2), keep_one],
        [keep_one, lambda other: other.undo()],
        [lambda other: other.rewind("t", 2), keep_one, lambda other: other.undo()],
        [lambda other: other.rewind("t", 2), lambda other: other.gc(grace="0s")],
    ],
    ids=["rewind, prune", "prune, undo", "rewind, prune, undo", "rewind, gc"],
)
def test_a_run_goes_on_after_what_others_did(acts: list[Act]) -> None:
    storage = MemoryStorage()
    with Repository(storage) as server, Repository(storage) as operator:
        for number in range(TURNS):
            turn(server, number)
        for act in acts:
            act(operator)
        turn(server, TURNS)
        heads = {namespace: server.read("t", namespace) for namespace in ("", "sub")}
        assert [head and head.checkpoint_id for head in heads.values()] == [f"{TURNS}0", f"{TURNS}1"]
        assert server.fsck().problems == []

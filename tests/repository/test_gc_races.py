"""Collecting while others write: what is published at the worst moment is there afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import ckpt
from ckpt.objects.frames import encode_frame
from ckpt.objects.ids import ObjectId, index_key, object_id
from ckpt.objects.packs import PackStream, unpack
from ckpt.repository import gc
from ckpt.repository.incoming import NewCheckpoint, Typed
from ckpt.repository.mark import Packs
from ckpt.repository.repository import Repository
from ckpt.storage.base import Batch, Frame

NOTHING = Typed("msgpack", b"\x80")
TEXT = "a line of some length that is worth an object of its own, and then some more of it " * 4 + "{}"


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with ckpt.open(tmp_path / "store.db") as repository:
        yield repository


@pytest.fixture
def other(repository: Repository, tmp_path: Path) -> Iterator[Repository]:
    with ckpt.open(tmp_path / "store.db") as other:
        yield other


def test_a_pack_that_grows_while_it_is_rewritten_is_kept(
    repository: Repository, other: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = other.thread("t")
    for turn in range(3):
        thread.commit({"text": TEXT.format(turn)})
    packed = gc._packed

    def slowly(*args: Any) -> Any:
        # The writer goes on with its open pack between the collector's reading and its writing.
        thread.commit({"text": TEXT.format("late")})
        return packed(*args)

    monkeypatch.setattr(gc, "_packed", slowly)
    repository.gc(grace=timedelta(0))
    monkeypatch.undo()
    with ckpt.open(repository.storage.url) as fresh:
        assert fresh.thread("t").state() == {"text": TEXT.format("late")}
        assert [fresh.state(info.id) for info in fresh.thread("t").log()][-1] == {"text": TEXT.format(0)}
    assert repository.fsck().problems == []


def test_packs_that_begin_alike_are_collected_together(repository: Repository, other: Repository) -> None:
    states: dict[str, list[dict[str, str]]] = {}
    for number in range(12):
        states[f"t{number}"] = [{"text": TEXT.format(f"{number}/{turn}"), "own": f"{number}"} for turn in range(4)]
        for state in states[f"t{number}"]:
            repository.thread(f"t{number}").commit(state)
    packs = Packs().look(repository.storage).all
    assert [pack.base for pack in packs].count(0) == 2 < len(packs)  # one for commits, one for content
    assert sum(pack.branches for pack in packs) == len(packs) - 2
    assert repository.fsck().problems == []
    for number in range(0, 12, 2):
        repository.delete_thread(f"t{number}")
    repository.gc(grace=timedelta(0))
    left = Packs().look(repository.storage).all
    assert all(pack.base == 0 and len(pack.frames) == 1 for pack in left)
    assert other.fsck().problems == [] == repository.fsck().problems
    for number in range(1, 12, 2):
        found = [other.state(info.id) for info in other.thread(f"t{number}").log()]
        assert found == states[f"t{number}"][::-1]


def test_a_branch_is_kept_when_its_rewriting_is_put_off(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        for turn in range(4):
            repository.thread(f"t{number}").commit({"text": TEXT.format(f"{number}/{turn}")})
    monkeypatch.setattr(gc, "_STEP_SIZE", 1)  # one pack a step
    steps: list[object] = []
    still = gc._still

    def sometimes(*args: Any) -> bool:
        steps.append(args)
        return len(steps) % 3 != 0 and still(*args)

    monkeypatch.setattr(gc, "_still", sometimes)
    repository.gc(grace=timedelta(0))
    assert repository.fsck().problems == []
    monkeypatch.undo()
    repository.gc(grace=timedelta(0))
    assert repository.fsck().problems == []
    assert {pack.base for pack in Packs().look(repository.storage).all} == {0}
    for number in range(8):
        assert repository.thread(f"t{number}").state() == {"text": TEXT.format(f"{number}/3")}


def test_an_object_that_stands_in_two_frames_is_kept_where_the_index_finds_it(repository: Repository) -> None:
    """Two writers who did not know of each other stored it twice; the index names the first copy."""
    repository.thread("t").commit({"text": TEXT.format("twice")})
    (oid,) = [key for key, _ in repository.storage.scan_index(b"", 10) if key != _commit_key(repository)]
    last = repository.storage.scan_frames(0, 10)[-1][0]
    stored = unpack(repository.storage.load([last]), last)[last].objects()
    for frame in Packs().look(repository.storage).of:
        opened = unpack(repository.storage.load([frame]), frame)[frame]
        stored += [obj for obj in opened.objects() if obj not in stored]
    again = PackStream().append(encode_frame(stored))
    repository.storage.publish(Batch(frames=[Frame(0, again, tuple(index_key(object_id(*obj)) for obj in stored))]))
    place = repository.storage.locate([oid])[oid]
    assert place.frame <= last
    repository.gc(grace=timedelta(0))
    assert repository.fsck().problems == []
    with ckpt.open(repository.storage.url) as fresh:
        assert fresh.thread("t").state() == {"text": TEXT.format("twice")}


def _commit_key(repository: Repository) -> bytes:
    return index_key(ObjectId(bytes.fromhex(repository.thread("t").log()[0].id)))


def test_a_writer_who_remembers_a_fork_that_was_collected_with_its_base(
    repository: Repository, other: Repository
) -> None:
    other.thread("base").commit({"n": 1})
    other.copy_thread("base", "fork")
    other.thread("fork").commit({"n": 2})
    repository.delete_thread("base")
    repository.delete_thread("fork")
    repository.gc(grace=timedelta(0))
    new = NewCheckpoint("fork", "sub", "99", None, None, NOTHING, NOTHING)
    other.put(new)
    found = repository.read("fork", "sub")
    assert found is not None
    assert found.checkpoint_id == "99"

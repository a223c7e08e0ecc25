"""Reads, prunes and undos of several steps while a collector passes or somebody else is faster; and its report."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from lifetime_kit import Opener

from ckpt.errors import ConflictError
from ckpt.history.commits import Commit
from ckpt.langgraph.history import delta_history
from ckpt.repository import mark
from ckpt.repository.core import Core
from ckpt.repository.incoming import Channel, NewCheckpoint, Typed
from ckpt.repository.mark import Marker, Packs
from ckpt.repository.plan import Reason
from ckpt.repository.prune import keep_last
from ckpt.repository.repository import Repository
from ckpt.repository.stretches import Found
from ckpt.storage.base import Batch, Frame
from ckpt.storage.memory import _Tables

TEXT = "a line of some length that is worth an object of its own, and then some more of it " * 8 + "{}"


class Bytes:
    """A serializer that shows what was stored."""

    def loads_typed(self, data: tuple[str, bytes]) -> bytes:
        return data[1]


def fill(repository: Repository, turns: int = 4, *, written: bool = True) -> None:
    for turn in range(turns):
        channels = {"seed": Channel(lambda: Typed("text", TEXT.format("seed").encode()))} if not turn else {}
        repository.put(
            NewCheckpoint(
                "t", "", f"c{turn}", f"c{turn - 1}" if turn else None, None, Typed("text", b""),
                Typed("text", (10 * TEXT).format(*[f"run {turn}"] * 10).encode()), channels,
            )
        )  # fmt: skip
        if written:
            repository.put_writes(
                "t", "", f"c{turn}", "task", "", [(0, "seed", Typed("text", TEXT.format(turn).encode()))]
            )


def once(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], object]) -> list[int]:
    """Have `act` run right before the next call of a method of `Core`; return a list that counts the calls."""
    method = getattr(Core, name)
    calls: list[int] = []

    def interrupted(self: Core, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            act()
        return method(self, *args)

    monkeypatch.setattr(Core, name, interrupted)
    return calls


def test_a_delta_channel_is_rebuilt_of_what_is_there(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(opened())
    reader, other = opened(), opened()

    def history() -> Any:
        return delta_history(reader, Bytes(), "t", "", "c3", ["seed"])  # type: ignore[arg-type]

    assert history()["seed"]["seed"] == TEXT.format("seed").encode()
    assert [value for _, _, value in history()["seed"]["writes"]] == [TEXT.format(turn).encode() for turn in range(3)]

    def gone() -> None:
        other.delete_thread("t")
        other.gc(grace=timedelta(0))

    reader = opened()
    once(monkeypatch, "value_bytes", gone)
    assert history() == {"seed": {"writes": []}}


def test_a_prune_that_reads_what_was_just_removed_begins_again(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(opened(), written=False)
    other, repository = opened(), opened()

    def smaller() -> None:
        other.prune_thread("t", keep_last(1))
        other.gc(grace=timedelta(0))

    def keep(namespace: str, rows: list[tuple[Found, Commit]], head: str | None) -> dict[str, list[Reason]]:
        repository.load([commit.metadata for _, commit in rows])
        return {found.checkpoint_id: ["last"] for found, _ in rows}

    once(monkeypatch, "value_bytes", smaller)
    assert repository.prune_thread("t", keep).removed == ()
    assert [found.checkpoint_id for found in repository.read_all("t")] == ["c3"]


def test_of_two_undos_at_once_the_second_says_so_at_once(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(opened())
    repository, other = opened(), opened()
    repository.prune(["t"], keep_last=1)
    calls = once(monkeypatch, "consistently", other.undo)
    with pytest.raises(ConflictError, match="it is undone already"):
        repository.undo()
    assert len(calls) < 20
    assert len(list(opened().read_all("t"))) == 4
    assert [operation.kind for operation in repository.operations()] == ["undo", "prune"]


def test_the_report_says_what_is_stored_and_what_it_occupies(opened: Opener) -> None:
    repository = opened()
    fill(repository, turns=20)
    repository.thread("left").commit({"a": 1})
    repository.delete("t")
    report = repository.gc(grace=timedelta(0))
    usage = repository.storage.usage()
    assert (report.bytes_after, report.data_after) == (usage.disk, usage.frames + usage.records)
    # A database may grow by what it notes of its free room; what is stored does not.
    assert report.data_after < report.data_before / 2


def test_a_frame_that_was_numbered_first_and_committed_last_is_part_of_its_pack() -> None:
    tables = _Tables()
    (first,) = tables.write(Batch(frames=[Frame(0, b"first", ())]))
    late, other = tables.write(Batch(frames=[Frame(first, b"late", ()), Frame(0, b"other", ())]))
    hidden = tables._frames.pop(late)  # as PostgreSQL shows a store while the transaction of that frame goes on
    packs = Packs().look(tables)
    tables._frames[late] = hidden
    packs.look(tables, joining=True, again=True)
    assert [pack.frames for pack in packs.all] == [[first, late], [other]]


def test_catching_up_looks_at_the_threads_alone_and_finds_new_ones(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = opened()
    for name in ("a", "b", "c"):
        repository.commit(name, {"text": TEXT.format(name)})
    storage = repository.storage
    marker = Marker(repository._core)
    marker.mark_all()
    monkeypatch.setattr(mark, "thread_records", None)  # goes through the names of all threads
    assert marker.catch_up(storage) == 0
    repository.commit("b", {"text": TEXT.format("again")})
    repository.commit("new", {"text": TEXT.format("new")})
    repository.fork("c", "fork")
    before = set(marker.live)
    assert marker.catch_up(storage) == 4  # and the base of the fork, which counts its forks
    assert marker.live > before
    assert marker.live == {key for key, _ in storage.scan_index(b"", 1000)}
    assert marker.catch_up(storage) == 0

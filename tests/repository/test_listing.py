"""Listing a thread while another process removes and collects: no error, nothing twice, nothing that stays missed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckpt
from ckpt.errors import IntegrityError
from ckpt.history.commits import StoredValue
from ckpt.langgraph import CkptSaver
from ckpt.repository import Repository
from ckpt.repository.incoming import Channel, NewCheckpoint, Typed
from ckpt.repository.listing import Walk, newest_first
from ckpt.repository.prune import Keep

COUNT = 120
TEXT = "a text that is long enough to be an object of its own, and to lie in a pack with others " * 4


def packed(value: object) -> Typed:
    return Typed("msgpack", msgpack.packb(value))


def put(repository: Repository, number: int, *, namespace: str = "", thread: str = "t", word: str = "") -> None:
    repository.put(
        NewCheckpoint(
            thread=thread,
            namespace=namespace,
            checkpoint_id=f"{number:04}",
            parent_id=f"{number - 1:04}" if number else None,
            timestamp=None,
            header=packed({"v": 4, "number": number}),
            metadata=packed({"step": number, "note": f"{TEXT}{number}"}),
            channels={"text": Channel(lambda: packed(f"{word}{number}{TEXT}"))},
        )
    )


def ids(rows: Any) -> list[tuple[str, str]]:
    return [(row.checkpoint_id, row.namespace) for row in rows]


def keep(*numbers: int) -> Keep:
    kept = {f"{number:04}" for number in numbers}
    return lambda namespace, rows, head: {
        found.checkpoint_id: ["last"] for found, _ in rows if found.checkpoint_id in kept
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a store that nobody has open: a thread of two namespaces that share their ids."""
    path = tmp_path / "store.db"
    with ckpt.open(f"sqlite:///{path}?synchronous=off") as repository:
        for number in range(COUNT):
            put(repository, number)
            if number % 2:
                put(repository, number, namespace="sub")
    return path


@pytest.fixture
def reader(path: Path) -> Iterator[Repository]:
    with ckpt.open(path) as repository:
        yield repository


@pytest.fixture
def other(path: Path) -> Iterator[Repository]:
    with ckpt.open(path) as repository:
        yield repository


@pytest.mark.parametrize("taken", [0, 1, 2, 5, 22, 90])
@pytest.mark.parametrize("namespace", [None, "", "sub"])
def test_what_is_removed_between_two_pages_is_skipped(
    reader: Repository, other: Repository, namespace: str | None, taken: int
) -> None:
    before = ids(other.read_all("t", namespace))
    taken = min(taken, len(before) - 1)
    listing = reader.read_all("t", namespace)
    first = ids(next(listing) for _ in range(taken))
    other.prune_thread("t", keep(3, 7, 50, 51, 60, 61, 118, 119))
    other.gc(grace=timedelta(0))
    put(other, COUNT)
    put(other, COUNT, namespace="sub")
    found = first + ids(listing)
    assert first == before[:taken]
    order = before if taken else ids(other.read_all("t", namespace))[:2] + before
    assert found == sorted(set(found), key=order.index)  # nothing twice, nothing new behind what was seen
    assert set(found) >= set(ids(other.read_all("t", namespace))) & set(before)
    assert ids(reader.read_all("t", namespace)) == ids(other.read_all("t", namespace))


def test_a_collection_between_two_pages_takes_nothing_from_a_list(reader: Repository, other: Repository) -> None:
    before = ids(other.read_all("t", None))
    put(other, 0, thread="gone", word="only here")
    listing = reader.read_all("t", None)
    found = ids(next(listing) for _ in range(3))
    other.delete_thread("gone")
    other.gc(grace=timedelta(0))
    assert found + ids(listing) == before


def test_a_thread_that_was_deleted_and_made_again_is_another(reader: Repository, other: Repository) -> None:
    listing = reader.read_all("t")
    first = next(listing)
    other.delete_thread("t")
    other.gc(grace=timedelta(0))
    for number in range(10):
        put(other, number, word="of another thread")
    rest = list(listing)
    assert {reader.read("t", "", row.checkpoint_id) == row for row in [first, *rest]} == {False}
    assert len(ids(reader.read_all("t"))) == 10


def test_a_list_that_was_not_begun_when_its_thread_was_deleted_is_empty(reader: Repository, other: Repository) -> None:
    listing = reader.read_all("t", None)
    other.delete_thread("t")
    other.gc(grace=timedelta(0))
    assert list(listing) == []


def test_values_of_what_was_removed_are_left_out(reader: Repository, other: Repository) -> None:
    rows = list(reader.read_all("t"))
    wanted = [StoredValue(*row.commit.channels["text"]) for row in rows]
    expected = dict(zip([row.checkpoint_id for row in rows], other.load(wanted), strict=True))
    other.prune_thread("t", keep(3, 50, 119))
    other.gc(grace=timedelta(0))
    found = reader.load_all(rows)
    assert [stored.checkpoint_id for stored, _ in found] == ["0119", "0050", "0003"]
    for stored, data in found:
        assert data[2] == expected[stored.checkpoint_id]
        assert msgpack.unpackb(data[0])["number"] == int(stored.checkpoint_id)


def test_what_is_damaged_is_not_taken_for_removed(reader: Repository) -> None:
    rows = list(reader.read_all("t"))
    last = rows[-1].commit
    broken = rows[-1]._replace(commit=last._replace(channels={"text": StoredValue("msgpack", b"\xff" * 40)}))
    first = next(iter(reader.load_all(rows)))
    assert msgpack.unpackb(first[1][2]) == f"{COUNT - 1}{TEXT}"
    with reader.storage.exclusive() as session:  # as if a page of the index had been lost
        session.forget([key for key, _ in session.scan_index(b"", 10_000)])
    with ckpt.open(reader.storage.url) as fresh:
        with pytest.raises(IntegrityError):
            list(fresh.read_all("t"))
        with pytest.raises(IntegrityError):
            fresh.load_all([*rows[:3], broken])


def removing(other: Repository) -> Callable[[], None]:
    def remove() -> None:
        other.prune_thread("t", keep(3, 50, 119))
        other.gc(grace=timedelta(0))

    return remove


@pytest.mark.parametrize("wanted", [None, {"step": 3}])
def test_the_saver_lists_what_stays(path: Path, other: Repository, wanted: dict[str, Any] | None) -> None:
    with CkptSaver(path) as saver:
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        listing = saver.list(config, filter=wanted)
        if wanted is None:
            assert next(listing).checkpoint["number"] == 119
        read_all = saver.repository.read_all

        def late(*args: Any, **kwargs: Any) -> Iterator[Any]:
            # The other process removes after a page was read and before its values are.
            for count, row in enumerate(read_all(*args, **kwargs)):
                if count == 40:
                    removing(other)()
                yield row

        if wanted is not None:
            saver.repository.read_all = late  # type: ignore[method-assign]
        else:
            removing(other)()
        found = [each.config["configurable"]["checkpoint_id"] for each in listing]
        assert set(found) >= {"0003"}
        assert found == sorted(found, reverse=True)
        assert [each.checkpoint["number"] for each in saver.list(config)] == [119, 50, 3]


def test_the_saver_finds_nothing_where_a_checkpoint_was_just_removed(
    path: Path, other: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CkptSaver(path) as saver:
        read = saver.repository.read

        def late(*args: Any) -> Any:
            stored = read(*args)
            if stored is not None:
                removing(other)()
            return stored

        monkeypatch.setattr(saver.repository, "read", late)
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "0077"}}
        assert saver.get_tuple(config) is None
        config["configurable"]["checkpoint_id"] = "0050"
        found = saver.get_tuple(config)
        assert found is not None
        assert found.checkpoint["channel_values"] == {"text": f"50{TEXT}"}


# -- of many threads ----------------------------------------------------------------------------------------


class Row(NamedTuple):
    checkpoint_id: str
    thread: str


@given(
    st.lists(st.tuples(st.integers(0, 60), st.lists(st.integers(0, 60), max_size=9, unique=True)), max_size=7),
    st.integers(0, 30),
)
def test_what_many_threads_have_comes_in_order_and_no_thread_is_begun_too_early(
    threads: list[tuple[int, list[int]]], wanted: int
) -> None:
    """Some have rows beyond the bound that was known of them: those came too late."""
    threads.sort(reverse=True)
    begun: list[int] = []

    def walks() -> Iterator[Walk[Row]]:
        for number, (bound, found) in enumerate(threads):
            begun.append(number)
            yield Walk(f"{bound:02}", iter([Row(f"{each:02}", f"{number}") for each in sorted(found, reverse=True)]))

    expected = sorted(
        (
            Row(f"{each:02}", f"{number}")
            for number, (bound, found) in enumerate(threads)
            for each in found
            if each <= bound
        ),
        reverse=True,
    )
    rows = newest_first(walks())
    first = [row for _, row in zip(range(wanted), rows, strict=False)]
    assert [row.checkpoint_id for row in first] == [row.checkpoint_id for row in expected[:wanted]]
    if wanted and len(first) == wanted:
        # One more than had to be looked at, to see that it need not be.
        needed = sum(f"{bound:02}" >= first[-1].checkpoint_id for bound, _ in threads)
        assert len(begun) <= needed + 1
    assert sorted([*first, *rows], reverse=True) == expected

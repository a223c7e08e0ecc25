"""The sizes that people are shown: those of threads and that of the store are the same count."""

from __future__ import annotations

import pytest

import ckpt
from ckpt.objects.ids import Kind
from ckpt.values.cut import Cut, Cutter
from ckpt.values.rope import INLINE, ROPE, Item, encode_items


def test_the_sizes_of_threads_add_up_to_that_of_the_store() -> None:
    with ckpt.open("memory://") as repository:
        for number in range(5):
            repository.commit("long", {"text": "x" * 1000 * number, "n": number}, metadata={"why": "y" * 100})
            repository.commit("short", {"n": number})
        sizes = [thread.bytes_logical for thread in repository.threads()]
        found = repository.stats()
        assert found.bytes_logical == sum(sizes) > 10_000
        assert found.metadata.logical > 5 * 100
        assert found.metadata.logical + sum(each.logical for each in found.channels) == found.bytes_logical
        assert found.metadata.unique + sum(each.unique for each in found.channels) == found.bytes_unique
        assert [each.name for each in found.channels] == ["text", "n"]


def test_what_a_fork_shares_counts_once_in_the_store_and_in_each_thread() -> None:
    with ckpt.open("memory://") as repository:
        repository.commit("t", {"text": "x" * 1000})
        alone = repository.stats()
        repository.fork("t", "other")
        assert [thread.bytes_logical for thread in repository.threads()] == 2 * [alone.bytes_logical]
        assert repository.stats().bytes_logical == alone.bytes_logical


def test_an_empty_store_has_no_sizes() -> None:
    with ckpt.open("memory://") as repository:
        found = repository.stats()
        assert (found.bytes_logical, found.bytes_unique, found.metadata.logical) == (0, 0, 0)


def test_a_rope_of_many_levels_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    levels, size = 2000, 0

    def nested(cutter: Cutter, type_: str, data: bytes, previous: Cut | None = None) -> tuple[bytes, Cut | None]:
        nonlocal size
        if b"deep" not in data:
            return cut(cutter, type_, data, previous)
        item = Item(INLINE, 3, 1, b"\x92\x01\x02")
        for _ in range(levels):
            rope = encode_items([Item(INLINE, 1, 0, b"\x91"), item])
            item = Item(ROPE, item.length + 1, 1, cutter._emit(Kind.ROPE, rope))
        size = item.length
        return encode_items([item]), None

    cut = Cutter.cut
    monkeypatch.setattr(Cutter, "cut", nested)
    with ckpt.open("memory://") as repository:
        repository.commit("t", {"x": "deep"})
        [channel] = repository.stats().channels
    assert (channel.logical, channel.unique) == (size, size) == (levels + 3, levels + 3)

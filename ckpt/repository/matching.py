"""Matching: which of the values that differ are the same one, before and after.

By piece first, then by the id of a message or record, then by place. `ckpt.repository.alignment` has found
where the values stand; what became of them is said by `ckpt.repository.diff`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ckpt.repository.alignment import Gap, align
from ckpt.repository.nodes import Node, read
from ckpt.values.rope import Item

Open = Callable[[int, Item], Node]
"""Returns the node of a value, from its position and its piece."""


@dataclass(frozen=True, eq=False)
class Element:
    """A value of a sequence that differs: the gap it stands in, its position, its piece and its node."""

    gap: int
    position: int
    item: Item
    node: Node


Pair = tuple[Element, Element]


def elements(found: list[Gap], side: int, open_: Open) -> list[Element]:
    return [
        Element(number, position, item, open_(position, item))
        for number, gap in enumerate(found)
        for position, item in gap[side]
    ]


def entries(found: list[Gap], side: int, open_: Open) -> dict[object, tuple[Element, Element]]:
    """Return (key, value) by the key's piece; a key that is repeated, as no dict's is, by its number too."""
    parts = elements(found, side, open_)
    entries: dict[object, tuple[Element, Element]] = {}
    for key, value in zip(parts[::2], parts[1::2], strict=True):
        number = 0
        while (key.item, number) in entries:
            number += 1
        entries[key.item, number] = key, value
    return entries


def matched(old: list[Element], new: list[Element]) -> tuple[list[Pair], list[Element], list[Element]]:
    """Return which elements are the same one, before and after, and which were removed and added."""
    pairs: list[Pair] = []

    def take(key_of: Callable[[Element], object]) -> None:
        waiting = defaultdict(list)
        for each in reversed(old):
            waiting[key_of(each)].append(each)
        waiting.pop(None, None)
        taken = set()
        for each in new:
            if (candidates := waiting.get(key_of(each))) is not None and candidates:
                before = candidates.pop()
                pairs.append((before, each))
                taken |= {before, each}
        old[:] = [each for each in old if each not in taken]
        new[:] = [each for each in new if each not in taken]

    take(lambda each: (each.gap, each.item))
    take(lambda each: each.item)
    if old and new:
        read(each.node for each in [*old, *new] if each.node.is_light)
        idents = {each: each.node.ident() for each in [*old, *new]}
        typed = {each: (type(ident), ident) for each, ident in idents.items() if ident is not None}
        take(lambda each: (each.gap, typed[each]) if each in typed else None)
        take(typed.get)
        # What has no id takes the place of what stood there, if there is no doubt which that was.
        sizes: list[dict[int, int]] = [defaultdict(int), defaultdict(int)]
        order: dict[Element, tuple[int, int]] = {}
        for counts, side in zip(sizes, (old, new), strict=True):
            for each in side:
                if each not in typed:
                    order[each] = each.gap, counts[each.gap]
                    counts[each.gap] += 1
        take(lambda each: order[each] if each in order and sizes[0][each.gap] == sizes[1][each.gap] else None)
    return pairs, old, new


def in_place(pairs: Iterable[Pair]) -> set[Pair]:
    """Return the pairs that kept their order among each other and towards all that is equal."""
    by_gap: dict[int, list[Pair]] = defaultdict(list)
    for pair in pairs:
        if pair[0].gap == pair[1].gap:
            by_gap[pair[0].gap].append(pair)
    kept: set[Pair] = set()
    for group in by_gap.values():
        group.sort(key=lambda pair: pair[0].position)
        after = sorted(range(len(group)), key=lambda i: group[i][1].position)
        kept |= {group[i] for i, _ in align(range(len(group)), after)}
    return kept

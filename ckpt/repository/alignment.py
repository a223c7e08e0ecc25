"""Alignment: which elements of two sequences belong together, and in which gaps the others stand.

Pure but for opening groups of pieces: runs of equal pieces are recognised by their ids and stay closed, so
that the cost grows with what differs. What a difference means is decided in `ckpt.repository.diff`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

from ckpt.errors import DamagedObjectError
from ckpt.values import tree
from ckpt.values.rope import Item

Open = Callable[[Collection[Item]], Mapping[Item, list[Item]]]
"""Returns what groups and runs of values consist of, in one batch."""

Word = tuple[Literal["same", "remove", "add"], str]

_LCS_CELLS_MAX = 1 << 18
_DEPTH_MAX = 32
_ROUNDS_MAX = 1000
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


def align(old: Sequence[Hashable], new: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Return pairs of positions of equal elements, growing in both, as many as can be found quickly.

    Elements that occur once on both sides anchor the rest; between anchors, small stretches get a longest
    common subsequence and large ones without any anchor are left apart.
    """
    pairs: list[tuple[int, int]] = []
    todo = [(0, len(old), 0, len(new), 0)]
    while todo:
        a, b, c, d, depth = todo.pop()
        while a < b and c < d and old[a] == new[c]:
            pairs.append((a, c))
            a, c = a + 1, c + 1
        while a < b and c < d and old[b - 1] == new[d - 1]:
            b, d = b - 1, d - 1
            pairs.append((b, d))
        if a == b or c == d:
            continue
        anchors = _anchors(old, new, (a, b, c, d)) if depth < _DEPTH_MAX else []
        if anchors:
            pairs += anchors
            for i, j in [*anchors, (b, d)]:
                todo.append((a, i, c, j, depth + 1))
                a, c = i + 1, j + 1
        elif (b - a) * (d - c) <= _LCS_CELLS_MAX:
            pairs += [(a + i, c + j) for i, j in _longest_common(old[a:b], new[c:d])]
    return sorted(pairs)


def _anchors(
    old: Sequence[Hashable], new: Sequence[Hashable], bounds: tuple[int, int, int, int]
) -> list[tuple[int, int]]:
    a, b, c, d = bounds
    there = _unique(new, c, d)
    common = [(i, there[key]) for key, i in _unique(old, a, b).items() if key in there]
    return [common[k] for k in _rising([j for _, j in common])]


def _unique(keys: Sequence[Hashable], start: int, end: int) -> dict[Hashable, int]:
    found: dict[Hashable, int] = {}
    repeated = set()
    for i in range(start, end):
        if found.setdefault(keys[i], i) != i:
            repeated.add(keys[i])
    return {key: i for key, i in found.items() if key not in repeated}


def _rising(numbers: Sequence[int]) -> list[int]:
    """Return the indexes of a longest rising subsequence of different numbers."""
    tails: list[int] = []
    tail_numbers: list[int] = []
    before: list[int] = []
    for i, number in enumerate(numbers):
        at = bisect_left(tail_numbers, number)
        before.append(tails[at - 1] if at else -1)
        tails[at : at + 1] = [i]
        tail_numbers[at : at + 1] = [number]
    chain = []
    i = tails[-1] if tails else -1
    while i >= 0:
        chain.append(i)
        i = before[i]
    return chain[::-1]


def _longest_common(old: Sequence[Hashable], new: Sequence[Hashable]) -> list[tuple[int, int]]:
    rows = [[0] * (len(new) + 1)]
    for key in reversed(old):
        below = rows[-1]
        row = [0] * (len(new) + 1)
        for j in range(len(new) - 1, -1, -1):
            row[j] = below[j + 1] + 1 if key == new[j] else max(below[j], row[j + 1])
        rows.append(row)
    rows.reverse()
    pairs = []
    i = j = 0
    while i < len(old) and j < len(new):
        if old[i] == new[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif rows[i + 1][j] >= rows[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs


class Placed(NamedTuple):
    """One value of a sequence, and its position."""

    position: int
    item: Item


Gap = tuple[list[Placed], list[Placed]]
"""What stands between two runs of equal elements: on the old side and on the new one."""


def gaps(old: list[Item], new: list[Item], open_: Open, *, stride: int = 1) -> list[Gap]:
    """Return the values that differ, in order, with their positions; what is equal in between stays closed.

    With a `stride` of 2 the values are keys and values in turn, and a gap holds whole entries.
    """
    for _ in range(_ROUNDS_MAX):
        starts = _starts(old), _starts(new)
        pairs = align(
            [(item, start % stride) for item, start in zip(old, starts[0], strict=False)],
            [(item, start % stride) for item, start in zip(new, starts[1], strict=False)],
        )
        blocks, torn = _blocks(pairs, old, starts[0], stride)
        found = _between(blocks, (old, new), starts)
        closed = [placed.item for gap in found for side in gap for placed in side if placed.item.siblings > 1]
        closed += torn
        if not closed:
            return found
        # Large groups first: their parts may turn out to be the groups of the other side.
        largest = max(item.siblings for item in closed)
        opened = open_({item for item in closed if 4 * item.siblings >= largest})
        if sum(len(opened.get(item, (item,))) for side in (old, new) for item in side) > tree.ITEMS_MAX:
            raise DamagedObjectError("a value has more pieces than any that can be read")
        old, new = ([part for item in side for part in opened.get(item, (item,))] for side in (old, new))
    raise DamagedObjectError("a rope is nested without end")


def _starts(items: list[Item]) -> list[int]:
    return list(accumulate((item.siblings for item in items), initial=0))


def _blocks(
    pairs: list[tuple[int, int]], old: list[Item], starts: list[int], stride: int
) -> tuple[list[tuple[int, int, int]], list[Item]]:
    """Return runs of pairs as (old index, new index, length), and groups that begin or end in an entry."""
    runs: list[tuple[int, int, int]] = []
    for i, j in pairs:
        if runs and (runs[-1][0] + runs[-1][2], runs[-1][1] + runs[-1][2]) == (i, j):
            runs[-1] = (*runs[-1][:2], runs[-1][2] + 1)
        else:
            runs.append((i, j, 1))
    blocks, torn = [], []
    for i, j, n in runs:
        if n and starts[i] % stride:
            torn += [old[i]] if old[i].siblings > 1 else []
            i, j, n = i + 1, j + 1, n - 1
        if n and starts[i + n] % stride:
            torn += [old[i + n - 1]] if old[i + n - 1].siblings > 1 else []
            n -= 1
        if n:
            blocks.append((i, j, n))
    return blocks, torn


def _between(
    blocks: list[tuple[int, int, int]],
    sides: tuple[list[Item], list[Item]],
    starts: tuple[list[int], list[int]],
) -> list[Gap]:
    found: list[Gap] = []
    at = [0, 0]
    for i, j, n in [*blocks, (len(sides[0]), len(sides[1]), 0)]:
        gap = tuple([Placed(starts[s][k], sides[s][k]) for k in range(at[s], end)] for s, end in enumerate((i, j)))
        if gap[0] or gap[1]:
            found.append((gap[0], gap[1]))
        at = [i + n, j + n]
    return found


def words(old: str, new: str) -> list[Word]:
    """Return pieces that, without the added ones, make `old`, and without the removed ones, `new`."""
    left, right = _WORD.findall(old), _WORD.findall(new)
    pieces: list[Word] = []
    i = j = start_i = start_j = 0
    for i, j in [*align(left, right), (len(left), len(right))]:
        removed, added = "".join(left[start_i:i]), "".join(right[start_j:j])
        pieces += [("remove", removed)] if removed else []
        pieces += [("add", added)] if added else []
        same = "".join(left[i : i + 1]) if i < len(left) else ""
        if same and pieces and pieces[-1][0] == "same":
            pieces[-1] = ("same", pieces[-1][1] + same)
        elif same:
            pieces.append(("same", same))
        start_i, start_j = i + 1, j + 1
    return pieces

"""Alignment: which elements of two sequences belong together, and in which gaps the others stand.

Pure but for opening groups of pieces: runs of equal pieces are recognised by their ids and stay closed, so
that the cost grows with what differs. What a difference means is decided in `ckpt.repository.diff`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import cache, partial
from itertools import accumulate
from typing import NamedTuple

from ckpt.errors import DamagedObjectError
from ckpt.values.rope import ITEMS_MAX, Item

Open = Callable[[Collection[Item]], Mapping[Item, list[Item]]]
"""Returns what groups and runs of values consist of, in one batch."""

_Run = tuple[int, int, int]
"""Equal elements: where they begin in the old sequence and in the new one, and how many they are."""

_LCS_CELLS_MAX = 1 << 18
_EDITS_MIN, _EDITS_MAX = 32, 256
_WORK = 1 << 24
"""Elements times edits up to which long sequences are aligned with more edits at once than the fewest."""

_OPENED_MAX = 64
_STEPS_MIN, _STEPS_EACH = 1 << 16, 8
_DEPTH_MAX = 32
_ROUNDS_MAX = 1000


def align(old: Sequence[Hashable], new: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Return pairs of positions of equal elements, growing in both, as many as can be found quickly.

    Elements that occur once on both sides anchor the rest; between anchors, small stretches get a longest
    common subsequence, and so do large ones that differ in few elements. In other large ones it may be shorter.
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
        else:
            pairs += [(a + i, c + j) for i, j in _long_common(old[a:b], new[c:d])]
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


def _long_common(old: Sequence[Hashable], new: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Return pairs of a common subsequence of long sequences: a longest one if they differ in few elements."""
    shared = set(old).intersection(new)
    left, right = ([i for i, key in enumerate(side) if key in shared] for side in (old, new))
    # Numbers instead of keys: equal ones are the same object, and lists of them are compared in no time.
    numbers = {key: number for number, key in enumerate(shared)}
    ours, theirs = [numbers[old[i]] for i in left], [numbers[new[j]] for j in right]
    edits_max = min(max(_WORK // max(len(ours) + len(theirs), 1), _EDITS_MIN), _EDITS_MAX)
    pairs: list[tuple[int, int]] = []
    at = 0, 0
    while at[0] < len(ours) and at[1] < len(theirs):
        runs, at = _fewest_edits(partial(_equal_from, ours, theirs), at, (len(ours), len(theirs)), edits_max)
        pairs += [(left[i + n], right[j + n]) for i, j, size in runs for n in range(size)]
    return pairs


class _Trail(NamedTuple):
    run: _Run
    before: _Trail | None


def _fewest_edits(
    equal_from: Callable[[int, int], int], start: tuple[int, int], end: tuple[int, int], edits_max: int
) -> tuple[list[_Run], tuple[int, int]]:
    """Return the runs that stay, and up to where, if as few elements as possible are removed and added.

    That is up to the end, or, with as many edits as may be, as far as they lead. `equal_from` tells how many
    elements are equal from two positions on. This is Myers' algorithm: of each diagonal, which is a difference of
    positions, it is known how far so many edits lead.
    """
    i, j = start
    shift = i - j
    furthest: dict[int, tuple[int, _Trail | None]] = {}
    for edits in range(edits_max + 1):
        for diagonal in range(shift - edits, shift + edits + 1, 2):
            trail = None
            if edits:
                i = -1
                added, removed = furthest.get(diagonal + 1), furthest.get(diagonal - 1)
                if added is not None and added[0] - diagonal <= end[1]:
                    i, trail = added
                if removed is not None and i <= removed[0] < end[0]:
                    i, trail = removed[0] + 1, removed[1]
                if i < 0:
                    continue
            j = i - diagonal
            if size := equal_from(i, j):
                trail = _Trail((i, j, size), trail)
                i, j = i + size, j + size
            if (i, j) == end:
                return _runs(trail), end
            furthest[diagonal] = i, trail
    diagonal, (i, trail) = max(furthest.items(), key=lambda each: 2 * each[1][0] - each[0])
    return _runs(trail), (i, i - diagonal)


def _runs(trail: _Trail | None) -> list[_Run]:
    runs = []
    while trail is not None:
        runs.append(trail.run)
        trail = trail.before
    return runs[::-1]


def _equal_from(old: list[int], new: list[int], i: int, j: int) -> int:
    """Return how many elements are equal from two positions on."""
    begun, size = i, 1
    while (part := old[i : i + size]) and part == new[j : j + size]:
        i, j, size = i + len(part), j + len(part), 2 * size
    while size := size // 2:
        if (part := old[i : i + size]) and part == new[j : j + size]:
            i, j = i + len(part), j + len(part)
    return i - begun


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
            return found if stride > 1 else _fewer(found, old, new, open_)
        # Large groups first: their parts may turn out to be the groups of the other side.
        largest = max(item.siblings for item in closed)
        opened = open_({item for item in closed if 4 * item.siblings >= largest})
        if sum(len(opened.get(item, (item,))) for side in (old, new) for item in side) > ITEMS_MAX:
            raise DamagedObjectError("a value has more pieces than any that can be read")
        old, new = ([part for item in side for part in opened.get(item, (item,))] for side in (old, new))
    raise DamagedObjectError("a rope is nested without end")


def _fewer(found: list[Gap], old: list[Item], new: list[Item], open_: Open) -> list[Gap]:
    """Return gaps with fewer values than those found where that is possible and not far to seek.

    Where values repeat, so do groups of them, and one may have been taken for its like at another place. So it was
    only if the same value was found to differ on both sides: what one side has more of differs in any case.
    """
    removed, added = (Counter(placed.item for gap in found for placed in gap[side]) for side in (0, 1))
    both = removed.keys() & added.keys()
    # One of each is a value that was moved.
    if not both or max(Counter(item for item in [*old, *new] if item in both).values()) < 3:
        return found
    open_one = cache(lambda item: open_([item])[item])
    values = _Values(old, open_one), _Values(new, open_one)
    end = values[0].size, values[1].size
    edits = removed.total() + added.total() - 2
    runs, reached = _fewest_edits(_Walk(*values).equal_from, (0, 0), end, min(edits, _EDITS_MAX))
    if reached != end:
        return found
    fewer: list[Gap] = []
    at = 0, 0
    for i, j, size in [*runs, (*end, 0)]:
        if (i, j) != at:
            fewer.append((values[0].between(at[0], i), values[1].between(at[1], j)))
        at = i + size, j + size
    return fewer


class _Values:
    """The values that items stand for, by position. A group is opened when one of its values is looked at."""

    def __init__(self, items: list[Item], open_: Callable[[Item], list[Item]]) -> None:
        self._open = open_
        self.items = items
        self.starts = _starts(items)
        self.size = self.starts[-1]

    def index(self, position: int) -> int:
        """Return which item holds a value."""
        return bisect_right(self.starts, position) - 1

    def open(self, index: int) -> None:
        """Put the parts of a group in its place."""
        parts = self._open(self.items[index])
        self.starts[index : index + 1] = [self.starts[index] + start for start in _starts(parts)[:-1]]
        self.items[index : index + 1] = parts

    def between(self, start: int, end: int) -> list[Placed]:
        """Return values one by one."""
        found: list[Placed] = []
        while (position := start + len(found)) < end:
            index = self.index(position)
            if self.items[index].siblings > 1:
                self.open(index)
            else:
                found.append(Placed(position, self.items[index]))
        return found


class _Walk:
    """Compares values of two sides from any place on, until it was far enough."""

    def __init__(self, old: _Values, new: _Values) -> None:
        self._old, self._new = old, new
        self._opened = set[Item]()
        self._steps = _STEPS_MIN + _STEPS_EACH * (len(old.items) + len(new.items))

    def equal_from(self, i: int, j: int) -> int:
        """Return how many values are equal from two positions on; fewer where that cannot be said any more."""
        old, new = self._old, self._new
        begun, left, right = i, old.index(i), new.index(j)
        while i < old.size and j < new.size and self._steps:
            self._steps -= 1
            item, other = old.items[left], new.items[right]
            if item == other and old.starts[left] == i and new.starts[right] == j:
                i, j, left, right = i + item.siblings, j + item.siblings, left + 1, right + 1
            elif item.siblings == other.siblings == 1 or len(self._opened) == _OPENED_MAX:
                break
            # The larger one first: its parts may turn out to be the other one.
            elif item.siblings >= other.siblings:
                self._opened.add(item)
                old.open(left)
                left = old.index(i)
            else:
                self._opened.add(other)
                new.open(right)
                right = new.index(j)
        return i - begun


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

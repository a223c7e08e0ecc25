"""Lay out the lanes of a history graph. Pure drawing: it knows ids, parents and characters, nothing else.

Nodes come children first. A lane is a column that waits for one id; lanes that wait for the same id are
joined in the row above it. A parent that never comes keeps its lane open to the end, so that the reader
sees that the history goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final


@dataclass(frozen=True)
class Glyphs:
    """The characters of a graph."""

    current: str
    checkpoint: str
    interrupted: str
    failed: str
    tagged: str
    lane: str
    across: str
    crossing: str
    split: str  # where a lane sends or receives a line on its right
    join: str  # where a lane from the right ends
    join_inner: str
    open: str  # where a lane to the right begins
    open_inner: str
    meet: str  # where a line from the left meets a lane that goes on
    elided: str


UNICODE: Final = Glyphs(
    current="@", checkpoint="○", interrupted="‖", failed="×", tagged="◆",
    lane="│", across="─", crossing="┼", split="├", join="╯", join_inner="┴",
    open="╮", open_inner="┬", meet="┤", elided="~",
)  # fmt: skip
ASCII: Final = Glyphs(
    current="@", checkpoint="o", interrupted="=", failed="x", tagged="*",
    lane="|", across="-", crossing="+", split="|", join="'", join_inner="'",
    open=".", open_inner=".", meet="|", elided="~",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One node's lines: link lines above it, its own line, the line beside further text, link lines below.

    `lane` says which column of `node` is the node's own, where the caller puts its glyph.
    """

    above: tuple[str, ...]
    node: str
    lane: int
    beside: str
    below: tuple[str, ...]

    def with_glyph(self, glyph: str) -> str:
        """Return the node's line with its glyph in place."""
        at = 2 * self.lane
        return self.node[:at] + glyph + self.node[at + 1 :]


@dataclass(frozen=True)
class Graph:
    """A whole drawing: its rows, the last line of lanes that go on, and the widest line."""

    rows: tuple[Row, ...]
    tail: str
    width: int


def layout(nodes: Sequence[tuple[str, Sequence[str]]], glyphs: Glyphs = UNICODE) -> Graph:
    """Lay out nodes given as (id, parents), children before parents. An id comes once."""
    lanes: list[str | None] = []
    rows: list[Row] = []
    for name, parents in nodes:
        waiting = [lane for lane, wanted in enumerate(lanes) if wanted == name]
        above: tuple[str, ...] = ()
        if not waiting:
            lane = lanes.index(None) if None in lanes else len(lanes)
            lanes[lane : lane + 1] = [name]
        else:
            lane = waiting[0]
            if waiting[1:]:
                above = (_link(lanes, lane, waiting[1:], glyphs, ends=glyphs.join, inner=glyphs.join_inner),)
            for ended in waiting[1:]:
                lanes[ended] = None
            _trim(lanes)
        line = _lanes(lanes, glyphs)
        lanes[lane] = parents[0] if parents else None
        beside = _lanes(lanes, glyphs)
        below = tuple(_branch(lanes, lane, parent, glyphs) for parent in parents[1:])
        _trim(lanes)
        rows.append(Row(above, line, lane, beside, below))
    tail = " ".join(glyphs.elided if wanted is not None else " " for wanted in lanes).rstrip()
    lines = [line for row in rows for line in (*row.above, row.node, *row.below)]
    return Graph(tuple(rows), tail, max(map(len, lines), default=0))


def _lanes(lanes: Sequence[str | None], glyphs: Glyphs) -> str:
    return " ".join(" " if wanted is None else glyphs.lane for wanted in lanes).rstrip()


def _trim(lanes: list[str | None]) -> None:
    while lanes and lanes[-1] is None:
        lanes.pop()


def _branch(lanes: list[str | None], lane: int, parent: str, glyphs: Glyphs) -> str:
    """Connect a merge to a further parent's lane, opening one if needed; return the link line."""
    if parent in lanes:
        other = lanes.index(parent)
        left, right = min(lane, other), max(lane, other)
        return _link(lanes, left, [right], glyphs, ends=glyphs.meet, inner=glyphs.meet)
    free = next((i for i in range(lane + 1, len(lanes)) if lanes[i] is None), len(lanes))
    lanes[free : free + 1] = [parent]
    return _link(lanes, lane, [free], glyphs, ends=glyphs.open, inner=glyphs.open_inner)


def _link(
    lanes: Sequence[str | None], left: int, others: Sequence[int], glyphs: Glyphs, *, ends: str, inner: str
) -> str:
    """Return the line that connects lane `left` with `others`, all of them to its right."""
    last = others[-1]
    cells: list[str] = []
    for column, wanted in enumerate(lanes):
        if column == left:
            cell = glyphs.split
        elif column == last:
            cell = ends
        elif column in others:
            cell = inner
        elif left < column < last:
            cell = glyphs.across if wanted is None else glyphs.crossing
        else:
            cell = " " if wanted is None else glyphs.lane
        cells.append(cell)
        cells.append(glyphs.across if left <= column < last else " ")
    return "".join(cells).rstrip()


def children_first(nodes: Sequence[tuple[str, Sequence[str]]]) -> list[int]:
    """Return the order, as indexes, in which every child comes before its parents.

    Apart from that the given order is kept. Nodes that are their own ancestors come last.
    """
    place = {name: index for index, (name, _) in enumerate(nodes)}
    children = [0] * len(nodes)
    for _, parents in nodes:
        for parent in parents:
            if parent in place:
                children[place[parent]] += 1
    ready = [index for index, count in enumerate(children) if count == 0]
    order: list[int] = []
    while ready:
        index = heappop(ready)
        order.append(index)
        for parent in nodes[index][1]:
            if parent in place:
                children[place[parent]] -= 1
                if children[place[parent]] == 0:
                    heappush(ready, place[parent])
    seen = set(order)
    return order + [index for index in range(len(nodes)) if index not in seen]

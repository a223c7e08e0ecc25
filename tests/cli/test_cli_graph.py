"""The lanes of the history graph."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.cli.graph import ASCII, UNICODE, children_first, layout


def drawn(*nodes: tuple[str, str], glyphs=UNICODE) -> str:
    graph = layout([(name, tuple(parents.split())) for name, parents in nodes], glyphs)
    lines: list[str] = []
    for (name, _), row in zip(nodes, graph.rows, strict=True):
        lines += [*row.above, row.with_glyph(name), *row.below]
    return "\n".join([*lines, graph.tail]).rstrip("\n")


def picture(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))


def test_a_line_is_one_lane() -> None:
    assert drawn(("c", "b"), ("b", "a"), ("a", "")) == picture("c\nb\na")


def test_parents_that_are_not_shown_keep_their_lane_open() -> None:
    assert drawn(("c", "b"), ("x", "y"), ("b", "a")) == picture("c\n│ x\nb │\n~ ~")


def test_two_heads_meet_where_they_parted() -> None:
    assert drawn(("8", "4"), ("4", "c"), ("f", "2"), ("2", "c"), ("c", "")) == picture("8\n4\n│ f\n│ 2\n├─╯\nc")


def test_several_lanes_end_in_one_row_and_cross_those_that_go_on() -> None:
    assert drawn(("a", "r"), ("b", "r"), ("x", "y"), ("c", "r"), ("r", "")) == picture(
        "a\n│ b\n│ │ x\n│ │ │ c\n├─┴─┼─╯\nr   │\n    ~"
    )


def test_a_free_lane_is_used_again() -> None:
    assert drawn(("a", ""), ("b", "c"), ("d", "c"), ("c", "")) == picture("a\nb\n│ d\n├─╯\nc")


def test_a_merge_opens_a_lane_or_meets_one() -> None:
    assert drawn(("m", "a b"), ("b", "r"), ("a", "r"), ("r", "")) == picture("m\n├─╮\n│ b\na │\n├─╯\nr")
    assert drawn(("x", "b"), ("m", "a b"), ("b", ""), ("a", "")) == picture("x\n│ m\n├─┤\nb │\n  a")


def test_ascii_has_the_same_shape() -> None:
    nodes = (("8", "c"), ("f", "c"), ("c", ""))
    assert drawn(*nodes, glyphs=ASCII) == "8\n| f\n|-'\nc"


def test_children_come_before_parents_and_else_the_order_stays() -> None:
    nodes = [("a", ("b",)), ("r", ()), ("b", ("r",)), ("x", ("r",))]
    assert [nodes[i][0] for i in children_first(nodes)] == ["a", "b", "x", "r"]


def test_a_cycle_loses_no_node() -> None:
    assert sorted(children_first([("a", ("b",)), ("b", ("a",)), ("c", ())])) == [0, 1, 2]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, tuple[str, ...]]]:
    count = draw(st.integers(0, 25))
    nodes = []
    for i in range(count):
        older = st.integers(i + 1, count + 3)
        parents = draw(st.lists(older, max_size=draw(st.sampled_from([1, 1, 1, 3])), unique=True))
        nodes.append((str(i), tuple(map(str, parents))))
    return nodes


@given(histories())
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_any_history_can_be_drawn(glyphs, nodes: list[tuple[str, tuple[str, ...]]]) -> None:
    graph = layout(nodes, glyphs)
    assert len(graph.rows) == len(nodes)
    for row in graph.rows:
        assert row.with_glyph("X")[2 * row.lane] == "X"
        for line in (*row.above, row.node, row.beside, *row.below):
            assert len(line) <= max(graph.width, len(row.beside))
            assert line == line.rstrip()
    assert sorted(children_first(nodes)) == list(range(len(nodes)))

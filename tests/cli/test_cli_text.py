"""Escaping, numbers, times, paths, words: what lines are made of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.cli import format as fmt
from ckpt.cli.escape import escape, escape_lines
from ckpt.cli.paths import format_path, parse_path
from ckpt.cli.words import WORDS_MAX, by_line, by_word
from ckpt.errors import InvalidInputError

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢 😀 \u200d", "plain é 漢 😀 \u200d"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_could_steer_a_terminal_becomes_visible(text: str, shown: str) -> None:
    assert escape(text) == shown


@given(ANY_TEXT)
def test_escaped_text_is_one_printable_line_that_can_be_encoded(text: str) -> None:
    shown = escape(text)
    shown.encode("utf-8")
    assert len(shown.splitlines()) <= 1
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in shown)
    assert escape(shown) == shown


def test_lines_stay_lines_and_tabs_become_spaces() -> None:
    assert escape_lines("a\tb\nc\x1b") == ["a   b", "c\\x1b"]


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1204, "1.2 kB"), (999_949, "999.9 kB"),
        (999_950, "1.0 MB"), (412_600_000, "412.6 MB"), (5 * 10**18, "5,000.0 PB"),
    ],
)  # fmt: skip
def test_sizes_are_base_ten(count: int, shown: str) -> None:
    assert fmt.size(count) == shown


def test_times_show_the_date_unless_it_is_today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fmt, "now", lambda: datetime(2026, 1, 31, 20, tzinfo=UTC))
    assert fmt.time_of("2026-01-31T13:02:11.41+00:00", UTC) == "13:02:11"
    assert fmt.time_of("2026-01-30T13:02:11Z", UTC) == "2026-01-30 13:02:11"
    east = timezone(timedelta(hours=14))
    assert fmt.time_of("2026-01-31T13:02:11Z", east) == "03:02:11"
    assert fmt.full_time("2026-01-31T13:02:11Z", east) == "2026-02-01 03:02:11+14:00"
    assert [fmt.age(f"2026-01-31T{time}Z") for time in ("19:59:30", "19:58:00", "18:00:00")] == [
        "now",
        "2 min",
        "2 h",
    ]
    assert fmt.age("2026-01-28T20:00:00Z") == "3 d"


def test_times_that_cannot_be_read_do_no_harm() -> None:
    for stamp in (None, "", "yesterday", "9999-99-99", "0001-01-01T00:00:00+23:59"):
        assert fmt.time_of(stamp, UTC) == ""
        assert fmt.age(stamp) == ""
        assert fmt.rfc3339(stamp) == stamp
    assert fmt.rfc3339("2026-01-31T15:02:11.410+02:00") == "2026-01-31T13:02:11.410000Z"


def test_short_ids_grow_until_they_differ() -> None:
    assert fmt.short_length(["a" * 64, "b" * 64]) == 8
    assert fmt.short_length(["a" * 64, "a" * 9 + "b" * 55, "a" * 64]) == 10
    assert fmt.unique_length("abcdef", ["abcdff", "b"]) == 5
    assert fmt.unique_length("abcdef", ["abcdef"]) == 4


@given(ANY_TEXT, st.integers(0, 30))
def test_cut_text_fits(text: str, width: int) -> None:
    shown = fmt.cut(escape(text), width)
    assert fmt.width_of(shown) <= width
    assert shown == escape(text) or width == 0 or shown.endswith("…")


def test_wide_characters_take_two_columns() -> None:
    assert fmt.width_of("漢a\u0301") == 3
    assert fmt.cut("漢字漢字", 5) == "漢字…"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("messages", ("messages",)),
        ("messages[3].content", ("messages", 3, "content")),
        ("messages[-1]", ("messages", -1)),
        ('a["b.c"][0]', ("a", "b.c", 0)),
        ('["odd key"].x', ("odd key", "x")),
        ("/a~1b/0", ("a/b", 0)),
        ("/0/01", ("0", "01")),
        ("branch:to:agent", ("branch:to:agent",)),
    ],
)
def test_paths_are_read(text: str, path: tuple[str | int, ...]) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize("text", ["", ".", "a.", "a..b", "a[", "a[x]", "a[01]", "[0]", "a]b", 'a["x"', "a[0]b"])
def test_malformed_paths_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_path(text)
    assert caught.value.hints


@given(st.tuples(ANY_TEXT), st.lists(ANY_TEXT | st.integers(-99, 10**8)))
def test_a_printed_path_reads_back(key: tuple[str], rest: list[str | int]) -> None:
    assert parse_path(format_path((*key, *rest))) == (*key, *rest)


@given(ANY_TEXT, ANY_TEXT)
def test_word_differences_rebuild_both_sides(old: str, new: str) -> None:
    pieces = by_word(old, new)
    assert "".join(text for kind, text in pieces if kind != "add") == old
    assert "".join(text for kind, text in pieces if kind != "remove") == new


def test_words_and_lines() -> None:
    assert by_word("the whole order", "the last order") == [
        ("same", "the "), ("remove", "whole"), ("add", "last"), ("same", " order"),
    ]  # fmt: skip
    assert by_line("a\nb\nc", "a\nB\nc", context=0) == ["@@ -2 +2 @@", "-b", "+B"]
    long = "word " * WORDS_MAX
    assert by_word(long, long + "x") == [("remove", long), ("add", long + "x")]

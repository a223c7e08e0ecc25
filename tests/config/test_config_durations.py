"""Durations, and lifetimes in the shapes that configurations give them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from config_kit import refused

import ckpt
from ckpt.config import load, parse_duration
from ckpt.errors import InvalidInputError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("90m", 5400), ("12h", 43200), ("30d", 2592000), ("2w", 1209600), ("1d12h", 129600),
     ("1w2d3h4m5s", 788645), ("0s", 0), ("007m", 420), ("90min", 5400),
     ("1h30min5s", 5405)],
)  # fmt: skip
def test_a_duration_is_what_it_says(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "d", "1x", "1h1d", "1d1d", "1.5h", "-1d", "1 d", "1D", " 1d", "1d\n", "٣d", "d1", "1M", "1mi", "1mins"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a duration") as caught:
        parse_duration(text)
    assert '"1d12h"' in caught.value.hints[0]


def test_a_number_without_a_unit_says_how_to_write_it() -> None:
    with pytest.raises(InvalidInputError, match="'60' is a duration without a unit") as caught:
        parse_duration("60")
    assert caught.value.hints == ('write "60s" for seconds, "60m" for minutes',)


def test_a_duration_beyond_counting_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="longer than can be counted"):
        parse_duration("999999999w")
    with pytest.raises(InvalidInputError, match="is not a duration"):
        parse_duration("9" * 5000 + "d")


@pytest.mark.parametrize("value", [5, None, b"5d", 1.5])
def test_what_is_no_text_is_no_duration(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="is not the text of a duration"):
        parse_duration(value)


@pytest.mark.parametrize("value", [60, "60"])
def test_a_bare_number_is_no_lifetime(value: object) -> None:
    assert f'ttl is a number without a unit | write "{value}s" for seconds, "{value}m" for minutes' in refused(
        {"type": "memory", "ttl": value}
    )
    assert "ttl is a number without a unit" in refused({"ckpt": {"type": "memory", "ttl": value}})


def test_a_variable_with_a_bare_number_is_not_shown() -> None:
    words = refused({"type": "memory", "ttl": "${A}"}, {"A": "60"})
    assert 'ttl is a number without a unit | write "${A}s" for seconds, "${A}m" for minutes' in words


@pytest.mark.parametrize("value", [60.0, 1.5, "1.5", "${A}"])
def test_a_fraction_is_not_told_to_take_a_unit_which_none_may_have(value: object) -> None:
    words = refused({"type": "memory", "ttl": value}, {"A": "1.5"})
    assert "ttl is a number without a unit | write a duration such as" in words


@pytest.mark.parametrize(("value", "minutes"), [(60, 60), (0.5, 0.5), ("1h", 60), ("${A}", 90), ("${F}", 1.5)])
def test_under_checkpointer_a_bare_number_is_minutes(value: object, minutes: float) -> None:
    config = load({"checkpointer": {"type": "memory", "ttl": value}}, environment={"A": "90", "F": "1.5"})
    assert config.open_options()[1] == {"ttl": timedelta(minutes=minutes)}


@pytest.mark.parametrize("held", ["1.", ".5", "1e3", "-1.5", "1,5", "nan", "inf", " 1.5", "1.5m", "٣.٣"])
def test_what_a_variable_holds_is_a_number_in_digits(held: str) -> None:
    for ttl in ("${F}", {"default_ttl": "${F}"}):
        assert "is not a duration" in refused({"checkpointer": {"type": "memory", "ttl": ttl}}, {"F": held})


@pytest.mark.parametrize(
    ("shaped", "ttl"),
    [
        ({"default_ttl": 60}, timedelta(hours=1)),
        ({"default_ttl": "1d"}, timedelta(days=1)),
        ({"default_ttl": 60, "refresh_on_read": True}, {"default_ttl": 60, "refresh_on_read": True}),
        ({"default_ttl": 0.5, "refresh_on_read": False}, {"default_ttl": 0.5, "refresh_on_read": False}),
        (
            {"default_ttl": "1d", "refresh_on_read": True, "sweep_interval_minutes": 5},
            {"default_ttl": 1440, "refresh_on_read": True, "sweep_interval_minutes": 5},
        ),
        ({"default_ttl": 1, "sweep_interval_minutes": "1h"}, {"default_ttl": 1, "sweep_interval_minutes": 60}),
        (
            {"default_ttl": "${F}", "sweep_interval_minutes": "${F}"},
            {"default_ttl": 1.5, "sweep_interval_minutes": 1.5},
        ),
    ],
)
def test_in_langgraphs_shape_bare_numbers_are_minutes(shaped: dict[str, object], ttl: object) -> None:
    assert load({"type": "memory", "ttl": shaped}, environment={"F": "1.5"}).open_options()[1] == {"ttl": ttl}


LONG, SHORT = "is more than a hundred years", "is less than a millisecond"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"ttl": "200000d"}, f"ttl {LONG}"),
        ({"ttl": "36500d1s"}, f"ttl {LONG}"),
        ({"ttl": {"default_ttl": "36501d"}}, f"ttl.default_ttl {LONG}"),
        ({"ttl": {"default_ttl": 36500 * 1440 + 1}}, f"ttl.default_ttl {LONG}"),
        ({"ttl": {"default_ttl": 1, "sweep_interval_minutes": "36501d"}}, f"ttl.sweep_interval_minutes {LONG}"),
        ({"retention": {"keep_within": "36501d"}}, f"retention.keep_within {LONG}"),
        ({"ttl": {"default_ttl": 1e-5}}, f"ttl.default_ttl {SHORT}"),
        ({"ttl": {"default_ttl": 1, "sweep_interval_minutes": 1e-5}}, f"ttl.sweep_interval_minutes {SHORT}"),
    ],
)
def test_what_no_store_would_be_opened_with_is_refused_by_load(
    source: dict[str, object], words: str, tmp_path: Path
) -> None:
    file = tmp_path / "ckpt.yaml"
    # YAML takes 1e-05 for a text.
    file.write_text(json.dumps({"type": "memory", **source}).replace("1e-05", "0.00001"))
    with pytest.raises(InvalidInputError) as caught:
        load(file)
    assert f"{file}: {words}" in str(caught.value)


@pytest.mark.parametrize("ttl", ["36500d", {"default_ttl": 0.001, "sweep_interval_minutes": "36500d"}])
def test_what_load_takes_opens_a_store(ttl: object) -> None:
    url, options = load({"type": "memory", "ttl": ttl, "retention": {"keep_within": "36500d"}}).open_options()
    ckpt.open(url, **options).close()


@pytest.mark.parametrize(
    ("ttl", "words"),
    [
        ("0s", "ttl is not longer than nothing"),
        ("soon", "ttl is not a duration | write a duration such as"),
        (True, "ttl is true or false, not a duration"),
        ([1], "ttl is a list, not a duration"),
        ({}, "ttl.default_ttl is missing"),
        ({"refresh_on_read": True}, "ttl.default_ttl is missing"),
        ({"default_ttl": 0}, "ttl.default_ttl is not longer than nothing"),
        ({"default_ttl": -5}, "ttl.default_ttl is not longer than nothing"),
        ({"default_ttl": float("nan")}, "ttl.default_ttl is not a duration"),
        ({"default_ttl": 1e300}, "ttl.default_ttl is not a duration"),
        ({"default_ttl": None}, "ttl.default_ttl is nothing, not a duration"),
        ({"default_ttl": 1, "refresh_on_read": 1}, "ttl.refresh_on_read is a number, not true or false"),
        ({"default_tll": 1}, "ttl.default_tll is not known | did you mean ttl.default_ttl?"),
        ({"default_ttl": 1, "strategy": "delete"}, "ttl.strategy is not known | known are default_ttl, "),
    ],
)
def test_a_lifetime_that_cannot_be_meant_is_refused(ttl: object, words: str) -> None:
    assert words in refused({"type": "memory", "ttl": ttl})

"""Durations as people write them: `30d`, `12h`, `1d12h`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from ckpt.errors import InvalidInputError

DURATION_FORMS: Final = 'write a duration such as "30d", "12h", "90m", "45s", "2w" or "1d12h"'

_DURATION = re.compile(
    r"(?:(?P<weeks>\d{1,9})w)?(?:(?P<days>\d{1,9})d)?(?:(?P<hours>\d{1,9})h)?"
    r"(?:(?P<minutes>\d{1,9})m(?:in)?)?(?:(?P<seconds>\d{1,9})s)?",
    re.ASCII,
)


DURATION_MAX: Final = timedelta(days=36500)
"""A hundred years: longer ones are a slip, and no calendar would hold the longest."""

_UNITS: Final = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1), "s": timedelta(seconds=1)}


def duration_text(duration: timedelta) -> str:
    """Return a duration in the form that `parse_duration` reads; what is less than a second is left out."""
    parts = []
    for unit, length in _UNITS.items():
        count, duration = divmod(duration, length)
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts) or "0s"


def parse_duration(text: str) -> timedelta:
    """Return the duration that a text such as `30d`, `1d12h` or `2w` means; units w, d, h, m or min, s, largest first.

    Each number is whole and has a unit. Raises InvalidInputError for anything else.
    """
    if not isinstance(text, str):
        raise InvalidInputError(f"{text!r} is not the text of a duration", hints=[DURATION_FORMS])
    if text.isascii() and text.isdigit():
        hints = [f'write "{text}s" for seconds, "{text}m" for minutes']
        raise InvalidInputError(f"{text!r} is a duration without a unit", hints=hints)
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise InvalidInputError(f"{text!r} is not a duration", hints=[DURATION_FORMS])
    try:
        return timedelta(**{unit: int(number) for unit, number in match.groupdict(default="0").items()})
    except OverflowError as error:
        raise InvalidInputError(f"{text!r} is longer than can be counted", hints=[DURATION_FORMS]) from error

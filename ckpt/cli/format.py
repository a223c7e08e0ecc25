"""Numbers, sizes, times and cells as people read them. Pure functions; nothing here prints or colours."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from typing import Final

ELLIPSIS: Final = "…"
ID_LENGTH: Final = 8

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")


def size(count: int) -> str:
    """Return a number of bytes in units of 1000: `640 B`, `1.2 kB`, `412.6 MB`."""
    amount = float(count)
    for unit in _UNITS:
        if unit == "B" and count < 1000:
            return f"{count} B"
        if round(amount, 1) < 1000 or unit == _UNITS[-1]:
            return f"{amount:,.1f} {unit}"
        amount /= 1000
    raise AssertionError


def ratio(whole: int, part: int) -> str:
    """Return how many times `part` fits into `whole`, as `21.0x`; `-` if there is nothing to compare."""
    return f"{whole / part:,.1f}x" if part else "-"


def share(part: int, whole: int) -> str:
    """Return `part` of `whole` in percent."""
    return f"{100 * part / whole:.0f}%" if whole else "-"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return `1 checkpoint`, `2,140 checkpoints`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def short(identifier: str, length: int = ID_LENGTH) -> str:
    """Return the beginning of an id that people read."""
    return identifier[:length]


def short_length(identifiers: list[str]) -> int:
    """Return how many characters tell all these ids apart, at least the usual eight."""
    distinct = sorted(set(identifiers))
    needed = ID_LENGTH
    for left, right in pairwise(distinct):
        common = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), len(left))
        needed = max(needed, common + 1)
    return needed


def unique_length(identifier: str, others: list[str]) -> int:
    """Return the length of the shortest prefix, of 4 or more, that no other of these ids begins with."""
    length = 4
    for other in others:
        if other == identifier:
            continue
        while length < len(identifier) and other.startswith(identifier[:length]):
            length += 1
    return length


def now() -> datetime:
    """Return the current moment; tests replace it."""
    return datetime.now(UTC)


def moment(stamp: str | None) -> datetime | None:
    """Return the moment that a stored time stamp names, or None if it names none."""
    if not stamp:
        return None
    try:
        read = datetime.fromisoformat(stamp)
        return read.astimezone(UTC) if read.tzinfo else read.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def rfc3339(stamp: str | None) -> str | None:
    """Return a stored time stamp in UTC with a Z, for JSON; one that cannot be read stays as it is."""
    read = moment(stamp)
    return read.isoformat().replace("+00:00", "Z") if read else stamp


def stamp_of(seconds: float) -> str | None:
    """Return seconds since 1970 as a time stamp, or None for what is no moment."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return None


def time_of(stamp: str | None, zone: tzinfo | None) -> str:
    """Return the time of day if it was today, else the date as well. `zone` None is the local one."""
    read = moment(stamp)
    if read is None:
        return ""
    there = read.astimezone(zone)
    today = now().astimezone(zone).date()
    return there.strftime("%H:%M:%S" if there.date() == today else "%Y-%m-%d %H:%M:%S")


def full_time(stamp: str | None, zone: tzinfo | None) -> str:
    """Return date, time and offset."""
    read = moment(stamp)
    if read is None:
        return stamp or ""
    return read.astimezone(zone).isoformat(sep=" ", timespec="seconds")


def age(stamp: str | None) -> str:
    """Return how long ago something was, in one unit: `now`, `2 min`, `1 h`, `3 d`."""
    read = moment(stamp)
    if read is None:
        return ""
    seconds = int((now() - read).total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return "now"


def width_of(text: str) -> int:
    """Return how many columns a terminal needs for `text`."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width  # only texts that need it pay for it

    return sum(
        0 if combining(char) or char == "\u200d" else 2 if east_asian_width(char) in "WF" else 1 for char in text
    )


def cut(text: str, width: int) -> str:
    """Return `text` in at most `width` columns, with an ellipsis where it was cut."""
    if width_of(text) <= width:
        return text
    kept: list[str] = []
    room = max(width - 1, 0)
    for char in text:
        room -= width_of(char)
        if room < 0:
            break
        kept.append(char)
    return "".join(kept).rstrip() + ELLIPSIS if width > 0 else ""

"""Checkpoint ids: version 6 UUIDs (RFC 9562), whose text sorts by time, as LangGraph makes them.

An id made here is greater than every other in its thread even when another host's clock ran ahead.
"""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime

_GREGORIAN_OFFSET = 0x01B21DD213814000
"""100 ns intervals between 1582-10-15 and 1970-01-01."""

TIME_END = 253_402_300_800
"""The year 10000, in seconds since 1970: no time of ours is later, and none from then on can be told."""

_UUID6 = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-6([0-9a-f]{3})-[0-9a-f]{4}-[0-9a-f]{12}")


def uuid6_text(ticks: int) -> str:
    """Return a version 6 UUID for a number of 100 ns intervals since 1970."""
    stamp = ticks + _GREGORIAN_OFFSET
    tail = int.from_bytes(os.urandom(8), "big")
    high, middle, low = stamp >> 28 & 0xFFFFFFFF, stamp >> 12 & 0xFFFF, stamp & 0x0FFF
    return f"{high:08x}-{middle:04x}-6{low:03x}-{0x8000 | tail >> 48 & 0x3FFF:04x}-{tail & 0xFFFFFFFFFFFF:012x}"


def now_ms() -> int:
    """Return the present moment in milliseconds since 1970, as lifetimes count it."""
    return time.time_ns() // 1_000_000


def next_checkpoint_id(greatest: str) -> str:
    """Return a new id that sorts behind `greatest`."""
    ticks = time.time_ns() // 100
    made = uuid6_text(ticks)
    if made > greatest:
        return made
    # Any text that continues another sorts behind it, whatever form the other has. An id of ours is counted on
    # instead, so that ids do not grow while a clock is behind.
    start, dot, last = greatest.rpartition(".")
    behind = _ticks(last)
    return f"{start}{dot}{uuid6_text(max(ticks, behind + 1))}" if behind is not None else f"{greatest}.{made}"


def _ticks(text: str) -> int | None:
    """Undo `uuid6_text`, but for the random part; None for any other text."""
    match = _UUID6.fullmatch(text)
    return int("".join(match.groups()), 16) - _GREGORIAN_OFFSET if match is not None else None


def now_text() -> str:
    """Return the present moment in the form LangGraph writes into `ts`."""
    return datetime.now(UTC).isoformat()

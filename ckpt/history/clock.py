"""Checkpoint ids: version 6 UUIDs (RFC 9562), whose text sorts by time, as LangGraph makes them.

An id made here is greater than every other in its thread even when another host's clock ran ahead.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

_GREGORIAN_OFFSET = 0x01B21DD213814000
"""100 ns intervals between 1582-10-15 and 1970-01-01."""


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
    made = uuid6_text(time.time_ns() // 100)
    # Any text that continues another sorts behind it, whatever form the other has.
    return made if made > greatest else f"{greatest}.{made}"


def now_text() -> str:
    """Return the present moment in the form LangGraph writes into `ts`."""
    return datetime.now(UTC).isoformat()

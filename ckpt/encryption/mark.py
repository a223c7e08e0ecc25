"""How an encrypted store is told from a plain one, without the library that decrypts it."""

from __future__ import annotations

HEADER_KEY = b"k\x00"
"""The key of the header's record. No other kind of record has a key that begins with `k`."""

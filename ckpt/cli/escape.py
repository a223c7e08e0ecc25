"""Make stored text safe to show: nothing in it may steer a terminal or reorder a line.

Messages come from models, users and web pages. Control characters (C0, C1), bidirectional controls,
invisible tag characters, line separators and lone surrogates become visible escapes such as `\\x1b` and
`\\u202e`. Quoting for reading back is not the job of this module; see `ckpt.history.readings.quote`.
"""

from __future__ import annotations

import re
from typing import Final

_UNSAFE: Final = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0, delete, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, embeddings and isolates
    "\u2028\u2029\ufeff\ufff9-\ufffb"  # separators that some terminals break lines at, byte order mark
    "\ud800-\udfff"  # surrogates cannot be encoded
    "\U000e0000-\U000e007f"  # invisible copies of ASCII
    "]"
)
_NAMED: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape(text: str) -> str:
    """Return `text` on one line with every unsafe character written as a visible escape."""
    return _UNSAFE.sub(_visible, text)


def escape_lines(text: str) -> list[str]:
    """Split `text` at its newlines and return each line escaped; tabs become spaces."""
    return [escape(line.expandtabs(4)) for line in text.split("\n")]


def _visible(found: re.Match[str]) -> str:
    char = found[0]
    code = ord(char)
    if char in _NAMED:
        return _NAMED[char]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

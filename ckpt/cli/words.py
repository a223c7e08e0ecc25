"""The difference of two texts, by word or by line. Pure; colours and prefixes belong to the caller."""

from __future__ import annotations

import re
from difflib import SequenceMatcher, unified_diff
from typing import Final, Literal, TypeAlias

Piece: TypeAlias = tuple[Literal["same", "remove", "add"], str]

# Beyond this many words the quadratic worst case of the matcher is felt; then whole texts are compared.
WORDS_MAX: Final = 20_000
_WORD: Final = re.compile(r"\s+|\w+|[^\w\s]")


def by_word(old: str, new: str) -> list[Piece]:
    """Return pieces that, without the added ones, make `old`, and without the removed ones, `new`."""
    left, right = _WORD.findall(old), _WORD.findall(new)
    if len(left) + len(right) > WORDS_MAX:
        return [("remove", old), ("add", new)] if old != new else [("same", old)]
    pieces: list[Piece] = []
    for tag, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if tag == "equal":
            pieces.append(("same", "".join(left[a:b])))
            continue
        if b > a:
            pieces.append(("remove", "".join(left[a:b])))
        if d > c:
            pieces.append(("add", "".join(right[c:d])))
    return pieces


def by_line(old: str, new: str, *, context: int) -> list[str]:
    """Return the lines of a unified diff without its file header; a hunk begins with `@@`."""
    lines = unified_diff(old.split("\n"), new.split("\n"), lineterm="", n=context)
    return list(lines)[2:]

"""Values as JSON would have them: without what a class adds to a text, a number, a list or a dict.

LangGraph's programs hand over such values unawares: the `text` of a message, an enum of texts, a number of numpy's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckpt.values.kinds import CODES, SCALARS


def plain_text(text: str) -> str:
    """Return the characters of a text, of an enum of texts its value, whatever its class says that `str` is of it."""
    return text if type(text) is str else str.__str__(text)


def plain_scalar(value: Any) -> Any:
    """Return a text or number as a plain str, int or float, and all else as it is."""
    if type(value) in SCALARS:
        return value
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    return value


def plain(value: Mapping[str, Any]) -> Any:
    """Return a value with all texts and numbers in it plain, and lists and dicts of a class that cannot be stored.

    What needs no change is not copied. What is nested too deeply, or in itself, is left to who stores it.
    """
    try:
        return _plain(value)
    except RecursionError:
        return value


def _plain(value: Any) -> Any:
    cls = type(value)
    if cls is dict or (isinstance(value, dict) and cls not in CODES):
        entries = [(plain_scalar(key), _plain(each)) for key, each in value.items()]
        same = all(a is c and b is d for (a, b), (c, d) in zip(entries, value.items(), strict=True))
        return value if cls is dict and same else dict(entries)
    if cls in (list, tuple) or (isinstance(value, list) and cls not in CODES):
        items = [_plain(each) for each in value]
        same = all(a is b for a, b in zip(items, value, strict=True))
        return value if cls in (list, tuple) and same else tuple(items) if cls is tuple else items
    return plain_scalar(value)

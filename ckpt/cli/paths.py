"""State paths as people write them: `messages[3].content`, or JSON Pointer `/a~1b/0` for odd keys.

From text to a tuple of keys and indexes and back; `ckpt.cli.values` follows them.
"""

from __future__ import annotations

import json
import re
from typing import Final, NoReturn, TypeAlias

Path: TypeAlias = tuple[str | int, ...]

_NAME: Final = re.compile(r"[^.\[\]\"]+")
_INDEX: Final = re.compile(r"\[(0|-?[1-9][0-9]{0,8})\]")
_PLAIN: Final = re.compile(r"[^\W\d][\w:-]*|__\w+__")
_POINTER_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")
_STRING: Final = json.JSONDecoder(strict=False)


def parse_path(text: str) -> Path:
    """Read a path, or raise InvalidInputError. In a pointer a number is an index and a key alike."""
    if text.startswith("/"):
        parts = [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]
        return (parts[0], *(int(part) if _POINTER_INDEX.fullmatch(part) else part for part in parts[1:]))
    path: list[str | int] = []
    at = 0
    while at < len(text):
        if path and text[at] == ".":
            at += 1
        elif path and text[at] != "[":
            _fail(text)
        index = _INDEX.match(text, at)
        name = _NAME.match(text, at)
        if index and path:
            path.append(int(index[1]))
            at = index.end()
        elif text.startswith('["', at):
            try:
                key, end = _STRING.raw_decode(text, at + 1)
            except ValueError:
                _fail(text)
            if not text.startswith("]", end):
                _fail(text)
            path.append(str(key))
            at = end + 1
        elif name and (not path or text[at - 1] == "."):
            path.append(name[0])
            at = name.end()
        else:
            _fail(text)
    if not path or text.endswith("."):
        _fail(text)
    return tuple(path)


def format_path(path: Path, *, relative: bool = False) -> str:
    """Return the path as text that `parse_path` reads back; a relative one begins with `.` or `[`."""
    written: list[str] = []
    for part in path:
        if isinstance(part, int):
            written.append(f"[{part}]")
        elif _PLAIN.fullmatch(part):
            written.append(f".{part}")
        else:
            from ckpt.history.readings import quote

            written.append(f"[{quote(part)}]")
    text = "".join(written)
    return text if relative else text.removeprefix(".")


def _fail(text: str) -> NoReturn:
    from ckpt.errors import InvalidInputError
    from ckpt.history.readings import quote

    raise InvalidInputError(
        f"cannot read the path {quote(text)}",
        hints=["write messages[3].content, or a JSON Pointer such as /a~1b/0 for keys with odd characters"],
    )

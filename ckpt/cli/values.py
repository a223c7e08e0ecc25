"""Show inert values: on one line, in full, and one part of them by its path. Nothing is imported or run."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ckpt.cli.escape import escape
from ckpt.cli.format import cut, short, size
from ckpt.cli.output import Output
from ckpt.cli.paths import Path, format_path
from ckpt.errors import PathNotFoundError
from ckpt.values.inert import InertMessage, InertObject, summary, to_json
from ckpt.values.tree import step


def follow(value: object, path: Path, *, start: Path = ()) -> object:
    """Return the part of `value` at `path`, or raise PathNotFoundError naming where it ends."""
    for depth, part in enumerate(path):
        found, inside = step(value, part)
        if not found:
            here = format_path((*start, *path[:depth]))
            hints = [f"the last part that exists is {here}: {_children(value)}"]
            if isinstance(part, str) and part.isdecimal() and step(value, int(part))[0]:
                hints.append(f"there is {format_path((*start, *path[:depth], int(part)))}")
            raise PathNotFoundError(f"the state holds nothing at {format_path((*start, *path))}", hints=hints)
        value = inside
    return value


def message_text(message: InertMessage) -> str:
    """Return what a message says: its text, `[image]` and the like for other blocks, and its tool calls."""
    parts = [_content(message.content)]
    for call in message.tool_calls:
        if isinstance(call, dict):
            arguments = summary(call.get("args", {}), 1000)
            parts.append(f"{_name(call.get('name', '?'))}({arguments})")
    return " ".join(part for part in parts if part)


def one_line(out: Output, value: object, width: int) -> str:
    """Return a value on one line of about this width, escaped."""
    if isinstance(value, InertMessage):
        shown = message_text(value)[: width + 1]
        text = out.text(f"{value.type:<7} {' '.join(shown.split())}")
    elif (digest := _digest(value)) is not None:
        text = digest
    else:
        text = out.text(summary(value, width))
    return cut(text, width)


def brief(out: Output, name: str, value: object, width: int) -> Iterator[str]:
    """Yield a channel as a heading and at most one line for each message."""
    key = out.style(out.text(name), "key")
    if isinstance(value, list) and value and all(isinstance(item, InertMessage) for item in value):
        yield f"{key}: {len(value)} messages"
        digits = len(str(len(value) - 1)) + 2
        for index, item in enumerate(value):
            yield f"  {f'[{index}]':<{digits}} {one_line(out, item, max(width - digits - 3, 20))}"
    else:
        yield f"{key}: {one_line(out, value, max(width - len(name) - 2, 20))}"


def full(out: Output, value: object) -> Iterator[str]:
    """Yield all of a value: texts as lines, messages with their head, everything else as indented JSON."""
    if isinstance(value, str):
        yield from out.lines(value)
    elif isinstance(value, InertMessage):
        head = [
            value.type,
            *(f"{label} {part}" for label, part in (("id", value.id), ("name", value.name)) if part),
        ]
        yield out.style(out.text("  ".join(head)), "key")
        content = _content(value.content)
        for line in out.lines(content) if content else ():
            yield f"  {line}"
        for call in value.tool_calls:
            yield f"  tool call {out.text(summary(call, 10_000))}"
    else:
        text = json.dumps(to_json(value), indent=2, ensure_ascii=False)
        yield from out.lines(text)


def _digest(value: object) -> str | None:
    """Return what the engine gives in place of long text and binary data."""
    if not isinstance(value, InertObject) or value.module or not isinstance(value.fields, dict):
        return None
    length, hashed = value.fields.get("size"), value.fields.get("hash")
    if type(length) is not int or length.bit_length() > 64 or not isinstance(hashed, str):
        return None
    return escape(f"<{value.name}, {size(length)}, hash {short(hashed)}>")


def _children(value: object) -> str:
    if isinstance(value, InertMessage | InertObject):
        value = value.fields
    if isinstance(value, dict):
        keys = ", ".join(_name(key) for key in list(value)[:10])
        return f"its keys are {keys}" if keys else "it is empty"
    if isinstance(value, list | tuple):
        return f"it has {len(value)} items"
    return "it has no parts"


def _name(value: object) -> str:
    """Return what should be a name as it is, and all else as any value is shown."""
    return value if isinstance(value, str) else summary(value, 200)


def _content(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return summary(content, 1000)
    parts: list[str] = []
    for block in content:
        if isinstance(block, str):
            parts.append(block)
        elif isinstance(block, dict) and isinstance(block.get("text"), str):
            parts.append(block["text"])
        elif isinstance(block, dict):
            parts.append(f"[{_name(block.get('type', 'block'))}]")
        else:
            parts.append(summary(block, 200))
    return " ".join(parts)

"""Show a difference: by key, by message, by word. Never raw bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from ckpt.cli.format import counted, cut, short, size, width_of
from ckpt.cli.output import Cell, Output
from ckpt.cli.paths import format_path
from ckpt.cli.values import full, message_text, one_line
from ckpt.cli.words import by_line, by_word
from ckpt.values.inert import InertMessage

if TYPE_CHECKING:
    from ckpt.repository import Change, CheckpointInfo, Diff

SIGNS: Final = {"add": "+", "remove": "-", "change": "~", "move": ">"}
_STYLES: Final = {"add": "add", "remove": "remove", "change": "change", "move": "change"}

Extent = Callable[[str], str]
"""From a key to how large its value is on both sides, as `6 -> 7 items`."""


def heading(out: Output, found: Diff) -> None:
    """Print which checkpoints are compared and how many keys differ."""
    a, b = found.a, found.b
    keys = len(_by_key(found.changes))
    left = f"{out.text(a.thread)}   {_name(a)}" if a else "nothing"
    right = f"{out.text(b.thread)} {_name(b)}" if a is None or a.thread != b.thread else _name(b)
    hidden = f" ({found.hidden} internal hidden)" if found.hidden else ""
    out.print(f"{left} -> {right}     {counted(keys, 'key')} changed, {found.same} the same{hidden}")


def by_path(out: Output, found: Diff, extent: Extent, *, words: bool, everything: bool, context: int) -> None:
    """Print every change below its key."""
    for key, changes in _by_key(found.changes).items():
        size_text = extent(key)
        name = out.style(out.text(key), "key")
        out.print(f"{name}   {size_text}".rstrip())
        for change in changes:
            for line in _lines(out, change, words=words, everything=everything, context=context):
                out.print(f"  {line}")


def statistics(out: Output, found: Diff, extent: Extent) -> None:
    """Print one line for each key, and a total."""
    rows = []
    for key, changes in _by_key(found.changes).items():
        counts = {op: sum(change.op == op for change in changes) for op in SIGNS}
        moved = f"  >{counts['move']}" if counts["move"] else ""
        rows.append([
            Cell(out.text(key), "key"),
            Cell(f"| {extent(key)}"),
            Cell(f"+{counts['add']}  ~{counts['change']}  -{counts['remove']}{moved}"),
        ])  # fmt: skip
    out.table(rows, flexible=0)
    keys = counted(len(rows), "key")
    out.print(f"{keys} changed, {size(found.bytes_new)} new, {size(found.bytes_shared)} shared")


def keys_only(out: Output, found: Diff) -> None:
    """Print the changed keys with the sign of what happened to them."""
    for key, changes in _by_key(found.changes).items():
        whole = changes[0] if len(changes) == 1 and len(changes[0].path) == 1 else None
        sign = SIGNS[whole.op] if whole else "~"
        out.print(f"{sign} {out.text(key)}")


def _by_key(changes: Sequence[Change]) -> dict[str, list[Change]]:
    keys: dict[str, list[Change]] = {}
    for change in changes:
        keys.setdefault(str(change.path[0]), []).append(change)
    return keys


def _lines(out: Output, change: Change, *, words: bool, everything: bool, context: int) -> Iterator[str]:
    place = out.text(format_path(change.path[1:], relative=True))
    sign = out.style(SIGNS[change.op], _STYLES[change.op])
    lead = f"{sign} {place} " if place else f"{sign} "
    room = max(out.width - width_of(place) - 6, 20)
    old, new = change.old, change.new
    if change.op == "change":
        if (
            isinstance(old, InertMessage)
            and isinstance(new, InertMessage)
            and message_text(old) != message_text(new)
        ):
            yield from _text(
                out, f"{lead}{out.text(f'{new.type:<7}')} ", message_text(old), message_text(new),
                words=words, context=context,
            )  # fmt: skip
        elif isinstance(old, str) and isinstance(new, str) and (words or not _is_short(old, new, room)):
            yield from _text(out, lead, old, new, words=words, context=context)
        else:
            yield from _values(out, lead, old, new, room)
        return
    value = old if change.op == "remove" else new
    if everything:
        yield lead.rstrip()
        for line in full(out, value):
            yield f"    {line}"
    else:
        yield lead + one_line(out, value, room)


def _text(out: Output, lead: str, old: str, new: str, *, words: bool, context: int) -> Iterator[str]:
    if words:
        pieces = []
        for kind, text in by_word(old, new):
            shown = out.text(text)
            if kind == "remove":
                shown = out.style(f"[-{shown}-]", "remove")
            elif kind == "add":
                shown = out.style(f"{{+{shown}+}}", "add")
            pieces.append(shown)
        yield lead + "".join(pieces)
    elif "\n" in old or "\n" in new:
        yield lead.rstrip()
        for line in by_line(old, new, context=context):
            style = {"+": "add", "-": "remove", "@": "dim"}.get(line[:1], "")
            yield "    " + out.style(out.text(line), style)
    else:
        yield lead.rstrip()
        room = max(out.width - 8, 20)
        for mark, text, style in (("-", old, "remove"), ("+", new, "add")):
            yield "    " + out.style(f"{mark} {cut(out.text(text), room)}", style)


def _values(out: Output, lead: str, old: object, new: object, room: int) -> Iterator[str]:
    left, right = one_line(out, old, room), one_line(out, new, room)
    delta = _delta(old, new)
    if width_of(left) + width_of(right) + 4 <= room:
        yield f"{lead}{left} -> {right}{delta}"
        return
    yield lead.rstrip()
    yield "    " + out.style(f"- {left}", "remove")
    yield "    " + out.style(f"+ {right}", "add")


def _is_short(old: str, new: str, room: int) -> bool:
    return len(old) + len(new) + 10 <= room and "\n" not in old + new


def _delta(old: object, new: object) -> str:
    numbers = (int, float)
    if isinstance(old, bool) or isinstance(new, bool):
        return ""
    if isinstance(old, numbers) and isinstance(new, numbers):
        if isinstance(old, int) and isinstance(new, int) and max(abs(old), abs(new)) < 10**15:
            return f" ({new - old:+,})"
        if isinstance(old, float) or isinstance(new, float):
            return f" ({float(new) - float(old):+.6g})" if max(abs(old), abs(new)) < 1e300 else ""
    return ""


def _name(info: CheckpointInfo) -> str:
    return f"{short(info.id)}{f' #{info.step}' if info.step is not None else ''}"

"""Show a difference: by key, by message, by word. Never raw bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckpt.cli.format import counted, cut, short, size, width_of
from ckpt.cli.output import Cell, Output
from ckpt.cli.paths import Path, format_path
from ckpt.cli.state import Extent
from ckpt.cli.values import full, message_text, one_line
from ckpt.cli.words import by_line, by_word
from ckpt.values.inert import InertMessage

if TYPE_CHECKING:
    from ckpt.repository import Change, CheckpointInfo, Diff

SIGNS: Final = {"add": "+", "remove": "-", "change": "~", "move": ">"}
_STYLES: Final = {"add": "add", "remove": "remove", "change": "change", "move": "change"}
_IN_TEXT: Final = (("content",), ("tool_calls",))
"""The parts of a message that its text shows."""

Extents = Callable[[str], tuple[Extent | None, Extent | None]]
"""From a key to how large its value is on both sides."""


@dataclass(frozen=True)
class Form:
    """How much to show: the words that changed, whole values, and how many lines around a change."""

    words: bool
    full: bool
    context: int


def heading(out: Output, found: Diff) -> None:
    """Print which checkpoints are compared and how many keys differ."""
    old, new, changes = found.old, found.new, found.changes
    keys = len(_by_key(changes.changes))
    left = f"{out.name(old.thread)}   {_name(old)}" if old is not None else "nothing"
    right = _name(new)
    if old is None or old.thread != new.thread:
        right = f"{out.name(new.thread)} {right}"
    hidden = f" ({changes.hidden} internal hidden)" if changes.hidden else ""
    out.print(f"{left} -> {right}     {counted(keys, 'key')} changed, {changes.same} the same{hidden}")


def by_path(out: Output, found: Diff, extents: Extents, form: Form) -> None:
    """Print every change below its key."""
    for key, changes in _by_key(found.changes.changes).items():
        name = out.style(out.text(key), "key")
        out.print(f"{name}   {_extent(*extents(key))}".rstrip())
        for change in changes:
            for line in _lines(out, change, change.path[1:], form):
                out.print(f"  {line}")


def unchanged(out: Output, paths: Sequence[Path]) -> None:
    """Print paths that were asked for and are the same on both sides."""
    for path in paths:
        out.print(f"{out.style(out.text(format_path(path)), 'key')}   (unchanged)")


def statistics(out: Output, found: Diff, extents: Extents, fresh: Callable[[str], int]) -> None:
    """Print one line for each key, and a total; `fresh` says how many bytes of a key are new."""
    rows = []
    for key, changes in _by_key(found.changes.changes).items():
        counts = {op: sum(change.op == op for change in changes) for op in SIGNS}
        moved = f"  >{counts['move']}" if counts["move"] else ""
        rows.append([
            Cell(out.text(key), "key"),
            Cell(f"| {_extent(*extents(key), always=True)}"),
            Cell(f"+{counts['add']}  ~{counts['change']}  -{counts['remove']}{moved}"),
            Cell("|"),
            Cell(f"{size(fresh(key))} new", right=True),
        ])  # fmt: skip
    out.table(rows, flexible=(0,))
    total = f"{size(found.changes.bytes_new)} new, {size(found.changes.bytes_shared)} shared"
    out.print(f"{counted(len(rows), 'key')} changed, {total}")


def keys_only(out: Output, found: Diff) -> None:
    """Print the changed keys with the sign of what happened to them."""
    for key, changes in _by_key(found.changes.changes).items():
        whole = changes[0] if len(changes) == 1 and len(changes[0].path) == 1 else None
        sign = SIGNS[whole.op] if whole else "~"
        out.print(f"{sign} {out.text(key)}")


def _by_key(changes: Sequence[Change]) -> dict[str, list[Change]]:
    keys: dict[str, list[Change]] = {}
    for change in changes:
        keys.setdefault(str(change.path[0]), []).append(change)
    return keys


def _extent(old: Extent | None, new: Extent | None, *, always: bool = False) -> str:
    """Return `6 -> 7 items`; one number if nothing changed or there is one side only."""
    sides = [side for side in (old, new) if side is not None]
    if len(sides) == 2 and sides[0][1] == sides[1][1] and (always or sides[0] != sides[1]):
        return f"{sides[0][0]:,} -> {counted(*sides[1])}"
    return " -> ".join(dict.fromkeys(counted(*side) for side in sides))


def _lines(out: Output, change: Change, place: Path, form: Form) -> Iterator[str]:
    shown = out.text(format_path(place, relative=True))
    sign = out.style(SIGNS[change.op], _STYLES[change.op])
    lead = f"{sign} {shown} " if shown else f"{sign} "
    room = max(out.width - width_of(shown) - 6, 20)
    old, new = change.old, change.new
    if change.op == "move":
        yield from _moved(out, change, lead, room)
    elif change.op != "change":
        value = old if change.op == "remove" else new
        if form.full:
            yield lead.rstrip()
            for line in full(out, value):
                yield f"    {line}"
        else:
            yield lead + one_line(out, value, room)
    elif isinstance(old, InertMessage) and isinstance(new, InertMessage):
        yield from _message(out, change, f"{lead}{out.text(f'{new.type:<7}')} ", form)
    elif isinstance(old, str) and isinstance(new, str) and (form.words or not _is_short(old, new, room)):
        yield from _text(out, lead, old, new, form)
    else:
        yield from _values(out, lead, old, new, room, form)


def _message(out: Output, change: Change, lead: str, form: Form) -> Iterator[str]:
    """Yield what changed in a message: its text, then the parts that its text does not show."""
    assert isinstance(change.old, InertMessage)
    assert isinstance(change.new, InertMessage)
    before, after = message_text(change.old), message_text(change.new)
    depth = len(change.path)
    parts = change.parts
    if before != after:
        yield from _text(out, lead, before, after, form)
        parts = tuple(each for each in parts if each.path[depth : depth + 1] not in _IN_TEXT)
    else:
        yield lead.rstrip()
    for each in parts:
        for line in _lines(out, each, each.path[depth:], form):
            yield f"    {line}"


def _moved(out: Output, change: Change, lead: str, room: int) -> Iterator[str]:
    if change.old_path is None:
        yield f"{lead}(order) {one_line(out, change.new, room)}"
        return
    place = out.text(format_path(change.old_path[1:], relative=True))
    yield f"{lead}was {place} {one_line(out, change.new, max(room - width_of(place) - 5, 20))}"


def _text(out: Output, lead: str, old: str, new: str, form: Form) -> Iterator[str]:
    if form.words:
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
        for line in by_line(old, new, context=form.context):
            style = {"+": "add", "-": "remove", "@": "dim"}.get(line[:1], "")
            yield "    " + out.style(out.text(line), style)
    else:
        yield lead.rstrip()
        room = max(out.width - 8, 20)
        for mark, text, style in (("-", old, "remove"), ("+", new, "add")):
            shown = out.text(text)
            yield "    " + out.style(f"{mark} {shown if form.full else cut(shown, room)}", style)


def _values(out: Output, lead: str, old: object, new: object, room: int, form: Form) -> Iterator[str]:
    left, right = one_line(out, old, room), one_line(out, new, room)
    if width_of(left) + width_of(right) + 4 <= room:
        yield f"{lead}{left} -> {right}{_delta(old, new)}"
        return
    yield lead.rstrip()
    for mark, value, shown, style in (("-", old, left, "remove"), ("+", new, right, "add")):
        for line in full(out, value) if form.full else [shown]:
            yield "    " + out.style(f"{mark} {line}", style)


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

"""Draw a log: one line for each checkpoint, beside the lanes of `ckpt.cli.graph`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckpt.cli.format import cut, short, short_length, size, time_of, unique_length, width_of
from ckpt.cli.graph import ASCII, UNICODE, Glyphs, Row, layout
from ckpt.cli.output import Cell, Output

if TYPE_CHECKING:
    from ckpt.repository import ChannelChange, CheckpointInfo

KEYS_SHOWN: Final = 4
_STANDSTILL: Final = {"interrupted": "waiting", "error": "failed"}
"""What is said of a status, which is the name of its style too."""
_UUID: Final = re.compile(r"\b([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


@dataclass(frozen=True)
class Entry:
    """A checkpoint, what it changed, the threads whose head it is, and text for the lines below it."""

    info: CheckpointInfo
    changes: Sequence[ChannelChange]
    threads: tuple[str, ...] = ()
    text: tuple[str, ...] = ()


def merged(infos: Iterable[CheckpointInfo]) -> dict[str, tuple[CheckpointInfo, tuple[str, ...]]]:
    """Return one description for each id, and the threads whose head it is: forks share what came before."""
    found: dict[str, tuple[CheckpointInfo, tuple[str, ...]]] = {}
    for info in infos:
        known, threads = found.get(info.id, (info, ()))
        best = max(known, info, key=lambda each: (each.is_current, not each.is_head))
        names = (*threads, info.thread) if info.is_current and info.thread not in threads else threads
        found[info.id] = best, names
    return found


def draw(out: Output, entries: Sequence[Entry], *, graph: bool, oneline: bool, more: str | None) -> None:
    """Print the entries, children before parents; `more` says how to see those that were left out."""
    glyphs = ASCII if out.ascii else UNICODE
    drawing = layout([(entry.info.id, entry.info.parents) for entry in entries], glyphs)
    margin = drawing.width + 2 if graph else 3
    cells = _cells(out, entries, oneline=oneline)
    lines = out.columns(cells, flexible=(5,), width=max(out.width - margin, 40))
    for entry, row, line in zip(entries, drawing.rows, lines, strict=True):
        glyph = out.style(_glyph(entry.info, glyphs), _style(entry.info))
        if not graph:
            row = Row((), " ", 0, " ", ())
        for link in row.above:
            out.print(link)
        out.print(_beside(row.with_glyph(glyph), row.node, margin) + line)
        for text in entry.text:
            shown = out.style(cut(text, max(out.width - margin - 2, 20)), "dim")
            out.print(f"{row.beside:<{margin}}  {shown}".rstrip())
        for link in row.below:
            out.print(link)
    if more is not None:
        out.print(out.style(f"{drawing.tail if graph else '~':<{margin}}{more}", "dim"))


def summarise(changes: Iterable[ChannelChange]) -> str:
    """Return what a checkpoint changed in a few words: `+1 message, ~ticket`."""
    parts: list[str] = []
    for each in changes:
        counts = [(sign, n) for sign, n in (("+", each.add), ("~", each.change), ("-", each.remove)) if n]
        if each.key == "messages":
            parts += [f"{sign}{n} message{'s' if n != 1 else ''}" for sign, n in counts]
        elif len(counts) == 1 and counts[0][1] == 1:
            parts.append(f"{counts[0][0]}{each.key}")
        elif counts:
            parts.append(f"{each.key} {' '.join(f'{sign}{n}' for sign, n in counts)}")
    hidden = len(parts) - KEYS_SHOWN
    return ", ".join(parts[:KEYS_SHOWN] + ([f"{hidden} more"] if hidden > 0 else []))


def headline(info: CheckpointInfo) -> str:
    """Return the nodes that made a checkpoint, or who did."""
    return ",".join(info.nodes) or ("(you)" if info.source == "update" else "")


def _cells(out: Output, entries: Sequence[Entry], *, oneline: bool) -> list[list[Cell]]:
    ids = [entry.info.id for entry in entries]
    length = short_length(ids)
    nearest = _neighbours(ids)
    heads = _other_heads(entries)
    rows = []
    for entry in entries:
        info = entry.info
        step = f"#{info.step}" if info.step is not None else ""
        what, style = _what(entry)
        rows.append([
            Cell(short(info.id, length), "dim", bold=unique_length(info.id, nearest[info.id])),
            Cell(out.text(f"{step} {info.source or ''}".strip())),
            Cell("" if oneline else out.text(headline(info))),
            Cell(out.text(_UUID.sub(r"\1…", info.namespace)), "dim"),
            Cell("" if oneline else time_of(info.timestamp, out.zone), "dim"),
            Cell(out.text(what), style),
            Cell("" if oneline else size(info.bytes_new), "dim", right=True),
            Cell(out.text(_names(entry, heads)), "tag"),
        ])  # fmt: skip
    return rows


def _what(entry: Entry) -> tuple[str, str]:
    changed = summarise(entry.changes)
    said = _STANDSTILL.get(entry.info.status)
    if said is None:
        return changed, ""
    stopped = f"{said}: {', '.join(entry.info.stopped)}"
    return f"{stopped}; {changed}" if changed else stopped, said


def _names(entry: Entry, heads: Mapping[str, str]) -> str:
    info = entry.info
    names = [name or '""' for name in entry.threads] or ([heads[info.id]] if info.id in heads else [])
    return ", ".join([*names, *(f"tag {tag}" for tag in info.tags)])


def _other_heads(entries: Sequence[Entry]) -> dict[str, str]:
    """Number the heads of each thread and namespace in the order shown, the current one included."""
    lines: dict[tuple[str, str], list[CheckpointInfo]] = {}
    for entry in entries:
        if entry.info.is_head:
            lines.setdefault((entry.info.thread, entry.info.namespace), []).append(entry.info)
    return {
        info.id: f"head {number}/{len(heads)}"
        for heads in lines.values()
        for number, info in enumerate(heads, start=1)
        if not info.is_current and len(heads) > 1
    }


def _neighbours(ids: Sequence[str]) -> dict[str, list[str]]:
    # Only the neighbours in sorted order can share the longest prefix.
    ordered = sorted(set(ids))
    return {name: ordered[max(i - 1, 0) : i + 2] for i, name in enumerate(ordered)}


def _glyph(info: CheckpointInfo, glyphs: Glyphs) -> str:
    if info.is_current and not info.namespace:
        return glyphs.current
    if info.status == "interrupted":
        return glyphs.interrupted
    if info.status == "error":
        return glyphs.failed
    return glyphs.tagged if info.tags else glyphs.checkpoint


def _style(info: CheckpointInfo) -> str:
    if info.is_current and not info.namespace:
        return "head"
    return _STANDSTILL.get(info.status, "tag" if info.tags else "")


def _beside(line: str, plain: str, margin: int) -> str:
    # The glyph may carry colour codes, so the margin is counted on the plain line.
    return line + " " * (margin - width_of(plain))

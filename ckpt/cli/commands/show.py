"""`ckpt show`: one checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckpt.cli.arguments import revision_argument
from ckpt.cli.command import PATHS, PathCommand
from ckpt.cli.context import Invocation, only_one, pass_invocation, usage
from ckpt.cli.format import counted, full_time, short, size
from ckpt.cli.output import Cell, Output
from ckpt.cli.paths import Path, format_path, parse_path

if TYPE_CHECKING:
    from ckpt.repository import CheckpointInfo, Repository


@click.command(
    "show",
    cls=PathCommand,
    short_help="Show one checkpoint: its metadata and state",
    examples="ckpt show support-42\nckpt show support-42~1 ticket.status\nckpt show -t ID @~1 -- messages[3]",
)
@revision_argument("revision", required=False, metavar="[REV]")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--state", is_flag=True, help="Only the state.")
@click.option("--meta", is_flag=True, help="Only the metadata.")
@click.option("--writes", is_flag=True, help="Only the pending writes.")
@click.option("--internal", is_flag=True, help="Include LangGraph's internal channels.")
@pass_invocation
@click.pass_context
def command(
    ctx: click.Context,
    invocation: Invocation,
    revision: str | None,
    paths: tuple[str, ...],
    state: bool,
    meta: bool,
    writes: bool,
    internal: bool,
) -> None:
    """Show the checkpoint at REV, or only the parts of its state at each PATH, in full.

    Values are shown as inert data: no class of yours is imported. A PATH is written messages[3].content, or
    as a JSON Pointer; what follows -- is always a path.
    """
    part = only_one(state=state, meta=meta, writes=writes)
    wanted = [parse_path(path) for path in (*paths, *ctx.meta[PATHS])]
    if wanted and part in ("meta", "writes"):
        usage(f"a path names a part of the state, and --{part} shows something else", "give one of them")
    at = invocation.revision(revision)
    repository = invocation.repository()
    info = repository.resolve(at, thread=invocation.thread, namespace=invocation.namespace)
    if invocation.json:
        _document(invocation.out, repository, info, wanted, part, internal)
    elif wanted:
        _paths(invocation.out, repository, info, wanted)
    else:
        _checkpoint(invocation.out, repository, info, part, internal)


def _document(
    out: Output,
    repository: Repository,
    info: CheckpointInfo,
    paths: list[Path],
    part: str | None,
    internal: bool,
) -> None:
    from ckpt.cli import records
    from ckpt.cli.state import part as part_at
    from ckpt.values.inert import to_json

    document: dict[str, object] = {"store": records.store(repository), "checkpoint": records.checkpoint(info)}
    if paths:
        document["values"] = [
            {
                "path": list(path),
                "value": to_json(part_at(repository, info, path)),
            }
            for path in paths
        ]
    else:
        channels = [each for each in repository.channels(info) if internal or not each.internal]
        if part in (None, "meta"):
            document["metadata"] = to_json(info.metadata)
            document["channels"] = [
                {"key": each.name, "type": each.type, "bytes": each.length, "internal": each.internal}
                for each in channels
            ]
        if part in (None, "state"):
            document["state"] = records.state({each.name: repository.inert(info, each.name) for each in channels})
        if part in (None, "writes"):
            document["writes"] = [records.write(each) for each in repository.writes(info)]
    out.document("ckpt.show/1", document)


def _paths(out: Output, repository: Repository, info: CheckpointInfo, paths: list[Path]) -> None:
    from ckpt.cli.state import part
    from ckpt.cli.values import full

    for path in paths:
        value = part(repository, info, path)
        if len(paths) > 1:
            out.print(out.style(out.text(format_path(path)), "key"))
        for line in full(out, value):
            out.print(line)


def _checkpoint(out: Output, repository: Repository, info: CheckpointInfo, part: str | None, internal: bool) -> None:
    from ckpt.cli.values import brief, one_line

    if part is None:
        _head(out, info)
    if part == "meta":
        rows = [
            [Cell(out.text(key), "key"), Cell(one_line(out, value, out.width))] for key, value in info.metadata.items()
        ]
        out.table(rows, flexible=(1,))
    if part in (None, "state"):
        hidden = 0
        for channel in repository.channels(info):
            if channel.internal and not internal:
                hidden += 1
                continue
            for line in brief(out, channel.name, repository.inert(info, channel.name), out.width):
                out.print(line)
        if hidden:
            out.note(f"{counted(hidden, 'internal channel')} hidden (--internal shows them)")
    writes = repository.writes(info) if part in (None, "writes") else []
    if writes:
        out.print(out.style(f"{counted(len(writes), 'pending write')}:", "key"))
        rows = [
            [
                Cell("  " + out.text(short(each.task_id))),
                Cell(str(each.index), right=True),
                Cell(out.text(each.channel), "key"),
                Cell(one_line(out, each.value, out.width)),
            ]
            for each in writes
        ]
        out.table(rows, flexible=(3,))


def _head(out: Output, info: CheckpointInfo) -> None:
    """Print what a checkpoint is, where it stands and what comes next."""
    text = out.text
    made = [f"step {info.step}" if info.step is not None else "", info.source or ""]
    if info.nodes:
        made.append(f"node {', '.join(info.nodes)}")
    first = [
        out.style(info.id[:8], "id"),
        out.name(info.thread) + (f" in {text(info.namespace)}" if info.namespace else ""),
        text(", ".join(part for part in made if part)),
        text(full_time(info.timestamp, out.zone)),
    ]
    if info.run_id:
        first.append(f"run {text(short(info.run_id))}")
    out.print("   ".join(part for part in first if part))
    second = [
        f"next: {text(', '.join(info.next)) or '(nothing)'}",
        f"parent: {', '.join(map(short, info.parents)) or '(none)'}",
    ]
    if info.status in ("interrupted", "error"):
        second.append(out.style(info.status, {"interrupted": "waiting", "error": "failed"}[info.status]))
    second += [out.style(f"tag {text(tag)}", "tag") for tag in info.tags]
    second.append(f"{size(info.bytes_logical)}, {size(info.bytes_new)} added to the store")
    out.print("   ".join(second))
    out.print(f"langgraph id: {text(info.checkpoint_id)}")
    out.print()

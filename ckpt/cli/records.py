"""The JSON records of what the engine returns, as `ckpt.cli.schemas` describes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ckpt.cli.format import rfc3339, stamp_of

if TYPE_CHECKING:
    from ckpt.repository import (
        Change,
        ChannelChange,
        CheckpointInfo,
        Diff,
        FsckReport,
        GcReport,
        GraphInfo,
        Operation,
        PruneReport,
        Repository,
        Stats,
        ThreadInfo,
        WriteInfo,
    )

Record = dict[str, Any]


def store(repository: Repository) -> Record:
    """Return the record of the store, without the password of its URL."""
    return {"url": without_password(repository.url), "format": repository.format}


def without_password(url: str) -> str:
    """Return a URL whose password is replaced by stars."""
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    name, colon, _password = user.partition(":")
    if not (separator and at and colon):
        return url
    return f"{scheme}://{name}:***@{host}{slash}{path}"


def checkpoint(
    info: CheckpointInfo,
    changes: Iterable[ChannelChange] | None = None,
    heads: Sequence[str] | None = None,
) -> Record:
    """Return the record of a checkpoint, with what it changed and whose head it is if that is known."""
    record: Record = {
        "spec": info.spec,
        "id": info.id,
        "thread": info.thread,
        "ns": info.namespace,
        "checkpoint_id": info.checkpoint_id,
        "parents": list(info.parents),
        "parent_checkpoint_id": info.parent_checkpoint_id,
        "step": info.step,
        "source": info.source,
        "nodes": list(info.nodes),
        "next": list(info.next),
        "status": info.status,
        "stopped": list(info.stopped),
        "ts": rfc3339(info.timestamp),
        "run_id": info.run_id,
        "heads": list(heads) if heads is not None else [info.thread] if info.is_current else [],
        "is_head": info.is_head,
        "tags": list(info.tags),
        "bytes": {"logical": info.bytes_logical, "new": info.bytes_new},
    }
    if changes is not None:
        record["changed"] = [
            {"key": each.key, "add": each.add, "change": each.change, "remove": each.remove} for each in changes
        ]
    return record


def graph(info: GraphInfo) -> Record:
    """Return the record of a graph."""
    return {"graph": info.name, "threads": info.threads}


def thread(info: ThreadInfo) -> Record:
    """Return the record of a thread."""
    from ckpt.history.readings import Reading, ThreadName
    from ckpt.history.revisions import format_revision

    return {
        "spec": format_revision(Reading(ThreadName(info.name))),
        "thread": info.name,
        "checkpoints": info.checkpoints,
        "heads": info.heads,
        "head": checkpoint(info.head) if info.head else None,
        "status": info.status,
        "updated": rfc3339(info.updated),
        "bytes": {"logical": info.bytes_logical},
        "forked_from": info.forked_from,
        "expires": rfc3339(info.expires.isoformat()) if info.expires is not None else None,
    }


def write(info: WriteInfo) -> Record:
    """Return the record of a pending write."""
    from ckpt.values.inert import to_json

    return {
        "task_id": info.task_id,
        "task_path": info.task_path,
        "index": info.index,
        "channel": info.channel,
        "value": to_json(info.value),
    }


def state(values: Mapping[str, object]) -> Record:
    """Return a state of inert values."""
    from ckpt.values.inert import to_json

    return {name: to_json(value) for name, value in values.items()}


def diff(found: Diff) -> Record:
    """Return the record of a difference."""
    changes = found.changes.changes
    operations = ("add", "change", "remove", "move")
    return {
        "from": _side(found.old) if found.old is not None else None,
        "to": _side(found.new),
        "changes": [_change(each, found.new.namespace) for each in changes],
        "stat": {
            "keys": len({change.path[0] for change in changes}),
            **{op: sum(change.op == op for change in changes) for op in operations},
            "same": found.changes.same,
            "hidden": found.changes.hidden,
            "bytes_new": found.changes.bytes_new,
            "bytes_shared": found.changes.bytes_shared,
        },
    }


def _side(info: CheckpointInfo) -> Record:
    return {"spec": info.spec, "thread": info.thread}


def _change(change: Change, namespace: str) -> Record:
    from ckpt.values.inert import to_json

    record: Record = {"ns": namespace, "path": list(change.path), "op": change.op, "kind": change.kind}
    if change.old_path is not None:
        record["from_path"] = list(change.old_path)
    if change.op != "add":
        record["from"] = to_json(change.old)
    if change.op != "remove":
        record["to"] = to_json(change.new)
    if change.parts:
        record["parts"] = [_change(each, namespace) for each in change.parts]
    return record


def operation(done: Operation) -> Record:
    """Return the record of an administrative operation."""
    return {
        "spec": f"op:{done.id}",
        "id": done.id,
        "time": rfc3339(stamp_of(done.time)),
        "kind": done.kind,
        "text": done.text,
        "user": done.actor,
        "undone": done.undone,
        "undoable": done.undoable,
    }


def stats(found: Stats) -> Record:
    """Return the record of a store's sizes."""
    return {
        "checkpoints": found.checkpoints,
        "threads": found.threads,
        "heads": found.heads,
        "items": found.items,
        "objects": found.objects,
        "format": found.format,
        "bytes": {
            "logical": found.bytes_logical,
            "unique": found.bytes_unique,
            "stored": found.bytes_stored,
            "disk": found.bytes_disk,
            "reclaimable": found.bytes_reclaimable,
            "restorable": found.bytes_restorable,
        },
        "channels": [{"channel": each.name, "logical": each.logical, "unique": each.unique} for each in found.channels],
    }


def fsck(found: FsckReport) -> Record:
    """Return the record of a check."""
    return {
        "checkpoints": found.checkpoints,
        "items": found.items,
        "objects": found.objects,
        "references": found.references,
        "problems": [
            {"kind": each.kind, "id": each.id, "message": each.message, "needed_by": list(each.needed_by)}
            for each in found.problems
        ],
    }


def gc(found: GcReport, *, dry_run: bool) -> Record:
    """Return the record of a collection."""
    return {
        "dry_run": dry_run,
        "threads_removed": found.threads_removed,
        "threads_restorable": found.threads_restorable,
        "objects_removed": found.objects_removed,
        "packs_rewritten": found.packs_rewritten,
        "packs_left": found.packs_left,
        "bytes": {"before": found.bytes_before, "after": found.bytes_after},
        "data": {"before": found.data_before, "after": found.data_after},
    }


def prune(found: Sequence[PruneReport], *, dry_run: bool) -> Record:
    """Return the record of what a retention policy removed, by thread, and its totals."""
    threads = [
        {
            "thread": each.thread,
            "kept": [
                {"ns": namespace, "checkpoint_id": name, "reasons": list(reasons)}
                for (namespace, name), reasons in zip(each.kept, each.reasons, strict=True)
            ],
            "removed": [{"ns": namespace, "checkpoint_id": name} for namespace, name in each.removed],
        }
        for each in found
    ]
    return {
        "dry_run": dry_run,
        "kept": sum(len(each.kept) for each in found),
        "removed": sum(len(each.removed) for each in found),
        "threads": threads,
    }

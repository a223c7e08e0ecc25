"""The JSON Schemas of every output, as `ckpt schema NAME` prints them. A documented interface.

Fields are added, never renamed. Readers ignore what they do not know, so no schema forbids further fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
FLAG: Final[Schema] = {"type": "boolean"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
TEXTS: Final[Schema] = {"type": "array", "items": TEXT}
ID: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
TIME: Final[Schema] = {"type": ["string", "null"], "description": "RFC 3339, in UTC"}
PATH: Final[Schema] = {"type": "array", "items": {"type": ["string", "integer"]}, "minItems": 1}
SPEC: Final[Schema] = {"type": "string", "description": "a revision that means this and nothing else"}
VALUE: Final[Schema] = {"description": "any value; see ckpt help json for what JSON cannot hold"}


def nullable(schema: Schema) -> Schema:
    """Return a schema that also allows null."""
    return {"anyOf": [schema, {"type": "null"}]}


def fields(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """Return the schema of an object with these fields."""
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


STORE: Final = fields({"url": TEXT, "format": COUNT})
CHANGED: Final = fields({"key": TEXT, "add": COUNT, "change": COUNT, "remove": COUNT})
CHECKPOINT: Final = fields(
    {
        "spec": SPEC,
        "id": ID,
        "thread": TEXT,
        "ns": TEXT,
        "checkpoint_id": TEXT,
        "parents": {"type": "array", "items": ID},
        "parent_checkpoint_id": {"type": ["string", "null"]},
        "step": {"type": ["integer", "null"]},
        "source": {"type": ["string", "null"]},
        "nodes": TEXTS,
        "next": TEXTS,
        "status": {"type": "string", "description": "done, interrupted, error or pending"},
        "stopped": {**TEXTS, "description": "the nodes that asked or failed, when interrupted or in error"},
        "ts": TIME,
        "run_id": {"type": ["string", "null"]},
        "heads": {**TEXTS, "description": "the threads that continue from here"},
        "is_head": {**FLAG, "description": "nothing was built on it yet"},
        "tags": TEXTS,
        "bytes": fields({"logical": COUNT, "new": COUNT}),
    },
    {"changed": {"type": "array", "items": CHANGED}},
)
THREAD: Final = fields({
    "spec": SPEC,
    "thread": TEXT,
    "checkpoints": COUNT,
    "heads": COUNT,
    "head": nullable(CHECKPOINT),
    "status": {"type": "string", "description": "idle, pending, interrupted, error or damaged"},
    "updated": TIME,
    "bytes": fields({"logical": COUNT}),
    "forked_from": {"type": ["string", "null"]},
    "expires": TIME,
})  # fmt: skip
OPERATION: Final = fields(
    {
        "spec": SPEC,
        "id": {**TEXT, "pattern": "^[0-9a-f]+$"},
        "time": TIME,
        "kind": TEXT,
        "text": TEXT,
        "user": TEXT,
        "undone": FLAG,
        "undoable": {**FLAG, "description": "false: an undo, undone already, or final since a gc"},
    }
)
CHANGE: Final = fields(
    {
        "ns": TEXT,
        "path": PATH,
        "op": {"type": "string", "description": "add, remove, change or move"},
        "kind": {"type": "string", "description": "value, message, text, binary or opaque"},
    },
    {
        "from": VALUE,
        "to": VALUE,
        "from_path": {**PATH, "description": "where the value stood before, if elsewhere"},
        "parts": {"type": "array", "description": "the changes inside a changed message, as changes"},
    },
)
SIDE: Final = fields({"spec": SPEC, "thread": TEXT})
WRITE: Final = fields({
    "task_id": TEXT, "task_path": TEXT, "index": {"type": "integer"}, "channel": TEXT, "value": VALUE,
})  # fmt: skip


def document(name: str, required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """Return the schema of one document, which says its own name."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"ckpt.{name}/1",
        **fields({"schema": {"const": f"ckpt.{name}/1"}, **required}, optional),
    }


def listing(name: str, item: Schema) -> Schema:
    """Return the schema of a list; with `--jsonl` each of its items stands on a line of its own."""
    return document(name, {"store": STORE, "items": {"type": "array", "items": item}})


def _stats() -> Schema:
    names = ("logical", "unique", "stored", "disk", "reclaimable", "restorable")
    channel = fields({"channel": TEXT, "logical": COUNT, "unique": COUNT})
    return document("stats", {
        "store": STORE, "checkpoints": COUNT, "threads": COUNT, "heads": COUNT, "items": COUNT,
        "objects": COUNT, "format": COUNT,
        "bytes": fields(dict.fromkeys(names, COUNT)), "channels": {"type": "array", "items": channel},
    })  # fmt: skip


def _diff() -> Schema:
    names = ("keys", "add", "change", "remove", "move", "same", "hidden", "bytes_new", "bytes_shared")
    return document("diff", {
        "from": nullable(SIDE), "to": SIDE, "changes": {"type": "array", "items": CHANGE},
        "stat": fields(dict.fromkeys(names, COUNT)),
    })  # fmt: skip


def _show() -> Schema:
    channel = fields({"key": TEXT, "type": TEXT, "bytes": COUNT, "internal": FLAG})
    return document("show", {"store": STORE, "checkpoint": CHECKPOINT}, {
        "metadata": {"type": "object"}, "channels": {"type": "array", "items": channel},
        "state": {"type": "object"}, "writes": {"type": "array", "items": WRITE},
        "values": {"type": "array", "items": fields({"path": PATH, "value": VALUE})},
    })  # fmt: skip


def _fsck() -> Schema:
    problem = fields({"kind": TEXT, "id": TEXT, "message": TEXT, "needed_by": TEXTS})
    return document("fsck", {
        "store": STORE, "checkpoints": COUNT, "items": COUNT, "objects": COUNT, "references": COUNT,
        "problems": {"type": "array", "items": problem},
    })  # fmt: skip


def _gc() -> Schema:
    return document("gc", {
        "store": STORE, "dry_run": FLAG, "threads_removed": COUNT, "threads_restorable": COUNT,
        "objects_removed": COUNT, "packs_rewritten": COUNT, "packs_left": COUNT,
        "bytes": fields({"before": COUNT, "after": COUNT}),
        "data": fields({"before": COUNT, "after": COUNT}),
    })  # fmt: skip


def _prune() -> Schema:
    named = {"ns": TEXT, "checkpoint_id": TEXT}
    kept = {"type": "array", "items": fields({**named, "reasons": TEXTS})}
    thread = fields({"thread": TEXT, "kept": kept, "removed": {"type": "array", "items": fields(named)}})
    return document("prune", {
        "store": STORE, "dry_run": FLAG, "kept": COUNT, "removed": COUNT,
        "threads": {"type": "array", "items": thread},
    })  # fmt: skip


def _error() -> Schema:
    return document(
        "error",
        {"code": TEXT, "exit": {"type": "integer"}, "message": TEXT, "hints": TEXTS},
        {"candidates": TEXTS},
    )


SCHEMAS: Final[Mapping[str, Callable[[], Schema]]] = {
    "init": lambda: document("init", {"store": STORE, "created": FLAG}),
    "graphs": lambda: listing("graphs", fields({"graph": TEXT, "threads": COUNT})),
    "threads": lambda: listing("threads", THREAD),
    "log": lambda: listing("log", CHECKPOINT),
    "show": _show,
    "diff": _diff,
    "fork": lambda: document("fork", {"dry_run": FLAG, "from": CHECKPOINT, "head": nullable(CHECKPOINT)}),
    "checkout": lambda: document("checkout", {
        "dry_run": FLAG, "target": CHECKPOINT, "old_head": CHECKPOINT, "head": nullable(CHECKPOINT),
    }),
    "tag": lambda: document("tag", {"dry_run": FLAG, "tag": TEXT, "checkpoint": nullable(CHECKPOINT)}),
    "tags": lambda: listing("tags", fields({"tag": TEXT, "checkpoint": CHECKPOINT})),
    "delete": lambda: document("delete", {"dry_run": FLAG, "thread": TEXT, "checkpoints": COUNT, "tags": TEXTS}),
    "expire": lambda: document("expire", {"dry_run": FLAG, "thread": TEXT, "expires": TIME}),
    "undo": lambda: document("undo", {"dry_run": FLAG, "operation": OPERATION}),
    "op": lambda: listing("op", OPERATION),
    "prune": _prune,
    "gc": _gc,
    "stats": _stats,
    "fsck": _fsck,
    "key": lambda: document("key", {
        "store": STORE, "new_key": FLAG, "new_data_key": FLAG, "records": COUNT, "frames": COUNT,
    }),
    "error": _error,
    "schemas": lambda: document("schemas", {"items": TEXTS}),
}  # fmt: skip

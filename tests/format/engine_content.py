"""What a store holds according to the engine, in the form in which `reader.Store.content` gives it."""

from __future__ import annotations

from typing import Any

from blake3 import blake3

import ckpt
from ckpt.history.commits import StoredValue

_SHOWN_MAX = 200


def content(repository: ckpt.Repository) -> dict[str, Any]:
    """Return all threads, tags and operations as plain data, values as (type, hex)."""
    threads = {}
    for name in repository.thread_names():
        timeline = repository.timeline(name)
        assert timeline is not None
        names = ["", *sorted(timeline.namespaces()[1:])]
        threads[name] = {
            "head": timeline.head(),
            "namespaces": {namespace: _checkpoints(repository, name, namespace) for namespace in names},
        }
    return {
        "threads": dict(sorted(threads.items())),
        "tags": {
            name: [info.thread, info.namespace, info.checkpoint_id, info.id] for name, info in repository.tags().items()
        },
        "operations": [
            [each.number, each.time, each.kind, each.text, each.actor, each.undone]
            for each in reversed(repository.operations())
        ],
    }


def shortened(content: Any) -> Any:
    """Return content with long values replaced by their size and hash, so that it can be kept and read."""
    if isinstance(content, dict):
        return {name: shortened(each) for name, each in content.items()}
    if isinstance(content, list):
        return [shortened(each) for each in content]
    if isinstance(content, str) and len(content) > _SHOWN_MAX:
        digest = blake3(content.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{content[:32]}… {len(content)} characters, blake3 {digest}"
    return content


def _checkpoints(repository: ckpt.Repository, thread: str, namespace: str) -> list[dict[str, Any]]:
    def typed(type_: str, rope: bytes) -> list[str]:
        return [type_, repository.load([StoredValue(type_, rope)])[0].hex()]

    return [
        {
            "id": stored.checkpoint_id,
            "commit": stored.oid.hex(),
            "named": [stored.commit.namespace, stored.commit.checkpoint_id],
            "timestamp": stored.commit.timestamp,
            "parents": [[parent.checkpoint_id, parent.commit.hex()] for parent in stored.commit.parents],
            "header": typed(*stored.commit.header),
            "metadata": typed(*stored.commit.metadata),
            "channels": {name: typed(*value) for name, value in stored.commit.channels.items()},
            "writes": [
                [each.task_path, each.task_id, each.index, each.channel, *typed(each.type, each.rope)]
                for each in stored.writes
            ],
        }
        for stored in repository.read_all(thread, namespace)
    ]

"""What LangGraph says of where a checkpoint came from: in the metadata, and in the name of its namespace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ckpt.history.commits import Commit
from ckpt.history.records import Reset, ThreadRecord
from ckpt.repository.core import Core
from ckpt.values.inert import inert


def above(core: Core, commits: Sequence[Commit]) -> list[dict[str, str]]:
    """Return the checkpoints, by namespace, in whose step a subgraph ran when it made each of these; {}: not said.

    They are in the metadata, under `parents`. Costs one round trip at most.
    """
    loaded = core.value_bytes([commit.metadata for commit in commits])
    return [parents_in(inert(commit.metadata.type, data)) for commit, data in zip(commits, loaded, strict=True)]


def parents_in(metadata: object) -> dict[str, str]:
    """Return the checkpoints, by namespace, in whose step a subgraph runs, as the metadata of one of its own says."""
    return named_by(metadata.get("parents") if type(metadata) is dict or isinstance(metadata, Mapping) else None)


def named_by(parents: object) -> dict[str, str]:
    """Return the checkpoints that LangGraph names by their namespaces; of what is nothing of the kind, none."""
    if not parents or not isinstance(parents, Mapping):
        return {}
    return {name: each for name, each in parents.items() if isinstance(name, str) and isinstance(each, str)}


def root_parent(core: Core, commit: Commit) -> str | None:
    """Return the root checkpoint under which a subgraph ran when it made this one; None when it does not say."""
    return above(core, [commit])[0].get("")


def is_of_a_task(namespace: str) -> bool:
    """Whether a namespace is that of one task's subgraph, and not of one that remembers from run to run.

    The names of tasks have their ids behind a colon, which no node's name may have.
    """
    return ":" in namespace


def resets_of(thread: ThreadRecord, namespace: str) -> tuple[Reset, ...]:
    """Return the rewinds of a thread that a namespace went along with.

    The root's own checkpoint is put by the rewind itself. What a task of a root checkpoint made, and what lies below
    it, stays as it is: the checkpoint that a rewind makes has tasks of its own.
    """
    return thread.resets if namespace and not is_of_a_task(namespace.partition("|")[0]) else ()

"""Progress: which nodes run next from a checkpoint, and which of them asked or failed, told from what is stored.

LangGraph keeps no such list. It follows from the channels that trigger nodes and from what tasks have written; the
names of both are LangGraph's own. Values are looked at as inert data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ckpt.history.checkpoints import PendingWrite
from ckpt.history.commits import Commit, StoredValue
from ckpt.values.inert import InertObject, inert

START = "__start__"

DELTA_COUNTERS = "counters_since_delta_snapshot"
"""In the metadata: the DeltaChannels of which the checkpoint has no value, unless there never was one."""

_TASKS = "__pregel_tasks"
_BRANCH = "branch:to:"
_JOIN = "join:"
_ERROR, _INTERRUPT = "__error__", "__interrupt__"
_CONTROL = frozenset({_ERROR, "__error_source_node__", _INTERRUPT, "__resume__"})
"""What a task writes before it has a result; everything else is one."""
_PULLED, _PUSHED = "~__pregel_pull, ", "~__pregel_push, "
_CALL = re.compile(r", \d{10}, ")


def tells(channel: str) -> bool:
    """Return whether the value of a channel says which nodes run next. A run's input does so by being there."""
    return channel == _TASKS or channel.startswith((_BRANCH, _JOIN))


def lasts_a_step(channel: str) -> bool:
    """Return whether a channel is one of LangGraph's own, whose value is gone in the next checkpoint."""
    return channel.startswith("__") or tells(channel)


def rebuilt_channels(metadata: StoredValue, data: bytes) -> set[str] | None:
    """Return the channels whose value is rebuilt from earlier checkpoints; None where the metadata cannot be read."""
    shown = inert(metadata.type, data)
    if not isinstance(shown, dict):
        return None
    counters = shown.get(DELTA_COUNTERS)
    return {name for name in counters if isinstance(name, str)} if isinstance(counters, dict) else set()


def packets(commit: Commit, values: Mapping[StoredValue, bytes]) -> list[str]:
    """Return the node that each `Send` packet is for."""
    value = commit.channels.get(_TASKS)
    sent = inert(value.type, values[value]) if value is not None else None
    nodes: list[str] = []
    for packet in sent if isinstance(sent, list) else []:
        fields = packet.fields if isinstance(packet, InertObject) else None
        node = fields.get("node") if isinstance(fields, dict) else None
        nodes += [node] if isinstance(node, str) else []
    return nodes


def following(
    commit: Commit,
    values: Mapping[StoredValue, bytes],
    sent: Sequence[str],
    versions: Mapping[str, Any],
    seen: Mapping[str, Any],
) -> list[str]:
    """Return the nodes to run next, as LangGraph's history names them; one may stand there repeatedly.

    `values` holds those of the channels that tell, `sent` is what `packets` returns, `versions` and `seen` what the
    checkpoint says of its channels and of what nodes have seen of them. What takes a run's input is called
    `__start__`, in the functional API too, where only the program knows its name.
    """
    nodes = [START] if START in commit.channels else []
    for name, value in commit.channels.items():
        if name == _TASKS:
            nodes += sent
        elif tells(name):
            held = inert(value.type, values[value])
            is_join = name.startswith(_JOIN)
            before, _, node = name.removeprefix(_JOIN if is_join else _BRANCH).rpartition(":")
            is_set = _joined(held, before) if is_join else not _deferred(held)
            nodes += [node] if is_set and _is_new(name, node, versions, seen) else []
    return nodes


def status(
    writes: Sequence[PendingWrite], next_nodes: Sequence[str], sent: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
    """Return the status that pending writes give, and the nodes whose tasks asked or failed if that is so.

    As for LangGraph, a task with a result has finished, and waits for nothing, whatever it wrote before.
    """
    finished = {write.task_id for write in writes if write.channel not in _CONTROL}
    failed = [write for write in writes if write.channel == _ERROR]
    still = [write for write in failed if write.task_id not in finished]
    asked = [write for write in writes if write.channel == _INTERRUPT and write.task_id not in finished]
    if not (failed or asked):
        return "pending" if next_nodes else "done", ()
    # With a question open, what failed with a part of its result written is no reason why the run stands still.
    is_error = bool(still) or not asked
    nodes = [_node(write.task_path, sent) for write in (still or failed if is_error else asked)]
    known = [node for node in nodes if node is not None]
    names = known if len(known) == len(nodes) else next_nodes
    return "error" if is_error else "interrupted", tuple(dict.fromkeys(names))


def _deferred(held: object) -> bool:
    """Return whether a channel of a deferred node, [value, whether all else is done], holds it back."""
    return isinstance(held, list) and len(held) == 2 and held[1] is False


def _joined(held: object, before: str) -> bool:
    """Return whether all nodes that a join waits for, written `a+b`, were seen."""
    if _deferred(held):
        return False
    seen = held[0] if isinstance(held, list) and len(held) == 2 and held[1] is True else held
    names = seen.fields if isinstance(seen, InertObject) else None
    # A name may hold a plus itself. Only what is waited for is ever seen, so the length tells whether all are there.
    return isinstance(names, list) and len("+".join(each for each in names if isinstance(each, str))) == len(before)


def _is_new(channel: str, node: str, versions: Mapping[str, Any], seen: Mapping[str, Any]) -> bool:
    """Return whether a node has not seen a channel as it is."""
    of_node = seen.get(node)
    try:
        return not isinstance(of_node, dict) or channel not in of_node or bool(versions[channel] > of_node[channel])
    except (KeyError, TypeError):
        return True


def _node(path: str, sent: Sequence[str]) -> str | None:
    """Return the node of a task by its path, as LangGraph writes it; a function called in a task is of its node."""
    called = False
    while path.startswith(f"{_PUSHED}~"):
        path, called = path.removeprefix(_PUSHED), True
    if path.startswith(_PULLED):
        name = path.removeprefix(_PULLED)
        return _CALL.split(name)[0] if called else name
    number = path.removeprefix(_PUSHED)[:10]
    if not path.startswith(_PUSHED) or not (number.isascii() and number.isdigit()) or int(number) >= len(sent):
        return None
    return sent[int(number)]

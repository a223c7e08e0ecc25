"""Look into the state of a checkpoint: a part by its path, how large a key is, the newest message.

Everything is read through the lazy trees of the engine, so only what is shown is loaded; nothing is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ckpt.cli.format import short
from ckpt.cli.paths import Path, format_path
from ckpt.cli.values import follow
from ckpt.errors import PathNotFoundError
from ckpt.repository.infos import is_internal
from ckpt.repository.nodes import collection
from ckpt.values.inert import InertMessage
from ckpt.values.kinds import COUNTER, DICT, ORDEREDDICT
from ckpt.values.tree import Form, Tree

if TYPE_CHECKING:
    from ckpt.repository import CheckpointInfo, Repository

MESSAGES: Final = "messages"
_UNITS: Final = {Form.ARRAY: "item", Form.MAP: "key"}
_PAIRS: Final = frozenset({DICT, ORDEREDDICT, COUNTER})
"""Extensions that hold a mapping as a list of its entries."""

Extent = tuple[int, str]
"""How many there are, and of what."""


def part(repository: Repository, info: CheckpointInfo, path: Path) -> object:
    """Return what stands at `path` as inert data, or raise PathNotFoundError saying where the path ends."""
    key = str(path[0])
    names = [each.name for each in repository.channels(info)]
    if key not in names:
        shown = ", ".join(name for name in names if not is_internal(name))
        raise PathNotFoundError(
            f"the state of {short(info.id)} has no key {format_path(path[:1])}",
            hints=[f"its keys are {shown}" if shown else "it has no keys"],
        )
    tree = repository.tree(info, key)
    try:
        return tree.at(path[1:])
    except PathNotFoundError:
        return follow(tree.inert(), path[1:], start=path[:1])


def extent(repository: Repository, info: CheckpointInfo | None, key: str) -> Extent | None:
    """Return how many items or keys a channel has; None for what has neither."""
    if info is None:
        return None
    try:
        tree = repository.tree(info, key)
    except PathNotFoundError:
        return None
    return _extent(tree)


def newest_message(repository: Repository, info: CheckpointInfo) -> InertMessage | None:
    """Return the last of the messages in a state, the only one that is loaded."""
    try:
        tree = repository.tree(info, MESSAGES)
    except PathNotFoundError:
        return None
    if tree.form is not Form.ARRAY or not tree.count:
        return None
    found = tree.at((-1,))
    return found if isinstance(found, InertMessage) else None


def _extent(tree: Tree) -> Extent | None:
    found = collection(tree)
    items = tree if found is None else found[1]
    if tree.form is Form.EXTENSION and tree.code in _PAIRS:
        payload = tree.payload()
        return (payload.count, _UNITS[Form.MAP]) if payload is not None and payload.form is Form.ARRAY else None
    unit = _UNITS.get(items.form)
    return (items.count, unit) if unit is not None else None

"""Differences between two states, as data: what was added, removed, changed or moved, and where.

Equal values are recognised by the ids of their pieces and never loaded; lists are matched by the ids of their
messages or records, then by content. Indexes in a `path` are those of the new state, except for what was
removed. Rendering belongs to the command line, matching of sequences to `ckpt.repository.alignment`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ckpt.errors import PathNotFoundError
from ckpt.history.commits import StoredValue
from ckpt.objects.ids import ObjectId
from ckpt.repository.alignment import Gap, gaps
from ckpt.repository.fingerprints import Fingerprints
from ckpt.repository.infos import is_internal
from ckpt.repository.matching import Element, Open, elements, entries, in_place, matched
from ckpt.repository.nodes import (
    SETS,
    Kind,
    Node,
    collection,
    is_message,
    kind_of,
    kind_of_change,
    members,
    read,
    shown,
)
from ckpt.values.cut import LEAF_MAX, MSGPACK_TYPES
from ckpt.values.inert import INT_BITS_MAX, InertMessage, InertObject, summary
from ckpt.values.rope import ROPE, Item, Load, decode_items
from ckpt.values.tree import Form, Path, Pieces, Tree, step

_DEPTH_MAX = 100
_MESSAGES = "langchain_core.messages"
_Operation = Literal["add", "remove", "change", "move"]


@dataclass(frozen=True)
class Change:
    """One difference. Long text and binary data come as size and hash, and with kind `binary`.

    `old_path` is where a changed value stood before, when that is not `path`. A `move` leaves the value as it
    is: either an element came from `old_path` past others that stayed, or, without one, keys of the dict at
    `path` changed their order; `old` and `new` then map each of those keys to its position. `parts` are the
    changes inside a changed message. Members of a set have no order and no identity: they are added and removed, at
    the position where they were stored.
    """

    path: Path
    op: _Operation
    kind: Kind
    old: object
    new: object
    old_path: Path | None = None
    parts: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Changes:
    """All differences of two states.

    `hidden` counts the internal channels left out and `same` the others that are equal. `bytes_new` is the
    length of those pieces of the new state that the old one does not have, as far as pieces had to be
    opened, `bytes_shared` that of the rest.
    """

    changes: list[Change] = field(default_factory=list)
    hidden: int = 0
    same: int = 0
    bytes_new: int = 0
    bytes_shared: int = 0


@dataclass(frozen=True)
class ChannelChange:
    """How many elements of a channel's list were added, changed and removed; for all else, whether it was."""

    key: str
    add: int
    change: int
    remove: int


def diff_states(
    load: Load,
    old: Mapping[str, StoredValue],
    new: Mapping[str, StoredValue],
    *,
    internal: bool = False,
    paths: Sequence[Path] = (),
) -> Changes:
    """Return what turns the old state into the new one. Loads what differs, and little else.

    Internal channels are left out unless `internal` says otherwise or a path names one. With `paths`, only
    what lies at them or below is returned; a negative index counts from the end.
    """
    pieces = Pieces(load)
    asked = {str(path[0]) for path in paths if path}
    names = [name for name in {**old, **new} if not asked or name in asked]
    shown_names = [name for name in names if internal or name in asked or not is_internal(name)]
    changes: list[Change] = []
    same = 0
    for name in shown_names:
        if old.get(name) == new.get(name):
            same += 1
            continue
        found = _channel(pieces, name, old.get(name), new.get(name))
        same += not found
        wanted = [_absolute(pieces, path, new, old) for path in paths if path and str(path[0]) == name]
        changes += _within(found, wanted) if wanted else found
    fresh, shared = _sizes(pieces, old, [new[name] for name in shown_names if name in new])
    return Changes(changes, len(names) - len(shown_names), same, fresh, shared)


def key_changes(load: Load, old: Mapping[str, StoredValue], new: Mapping[str, StoredValue]) -> list[ChannelChange]:
    """Return a summary of what differs, by channel, without the internal ones."""
    pieces = Pieces(load)
    found = []
    for name in {**old, **new}:
        before, after = old.get(name), new.get(name)
        if before == after or is_internal(name):
            continue
        sizes = [_item_count(pieces, value) for value in (before, after)]
        if before is None or after is None:
            counted = max(sizes[0] or sizes[1] or 0, 1)
            found.append(ChannelChange(name, counted * (before is None), 0, counted * (after is None)))
        elif None in sizes:
            found.append(ChannelChange(name, 0, 1, 0))
        else:
            ops: dict[object, _Operation] = {}
            for change in _channel(pieces, name, before, after):
                whole = len(change.path) == 2 and change.op != "move"
                op = change.op if whole else "change"
                ops.setdefault((change.path[1:2], op == "remove"), op)
            counts = [sum(op == wanted for op in ops.values()) for wanted in ("add", "change", "remove")]
            if ops:
                found.append(ChannelChange(name, *counts))
    return found


def _item_count(pieces: Pieces, value: StoredValue | None) -> int | None:
    """Return how many items a list or another built-in collection has."""
    if value is None or value.type not in MSGPACK_TYPES:
        return None
    tree = Tree(*value, pieces)
    found = collection(tree)
    items = tree if found is None else found[1]
    return items.count if items.form is Form.ARRAY else None


def _channel(pieces: Pieces, name: str, old: StoredValue | None, new: StoredValue | None) -> list[Change]:
    before, after = (Node(Tree(*value, pieces)) if value is not None else None for value in (old, new))
    if before is None or after is None:
        return [_leaf((name,), before, after)]
    return _Comparison().compare(before, after, (name,), (name,))


def _leaf(path: Path, old: Node | None, new: Node | None, was: Path | None = None) -> Change:
    """Return the change of a value as a whole."""
    read(node for node in (old, new) if node is not None)
    before, after = (shown(node.value) if node is not None else None for node in (old, new))
    if old is None or new is None:
        op: _Operation = "add" if old is None else "remove"
        return Change(path, op, kind_of(after if old is None else before), before, after)
    return Change(path, "change", kind_of_change(before, after), before, after, _moved(was, path))


def _moved(was: Path | None, path: Path) -> Path | None:
    return was if was != path else None


class _Comparison:
    """One walk over two values, depth first. `path` leads to a value in the new state, `was` in the old."""

    def __init__(self) -> None:
        self._depth = 0
        self._prints = Fingerprints()

    def compare(self, old: Node, new: Node, path: Path, was: Path) -> list[Change]:
        """Return the differences of two values that take the same place."""
        if old.tree is not None and old.tree == new.tree:
            return []
        if self._depth >= _DEPTH_MAX:
            return [] if old.fingerprint == new.fingerprint else [_leaf(path, old, new, was)]
        self._depth += 1
        try:
            found = None
            if old.tree is not None and new.tree is not None and not (old.is_read and new.is_read):
                found = self._cut(old.tree, new.tree, path, was)
            return self._read(old, new, path, was) if found is None else found
        finally:
            self._depth -= 1

    # -- values that stay where they are, but for the pieces that differ ------------------------------------

    def _cut(self, old: Tree, new: Tree, path: Path, was: Path) -> list[Change] | None:
        """Return the differences of two stored values in pieces, or None when they have to be read."""
        known = old.type in MSGPACK_TYPES and new.type in MSGPACK_TYPES
        if not (known and old.is_cut and new.is_cut and (old.form, old.code) == (new.form, new.code)):
            return None
        if old.form is Form.EXTENSION:
            of_old, of_new = collection(old), collection(new)
            if of_old is not None and of_new is not None:
                (name, left), (other, right) = of_old, of_new
                if name != other or not (left.is_cut and right.is_cut):
                    return None
                return self._trees(left, right, path, was, in_order=name not in SETS)
            before, after = old.instance(), new.instance()
            if before is None or after is None or (before[:2], before.rest) != (after[:2], after.rest):
                return None
            is_chat = isinstance(before.module, str) and before.module.startswith(_MESSAGES)
            cut = before.fields.is_cut and after.fields.is_cut
            return self._trees(before.fields, after.fields, path, was) if cut and not is_chat else None
        if old.form is Form.ARRAY or (old.form is Form.MAP and not is_message(old) and not is_message(new)):
            return self._trees(old, new, path, was)
        return None

    def _trees(self, old: Tree, new: Tree, path: Path, was: Path, *, in_order: bool = True) -> list[Change]:
        def open_old(_: int, item: Item) -> Node:
            return Node(old.child(item))

        def open_new(_: int, item: Item) -> Node:
            return Node(new.child(item))

        if old.form is Form.ARRAY:
            found = gaps(old.children(), new.children(), old.pieces.open)
            return self._list(found, open_old, open_new, path, was, in_order=in_order)
        found = gaps(old.children(), new.children(), old.pieces.open, stride=2)
        return self._dict(found, open_old, open_new, path, was)

    # -- values in memory -------------------------------------------------------------------------------

    def _read(self, old: Node, new: Node, path: Path, was: Path) -> list[Change]:
        if old.tree is not None or new.tree is not None:
            # All that is compared below is part of these two, and gone no sooner than they are.
            self._prints = Fingerprints()
        read([old, new])
        before, after, pieces = old.value, new.value, self._prints.pieces
        if pieces([before]) == pieces([after]):
            return []
        if isinstance(before, InertMessage) and isinstance(after, InertMessage):
            parts = self.compare(Node(value=before.fields), Node(value=after.fields), path, was)
            return [Change(path, "change", "message", before, after, _moved(was, path), tuple(parts))]
        if isinstance(before, InertObject) and isinstance(after, InertObject) and _have_fields(before, after):
            held, holds = members(before), members(after)
            if held is not None and holds is not None:
                found = gaps(pieces(held), pieces(holds), _nothing)
                return self._list(found, _among(held), _among(holds), path, was, in_order=False)
            return self.compare(Node(value=before.fields), Node(value=after.fields), path, was)
        if isinstance(before, dict) and isinstance(after, dict):
            left, right = ([part for entry in each.items() for part in entry] for each in (before, after))
            found = gaps(pieces(left), pieces(right), _nothing, stride=2)
            return self._dict(found, _among(left), _among(right), path, was)
        if type(before) is type(after) and isinstance(before, list | tuple):
            found = gaps(pieces(before), pieces(after), _nothing)
            return self._list(found, _among(before), _among(after), path, was)
        return [_leaf(path, old, new, was)]

    # -- sequences and dicts, once it is known where they differ ------------------------------------------

    def _list(
        self, found: list[Gap], open_old: Open, open_new: Open, path: Path, was: Path, *, in_order: bool = True
    ) -> list[Change]:
        old, new = elements(found, 0, open_old), elements(found, 1, open_new)
        if not in_order:
            return _members(old, new, path)
        pairs, removed, added = matched(old, new)
        kept = in_place(pairs)
        moved = [pair for pair in pairs if pair not in kept]
        read(each.node for each in [*removed, *added, *[each for pair in moved for each in pair]])
        _read_light(each.node for pair in pairs for each in pair if pair[0].item != pair[1].item)
        ordered: list[tuple[int, list[Change]]] = []
        for each in removed:
            ordered.append((each.position, [_leaf((*path, each.position), each.node, None)]))
        for before, after in pairs:
            here, there = (*path, after.position), (*was, before.position)
            changes = []
            if (before, after) not in kept:
                left, right = shown(before.node.value), shown(after.node.value)
                changes.append(Change(here, "move", kind_of(right), left, right, there))
            if before.item != after.item:
                changes += self.compare(before.node, after.node, here, there)
            ordered.append((after.position, changes))
        for each in added:
            ordered.append((each.position, [_leaf((*path, each.position), None, each.node)]))
        ordered.sort(key=lambda entry: entry[0])
        return [change for _, changes in ordered for change in changes]

    def _dict(self, found: list[Gap], open_old: Open, open_new: Open, path: Path, was: Path) -> list[Change]:
        old, new = entries(found, 0, open_old), entries(found, 1, open_new)
        pairs = [(old[key][0], new[key][0]) for key in old if key in new]
        kept = in_place(pairs)
        moved = [pair for pair in pairs if pair not in kept]
        differing = [key for key in old if key in new and old[key][1].item != new[key][1].item]
        gone, come = [key for key in old if key not in new], [key for key in new if key not in old]
        read([*[old[key][0].node for key in [*gone, *differing]], *[new[key][0].node for key in come]])
        read([*[old[key][1].node for key in gone], *[new[key][1].node for key in come]])
        read(each.node for pair in moved for each in pair)
        _read_light(side[key][1].node for key in differing for side in (old, new))
        ordered: list[tuple[int, list[Change]]] = []
        for key in gone:
            name, value = old[key]
            ordered.append((name.position, [_leaf((*path, _part(name.node.value)), value.node, None)]))
        for key in differing:
            part = _part(old[key][0].node.value)
            changes = self.compare(old[key][1].node, new[key][1].node, (*path, part), (*was, part))
            ordered.append((new[key][0].position, changes))
        for key in come:
            name, value = new[key]
            ordered.append((name.position, [_leaf((*path, _part(name.node.value)), None, value.node)]))
        ordered.sort(key=lambda entry: entry[0])
        changes = [change for _, changes in ordered for change in changes]
        if moved:
            before, after = (
                {_part(pair[side].node.value): pair[side].position // 2 for pair in moved} for side in (0, 1)
            )
            changes.append(Change(path, "move", "value", before, after))
        return changes


def _members(old: list[Element], new: list[Element], path: Path) -> list[Change]:
    """Return the changes of a set: by piece first, and only what is left by content."""
    old, new = _apart(old, new, lambda each: each.item)
    read(each.node for each in [*old, *new])
    old, new = _apart(old, new, lambda each: each.node.fingerprint)
    gone = [_leaf((*path, each.position), each.node, None) for each in old]
    return gone + [_leaf((*path, each.position), None, each.node) for each in new]


def _apart(
    old: list[Element], new: list[Element], key_of: Callable[[Element], object]
) -> tuple[list[Element], list[Element]]:
    """Return what stands on one side only."""
    left, right = ({key_of(each) for each in side} for side in (old, new))
    return [each for each in old if key_of(each) not in right], [each for each in new if key_of(each) not in left]


def _have_fields(old: InertObject, new: InertObject) -> bool:
    """Whether the two are of one class, and consist of parts."""
    if not old.module or (old.module, old.name) != (new.module, new.name):
        return False
    return type(old.fields) is type(new.fields) and isinstance(old.fields, dict | list | tuple)


def _read_light(nodes: Iterable[Node]) -> None:
    # What is in pieces may turn out to differ in few of them.
    read(node for node in nodes if node.tree is not None and node.tree.length <= LEAF_MAX)


def _nothing(items: Collection[Item]) -> dict[Item, list[Item]]:
    return {}


def _among(values: Sequence[object]) -> Open:
    return lambda position, _: Node(value=values[position])


def _part(key: object) -> str | int:
    """Return what stands for a dict's key in a path: the key itself where it is text or a number."""
    if isinstance(key, str) or (type(key) is int and key.bit_length() <= INT_BITS_MAX):
        return key
    return repr(key) if isinstance(key, bytes) else summary(key, 80)


# -- paths and sizes ------------------------------------------------------------------------------------


def _absolute(pieces: Pieces, path: Path, *states: Mapping[str, StoredValue]) -> Path:
    if any(isinstance(part, int) and part < 0 for part in path):
        for state in states:
            value = state.get(str(path[0]))
            try:
                return (
                    path[0],
                    *(Tree(*value, pieces).locate(path[1:])[0] if value is not None else path[1:]),
                )
            except PathNotFoundError:
                continue
    return path


def _within(changes: Iterable[Change], paths: Sequence[Path]) -> list[Change]:
    """Return what of the changes lies at one of the paths, or below."""
    found: list[Change] = []
    for change in changes:
        for path in paths:
            size = min(len(path), len(change.path))
            if [*map(str, path[:size])] != [*map(str, change.path[:size])]:
                continue
            if len(path) <= len(change.path):
                found.append(change)
                break
            found += _narrowed(change, path)
    return found


def _narrowed(change: Change, path: Path) -> list[Change]:
    """Return what a change of a whole value means for the part of it at a longer path."""
    if change.op == "move":
        return []
    rest = path[len(change.path) :]
    sides: list[Node | None] = []
    for value, exists in ((change.old, change.op != "add"), (change.new, change.op != "remove")):
        for part in rest:
            exists, value = step(value, part) if exists else (False, None)
        sides.append(Node(value=value) if exists else None)
    old, new = sides
    if old is None and new is None:
        return []
    if old is None or new is None:
        return [_leaf(path, old, new)]
    return _Comparison().compare(old, new, path, (*(change.old_path or change.path), *rest))


def _sizes(pieces: Pieces, old: Mapping[str, StoredValue], new: Iterable[StoredValue]) -> tuple[int, int]:
    """Return how many bytes of the new values the old state does not have, and how many it has too."""
    known: set[tuple[int, bytes]] = set()

    def unknown(values: Iterable[StoredValue]) -> Iterator[tuple[Item, bool]]:
        todo = [item for value in values for item in decode_items(value.rope)]
        while todo:
            item = todo.pop()
            is_new = (item.kind, item.payload) not in known
            known.add((item.kind, item.payload))
            if is_new and item.kind == ROPE and item.payload in pieces.ropes:
                todo += pieces.ropes[ObjectId(item.payload)]
            else:
                yield item, is_new

    for _ in unknown(old.values()):
        pass
    fresh = shared = 0
    for item, is_new in unknown(new):
        fresh, shared = fresh + item.length * is_new, shared + item.length * (not is_new)
    return fresh, shared

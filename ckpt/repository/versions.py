"""The versions of an item: which one counts at a moment, and where those go that its record has no room for.

When a record grows beyond a bound, all versions but the newest move into an object, and groups of such objects
into one above them: the record stays short however often an item is put. The objects are ropes, so that what
collects, checks and counts objects needs to know nothing of versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgpack

from ckpt.errors import DamagedObjectError, DamagedRecordError
from ckpt.history.commits import StoredValue
from ckpt.history.items import ItemRecord, Older, Version, lifetime_field, lifetime_of
from ckpt.objects.ids import Kind, ObjectId
from ckpt.values.rope import INLINE, ROPE, Emit, Item, Load, decode_items, encode_items, inline

RECORD_MAX = 800
"""Bytes of versions in a record above which they are moved out."""

_GROUP = 8
"""Groups of one level that become one of the next."""


def put_away(record: ItemRecord, emit: Emit) -> ItemRecord:
    """Return a record whose versions but the last are in objects, if there are too many of them."""
    *earlier, last = record.recent
    if not earlier or sum(len(each.vectors) + _size(each.value) for each in record.recent) <= RECORD_MAX:
        return record
    older = [*record.older, _group(0, earlier[-1].moment, encode_versions(earlier), len(earlier), emit)]
    while len(older) >= _GROUP and len({group.level for group in older[-_GROUP:]}) == 1:
        full = older[-_GROUP:]
        items = [item for group in full for item in decode_items(group.rope)]
        count = sum(item.siblings for item in items)
        older[-_GROUP:] = [_group(full[0].level + 1, full[-1].last, encode_items(items), count, emit)]
    return record._replace(recent=(last,), older=tuple(older))


def _size(value: StoredValue | None) -> int:
    return 24 + (len(value.rope) if value is not None else 0)


def _group(level: int, last: int, rope: bytes, count: int, emit: Emit) -> Older:
    length = sum(item.length for item in decode_items(rope))
    return Older(level, last, encode_items([Item(ROPE, length, count, emit(Kind.ROPE, rope))]))


def encode_versions(versions: Iterable[Version]) -> bytes:
    """Return versions as one rope: before the items of each, an inline item that says what it is."""
    items: list[Item] = []
    for version in versions:
        type_, rope = version.value if version.value is not None else (None, b"")
        value, vectors = decode_items(rope), decode_items(version.vectors)
        age = version.moment - version.created
        head: bytes = msgpack.packb([version.moment, age, lifetime_field(version), type_, len(value), len(vectors)])
        items += [inline(head, 1), *value, *vectors]
    return encode_items(items)


def decode_versions(rope: bytes) -> list[Version]:
    """Undo `encode_versions`, or raise DamagedObjectError."""
    items = decode_items(rope)
    found: list[Version] = []
    at = 0
    while at < len(items):
        moment, age, (ttl, until), type_, values, vectors = _head(items[at])
        middle = at + 1 + values
        behind = middle + vectors
        if behind > len(items):
            raise _damaged()
        value = StoredValue(type_, encode_items(items[at + 1 : middle])) if type_ is not None else None
        found.append(Version(moment, moment - age, ttl, value, encode_items(items[middle:behind]), until))
        at = behind
    return found


def _head(item: Item) -> tuple[int, int, tuple[int, int], str | None, int, int]:
    """Return what the item before those of a version says."""
    try:
        fields = msgpack.unpackb(item.payload) if item.kind == INLINE else None
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise _damaged() from error
    if type(fields) is not list or len(fields) != len(_HEAD) or not all(map(isinstance, fields, _HEAD)):
        raise _damaged()
    if min(fields[4:]) < 0:
        raise _damaged()
    moment, age, lifetime, type_, values, vectors = fields
    try:
        return moment, age, lifetime_of(lifetime), type_, values, vectors
    except DamagedRecordError as error:
        raise _damaged() from error


_HEAD = (int, int, int | list, str | None, int, int)


def _damaged() -> DamagedObjectError:
    return DamagedObjectError("the earlier versions of an item cannot be read", hints=["see ckpt fsck"])


def at_moments(wanted: Sequence[tuple[ItemRecord, int | None]], load: Load) -> list[Version | None]:
    """Return the version of each record that counts at a moment (None: now), or None before the first.

    Objects are loaded only for moments before the versions in the record itself, level by level for all together.
    """
    found: list[Version | None] = []
    open_groups: list[list[Older]] = []
    for record, moment in wanted:
        version = _last(record.recent, moment)
        found.append(version)
        # The first group that reaches the moment, and the one before it in case that begins only later.
        reaching = [i for i, group in enumerate(record.older) if moment is not None and group.last >= moment]
        until = reaching[0] + 1 if reaching else len(record.older)
        open_groups.append([] if version is not None else list(record.older[max(until - 2, 0) : until]))
    for at, versions in enumerate(_opened(open_groups, load)):
        if found[at] is None:
            found[at] = _last(versions, wanted[at][1])
    return found


def all_versions(records: Sequence[ItemRecord], load: Load) -> list[list[Version]]:
    """Return all versions of each record, oldest first; objects are loaded level by level for all together."""
    opened = _opened([list(record.older) for record in records], load)
    return [[*older, *record.recent] for older, record in zip(opened, records, strict=True)]


def until(record: ItemRecord, moment: int) -> ItemRecord | None:
    """Return a record without the versions after a moment, or None when it has none in the record itself.

    Groups of versions stay whole, and a row stays though nothing is left in it.
    """
    kept = tuple(version for version in record.recent if version.moment <= moment)
    return record._replace(recent=kept, lease=None) if len(kept) < len(record.recent) else None


def own(record: ItemRecord, left: int) -> ItemRecord:
    """Return the record of an item in a fork that left at a moment without the copy of what it has from its base."""
    return record._replace(recent=tuple(version for version in record.recent if version.moment > left))


def ropes(record: ItemRecord) -> list[bytes]:
    """Return the ropes that a record names: of all its versions, or of the groups they are in."""
    found = [group.rope for group in record.older]
    for version in record.recent:
        found += [version.value.rope] if version.value is not None else []
        found.append(version.vectors)
    return found


def _last(versions: Sequence[Version], moment: int | None) -> Version | None:
    return next((each for each in reversed(versions) if moment is None or each.moment <= moment), None)


def _opened(groups: list[list[Older]], load: Load) -> list[list[Version]]:
    """Return the versions in lists of groups, in order."""
    columns = [[(group.level, item) for group in each for item in decode_items(group.rope)] for each in groups]
    versions: list[list[Version]] = [[] for _ in groups]
    while any(columns):
        loaded = load({ObjectId(item.payload) for column in columns for _, item in column})
        for at, column in enumerate(columns):
            below: list[tuple[int, Item]] = []
            for level, item in column:
                rope = loaded[ObjectId(item.payload)]
                if level:
                    below += [(level - 1, child) for child in decode_items(rope)]
                else:
                    versions[at] += decode_versions(rope)
            columns[at] = below
    return [sorted(each, key=lambda version: version.moment) for each in versions]

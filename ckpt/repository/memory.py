"""`Memory`: what agents keep beyond one thread. Values under keys in namespaces, every version of them kept.

A memory belongs to a graph and has a name. It is one line of changes, as a thread is: it can be read as of any
moment, forked in constant time, and compared with itself or another. A value is any mapping that the built-in
serializer takes, and stored once wherever else it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from ckpt.durations import DURATION_MAX
from ckpt.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from ckpt.history import keys
from ckpt.history.commits import StoredValue
from ckpt.history.records import Base
from ckpt.objects.cache import Cache
from ckpt.repository.arguments import several
from ckpt.repository.core import Core
from ckpt.repository.directory import Directory
from ckpt.repository.incoming import Typed
from ckpt.repository.memory_address import Namespace, address_of, labels_of
from ckpt.repository.memory_forget import Forgetter
from ckpt.repository.memory_look import Address
from ckpt.repository.memory_reader import Entry, MemoryReader
from ckpt.repository.memory_vectors import Ranked, keep, rank
from ckpt.repository.memory_writer import MemoryWriter, NewVersion, now
from ckpt.repository.threads import ThreadAdmin
from ckpt.storage.base import Batch
from ckpt.values.rope import rope_length
from ckpt.values.serializer import Serializer

_T = TypeVar("_T")

DEFAULT_MEMORY = "default"

Moment = datetime | int
"""A point in the past of a memory: a datetime with a timezone, or the `moment` of something that was read."""

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SWEEP = 500
_VALUES_SIZE = 64 << 20
_LIVE_FACTOR = 8
"""How many times more bytes a live value takes than a stored one, roughly."""


@dataclass(frozen=True, slots=True)
class MemoryItem:
    """An item as it was read. `created` is when it was put first since it was last absent."""

    namespace: tuple[str, ...]
    key: str
    value: dict[str, Any]
    created: datetime
    updated: datetime
    moment: int


@dataclass(frozen=True, slots=True)
class MemoryVersion:
    """One version of an item; `value` is None where it was deleted."""

    value: dict[str, Any] | None
    when: datetime
    moment: int

    @property
    def deleted(self) -> bool:
        """Whether this version is the item's absence."""
        return self.value is None


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """What differs at one key: None stands for absence."""

    namespace: tuple[str, ...]
    key: str
    old: dict[str, Any] | None
    new: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Put:
    """A change to be made: a value, or None to delete. `vectors` are kept with the value and given back as they are."""

    namespace: Namespace
    key: str
    value: Mapping[str, Any] | None
    ttl: timedelta | None = None
    vectors: bytes = b""


class Memories:
    """The memories of one graph."""

    def __init__(self, core: Core, serializer: Serializer) -> None:
        self.core = core
        self.serializer = serializer
        self.directory = Directory(core)
        self.admin = ThreadAdmin(core, self.directory)
        self.reader = MemoryReader(core, self.directory)
        core.on_removal(self.reader.forget)
        self.values: Cache[bytes, Mapping[str, Any]] = Cache(_VALUES_SIZE)
        """Live values by their ropes, for those who only look at them."""
        self.writer = MemoryWriter(core, self.directory, self.reader)

    def names(self) -> list[str]:
        """Return the names of all memories, sorted."""
        return sorted(record.name for record in self.directory.names() if record.thread is not None)


class Memory:
    """One memory of a graph; it comes into being with its first item. Safe for many threads."""

    def __init__(self, memories: Memories, name: str) -> None:
        self._memories = memories
        self.name = name

    # -- reading --------------------------------------------------------------------------------------

    def get(self, namespace: Namespace, key: str, *, as_of: Moment | None = None) -> MemoryItem | None:
        """Return an item, or None when there is none, it was deleted or it has expired.

        With `as_of` as it was then; lifetimes do not count in the past.
        """
        return self.consistently(lambda: self.load(self.read([(namespace, key)], as_of=as_of)[0])[0])

    def items(self, prefix: Namespace = (), *, as_of: Moment | None = None) -> list[MemoryItem]:
        """Return all items whose namespace begins with these labels, the one changed last first.

        A number of round trips that does not depend on how many there are.
        """
        found = self.consistently(lambda: self.load(self.read(prefixes=[prefix], as_of=as_of)[1][0]))
        return [item for item in found if item is not None]

    def namespaces(self, prefix: Namespace = (), *, as_of: Moment | None = None) -> list[tuple[str, ...]]:
        """Return the namespaces that begin with these labels and have items, sorted. No value is loaded."""
        _, (found,) = self.read(prefixes=[prefix], as_of=as_of)
        return sorted({entry.namespace for entry in found})

    def read(
        self,
        addresses: Sequence[tuple[Namespace, str]] = (),
        prefixes: Sequence[Namespace] = (),
        *,
        as_of: Moment | None = None,
    ) -> tuple[list[Entry | None], list[list[Entry]]]:
        """Return the item at each address, and per prefix all items below it, the one changed last first.

        All as of the same moment, in one round trip, without their values; see `load`.
        """
        wanted = [address_of(namespace, key) for namespace, key in addresses]
        labels = [labels_of(prefix) for prefix in prefixes]
        moment = None if as_of is None else moment_of(as_of)
        return self._memories.reader.read(
            self.name, wanted, labels, as_of=moment, now=now() if moment is None else None
        )

    def load(self, entries: Sequence[Entry | None]) -> list[MemoryItem | None]:
        """Return items with their values, in order, with a bounded number of round trips for all together."""
        stored = [entry.version.value for entry in entries if entry is not None and entry.version.value is not None]
        core, loads = self._memories.core, self._memories.serializer.loads_typed
        loaded = iter(zip(stored, core.consistently(lambda: core.value_bytes(stored)), strict=True))
        items: list[MemoryItem | None] = []
        for entry in entries:
            if entry is None:
                items.append(None)
                continue
            value, data = next(loaded)
            live: Any = loads((value.type, data))
            version = entry.version
            items.append(
                MemoryItem(
                    entry.namespace, entry.key, live, when(version.created), when(version.moment), version.moment
                )
            )
        return items

    def consistently(self, read: Callable[[], _T]) -> _T:
        """Do `read`, which reads items and then loads them; again if what it is to load was forgotten in between."""
        return self._memories.core.consistently(read)

    def peek(self, entries: Sequence[Entry]) -> list[Mapping[str, Any]]:
        """Return the values of items to be looked at only: they are shared with whoever looks next."""
        kept = self._memories.values
        ropes = [entry.version.value.rope if entry.version.value is not None else b"" for entry in entries]
        found, absent = kept.get_many(dict.fromkeys(ropes))
        wanted = set(absent)
        missing = {rope: entry for rope, entry in zip(ropes, entries, strict=True) if rope in wanted}
        for rope, item in zip(missing, self.load(list(missing.values())), strict=True):
            assert item is not None
            found[rope] = item.value
            kept.put(rope, item.value, _LIVE_FACTOR * rope_length(rope) + 500)
        return [found[rope] for rope in ropes]

    def vectors(self, entries: Sequence[Entry]) -> list[bytes]:
        """Return what was put as `vectors` with each item, with a bounded number of round trips for all together."""
        core = self._memories.core
        ropes = [StoredValue("", entry.version.vectors) for entry in entries if entry.version.vectors]
        loaded = iter(core.consistently(lambda: core.value_bytes(ropes)))
        return [next(loaded) if entry.version.vectors else b"" for entry in entries]

    def nearest(self, entries: Sequence[Entry], query: Sequence[float], limit: int) -> Ranked:
        """Return which of these items, all of which have vectors, the database finds nearest to a query.

        Includes the nearest `limit` of those it knows, with their cosines; `left` are those it does not. One round
        trip, however many items; none where the database compares no vectors, and all are left.
        """
        return rank(self._memories.core.storage.ranking, entries, query, limit)

    def keep_vectors(self, entries: Sequence[Entry], vectors: Sequence[Sequence[bytes]]) -> bool:
        """Have `nearest` know these items, given the vectors of each as 32-bit floats; return whether it may do so now.

        Best effort; fails no reader.
        """
        return keep(self._memories.core.storage.ranking, entries, vectors)

    def history(self, namespace: Namespace, key: str) -> list[MemoryVersion]:
        """Return all versions of an item, newest first, deletions included; what a fork left behind counts too."""
        address = address_of(namespace, key)
        return self.consistently(lambda: self._history(address))

    def _history(self, address: Address) -> list[MemoryVersion]:
        versions = self._memories.reader.versions(self.name, address)[::-1]
        stored = [version.value for version in versions if version.value is not None]
        core, loads = self._memories.core, self._memories.serializer.loads_typed
        loaded = iter(zip(stored, core.value_bytes(stored), strict=True))
        found = []
        for version in versions:
            live: Any = None
            if version.value is not None:
                value, data = next(loaded)
                live = loads((value.type, data))
            found.append(MemoryVersion(live, when(version.moment), version.moment))
        return found

    @property
    def moment(self) -> int:
        """The moment of the last change; 0 when there was none."""
        found = self._memories.directory.find(self.name)
        return found[0].sequence if found is not None else 0

    # -- changing -------------------------------------------------------------------------------------

    def put(self, namespace: Namespace, key: str, value: Mapping[str, Any], *, ttl: timedelta | None = None) -> None:
        """Store an item, durably on return; `ttl` is how long it lives unless it is renewed.

        Raises UnstorableValueError for a value that would not come back equal, and InvalidInputError.
        """
        self.apply([Put(namespace, key, value, ttl)])

    def delete(self, namespace: Namespace, key: str) -> None:
        """Delete an item; what is not there is ignored. Its versions stay in the history until `prune`."""
        self.apply([Put(namespace, key, None)])

    def apply(self, changes: Iterable[Put]) -> None:
        """Make all changes or none, in one transaction; of several to one item the last counts."""
        self.write(self.prepare(changes))

    def prepare(self, changes: Iterable[Put]) -> list[NewVersion]:
        """Return changes as `write` takes them, serialized; of several to one item the last. Asks the store nothing.

        Raises UnstorableValueError and InvalidInputError, as `put` does.
        """
        dumps = self._memories.serializer.dumps_typed
        last: dict[Address, NewVersion] = {}
        for change in several(changes, "changes"):
            if not isinstance(change, Put):
                raise InvalidInputError(f"a change is a {type(change).__name__}, not a Put", hints=["give Put(…)"])
            address = address_of(change.namespace, change.key)
            value: Typed | None = None
            if change.value is not None:
                value = Typed(*dumps(_mapping(change.value, change.key), path=change.key))
            last[address] = NewVersion(address, value, _microseconds(change.ttl), change.vectors)
        return list(last.values())

    def write(self, versions: Sequence[NewVersion]) -> None:
        """Make all changes or none, in one transaction, durably on return; each of another item."""
        if versions:
            self._memories.writer.apply(self.name, versions)

    def renew(self, entries: Iterable[Entry]) -> None:
        """Let items that have a lifetime live on as if they were put now. Best effort; fails no reader."""
        self._memories.writer.renew(self.name, entries, now())

    def sweep(self) -> int:
        """Delete the items that have expired, and return how many. They read as absent already."""
        moment = now()
        _, (found,) = self._memories.reader.read(self.name, [], [()])
        expired = [entry for entry in found if entry.expires is not None and entry.expires <= moment]
        count = 0
        for start in range(0, len(expired), _SWEEP):
            page = [NewVersion(Address(entry.namespace, entry.key), None) for entry in expired[start : start + _SWEEP]]
            count += self._memories.writer.apply(self.name, page, expired_at=moment)
        return count

    def prune(self, before: Moment | timedelta) -> int:
        """Forget for good what was replaced or deleted before a moment or longer ago; return how many versions.

        What counted at that moment stays, and so does what counted when a fork left, with all that came later; a fork
        loses what it has of the older history. `gc` frees the space.
        """
        moment = now() - before // _MICROSECOND if isinstance(before, timedelta) else moment_of(before)
        return Forgetter(self._memories.core, self._memories.directory, self._memories.writer).forget(self.name, moment)

    # -- branches -------------------------------------------------------------------------------------

    def fork(self, name: str, *, as_of: Moment | None = None) -> Memory:
        """Create another memory from this one as it is, or was, in constant time and space, and return it.

        Later changes to one are not seen by the other. Raises NotFoundError when this memory does not exist, and
        AlreadyExistsError when there is one of that name.
        """
        keys.check_text("the name of a memory", name)
        moment = None if as_of is None else moment_of(as_of)

        def act() -> tuple[Batch, None]:
            found = self._memories.directory.find(self.name)
            if found is None:
                raise NotFoundError(f"there is no memory {self.name!r}", hints=["put something into it first"])
            thread, raw = found
            if self._memories.directory.find(name) is not None:
                raise AlreadyExistsError(f"there is a memory {name!r} already", hints=["choose another name"])
            left = thread.sequence if moment is None else max(0, min(moment, thread.sequence))
            base = Base(thread.number, left, None, max(now(), thread.sequence), "")
            created, change = self._memories.directory.create(name, base=base)
            key, source = keys.thread_key(created.number), keys.thread_key(thread.number)
            records: dict[bytes, bytes | None] = {
                **change.records,
                source: thread._replace(forks=thread.forks + 1).encode(),
                key: created._replace(sequence=left).encode(),
            }
            return Batch({**change.expected, source: raw, key: None}, records), None

        self._memories.admin.atomically((self.name, name), act)
        return Memory(self._memories, name)

    def drop(self) -> bool:
        """Delete the whole memory; False when there is none. Forks keep what they share; `gc` frees the space."""
        return self._memories.admin.delete(self.name)

    def diff(
        self, other: Memory | None = None, *, as_of: Moment | None = None, since: Moment | None = None
    ) -> list[MemoryChange]:
        """Return what differs here, now or `as_of` a moment, against `other`, or against this memory itself.

        `since` is the moment at which the other side is taken; without one it is as it is now, and without
        `other` it is empty. In the order of namespaces and keys. Values that are equal to Python are no change,
        whatever the order of their keys; mostly they are recognised by their ids, and not loaded.
        """
        if other is not None and not isinstance(other, Memory):
            raise InvalidInputError(
                f"the other side is a {type(other).__name__}, not a Memory", hints=["a moment is given as since="]
            )
        return self.consistently(lambda: self._diff(other, as_of, since))

    def _diff(self, other: Memory | None, as_of: Moment | None, since: Moment | None) -> list[MemoryChange]:
        _, (after,) = self.read(prefixes=[()], as_of=as_of)
        before: list[Entry] = []
        if other is not None or since is not None:
            _, (before,) = (other or self).read(prefixes=[()], as_of=since)
        was, present = ({Address(entry.namespace, entry.key): entry for entry in side} for side in (before, after))
        alike = {at for at in was.keys() & present.keys() if was[at].version.value == present[at].version.value}
        differing = sorted((was.keys() | present.keys()) - alike)
        # Each by its own memory, which may be that of another file.
        befores = (other or self).load([was.get(address) for address in differing])
        afters = self.load([present.get(address) for address in differing])
        sides = zip(differing, _values(befores), _values(afters), strict=True)
        changes = [MemoryChange(at.namespace, at.key, old, new) for at, old, new in sides]
        return [change for change in changes if not _equal(change.old, change.new)]

    def __repr__(self) -> str:
        return f"Memory({self.name!r})"


def moment_of(as_of: Any) -> int:
    """Return a moment as a number, or raise InvalidInputError for what is none, or a datetime without a timezone."""
    if isinstance(as_of, datetime):
        if as_of.tzinfo is None:
            raise InvalidInputError(
                f"{as_of.isoformat()} does not say in which timezone", hints=["give an aware datetime, as in UTC"]
            )
        return (as_of - _EPOCH) // _MICROSECOND
    if not isinstance(as_of, int) or isinstance(as_of, bool):
        raise InvalidInputError(
            f"a moment is a {type(as_of).__name__}", hints=["give an aware datetime, or a moment that history returns"]
        )
    return as_of


def when(moment: int) -> datetime:
    """Return the time of a moment, in UTC."""
    return _EPOCH + timedelta(microseconds=moment)


def _values(items: Iterable[MemoryItem | None]) -> list[dict[str, Any] | None]:
    return [item.value if item is not None else None for item in items]


def _equal(old: object, new: object) -> bool:
    try:
        return bool(old == new)
    except Exception:  # the values' own classes compare them
        return False


def _mapping(value: object, key: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"the value of {key!r} is no mapping but of type {type(value).__name__}")
    return dict(value)


def _microseconds(ttl: Any) -> int:
    if ttl is None:
        return 0
    if not isinstance(ttl, timedelta) or ttl > DURATION_MAX:
        raise InvalidInputError(f"ttl={ttl!r} is no timedelta of a hundred years or less", hints=["give a timedelta"])
    if ttl <= timedelta(0):
        raise InvalidInputError(f"ttl={ttl}: an item lives longer than no time at all")
    return ttl // _MICROSECOND

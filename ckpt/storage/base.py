"""The storage seam: what a backend promises, and the little it may decide.

A store holds two kinds of things, split by mutability:

- **records**: an ordered map from short keys to small values, changed in place (threads, checkpoints, tags);
- **objects**: immutable bytes inside *frames*. A frame names the frame before it in its pack, and an index
  maps the first 16 bytes of an object's id to the frame that holds it and its place in there.

A backend never looks into a value or a frame. Hashing, encoding, sealing and the meaning of keys live above,
once. `publish` is the only way to write besides `exclusive`, which collectors use; both are atomic and durable
on return. Whoever relies on an object without storing it again passes the epoch at which it was known to be
there: every removal raises the epoch, so that a stale belief is refused instead of believed. So is one from before
the store may have gone back in time, as a server does that comes back without the last it was told, or a transaction of
the caller's that is rolled back: the epoch is another one then.

Each promise below is a test of `ckpt.testing.StorageContract`, but for those of `Ranking`, which one backend has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ckpt.errors import ConflictError

RECORD_KEY_MAX = 1100
"""Bytes that a record's key may have; every backend can index that much."""

FRAME_OBJECTS_MAX = 1 << 16
"""Objects that one frame may hold."""

UNSETTLED = "whether the last write was stored is not known: look before doing it again"
"""The hint of the error where the answer to a `publish` was lost, and the store did not come back to be asked."""

CHAINED = -1
"""As `Frame.previous`: the frame before this one in the same batch."""


class Place(NamedTuple):
    """Where an object lies: the number of its frame, and its position among the frame's objects."""

    frame: int
    position: int


class StoredFrame(NamedTuple):
    """A frame as read: the number of the frame before it in its pack (0 for none), and its bytes."""

    previous: int
    data: bytes


class Whereabouts(Protocol):
    """What a storage can say of where objects lie without being asked again."""

    def find(self, keys: Collection[bytes]) -> dict[bytes, Place]:
        """Return the places of those of some objects, by the keys of the index, that are known."""


class Fetched(NamedTuple):
    """Where objects lie, and the frames that hold them with those before.

    `where` finds all objects that lie in these frames, but for those that have their place in another; None where a
    storage does not have it at hand.
    """

    places: dict[bytes, Place]
    frames: dict[int, StoredFrame]
    where: Whereabouts | None = None


Range = tuple[bytes, bytes]
"""All keys with start <= key < end."""


class View(NamedTuple):
    """Records as of one moment: the values of single keys, and per range its records ordered by key."""

    values: list[bytes | None]
    ranges: list[list[tuple[bytes, bytes]]]


class Frame(NamedTuple):
    """A frame to be written. `keys` are the index keys of its objects, in order.

    An `optional` frame is left out by `publish` when all of its keys are in the index already. It begins a pack
    (`previous` is 0), and no frame of the same batch is chained to it. Of a `fresh` one nothing is in the index, as
    far as can be known: a storage need not look before it adds its keys. Should one be there, it may get this place.
    """

    previous: int
    data: bytes
    keys: tuple[bytes, ...]
    optional: bool = False
    fresh: bool = False


@dataclass(slots=True)
class Batch:
    """What one `publish` writes, all or nothing.

    `expected` maps keys of records to the value they must have now (None: there is no such record).
    `records` maps keys to their new value (None: remove it). `epoch` is checked when it is not None. `meanwhile` is
    what can be done while a server is at it: a storage that waits for one calls it, once for each time it asks, or not
    at all. It must not rely on the batch being applied.
    """

    expected: Mapping[bytes, bytes | None] = field(default_factory=dict)
    records: Mapping[bytes, bytes | None] = field(default_factory=dict)
    frames: Sequence[Frame] = ()
    epoch: int | None = None
    meanwhile: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Sizes of a store in bytes; `frames` counts the compressed frames alone, `disk` all that it occupies."""

    disk: int
    frames: int
    records: int
    free: int
    objects: int


class RecordChangedError(ConflictError):
    """A record did not have the expected value; `current` holds the values found for all expected keys."""

    def __init__(self, current: Mapping[bytes, bytes | None]) -> None:
        super().__init__("a record was changed by another writer", hints=["read it again and retry"])
        self.current = dict(current)


class EpochChangedError(ConflictError):
    """Something was removed since `Batch.epoch`: what the writer believed to be stored may be gone."""

    def __init__(self, epoch: int) -> None:
        super().__init__("objects were collected meanwhile", hints=["look again for what is stored and retry"])
        self.epoch = epoch


class Reading(Protocol):
    """The reading half of a store. Each call is one round trip, however many keys it is given."""

    def epoch(self) -> int:
        """Return a number that grows whenever something is removed from the store.

        Once the store may have gone back in time, it is one that never was before.
        """

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, in the order given, all as of one moment; None where there is none."""

    def view(self, keys: Sequence[bytes], ranges: Sequence[Range], *, last: int | None = None) -> View:
        """Return the values of keys, as `read` does, and the records of each range, as of the same moment.

        Of each range all of them, or the `last` ones, at least one.
        """

    def scan(
        self, start: bytes, end: bytes, *, limit: int | None = None, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """Return up to `limit` records with start <= key < end, ordered by key as bytes (or backwards).

        A storage that disguises hashes inside of keys has another order among those, which stays the same.
        """

    def locate(self, keys: Collection[bytes]) -> dict[bytes, Place]:
        """Return where the objects with these index keys lie; a key that is not stored is left out."""

    def load(self, frames: Collection[int], known: Collection[int] = ()) -> dict[int, StoredFrame]:
        """Return the frames asked for and all that come before them in their packs.

        Going back stops before a frame that is in `known`. Numbers that are not stored are left out.
        """

    def scan_index(self, after: bytes, limit: int) -> list[tuple[bytes, Place]]:
        """Return up to `limit` index entries with a key greater than `after`, ordered by key.

        A storage that disguises keys has another order, which stays the same: `after` is then a key that was
        returned (or the empty one, for the beginning), and what comes is what stands behind it in that order.
        """

    def scan_frames(self, after: int, limit: int) -> list[tuple[int, int, int]]:
        """Return up to `limit` (number, previous, bytes) of frames numbered above `after`, in order."""

    def usage(self) -> Usage:
        """Return the sizes of the store."""


class Nearest(NamedTuple):
    """What a `Ranking` answers: names with their scores, best first, and the names that it cannot answer for."""

    ranked: list[tuple[bytes, float]]
    unknown: set[bytes]


class Ranking(Protocol):
    """Lists of vectors by name, which the database compares by itself so that they need not be sent.

    A name is 16 bytes and stands for one list for good. What is kept here is a copy that may lag, or be lost, at any
    time: whoever asks has the vectors, and compares those that are not known here. Safe for many threads.
    """

    def nearest(self, query: Sequence[float], names: Sequence[bytes], limit: int) -> Nearest:
        """Return up to `limit` of these names, which all differ, by the best score in their lists; greatest first.

        The score of a vector is the cosine of the angle between it and the query, up to the rounding of 32-bit
        floats; 0 where one has no length. Equal ones come in the order given. One round trip from the second call on.
        """

    def add(self, vectors: Mapping[bytes, Sequence[bytes]]) -> bool:
        """Keep lists of vectors, little-endian 32-bit floats, by name; return whether those that can be are known now.

        Best effort, so that nothing is raised. Each list is kept whole or not at all; what is there already stays.
        """

    def names(self, after: bytes, limit: int) -> list[bytes]:
        """Return up to `limit` names greater than `after` that are known, in order."""

    def remove(self, names: Collection[bytes]) -> None:
        """Forget these names."""


_EPOCH_BITS = 64
_ENTRIES = 5000


def with_incarnation(incarnation: int, epoch: int) -> int:
    """Return an epoch that is not believed in another incarnation of a store.

    An incarnation is what a store is from one moment at which it may have gone back in time to the next.
    """
    return incarnation << _EPOCH_BITS | epoch


def without_incarnation(epoch: int) -> tuple[int, int]:
    """Undo `with_incarnation`."""
    return epoch >> _EPOCH_BITS, epoch & ((1 << _EPOCH_BITS) - 1)


def incarnation_at(epoch: int) -> int:
    """Return the incarnation of a store at an epoch, without the doubts that a process adds in the bits above it."""
    return without_incarnation(epoch)[0] & ((1 << _EPOCH_BITS) - 1)


def index_entries(reading: Reading) -> Iterator[tuple[bytes, Place]]:
    """Yield all entries of the index of objects, in the order of `Reading.scan_index`, some thousand in one look."""
    after = b""
    while entries := reading.scan_index(after, _ENTRIES):
        yield from entries
        after = entries[-1][0]


def view_in_parts(reading: Reading, keys: Sequence[bytes], ranges: Sequence[Range], last: int | None) -> View:
    """Return what `Reading.view` does, by a call for the keys and one for each range.

    That all is as of one moment is up to the caller.
    """
    return View(reading.read(keys), [reading.scan(*bounds, limit=last, reverse=True)[::-1] for bounds in ranges])


def check_conditions(reading: Reading, batch: Batch) -> None:
    """Raise what `Storage.publish` says unless the conditions of a batch hold for what is read."""
    if batch.expected:
        keys = list(batch.expected)
        current = dict(zip(keys, reading.read(keys), strict=True))
        if current != dict(batch.expected):
            raise RecordChangedError(current)
    if batch.epoch is not None and batch.epoch != (epoch := reading.epoch()):
        raise EpochChangedError(epoch)


class Exclusive(Reading, Protocol):
    """A store while no one else can publish. What is written appears at once when the context ends well."""

    def write(self, batch: Batch) -> list[int]:
        """Apply a batch as `publish` does. Index entries of its frames replace those with the same keys."""

    def forget(self, keys: Collection[bytes]) -> None:
        """Remove objects from the index."""

    def drop(self, frames: Collection[int]) -> None:
        """Remove frames. Their numbers are never given out again."""

    def raise_epoch(self) -> None:
        """Have the epoch raised even if nothing is written: whoever relies on what was stored looks again."""


class Storage(Reading, Protocol):
    """One store. Safe for use from many threads, and with other processes on the same store."""

    @property
    def url(self) -> str:
        """The URL that opens this store, without secrets."""

    @property
    def remote(self) -> bool:
        """Whether each call is a round trip over a network, so that sending a little twice beats asking first."""

    @property
    def ranking(self) -> Ranking | None:
        """What compares vectors in the database; None for a storage that has nothing of the kind. Asks nobody."""

    def fetch(self, keys: Collection[bytes], known: Collection[int] = ()) -> Fetched:
        """Do what `locate` does, and then `load` with the frames found, in one round trip.

        A frame that is dropped in between may be left out.
        """

    def publish(self, batch: Batch) -> list[int]:
        """Apply a batch in one round trip, durably on return, and return the numbers of its frames; 0 if left out.

        All conditions are checked before anything is written: RecordChangedError when an expected value
        differs, EpochChangedError when the epoch does. A record removed raises the epoch. An object whose key
        is in the index already keeps its place, but for what `Frame` says of `fresh` ones.
        """

    def exclusive(self) -> AbstractContextManager[Exclusive]:
        """Return a context in which nobody else publishes; readers go on. Raises the epoch if it wrote.

        Keep it short: writers wait. Nothing is applied when the context ends with an exception.
        """

    def check(self) -> None:
        """Raise IntegrityError when the database's own structure misleads lookups of records.

        Called before an absence is believed. A backend may look once, and leave large stores to `verify`.
        """

    def verify(self) -> list[str]:
        """Return what the database itself finds wrong with its structure, one sentence each; empty when nothing."""

    def compact(self) -> None:
        """Give free space back to the file system, as far as the backend can."""

    def close(self) -> None:
        """Release connections. A second call does nothing."""

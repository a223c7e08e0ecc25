"""`EncryptedStorage`: any storage, with all that it keeps sealed and all hashes in its keys disguised.

The engine above sees plain records and frames; the storage below sees neither. Sealing is a function of what is
sealed, so that the conditions of a batch stay one comparison in the storage. Every batch also expects the header
to be the one it was sealed by: nobody writes with keys that a rotation has replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock
from typing import TypeVar

from ckpt.encryption.cipher import NotAuthenticError
from ckpt.encryption.disguise import Disguise
from ckpt.encryption.header import FRAME_OVERHEAD, Ring, UnknownKeyError, read_ring
from ckpt.encryption.userkeys import UserKey, damaged_header
from ckpt.errors import DamagedObjectError, DamagedRecordError, IntegrityError, InvalidInputError
from ckpt.forking import renewed_in_child
from ckpt.storage.base import (
    RECORD_KEY_MAX,
    Batch,
    Exclusive,
    Fetched,
    Place,
    Range,
    Ranking,
    Reading,
    RecordChangedError,
    Storage,
    StoredFrame,
    Usage,
    View,
    Whereabouts,
)
from ckpt.storage.scoped import HEADER_KEY

ALL_RECORDS = (b"", b"\xff" * (RECORD_KEY_MAX + 1))
_PAGE = 500
_FRAMES_PAGE = 5000

_T = TypeVar("_T")


class Keys:
    """The keys of one open store: the user's, and the ring as the store has it. Safe for many threads."""

    def __init__(self, storage: Reading, user_key: UserKey, ring: Ring) -> None:
        self._storage = storage
        self._lock = Lock()
        renewed_in_child(self)
        self.user_key = user_key
        self.ring = ring

    def in_child(self) -> None:
        """Hold no lock in a forked process."""
        self._lock = Lock()

    def renew(self, raw: bytes | None) -> None:
        """Take note of the header as it is now. Raises WrongKeyError when the user's key no longer opens it."""
        with self._lock:
            if raw is None:
                raise damaged_header()
            try:
                self._follow(raw)
            except DamagedRecordError:
                # Another thread may have seen a newer one since this was read.
                now = self._storage.read([HEADER_KEY])[0]
                if now is None:
                    raise
                self._follow(now)

    def _follow(self, raw: bytes) -> None:
        if raw != self.ring.raw:
            self.ring = self.ring.follow(raw, self.user_key)

    def reopen(self) -> Ring:
        """Read and open the header with the user's key, which must be the right one even if nothing has changed."""
        with self._lock:
            raw = self._storage.read([HEADER_KEY])[0]
            if raw is None:
                raise damaged_header()
            self.ring.follow(raw, self.user_key)
            self.ring = read_ring(raw, self.user_key)
            return self.ring

    def reread(self) -> None:
        """Do as `renew` does, with the header read from the store."""
        self.renew(self._storage.read([HEADER_KEY])[0])

    def set(self, user_key: UserKey, ring: Ring) -> None:
        """Take note of a header that was just written."""
        with self._lock:
            self.user_key, self.ring = user_key, ring

    def open(self, call: Callable[[Ring], _T], refused: Callable[[], IntegrityError]) -> _T:
        """Return what `call` opens with the ring, reading the header again for a data key that is not known."""
        ring = self.ring
        try:
            return call(ring)
        except UnknownKeyError:
            self.reread()
        except NotAuthenticError as error:
            raise refused() from error
        try:
            return call(self.ring)
        except (UnknownKeyError, NotAuthenticError) as error:
            raise refused() from error


class _SealedReading:
    """The reading half, over a storage or an exclusive session."""

    def __init__(self, inner: Reading, keys: Keys) -> None:
        self._inner = inner
        self._keys = keys
        # The disguise is the same in every ring of a store.
        self._disguise = keys.ring.disguise

    def epoch(self) -> int:
        return self._inner.epoch()

    def _opened(self, read: Callable[[], _T]) -> _T:
        """Return what `read` has read and opened; again if it fails and the keys have been replaced since it began.

        What it read may have been sealed under keys that were gone when it was opened.
        """
        while True:
            ring = self._keys.ring
            try:
                return read()
            except IntegrityError:
                if self._keys.ring is ring:
                    raise

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        hidden = [self._disguise.record_key(key) for key in keys]
        return self._opened(lambda: self._values(hidden, self._inner.read(hidden)))

    def view(self, keys: Sequence[bytes], ranges: Sequence[Range], *, last: int | None = None) -> View:
        hidden = [self._disguise.record_key(key) for key in keys]
        bounds = [self._disguise.bounds(start, end) for start, end in ranges]
        # The header is left out.
        more = any(start <= HEADER_KEY < end for start, end in bounds)
        taken = last if last is None else last + more

        def read() -> View:
            found = self._inner.view(hidden, bounds, last=taken)
            opened = [self._records(rows) for rows in found.ranges]
            return View(
                self._values(hidden, found.values), opened if last is None else [rows[-last:] for rows in opened]
            )

        return self._opened(read)

    def scan(
        self, start: bytes, end: bytes, *, limit: int | None = None, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        start, end = self._disguise.bounds(start, end)
        more = limit is not None and start <= HEADER_KEY < end
        taken = limit + 1 if limit is not None and more else limit
        return self._opened(lambda: self._records(self._inner.scan(start, end, limit=taken, reverse=reverse)))[:limit]

    def _values(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> list[bytes | None]:
        return [
            self.opened_record(key, value) if value is not None and key != HEADER_KEY else None
            for key, value in zip(keys, values, strict=True)
        ]

    def _records(self, rows: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        original = self._disguise.original_key
        return [(original(key), self.opened_record(key, value)) for key, value in rows if key != HEADER_KEY]

    def opened_record(self, key: bytes, sealed: bytes) -> bytes:
        """Return the value of a record as it lies under a disguised key, or raise DamagedRecordError."""
        return self._keys.open(lambda ring: ring.open_record(key, sealed), lambda: _forged_record(key))

    def locate(self, keys: Collection[bytes]) -> dict[bytes, Place]:
        wanted = dict(zip(self._disguise.index_keys(keys), keys, strict=True))
        return {wanted[key]: place for key, place in self._inner.locate(wanted).items()}

    def load(self, frames: Collection[int], known: Collection[int] = ()) -> dict[int, StoredFrame]:
        return self._opened(lambda: self._frames(self._inner.load(frames, known)))

    def _frames(self, frames: Mapping[int, StoredFrame]) -> dict[int, StoredFrame]:
        return {
            number: StoredFrame(frame.previous, self.opened_frame(number, frame)) for number, frame in frames.items()
        }

    def opened_frame(self, number: int, frame: StoredFrame) -> bytes:
        """Return the bytes of a frame as it lies in the store, or raise DamagedObjectError."""
        return self._keys.open(lambda ring: ring.open_frame(frame.previous, frame.data), lambda: _forged_frame(number))

    def scan_index(self, after: bytes, limit: int) -> list[tuple[bytes, Place]]:
        rows = self._inner.scan_index(self._disguise.index_keys([after])[0], limit)
        keys = self._disguise.original_index_keys([key for key, _ in rows])
        return [(key, place) for key, (_, place) in zip(keys, rows, strict=True)]

    def scan_frames(self, after: int, limit: int) -> list[tuple[int, int, int]]:
        rows = self._inner.scan_frames(after, limit)
        return [(number, previous, max(size - FRAME_OVERHEAD, 0)) for number, previous, size in rows]

    def usage(self) -> Usage:
        usage = self._inner.usage()
        count = after = 0
        while page := self._inner.scan_frames(after, _FRAMES_PAGE):
            count += len(page)
            after = page[-1][0]
        return replace(
            usage,
            frames=max(usage.frames - count * FRAME_OVERHEAD, 0),
            records=usage.records - len(HEADER_KEY) - len(self._keys.ring.raw),
        )

    def _apply(self, batch: Batch, write: Callable[[Batch], list[int]]) -> list[int]:
        """Seal a batch and write it; again when it was sealed or compared with keys that have been replaced."""
        as_stored: dict[bytes, bytes | None] = {}
        while True:
            ring = self._keys.ring
            try:
                return write(self._sealed(ring, batch, as_stored))
            except RecordChangedError as lost:
                found = dict(lost.current)
                header = found.pop(HEADER_KEY, ring.raw)
                if header != ring.raw:
                    self._keys.renew(header)
                    continue
                values = self._values(list(found), list(found.values()))
                current = dict(zip(map(self._disguise.original_key, found), values, strict=True))
                if HEADER_KEY in batch.expected:
                    current[HEADER_KEY] = None
                if current != dict(batch.expected) or found == as_stored:
                    raise RecordChangedError(current) from None
                as_stored = found

    def _sealed(self, ring: Ring, batch: Batch, as_stored: Mapping[bytes, bytes | None]) -> Batch:
        """Return a batch as the storage below gets it. `as_stored` are expected values known to be sealed so."""
        # As for readers, there is no such record.
        if batch.expected.get(HEADER_KEY) is not None or HEADER_KEY in batch.records:
            raise InvalidInputError(f"the record {HEADER_KEY!r} is kept by the encryption itself")
        hidden = {self._disguise.record_key(key): value for key, value in batch.expected.items()}
        hidden.pop(HEADER_KEY, None)
        expected: dict[bytes, bytes | None] = {
            key: as_stored[key] if key in as_stored else _sealed_record(ring, key, value)
            for key, value in hidden.items()
        }
        records = {self._disguise.record_key(key): value for key, value in batch.records.items()}
        return replace(
            batch,
            expected={**expected, HEADER_KEY: ring.raw},
            records={key: _sealed_record(ring, key, value) for key, value in records.items()},
            frames=[
                frame._replace(
                    data=ring.seal_frame(frame.previous, frame.data),
                    keys=tuple(self._disguise.index_keys(frame.keys)),
                )
                for frame in batch.frames
            ],
        )


def _sealed_record(ring: Ring, key: bytes, value: bytes | None) -> bytes | None:
    return ring.seal_record(key, value) if value is not None else None


class _Disguised:
    """Where objects lie in a store whose index has other keys for them."""

    def __init__(self, where: Whereabouts, disguise: Disguise) -> None:
        self._where = where
        self._disguise = disguise

    def find(self, keys: Collection[bytes]) -> dict[bytes, Place]:
        named = dict(zip(self._disguise.index_keys(keys), keys, strict=True))
        return {named[key]: place for key, place in self._where.find(named).items()}


class _SealedSession(_SealedReading):
    """An exclusive session, sealed."""

    def __init__(self, inner: Exclusive, keys: Keys) -> None:
        super().__init__(inner, keys)
        self._session = inner

    def write(self, batch: Batch) -> list[int]:
        return self._apply(batch, self._session.write)

    def forget(self, keys: Collection[bytes]) -> None:
        self._session.forget(self._disguise.index_keys(keys))

    def drop(self, frames: Collection[int]) -> None:
        self._session.drop(frames)

    def raise_epoch(self) -> None:
        self._session.raise_epoch()


class EncryptedStorage(_SealedReading):
    """A storage over `inner`, opened by `ckpt.encryption.encrypted`. Closing it closes `inner`.

    Keeps the contract of `Storage`, but that scans follow the order of the disguised keys. What was not sealed
    with the store's keys for the place where it lies raises IntegrityError. A read or write that meets data keys
    it does not know reads the header again, and raises WrongKeyError when the user's key no longer opens it.
    """

    def __init__(self, inner: Storage, keys: Keys) -> None:
        super().__init__(inner, keys)
        self._storage = inner

    @property
    def inner(self) -> Storage:
        """The storage that holds what is sealed."""
        return self._storage

    @property
    def keys(self) -> Keys:
        """The keys in use; none of them can be read from it by accident."""
        return self._keys

    @property
    def url(self) -> str:
        return self._storage.url

    @property
    def remote(self) -> bool:
        return self._storage.remote

    @property
    def ranking(self) -> Ranking | None:
        """None: vectors tell what they were made from, and the database below gets to see none."""
        return None

    def fetch(self, keys: Collection[bytes], known: Collection[int] = ()) -> Fetched:
        wanted = dict(zip(self._disguise.index_keys(keys), keys, strict=True))

        def read() -> Fetched:
            places, frames, where = self._storage.fetch(wanted, known)
            return Fetched(
                {wanted[key]: place for key, place in places.items()},
                self._frames(frames),
                where and _Disguised(where, self._disguise),
            )

        return self._opened(read)

    def publish(self, batch: Batch) -> list[int]:
        return self._apply(batch, self._storage.publish)

    @contextmanager
    def exclusive(self) -> Iterator[Exclusive]:
        with self._storage.exclusive() as session:
            yield _SealedSession(session, self._keys)

    def check(self) -> None:
        self._storage.check()

    def verify(self) -> list[str]:
        """Return what the database finds wrong, and what each record that cannot be opened is."""
        found = self._storage.verify()
        start, end = ALL_RECORDS
        while page := self._storage.scan(start, end, limit=_PAGE):
            for key, sealed in page:
                try:
                    self._check_record(key, sealed)
                except IntegrityError as error:
                    found.append(str(error))
            start = page[-1][0] + b"\x00"
        return found

    def _check_record(self, key: bytes, sealed: bytes | None) -> None:
        """Raise DamagedRecordError when a record cannot be opened, neither as it was read nor as it stands now."""
        while sealed is not None:
            try:
                self._records([(key, sealed)])
                return
            except IntegrityError:
                before, sealed = sealed, self._storage.read([key])[0]
                if sealed == before:
                    raise

    def compact(self) -> None:
        self._storage.compact()

    def close(self) -> None:
        self._storage.close()


_WHAT = {
    b"c": "the thread counter",
    b"d": "the directory of threads",
    b"g": "a tag",
    b"n": "a thread name",
    b"o": "an operation",
}
_THREAD_PARTS = {b"": "thread number {}", b"c": "a checkpoint of thread number {}", b"l": "a namespace of thread {}"}


def _forged_record(key: bytes) -> DamagedRecordError:
    return DamagedRecordError(
        f"the record of {_described(key)} cannot be opened: it was changed, moved from another place, or forged",
        hints=["see what is affected with: ckpt fsck", "restore a backup"],
    )


def _described(key: bytes) -> str:
    if key[:1] == b"s":
        key = key[17:]
    if key[:1] == b"t" and len(key) > 1:
        behind = 2 + key[1]
        part = _THREAD_PARTS.get(key[behind : behind + 1], "thread number {}")
        return part.format(int.from_bytes(key[2:behind], "big"))
    return _WHAT.get(key[:1], "something")


def _forged_frame(number: int) -> DamagedObjectError:
    return DamagedObjectError(
        f"frame {number} cannot be opened: it was changed, moved from another place, or forged",
        hints=["see what is affected with: ckpt fsck", "restore a backup"],
    )

"""Opening an encrypted store, and making an empty one encrypted."""

from __future__ import annotations

from ckpt.encryption.header import Ring, new_ring, read_ring
from ckpt.encryption.storage import ALL_RECORDS, EncryptedStorage, Keys
from ckpt.encryption.userkeys import EncryptionKey, UserKey, user_key
from ckpt.errors import DamagedRecordError, WrongKeyError
from ckpt.history.seal import unseal
from ckpt.storage.base import Batch, Reading, Storage
from ckpt.storage.scoped import HEADER_KEY


def open_encrypted(storage: Storage, key: EncryptionKey, *, readonly: bool) -> EncryptedStorage:
    """Return an encrypted storage over another one; see `ckpt.encryption.encrypted`."""
    own = user_key(key)
    raw = storage.read([HEADER_KEY])[0]
    ring = read_ring(raw, own) if raw is not None else _made_encrypted(storage, own, readonly)
    return EncryptedStorage(storage, Keys(storage, own, ring))


def _made_encrypted(storage: Storage, key: UserKey, readonly: bool) -> Ring:
    """Give an empty store a header and return its ring, or that of the header which somebody else was faster with."""
    if _is_empty(storage):
        if readonly:
            raise WrongKeyError(
                f"{storage.url} is empty and not encrypted yet, and was opened read-only",
                hints=["open it for writing once with its key, or leave the key away"],
            )
        # Before others have to wait: wrapping takes its time.
        ring = new_ring(key)
        with storage.exclusive() as session:
            # Whoever writes in plain is kept out from here on: the first record of each scope expects no header.
            if session.read([HEADER_KEY])[0] is None and _is_empty(session):
                session.write(Batch(records={HEADER_KEY: ring.raw}))
                return ring
    # Read again: somebody else may have made it encrypted since the header was looked for, and written to it.
    raw = storage.read([HEADER_KEY])[0]
    if raw is None:
        raise _without_header(storage)
    return read_ring(raw, key)


def _is_empty(reading: Reading) -> bool:
    return not reading.scan(*ALL_RECORDS, limit=1) and not reading.scan_frames(0, 1)


def _without_header(storage: Storage) -> WrongKeyError | DamagedRecordError:
    """Return the error for a store that is not empty and has no header: a plain one, or one that has lost it."""
    # The first record is never one of a scope, so its key is that which it was sealed with.
    for key, record in storage.scan(*ALL_RECORDS, limit=1):
        try:
            unseal(key, record, "a plain store")
        except DamagedRecordError:
            return DamagedRecordError(
                f"{storage.url} has no encryption header, and what lies in it is not plain: the header was removed,"
                " or the store is damaged",
                hints=["restore a backup; without the header nothing in an encrypted store can be read"],
            )
    return WrongKeyError(
        f"{storage.url} is not encrypted, and a key was given; it was left untouched",
        hints=["open it without a key", "to encrypt it, copy its threads into a new store that is opened with a key"],
    )

"""Opening an encrypted store, and making an empty one encrypted."""

from __future__ import annotations

from ckpt.encryption.header import new_ring, read_ring
from ckpt.encryption.mark import HEADER_KEY
from ckpt.encryption.storage import ALL_RECORDS, EncryptedStorage, Keys
from ckpt.encryption.userkeys import EncryptionKey, UserKey, user_key
from ckpt.errors import WrongKeyError
from ckpt.history.keys import COUNTERS
from ckpt.storage.base import Batch, RecordChangedError, Storage


def open_encrypted(storage: Storage, key: EncryptionKey, *, readonly: bool) -> EncryptedStorage:
    """Return an encrypted storage over another one; see `ckpt.encryption.encrypted`."""
    own = user_key(key)
    raw = storage.read([HEADER_KEY])[0]
    if raw is None:
        _make_encrypted(storage, own, readonly)
        raw = storage.read([HEADER_KEY])[0]
    if raw is None:
        raise _not_encrypted(storage)
    return EncryptedStorage(storage, Keys(storage, own, read_ring(raw, own)))


def _make_encrypted(storage: Storage, key: UserKey, readonly: bool) -> None:
    if storage.scan(*ALL_RECORDS, limit=1) or storage.scan_frames(0, 1):
        # Somebody else may have made it encrypted since the header was looked for, and written to it.
        return
    if readonly:
        raise WrongKeyError(
            f"{storage.url} is empty and not encrypted yet, and was opened read-only",
            hints=["open it for writing once with its key, or leave the key away"],
        )
    try:
        # The first thread of a plain store is counted here, so of two who begin one store only one succeeds.
        storage.publish(Batch({HEADER_KEY: None, COUNTERS: None}, {HEADER_KEY: new_ring(key).raw}))
    except RecordChangedError:
        return


def _not_encrypted(storage: Storage) -> WrongKeyError:
    return WrongKeyError(
        f"{storage.url} is not encrypted, and a key was given; it was left untouched",
        hints=["open it without a key", "to encrypt it, copy its threads into a new store that is opened with a key"],
    )

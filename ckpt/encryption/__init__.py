"""Encryption at rest: a storage over any other that seals what it keeps, and the rotation of its keys.

Values are still cut, shared and compressed as ever; what is sealed are the frames and records that come out of
it. What a store without its key still shows is listed in `docs/encryption.md`. The library that encrypts is loaded
when a key is used for the first time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ckpt.errors import InvalidInputError, WrongKeyError
from ckpt.storage.base import Storage
from ckpt.storage.scoped import HEADER_KEY
from ckpt.storage.urls import open_storage

if TYPE_CHECKING:
    from ckpt.encryption.rotation import Resealed
    from ckpt.encryption.storage import EncryptedStorage
    from ckpt.encryption.userkeys import EncryptionKey, KeyProvider

__all__ = [
    "EncryptedStorage",
    "EncryptionKey",
    "KeyProvider",
    "Resealed",
    "check_key",
    "encrypted",
    "opened",
    "protected",
    "rotate",
]

_HOMES = {"EncryptedStorage": "storage", "EncryptionKey": "userkeys", "KeyProvider": "userkeys", "Resealed": "rotation"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def protected(storage: Storage, key: EncryptionKey | None, *, readonly: bool = False) -> Storage:
    """Return the storage to work on: `storage` itself without a key, else `encrypted(storage, key)`.

    Raises WrongKeyError for an encrypted store without a key. `storage` is closed when this fails.
    """
    try:
        if key is not None:
            return encrypted(storage, key, readonly=readonly)
        if storage.read([HEADER_KEY])[0] is not None:
            raise no_key(storage)
    except BaseException:
        storage.close()
        raise
    return storage


def no_key(storage: Storage) -> WrongKeyError:
    """Return the error for an encrypted store that was opened without a key."""
    return WrongKeyError(
        f"{storage.url} is encrypted, and no key was given",
        hints=["give encryption_key=, or to the command line CKPT_ENCRYPTION_KEY or CKPT_ENCRYPTION_KEY_FILE"],
    )


def encrypted(storage: Storage, key: EncryptionKey, *, readonly: bool = False) -> EncryptedStorage:
    """Return an encrypted storage over another one. An empty store becomes encrypted, unless `readonly`.

    Raises InvalidInputError when `key` is no key or the `encryption` extra is not installed, and WrongKeyError
    when it is not the store's or the store is not encrypted; nothing is written then.
    """
    with _extra():
        from ckpt.encryption.opening import open_encrypted
    return open_encrypted(storage, key, readonly=readonly)


def check_key(key: EncryptionKey) -> None:
    """Raise InvalidInputError when `key` is no key, or the `encryption` extra is not installed."""
    with _extra():
        from ckpt.encryption.userkeys import user_key
    user_key(key)


@contextmanager
def _extra() -> Iterator[None]:
    """Raise InvalidInputError when what is imported needs an extra that is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cryptography":
            raise
        raise InvalidInputError(
            "encryption needs the package cryptography, which is not installed",
            hints=["install it with: pip install 'ckpt-store[encryption]'"],
        ) from error


@contextmanager
def opened(url: str | Path, key: EncryptionKey) -> Iterator[EncryptedStorage]:
    """Open an existing encrypted store for as long as the context lasts. Raises as `encrypted` does."""
    storage = open_storage(url, create=False)
    try:
        yield encrypted(storage, key)
    finally:
        storage.close()


def rotate(
    url: str | Path, key: EncryptionKey, *, new_key: EncryptionKey | None = None, data: bool = False
) -> Resealed:
    """Rotate keys of an encrypted store while others work with it; see `ckpt.encryption.rotation`.

    `new_key` takes the place of `key`, in one step. With `data` all that is stored is sealed anew under a new data
    key, in bounded steps; a call that was interrupted is continued by the next. Raises WrongKeyError when `key` is
    not the store's, and InvalidInputError when a key is none or the `encryption` extra is not installed.
    """
    if new_key is None and not data:
        raise InvalidInputError("there is nothing to rotate", hints=["give a new_key, or data=True, or both"])
    with _extra():
        from ckpt.encryption.rotation import Resealed, reseal, rewrap
    with opened(url, key) as storage:
        if new_key is not None:
            rewrap(storage, new_key)
        return reseal(storage) if data else Resealed(0, 0)

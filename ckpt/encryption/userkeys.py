"""The user's key: 32 bytes, a passphrase, or a provider that wraps and unwraps elsewhere.

It encrypts one small key per store and nothing else. No form of it shows in `repr`, errors or the store.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

from ckpt.encryption.cipher import KEY_SIZE, NotAuthenticError, Sealer, derive
from ckpt.errors import CkptError, DamagedRecordError, InvalidInputError, WrongKeyError

_HEX = "hex:"
_AS_HEX = re.compile(r"[\s\ufeff]*hex:(.*)", re.IGNORECASE | re.DOTALL)
"""With what files and services may put around a key: it must not become a passphrase by that."""

_SALT_SIZE = 16
_SCRYPT = {"log_n": 17, "r": 8, "p": 1}
"""128 MB and about a third of a second for each guess."""

_SCRYPT_MEMORY_MAX = 1 << 30
_SCRYPT_WORK_MAX = 1 << 23
"""Eight times the memory and the work of `_SCRYPT`, about three seconds: as much as later versions may ask for."""

_SCRYPT_WIDTH_MAX = 1 << 10
"""Of `r * p`, with which the part of the work grows that `log_n` does not count."""

_SALT_SIZE_MAX = 1 << 10
_KEY_ID_SIZE = 8


@runtime_checkable
class KeyProvider(Protocol):
    """A service that keeps the user's key, such as a KMS or an HSM.

    `key_id` names the key that `wrap` uses now; it stands in the store unencrypted. Exceptions of its members are
    raised on as the cause of a WrongKeyError. What was wrapped is unwrapped once before the store relies on it.
    """

    @property
    def key_id(self) -> str:
        """The name of the key, which is no secret."""

    def wrap(self, data_key: bytes) -> bytes:
        """Return a key of 32 bytes encrypted, so that only `unwrap` can read it."""

    def unwrap(self, wrapped: bytes) -> bytes:
        """Undo `wrap`, for every key that may still be in use."""


EncryptionKey = bytes | str | KeyProvider
"""32 random bytes, the same as text (`hex:` and 64 digits), any other text as a passphrase, or a provider.

The prefix may be in capitals, and spaces or a byte order mark may stand around; a passphrase is taken as it is.
"""


class Wrapped(NamedTuple):
    """A store's key as its header holds it: how, by which key, and what came out."""

    kind: str
    parameters: Mapping[str, Any]
    key_id: str
    data: bytes


class UserKey(Protocol):
    """What all forms of a user's key do."""

    def wrap(self, data_key: bytes) -> Wrapped:
        """Encrypt a store's key. Raises WrongKeyError or InvalidInputError when a provider fails to."""

    def unwrap(self, wrapped: Wrapped) -> bytes:
        """Undo `wrap`. Raises WrongKeyError when another key made it, DamagedRecordError when it was changed."""


def user_key(key: EncryptionKey) -> UserKey:
    """Return the form of key that `key` is. Raises InvalidInputError, and WrongKeyError when a provider fails."""
    if isinstance(key, bytes):
        if len(key) != KEY_SIZE:
            raise InvalidInputError(
                f"an encryption key has {KEY_SIZE} bytes, this one has {len(key)}",
                hints=["make one with: secrets.token_bytes(32)", "a passphrase is given as str"],
            )
        return _RawKey(key)
    if isinstance(key, str):
        if (digits := _AS_HEX.match(key)) is not None:
            return _RawKey(_from_hex(digits[1]))
        if not key.strip():
            raise InvalidInputError(
                "the encryption key is empty or blank", hints=["give a passphrase or hex: and 64 digits"]
            )
        return _Passphrase(key)
    # Python before 3.12 asks for the id of the key here.
    with _translated("tell the id of its key"):
        if isinstance(key, KeyProvider):
            return _Provided(key)
    raise InvalidInputError(
        f"encryption_key is a {type(key).__name__}",
        hints=["give 32 bytes, a passphrase as str, or an object with key_id, wrap and unwrap"],
    )


def _from_hex(digits: str) -> bytes:
    # The error of `fromhex` is dropped: it may show what it could not read.
    try:
        key = bytes.fromhex(digits)
    except ValueError:
        key = b""
    if len(key) != KEY_SIZE:
        raise InvalidInputError(
            f"an encryption key that begins with {_HEX} goes on with {2 * KEY_SIZE} hex digits",
            hints=[f"make one with: python -c \"import secrets; print('{_HEX}' + secrets.token_hex({KEY_SIZE}))\""],
        )
    return key


class _RawKey:
    def __init__(self, key: bytes) -> None:
        self._sealer = Sealer(derive(key, "wrap"))
        self._key_id = derive(key, "key id")[:_KEY_ID_SIZE].hex()

    def wrap(self, data_key: bytes) -> Wrapped:
        return self.wrap_as("raw", {}, data_key)

    def unwrap(self, wrapped: Wrapped) -> bytes:
        _expect_kind("raw", wrapped)
        return self.unwrap_any(wrapped)

    def wrap_as(self, kind: str, parameters: Mapping[str, Any], data_key: bytes) -> Wrapped:
        return Wrapped(kind, parameters, self._key_id, self._sealer.seal(data_key, kind.encode()))

    def unwrap_any(self, wrapped: Wrapped) -> bytes:
        if wrapped.key_id != self._key_id:
            raise WrongKeyError(
                f"this is not the key of the store: it has id {self._key_id}, the store's has {wrapped.key_id[:64]!r}",
                hints=["give the key that the store was created with, or that it was last rotated to"],
            )
        try:
            return self._sealer.open(wrapped.data, wrapped.kind.encode())
        except NotAuthenticError as error:
            raise damaged_header() from error


class _Passphrase:
    def __init__(self, passphrase: str) -> None:
        self._passphrase = passphrase.encode("utf-8", "surrogatepass")
        # Deriving is slow on purpose, and the header is read again after each rotation.
        self._derived: tuple[Mapping[str, Any], _RawKey] | None = None

    def wrap(self, data_key: bytes) -> Wrapped:
        parameters = {"salt": os.urandom(_SALT_SIZE), **_SCRYPT}
        return self._derive(parameters).wrap_as("scrypt", parameters, data_key)

    def unwrap(self, wrapped: Wrapped) -> bytes:
        _expect_kind("scrypt", wrapped)
        return self._derive(wrapped.parameters).unwrap_any(wrapped)

    def _derive(self, parameters: Mapping[str, Any]) -> _RawKey:
        if self._derived is None or self._derived[0] != parameters:
            self._derived = (parameters, _RawKey(_scrypt(self._passphrase, parameters)))
        return self._derived[1]


def _scrypt(passphrase: bytes, parameters: Mapping[str, Any]) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    fields: list[Any] = [parameters.get(name) for name in ("salt", "log_n", "r", "p")]
    salt, log_n, r, p = fields
    whole = type(salt) is bytes and all(type(number) is int and number > 0 for number in (log_n, r, p))
    # A header that was tampered with must not take all memory or time, nor ask for what scrypt is not defined for.
    if not whole or len(salt) > _SALT_SIZE_MAX or r * p > _SCRYPT_WIDTH_MAX or log_n >= min(31, 16 * r):
        raise damaged_header()
    if r << log_n + 7 > _SCRYPT_MEMORY_MAX or (r * p) << log_n > _SCRYPT_WORK_MAX:
        raise damaged_header()
    return Scrypt(salt=salt, length=KEY_SIZE, n=1 << log_n, r=r, p=p).derive(passphrase)


class _Provided:
    def __init__(self, provider: KeyProvider) -> None:
        self._provider = provider

    def wrap(self, data_key: bytes) -> Wrapped:
        with _translated("wrap the store's key"):
            given: list[Any] = [self._provider.key_id, self._provider.wrap(data_key)]
        key_id, wrapped = given
        if not isinstance(key_id, str) or not isinstance(wrapped, bytes | bytearray):
            raise InvalidInputError(
                f"the key provider has a {type(key_id).__name__} as key_id, and its wrap returned a"
                f" {type(wrapped).__name__}",
                hints=["key_id is a str; wrap returns bytes, and its text form encoded: .encode()"],
            )
        # Half of a surrogate pair could not be stored.
        return Wrapped("provider", {}, key_id.encode(errors="replace").decode(), bytes(wrapped))

    def unwrap(self, wrapped: Wrapped) -> bytes:
        _expect_kind("provider", wrapped)
        with _translated(f"unwrap the store's key, which {wrapped.key_id[:64]!r} wrapped"):
            data_key = self._provider.unwrap(wrapped.data)
        if type(data_key) is not bytes or len(data_key) != KEY_SIZE:
            raise WrongKeyError(
                "the key provider unwrapped something that is no key", hints=["its unwrap must undo its wrap"]
            )
        return data_key


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Raise what a provider raises as the cause of a WrongKeyError that says what it could not do."""
    try:
        yield
    except CkptError:
        raise
    except Exception as error:
        raise WrongKeyError(
            f"the key provider could not {what} ({type(error).__name__})",
            hints=["check that the provider is reachable and may use that key"],
        ) from error


_GIVEN = {"raw": "a key of 32 bytes", "scrypt": "a passphrase", "provider": "a key provider"}


def _expect_kind(kind: str, wrapped: Wrapped) -> None:
    if wrapped.kind != kind:
        wanted = _GIVEN.get(wrapped.kind, "something unknown")
        raise WrongKeyError(
            f"the store's key is protected by {wanted}, and {_GIVEN[kind]} was given",
            hints=["give the kind of key that the store was created with, or that it was last rotated to"],
        )


def damaged_header() -> DamagedRecordError:
    """Return the error for a header that was changed or forged."""
    return DamagedRecordError(
        "the encryption header of the store is damaged, or was changed by someone without the key",
        hints=["restore a backup; without the header nothing in the store can be read"],
    )

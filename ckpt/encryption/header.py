"""The header: the one record that says how a store is encrypted, and holds its keys, wrapped by the user's.

    [ [format, store id, generation, kind, parameters, key id, wrapped key], sealed ring ]      msgpack

The ring holds the key of the disguise and the data keys by number; it is sealed under the wrapped key, which is
drawn anew each time the header is written. `generation` grows whenever the ring changes, and only then.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace
from typing import Any

import msgpack

from ckpt.encryption.cipher import KEY_SIZE, OVERHEAD, NotAuthenticError, Sealer
from ckpt.encryption.disguise import Disguise
from ckpt.encryption.userkeys import UserKey, Wrapped, damaged_header
from ckpt.errors import DamagedRecordError, FormatTooNewError, WrongKeyError

_FORMAT = 1
_STORE_ID_SIZE = 16
_NUMBER_SIZE = 2
_NUMBERS = 1 << 8 * _NUMBER_SIZE
_FRAME = struct.Struct(">c16sQ")
_FRAME_NUMBERS = 1 << 64
_CLEAR = (int, bytes, int, str, dict, str, bytes)

RECORD_OVERHEAD = _NUMBER_SIZE + OVERHEAD
FRAME_OVERHEAD = RECORD_OVERHEAD + 1
"""Bytes by which a sealed record and a sealed frame are longer."""

_BOUND, _CHAINED = b"\x00", b"\x01"


class UnknownKeyError(Exception):
    """Something was sealed under a data key that is not in the ring."""


@dataclass(frozen=True, slots=True, repr=False)
class Ring:
    """The keys of one store. Seals with the current data key, opens with all."""

    raw: bytes
    store_id: bytes
    generation: int
    key_id: str
    disguise: Disguise
    current: int
    _disguise_key: bytes
    _data_keys: dict[int, bytes]
    _sealers: dict[int, Sealer]

    # -- records and frames -------------------------------------------------------------------------------

    def seal_record(self, key: bytes, value: bytes) -> bytes:
        """Return a record's value sealed for the key under which it will lie in the store."""
        return self._seal(value, b"r" + self.store_id + key)

    def open_record(self, key: bytes, sealed: bytes) -> bytes:
        """Undo `seal_record`. Raises NotAuthenticError, or UnknownKeyError when the ring may be out of date."""
        return self._open(sealed[:_NUMBER_SIZE], sealed[_NUMBER_SIZE:], b"r" + self.store_id + key)

    def seal_frame(self, previous: int, data: bytes) -> bytes:
        """Return a frame sealed for its place behind `previous`; a chained one just for a place behind another."""
        form, behind = (_CHAINED, 0) if previous < 0 else (_BOUND, previous)
        return form + self._seal(data, _FRAME.pack(form, self.store_id, behind))

    def open_frame(self, previous: int, sealed: bytes) -> bytes:
        """Undo `seal_frame`. Raises as `open_record` does."""
        form = sealed[:1]
        # It lies beside what is sealed, so that whoever wrote to the store may have made anything of it.
        if type(previous) is not int or not 0 <= previous < _FRAME_NUMBERS:
            raise NotAuthenticError
        if form == _CHAINED and previous:
            previous = 0
        elif form != _BOUND:
            raise NotAuthenticError
        number = sealed[1 : 1 + _NUMBER_SIZE]
        return self._open(number, sealed[1 + _NUMBER_SIZE :], _FRAME.pack(form, self.store_id, previous))

    def is_current(self, sealed: bytes, *, frame: bool = False) -> bool:
        """Return whether something was sealed with the current data key."""
        return int.from_bytes(sealed[frame : frame + _NUMBER_SIZE], "big") == self.current

    def _seal(self, data: bytes, associated: bytes) -> bytes:
        return self.current.to_bytes(_NUMBER_SIZE, "big") + self._sealers[self.current].seal(data, associated)

    def _open(self, number: bytes, sealed: bytes, associated: bytes) -> bytes:
        sealer = self._sealers.get(int.from_bytes(number, "big"))
        if sealer is None:
            raise UnknownKeyError
        return sealer.open(sealed, associated)

    # -- rotation -----------------------------------------------------------------------------------------

    @property
    def has_old_keys(self) -> bool:
        """Whether there are data keys besides the current one: a rotation has begun and not ended."""
        return len(self._data_keys) > 1

    def rewrapped(self, key: UserKey) -> Ring:
        """Return the same ring, its header to be opened with `key`."""
        return _written(key, self.store_id, self.generation, self._disguise_key, self.current, self._data_keys)

    def with_new_key(self, key: UserKey) -> Ring:
        """Return the ring with one more data key, which becomes the current one."""
        # Only one key is in use when the next is made, so numbers can come round.
        number = self.current % (_NUMBERS - 1) + 1
        data_keys = {**self._data_keys, number: os.urandom(KEY_SIZE)}
        return _written(key, self.store_id, self.generation + 1, self._disguise_key, number, data_keys)

    def without_old_keys(self, key: UserKey) -> Ring:
        """Return the ring with the current data key alone."""
        data_keys = {self.current: self._data_keys[self.current]}
        return _written(key, self.store_id, self.generation + 1, self._disguise_key, self.current, data_keys)

    def follow(self, raw: bytes, key: UserKey) -> Ring:
        """Return the ring of a header that has taken the place of this one's.

        When only the user's key was rotated, what is known is enough. Raises WrongKeyError when `key` does not
        open a header with other data keys, and DamagedRecordError for a header that cannot follow this one.
        """
        _, (_, store_id, generation, *_), _ = _parsed(raw)
        if store_id != self.store_id or generation < self.generation:
            raise DamagedRecordError(
                "the store has an earlier encryption header than before, or that of another store",
                hints=[
                    "if an earlier state of it was put back on purpose: open the store anew, or restart the program"
                ],
            )
        return replace(self, raw=raw) if generation == self.generation else read_ring(raw, key)


def new_ring(key: UserKey) -> Ring:
    """Return the ring of a new store."""
    return _written(key, os.urandom(_STORE_ID_SIZE), 1, os.urandom(KEY_SIZE), 1, {1: os.urandom(KEY_SIZE)})


def read_ring(raw: bytes, key: UserKey) -> Ring:
    """Return the ring of a header. Raises WrongKeyError, DamagedRecordError, FormatTooNewError."""
    clear, (_, store_id, generation, *wrapped), sealed = _parsed(raw)
    how = Wrapped(*wrapped)
    try:
        opened = Sealer(key.unwrap(how)).open(sealed, clear)
    except NotAuthenticError as error:
        raise damaged_header() from error
    disguise_key, current, data_keys = msgpack.unpackb(opened, strict_map_key=False)
    return _ring(raw, store_id, generation, how.key_id, disguise_key, current, data_keys)


def _ring(
    raw: bytes, store_id: bytes, generation: int, key_id: str, disguise: bytes, current: int, keys: dict[int, bytes]
) -> Ring:
    sealers = {number: Sealer(data_key) for number, data_key in keys.items()}
    return Ring(raw, store_id, generation, key_id, Disguise(disguise), current, disguise, dict(keys), sealers)


def _written(
    key: UserKey, store_id: bytes, generation: int, disguise: bytes, current: int, keys: dict[int, bytes]
) -> Ring:
    wrapping_key = os.urandom(KEY_SIZE)
    wrapped = key.wrap(wrapping_key)
    clear: bytes = msgpack.packb([_FORMAT, store_id, generation, *wrapped])
    sealed = Sealer(wrapping_key).seal(msgpack.packb([disguise, current, keys]), clear)
    raw: bytes = msgpack.packb([clear, sealed])
    # Read back before anybody relies on it: what a header does not give back is lost with all that it is the key to.
    try:
        return read_ring(raw, key)
    except DamagedRecordError as error:
        raise WrongKeyError(
            "the key provider did not give back what it had wrapped", hints=["its unwrap must undo its wrap"]
        ) from error


def _parsed(raw: bytes) -> tuple[bytes, list[Any], bytes]:
    try:
        clear, sealed = msgpack.unpackb(raw)
        fields = msgpack.unpackb(clear)
        newer = type(fields) is list and type(fields[0]) is int and fields[0] > _FORMAT
        whole = type(sealed) is bytes and len(fields) == len(_CLEAR) and all(map(isinstance, fields, _CLEAR))
    except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise damaged_header() from error
    if newer:
        raise FormatTooNewError(
            f"the store is encrypted in format {fields[0]}; this ckpt reads up to {_FORMAT}",
            hints=["update ckpt: pip install -U ckpt-store"],
        )
    if not whole:
        raise damaged_header()
    return clear, fields, sealed

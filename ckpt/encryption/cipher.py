"""The cipher: AES-256-GCM whose nonces cannot repeat by accident, and a permutation of 16-byte blocks.

A message is sealed with XAES-256-GCM (C2SP): its 192-bit nonce chooses a key of its own for AES-256-GCM. The nonce
is a keyed BLAKE3 hash of all that is sealed, so equal messages give equal bytes, and different ones share a nonce
once in 2^96 messages. That makes sealing a function: what a record must be can be compared without being opened.
What is sealed, and under which key, is the business of the other modules.
"""

from __future__ import annotations

import threading

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_SIZE = 32
BLOCK_SIZE = 16
_NONCE_SIZE = 24
_TAG_SIZE = 16
OVERHEAD = _NONCE_SIZE + _TAG_SIZE
"""Bytes that sealing adds."""

_LENGTH_SIZE = 8


class NotAuthenticError(Exception):
    """What was to be opened was not sealed with this key and these associated data."""


def derive(key: bytes, purpose: str) -> bytes:
    """Return a key for one purpose, from which neither `key` nor those for other purposes can be told."""
    return blake3(key, derive_key_context=f"ckpt-store encryption 1: {purpose}").digest(KEY_SIZE)


class _Blocks(threading.local):
    """AES-256 on single blocks. One context per thread, since a context must not be used by two at once."""

    def __init__(self, key: bytes) -> None:
        cipher = Cipher(algorithms.AES256(key), modes.ECB())  # single blocks that never repeat, not a message
        self.encryptor: CipherContext = cipher.encryptor()
        self.decryptor: CipherContext = cipher.decryptor()


class Xaes:
    """XAES-256-GCM under one key, with nonces given by the caller."""

    def __init__(self, key: bytes) -> None:
        self._blocks = _Blocks(key)
        last = int.from_bytes(self._blocks.encryptor.update(bytes(BLOCK_SIZE)), "big")
        doubled = last << 1 ^ (0x87 if last >> 127 else 0)
        masks = [
            doubled & ((1 << 128) - 1) ^ int.from_bytes(bytes((0, counter, 0x58, 0)) + bytes(12), "big")
            for counter in (1, 2)
        ]
        self._masks = masks[0] << 128 | masks[1]

    def _once(self, nonce: bytes) -> AESGCM:
        half = int.from_bytes(nonce[:12], "big")
        blocks = self._masks ^ (half << 128 | half)
        return AESGCM(self._blocks.encryptor.update(blocks.to_bytes(2 * BLOCK_SIZE, "big")))

    def encrypt(self, nonce: bytes, data: bytes, associated: bytes) -> bytes:
        """Return the ciphertext and its tag."""
        return self._once(nonce).encrypt(nonce[12:], data, associated)

    def decrypt(self, nonce: bytes, data: bytes, associated: bytes) -> bytes:
        """Undo `encrypt`, or raise NotAuthenticError."""
        try:
            return self._once(nonce).decrypt(nonce[12:], data, associated)
        except InvalidTag as error:
            raise NotAuthenticError from error


class Sealer:
    """Seals and opens messages under one key. Safe for many threads."""

    def __init__(self, key: bytes) -> None:
        self._cipher = Xaes(derive(key, "cipher"))
        self._nonce_key = derive(key, "nonce")

    def seal(self, data: bytes, associated: bytes) -> bytes:
        """Return data sealed together with associated data, which must be given again to open it.

        The same arguments give the same bytes.
        """
        hasher = blake3(len(associated).to_bytes(_LENGTH_SIZE, "big") + associated, key=self._nonce_key)
        nonce = hasher.update(data).digest(_NONCE_SIZE)
        return nonce + self._cipher.encrypt(nonce, data, associated)

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        """Undo `seal`, or raise NotAuthenticError."""
        if len(sealed) < OVERHEAD:
            raise NotAuthenticError
        return self._cipher.decrypt(sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:], associated)


class Permutation:
    """A secret permutation of 16-byte blocks. Safe for many threads."""

    def __init__(self, key: bytes) -> None:
        self._blocks = _Blocks(key)

    def apply(self, blocks: bytes) -> bytes:
        """Permute each of the blocks that stand one behind another."""
        return self._blocks.encryptor.update(blocks)

    def undo(self, blocks: bytes) -> bytes:
        """Return the blocks from which `apply` makes these."""
        return self._blocks.decryptor.update(blocks)

"""The cipher: published vectors, what sealing promises, and that a permutation is one."""

from __future__ import annotations

import pytest

from ckpt.encryption.cipher import OVERHEAD, NotAuthenticError, Permutation, Sealer, Xaes, derive
from ckpt.testing.fixtures import at_once

KEY = bytes(range(32))

# The two vectors of the specification of XAES-256-GCM; in the second one the doubling of L overflows.
VECTORS = [
    (b"\x01" * 32, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
    (b"\x03" * 32, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
]


@pytest.mark.parametrize(("key", "associated", "sealed"), VECTORS)
def test_the_published_vectors(key: bytes, associated: bytes, sealed: str) -> None:
    cipher, nonce = Xaes(key), b"ABCDEFGHIJKLMNOPQRSTUVWX"
    assert cipher.encrypt(nonce, b"XAES-256-GCM", associated).hex() == sealed
    assert cipher.decrypt(nonce, bytes.fromhex(sealed), associated) == b"XAES-256-GCM"


def test_both_halves_of_a_nonce_count() -> None:
    cipher = Xaes(KEY)
    nonces = [bytes(24), b"\x01" + bytes(23), bytes(23) + b"\x01", bytes(11) + b"\x01" + bytes(12)]
    assert len({cipher.encrypt(nonce, b"same", b"") for nonce in nonces}) == len(nonces)


@pytest.mark.parametrize("data", [b"", b"\x00", b"x" * 15, b"x" * 16, bytes(1 << 20)])
def test_what_is_sealed_is_opened_with_the_same_data_only(data: bytes) -> None:
    sealer = Sealer(KEY)
    sealed = sealer.seal(data, b"place")
    assert len(sealed) == len(data) + OVERHEAD
    assert sealer.open(sealed, b"place") == data
    for other, associated in [
        (sealer, b"places"),
        (sealer, b""),
        (Sealer(KEY[::-1]), b"place"),
    ]:
        with pytest.raises(NotAuthenticError):
            other.open(sealed, associated)


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    sealer = Sealer(KEY)
    sealed = sealer.seal(b"value", b"place")
    for position in range(len(sealed)):
        for bit in (0x01, 0x80):
            broken = sealed[:position] + bytes((sealed[position] ^ bit,)) + sealed[position + 1 :]
            with pytest.raises(NotAuthenticError):
                sealer.open(broken, b"place")
        with pytest.raises(NotAuthenticError):
            sealer.open(sealed[:position], b"place")
    with pytest.raises(NotAuthenticError):
        sealer.open(sealed + b"\x00", b"place")


def test_equal_messages_are_sealed_alike_and_different_ones_share_no_nonce() -> None:
    messages = [(b"", b""), (b"a", b""), (b"", b"a"), (b"ab", b"c"), (b"b", b"ca"), (b"a", b"bc"), (bytes(1), b"")]
    sealed = [Sealer(KEY).seal(data, associated) for data, associated in messages]
    assert [Sealer(KEY).seal(data, associated) for data, associated in messages] == sealed
    assert len({each[:24] for each in sealed}) == len(messages)


def test_keys_for_different_purposes_differ() -> None:
    assert len({KEY, derive(KEY, "a"), derive(KEY, "b"), derive(KEY[::-1], "a")}) == 4
    assert derive(KEY, "a") == derive(KEY, "a")


def test_a_permutation_is_undone_block_by_block() -> None:
    permutation = Permutation(KEY)
    blocks = [bytes((number,)) * 16 for number in range(100)]
    images = [permutation.apply(block) for block in blocks]
    assert len(set(images)) == 100
    assert not set(images) & set(blocks)
    assert permutation.apply(b"".join(blocks)) == b"".join(images)
    assert permutation.undo(b"".join(images)) == b"".join(blocks)
    assert Permutation(KEY[::-1]).apply(blocks[0]) != images[0]


def test_many_threads_share_a_sealer() -> None:
    sealer, permutation = Sealer(KEY), Permutation(KEY)
    wanted = [(sealer.seal(b"%d" % number, b"p"), permutation.apply(b"%016d" % number)) for number in range(200)]

    def work(_: int) -> list[tuple[bytes, bytes]]:
        return [(sealer.seal(b"%d" % number, b"p"), permutation.apply(b"%016d" % number)) for number in range(200)]

    assert at_once(8, work) == [wanted] * 8

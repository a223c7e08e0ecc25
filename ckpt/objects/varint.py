"""Unsigned LEB128 integers: seven bits a byte, low bits first, the high bit says that more follow."""

from __future__ import annotations

from ckpt.errors import DamagedObjectError


def encode_varint(number: int) -> bytes:
    """Return the shortest encoding of a number >= 0."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def decode_varint(data: bytes, offset: int) -> tuple[int, int]:
    """Return (number, offset behind it); at most nine bytes are read.

    Raises DamagedObjectError when the bytes end early or the number is longer.
    """
    try:
        number = data[offset]
        offset += 1
        if number < 0x80:
            return number, offset
        number &= 0x7F
        shift = 7
        while True:
            byte = data[offset]
            offset += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number, offset
            shift += 7
            if shift > 62:
                break
    except IndexError:
        pass
    raise DamagedObjectError("a stored number is cut short or too long")

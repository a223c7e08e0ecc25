"""Plain data as msgpack, as records and commits are written."""

from __future__ import annotations

import threading

import msgpack


class _Packing(threading.local):
    """One packer for each thread: making one costs as much as packing a record, and two may not share one."""

    def __init__(self) -> None:
        self.pack = msgpack.Packer(unicode_errors="surrogatepass").pack


_packing = _Packing()


def packed(fields: object) -> bytes:
    """Return plain data as one msgpack document, lone surrogates in its text included."""
    data: bytes = _packing.pack(fields)
    return data

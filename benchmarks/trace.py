"""A trace: the calls a graph made to its saver, on disk, with the values they carried.

Values are written with LangGraph's own serializer and come back as live objects, new ones for every call, as
a saver meets them in a running graph. A trace of a long chat holds the quadratic history that `ckpt` exists
to avoid, so it is one compressed stream that is written and read front to back.

Not here: making the calls (`record`) and repeating them (`replay`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import zstandard
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

WINDOW_LOG = 27
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Put:
    """`put`: one checkpoint."""

    config: Any
    checkpoint: Any
    metadata: Any
    new_versions: Any


@dataclass(frozen=True)
class PutWrites:
    """`put_writes`: what one task wrote."""

    config: Any
    writes: list[tuple[str, Any]]
    task_id: str
    task_path: str


@dataclass(frozen=True)
class GetTuple:
    """`get_tuple`: a run that begins, or state that is asked for."""

    config: Any


@dataclass(frozen=True)
class CopyThread:
    """`copy_thread`: a fork of everything a thread holds."""

    source: str
    target: str


Call = Put | PutWrites | GetTuple | CopyThread
_KINDS: dict[str, type[Call]] = {kind.__name__: kind for kind in (Put, PutWrites, GetTuple, CopyThread)}


class TraceWriter:
    """Appends calls to a new trace file."""

    def __init__(self, path: Path) -> None:
        # Long-distance matching brings the file down to about what is new, and level 1 keeps recording quick.
        parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=WINDOW_LOG, enable_ldm=True)
        self._file = path.open("wb")
        self._stream = zstandard.ZstdCompressor(compression_params=parameters).stream_writer(self._file)
        self._serde = JsonPlusSerializer()

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stream.close()  # type: ignore[no-untyped-call]
        self._file.close()

    def append(self, call: Call) -> None:
        """Write one call. Its values are serialised before this returns, so they may change afterwards."""
        _, payload = self._serde.dumps_typed([type(call).__name__, dict(vars(call))])
        self._stream.write(_LENGTH.pack(len(payload)))
        self._stream.write(payload)


@dataclass(frozen=True)
class Trace:
    """A recorded trace. Iterating over it yields the calls in order, each with live objects of its own."""

    path: Path

    def __iter__(self) -> Iterator[Call]:
        serde = JsonPlusSerializer()
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG)
        with self.path.open("rb") as file, decompressor.stream_reader(file) as stream:
            while header := stream.read(_LENGTH.size):
                (length,) = _LENGTH.unpack(header)
                kind, fields = serde.loads_typed(("msgpack", stream.read(length)))
                if kind == "PutWrites":
                    fields["writes"] = [(channel, value) for channel, value in fields["writes"]]
                yield _KINDS[kind](**fields)

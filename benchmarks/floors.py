"""What the figures are held against: the least work and the fewest bytes that any saver could get by with.

`SerializerFloor` does nothing but LangGraph's own serialising of what changed; no saver can be quicker.
`zstd_floor` compresses everything SqliteSaver writes as one stream with a long window; a store that can read
one checkpoint without the rest will not be smaller.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import zstandard
from langgraph.checkpoint.base import get_checkpoint_metadata
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from benchmarks.trace import WINDOW_LOG, Call, Put, PutWrites

_LEVEL = 19


class SerializerFloor:
    """Serialises what a `put` or `put_writes` must: the channels with a new version, the written values."""

    name = "serializer"

    def __init__(self) -> None:
        self._serde = JsonPlusSerializer()

    def perform(self, call: Call) -> int:
        """Do the serialising that `call` cannot do without, and return its size in bytes."""
        return sum(len(self._serde.dumps_typed(value)[1]) for value in _changed(call))


def _changed(call: Call) -> Iterator[Any]:
    if isinstance(call, Put):
        values = call.checkpoint["channel_values"]
        yield from (values[channel] for channel in call.new_versions if channel in values)
    elif isinstance(call, PutWrites):
        yield from (value for _, value in call.writes)


def _rows(calls: Iterable[Call]) -> Iterator[bytes]:
    """Yield the columns of every row that SqliteSaver writes for these calls, in the order it writes them."""
    serde = JsonPlusSerializer()
    for call in calls:
        if isinstance(call, Put):
            config = call.config["configurable"]
            yield f"{config['thread_id']}{config['checkpoint_ns']}{call.checkpoint['id']}".encode()
            yield (config.get("checkpoint_id") or "").encode()
            yield serde.dumps_typed(call.checkpoint)[1]
            yield json.dumps(get_checkpoint_metadata(call.config, call.metadata), ensure_ascii=False).encode()
        elif isinstance(call, PutWrites):
            config = call.config["configurable"]
            for channel, value in call.writes:
                kind, data = serde.dumps_typed(value)
                yield f"{config['thread_id']}{config['checkpoint_ns']}{config['checkpoint_id']}".encode()
                yield f"{call.task_id}{call.task_path}{channel}{kind}".encode()
                yield data


def zstd_floor(calls: Iterable[Call]) -> tuple[int, int]:
    """Return (bytes SqliteSaver writes for these calls, the same as one `zstd -19 --long=27` stream).

    Slow: about a minute for 600 MB.
    """
    parameters = zstandard.ZstdCompressionParameters.from_level(_LEVEL, window_log=WINDOW_LOG, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    written = compressed = 0
    for row in _rows(calls):
        written += len(row)
        compressed += len(compressor.compress(row))
    return written, compressed + len(compressor.flush())

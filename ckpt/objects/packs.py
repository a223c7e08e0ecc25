"""Packs: raw frames as zstd streams, so that what came earlier serves as dictionary for what comes later.

A pack is one stream, flushed after each frame. Which frames form a pack is kept by the store: each frame names
the one before it. Two packs may begin with the same frames: then the second is a branch, whose stream goes on
where those frames end, as if it had written them itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

import zstandard

from ckpt.errors import DamagedObjectError, InvalidInputError
from ckpt.objects.frames import Frame, StoredObject, cut, encode_frame
from ckpt.storage.base import StoredFrame

COMPRESSION_LEVEL = 3
"""Level 6 saves 4 to 6% of a store until it is collected, and takes half as long again for a small frame, which finds
the caches cold after each commit, with a compressor of 3.1 MB instead of 1.3."""

PACKED_LEVEL = 19
WINDOW_LOG = 19
"""512 KB: a little more than a pack holds, so that a whole pack is its own dictionary."""

RAW_FRAME_MAX = 64 << 20
"""What a frame may unfold to: several times what writers put into one."""

_SLICE = 4 << 10
"""What is fed to zstd at once. No n bytes unfold to more than n << 15, as a block of 128 KB takes four: 128 MiB here.
Half as much would take a tenth longer for a pack of many small frames."""

_TOGETHER = 1 << 20
"""Raw bytes that frames may share: more than a pack has but for its last transaction."""

_PART_SIZE = 16 << 10
"""What is unfolded in one piece: small enough for memory that is used again. The usual 128 KB are new each time."""


class PackStream:
    """The compressing side of one open pack."""

    def __init__(self) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            COMPRESSION_LEVEL,
            window_log=WINDOW_LOG,
            write_content_size=False,
            write_checksum=False,
        )
        self._compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        self.raw_size = 0

    def append(self, raw: bytes) -> bytes:
        """Return the compressed block of the next frame. It is useless unless all earlier ones are stored.

        Raises InvalidInputError for a frame that no reader would accept.
        """
        if len(raw) > RAW_FRAME_MAX:
            raise InvalidInputError(
                f"a checkpoint would take a frame of {len(raw):,} bytes, of which {RAW_FRAME_MAX:,} are the most",
                hints=["a state of millions of channels is better kept as one value"],
            )
        self.raw_size += len(raw)
        block = self._compressor.compress(raw)
        return block + self._compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


class Beginning:
    """The first frames of a pack, kept so that other packs can branch off behind them."""

    def __init__(self) -> None:
        # Replaced as a whole, so that an interrupt leaves the old one or the new one.
        self._state: tuple[tuple[tuple[bytes, bytes], ...], int, int] = ((), 0, 0)

    @property
    def raw_size(self) -> int:
        """How many raw bytes it has."""
        return self._state[1]

    def add(self, raw: bytes, block: bytes, number: int) -> None:
        """Take the pack's next frame, now stored under `number`."""
        frames, size, _ = self._state
        self._state = ((*frames, (raw, block)), size + len(raw), number)

    def branch(self) -> tuple[PackStream, int] | None:
        """Return a stream that goes on behind these frames, and the number of the last of them.

        None if it would not be the stream that wrote them. Costs as much as compressing the frames again, because
        a zstd stream cannot be copied.
        """
        frames, _, last = self._state
        stream = PackStream()
        return (stream, last) if all(stream.append(raw) == block for raw, block in frames) else None


def pack_frame(objects: Iterable[StoredObject]) -> bytes:
    """Return a pack of one frame, compressed as well as it goes: for what is written once and kept."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        PACKED_LEVEL, window_log=WINDOW_LOG + 1, write_content_size=False, write_checksum=False
    )
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(encode_frame(objects)) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


class PackReader:
    """The decompressing side of one pack at a time, which can be continued where it stopped."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
        self.begin()

    def begin(self) -> None:
        """Be ready for another pack: much cheaper than a reader whose memory is new."""
        self._stream = self._decompressor.decompressobj(write_size=_PART_SIZE)
        self.raw_size = 0

    def read(self, blocks: Sequence[bytes]) -> list[Frame]:
        """Return the frames that follow those read before, or raise DamagedObjectError."""
        return [frame for frames in self.read_on(blocks) for frame in frames]

    def read_on(self, blocks: Sequence[bytes]) -> Iterator[list[Frame]]:
        """Yield what `read` returns piece by piece, so that who lets go of a piece has few frames in memory at once.

        How much a pack unfolds to has no bound: a transaction may be as large as its writer allows.
        """
        ends = list(accumulate(map(len, blocks), initial=0))
        parts: list[bytes] = []
        first = start = size = 0
        while start < len(blocks):
            # As many blocks as make a slice, or one that is larger.
            end = max(bisect_right(ends, ends[start] + _SLICE) - 1, start + 1)
            parts.append(self._unfold(b"".join(blocks[start:end]), (end - start) * RAW_FRAME_MAX))
            size += len(parts[-1])
            start = end
            if size > _TOGETHER or end == len(blocks):
                yield from self._cut(b"".join(parts), end - first)
                parts, first, size = [], end, 0

    def _cut(self, raw: bytes, count: int) -> Iterator[list[Frame]]:
        frames = cut(raw, count)
        self.raw_size += len(raw)
        if len(raw) <= _TOGETHER or count == 1:
            yield frames
            return
        # Each has its own bytes, or a small one that is kept would keep those of a large one.
        for frame in frames:
            yield [frame.apart()]

    def _unfold(self, data: bytes, size_max: int) -> bytes:
        """Return what the next bytes of the stream unfold to, in slices that cannot go far beyond `size_max`."""
        parts: list[bytes] = []
        size = 0
        try:
            for start in range(0, len(data), _SLICE):
                part = self._stream.decompress(data[start : start + _SLICE])
                parts.append(part)
                size += len(part)
                if size > size_max:
                    raise DamagedObjectError(f"a pack is damaged: it unfolds to more than {size_max:,} bytes")
        except zstandard.ZstdError as error:
            raise DamagedObjectError(f"a pack cannot be decompressed: {error}") from error
        return b"".join(parts)


def chain_to(number: int, stored: Mapping[int, StoredFrame], known: Collection[int] = ()) -> list[int]:
    """Return the frames from the beginning of a pack, or from behind one that is known, to this one.

    Raises DamagedObjectError when one of them is not among those given.
    """
    chain: list[int] = []
    # No longer than there are frames, or it leads in a circle.
    for _ in range(len(stored)):
        if not number or number in known or number not in stored:
            break
        chain.append(number)
        number = stored[number][0]
    if number and number not in known:
        raise DamagedObjectError("a pack is damaged: one of its frames is missing")
    chain.reverse()
    return chain


def unpack(stored: Mapping[int, StoredFrame], last: int) -> dict[int, Frame]:
    """Return a frame and all before it in its pack, given all of them, or raise DamagedObjectError."""
    chain = chain_to(last, stored)
    return dict(zip(chain, PackReader().read([stored[number].data for number in chain]), strict=True))

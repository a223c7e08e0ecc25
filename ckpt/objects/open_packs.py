"""Open packs: where the frames of the next transactions go.

Each thread has two: one for commits and topmost ropes, one for all else, since a commit resembles the one before
it, and reading a state needs the content of many transactions but one commit. New packs branch off behind the first
frames that this process wrote, so that a thread of a few checkpoints finds a dictionary too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from threading import Lock

from ckpt.forking import renewed_in_child
from ckpt.objects.frames import StoredObject, encode_frame
from ckpt.objects.ids import ObjectId, index_key
from ckpt.objects.packs import Beginning, PackStream
from ckpt.storage.base import CHAINED, FRAME_OBJECTS_MAX, Frame

CONTENT_SIZE, TOPS_SIZE = 256 << 10, 128 << 10
"""Raw bytes after which a pack is closed."""

SEED_SIZE_MIN, SEED_SIZE_MAX = 512, 32 << 10
"""Raw bytes of a pack's beginning that is worth branching off: what the threads of one process have in common."""

FRAME_SIZE_MAX = 16 << 20
_PACKS_MAX = 24
"""Packs that can be appended to; each takes more than a megabyte."""

_CONTENT, _TOPS = 0, 1
_SIZES = (CONTENT_SIZE, TOPS_SIZE)

Named = tuple[ObjectId, StoredObject]


class _OpenPack:
    """A pack that this process appends to."""

    def __init__(self, seed: Beginning | None) -> None:
        branch = seed.branch() if seed is not None else None
        self.stream, self.last_frame = branch or (PackStream(), 0)
        self.beginning = Beginning() if branch is None else None
        self.laid: list[tuple[bytes, bytes]] = []
        """The raw and the compressed frames of the transaction under way."""
        self.settled = True
        """Whether all that the stream has compressed is known to be stored."""

    def append(self, objects: Sequence[Named], new: Collection[ObjectId]) -> list[Frame]:
        """Return the frames of one transaction; the objects in `new` are nowhere else."""
        # An interrupt may strike anywhere between here and the end of `stored`: the flag is all that tells of it.
        self.settled = False
        self.laid = []
        frames: list[Frame] = []
        for part in _split(objects):
            raw = encode_frame([obj for _, obj in part])
            block = self.stream.append(raw)
            fresh = all(oid in new for oid, _ in part)
            frames.append(Frame(CHAINED if frames else self.last_frame, block, _keys(part), fresh=fresh))
            self.laid.append((raw, block))
        return frames

    def stored(self, numbers: Sequence[int]) -> None:
        """Take note of the numbers of the frames made last."""
        self.last_frame = numbers[-1]
        laid, self.laid = self.laid, []
        if self.stream.raw_size > SEED_SIZE_MAX:
            self.beginning = None
        if self.beginning is not None:
            for (raw, block), number in zip(laid, numbers, strict=True):
                self.beginning.add(raw, block, number)
        self.settled = True


class OpenPacks:
    """The packs that this process appends to. One line (a thread) is appended to by one caller at a time."""

    def __init__(self) -> None:
        self._packs: OrderedDict[tuple[object, int], _OpenPack] = OrderedDict()
        self._seeds: list[Beginning | None] = [None, None]
        self._lock = Lock()
        renewed_in_child(self)

    def in_child(self) -> None:
        """Begin without packs in a forked process: those there are belong to the parent."""
        self._packs = OrderedDict()
        self._seeds = [None, None]
        self._lock = Lock()

    def append(
        self, line: object, content: Sequence[Named], tops: Sequence[Named], new: Collection[ObjectId] = ()
    ) -> list[Frame]:
        """Lay objects down behind the packs of `line`; the frames are good for one publish.

        Those in `new` are nowhere else. Call `stored` when it succeeded and `abandon` when it did not.
        """
        with self._lock:
            # An interrupt left them: whether their last frames are stored, and under which numbers, nobody knows.
            for series in (_CONTENT, _TOPS):
                if (pack := self._packs.get((line, series))) is not None and not pack.settled:
                    del self._packs[line, series]
        frames: list[Frame] = []
        for series, part in ((_CONTENT, content), (_TOPS, tops)):
            if part:
                frames += self._pack(line, series).append(part, new)
        return frames

    def stored(self, line: object, numbers: Sequence[int]) -> None:
        """Say under which numbers the frames that `append` returned are stored."""
        left = list(numbers)
        with self._lock:
            for series in (_TOPS, _CONTENT):
                pack = self._packs.get((line, series))
                if pack is None or not pack.laid:
                    continue
                count = len(pack.laid)
                pack.stored(left[-count:])
                del left[-count:]
                if pack.stream.raw_size >= _SIZES[series]:
                    del self._packs[line, series]
                if self._seeds[series] is None and pack.beginning and pack.beginning.raw_size >= SEED_SIZE_MIN:
                    self._seeds[series] = pack.beginning

    def abandon(self, line: object) -> None:
        """Say that the frames made last for `line` were not stored: its packs are not continued."""
        with self._lock:
            for series in (_CONTENT, _TOPS):
                self._packs.pop((line, series), None)

    def clear(self) -> None:
        """Forget all packs: what they build on may be removed."""
        with self._lock:
            self._packs.clear()
            self._seeds = [None, None]

    def _pack(self, line: object, series: int) -> _OpenPack:
        with self._lock:
            pack = self._packs.get((line, series))
            if pack is None:
                pack = self._packs[line, series] = _OpenPack(self._seeds[series])
                while len(self._packs) > _PACKS_MAX:
                    self._packs.popitem(last=False)
            else:
                self._packs.move_to_end((line, series))
            return pack


def apart(objects: Sequence[Named]) -> list[Frame]:
    """Return frames that the store leaves out when all that is in them is stored already."""
    return [
        Frame(0, PackStream().append(encode_frame([obj for _, obj in part])), _keys(part), optional=True)
        for part in _split(objects)
    ]


def _split(objects: Sequence[Named]) -> list[Sequence[Named]]:
    if len(objects) == 1:
        return [objects]
    parts: list[Sequence[Named]] = []
    part: list[Named] = []
    size = 0
    for named in objects:
        part.append(named)
        size += len(named[1].data)
        if size >= FRAME_SIZE_MAX or len(part) >= FRAME_OBJECTS_MAX:
            parts.append(part)
            part, size = [], 0
    return [*parts, part] if part else parts


def _keys(part: Iterable[Named]) -> tuple[bytes, ...]:
    return tuple([index_key(oid) for oid, _ in part])

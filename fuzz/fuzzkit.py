"""What the fuzz targets share: a run under atheris, and cheap mutations for a run without it.

A target is a file `fuzz_*.py` with `SEEDS` (valid inputs) and `one(data)`, which raises when a property does
not hold. `python fuzz/fuzz_rope.py -max_total_time=60` runs it until then, or for a minute; all options of
libFuzzer are taken. Inputs that fail are written to the temporary directory.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from random import Random

INPUT_SIZE_MAX = 4096


def instrumented() -> AbstractContextManager[object]:
    """Return the context to import `ckpt` in: its code is instrumented when a target runs as a program."""
    if Path(sys.argv[0]).resolve().parent != Path(__file__).resolve().parent:
        return nullcontext()
    import atheris

    context: AbstractContextManager[object] = atheris.instrument_imports(include=["ckpt"])
    return context


def run(one: Callable[[bytes], None], seeds: Sequence[bytes]) -> None:
    """Fuzz `one` with atheris as the command line says; ends the process."""
    import atheris

    name = Path(sys.argv[0]).stem
    corpus = Path(tempfile.mkdtemp(prefix=f"ckpt-{name}-"))
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    defaults = [f"-max_len={INPUT_SIZE_MAX}", "-timeout=30", f"-artifact_prefix={corpus}.failed-"]
    atheris.Setup([sys.argv[0], *defaults, *sys.argv[1:], str(corpus)], one)
    atheris.Fuzz()


def mutations(seeds: Sequence[bytes], count: int, random: Random) -> Iterator[bytes]:
    """Yield the seeds, and then `count` inputs that are random bytes or seeds with a few changes."""
    yield from seeds
    for _ in range(count):
        if not seeds or random.random() < 0.2:
            yield random.randbytes(random.choice((0, 1, 3, 20, 200)))
            continue
        data = bytearray(random.choice(seeds))
        for _ in range(random.choice((1, 1, 2, 5))):
            at = random.randrange(len(data) + 1)
            match random.randrange(6):
                case 0:
                    del data[at:]
                case 1:
                    del data[at : at + random.randrange(1, 9)]
                case 2:
                    data[at:at] = random.randbytes(random.randrange(1, 9))
                case 3:
                    data[at:at] = data[: random.randrange(1, 40)]
                case 4:
                    data[at:at] = bytes((random.choice((0x00, 0x7F, 0x80, 0x90, 0xC0, 0xC9, 0xDC, 0xFF)),))
                case _ if at < len(data):
                    data[at] ^= 1 << random.randrange(8)
        yield bytes(data[:INPUT_SIZE_MAX])


class Recipe:
    """Reads an input as decisions; when it ends, every further decision is the simplest one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    @property
    def more(self) -> bool:
        """Whether any of the input is left."""
        return self._offset < len(self._data)

    def number(self, limit: int) -> int:
        """Return a number below `limit`, 256 at most."""
        if not self.more:
            return 0
        self._offset += 1
        return self._data[self._offset - 1] % limit

    def take(self, length: int) -> bytes:
        """Return up to `length` bytes."""
        self._offset += length
        return self._data[self._offset - length : self._offset]

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(len(self._data))

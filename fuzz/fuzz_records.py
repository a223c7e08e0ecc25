"""Records: hostile bytes are refused, whether their seal is broken or was made again over other fields."""

from __future__ import annotations

from collections.abc import Callable

import msgpack
from blake3 import blake3
from fuzzkit import instrumented, run

with instrumented():
    from ckpt.errors import DamagedRecordError
    from ckpt.history import keys
    from ckpt.history.checkpoints import (
        Hidden,
        Put,
        Spill,
        Write,
        Writes,
        current_put,
        decode_events,
        encode_events,
        is_hidden,
        pending_writes,
    )
    from ckpt.history.records import (
        Base,
        Line,
        NameRecord,
        Reset,
        Tally,
        ThreadRecord,
        decode_line,
        encode_line,
    )
    from ckpt.history.seal import Census, seal, unseal
    from ckpt.objects.ids import ObjectId

_ID = ObjectId(bytes(32))
_LINE = Line("sub", "b", "c", 4, Census(2, 99))
_CHECKPOINT, _THREAD, _NAME = keys.checkpoint_key(3, "", "a"), keys.thread_key(3), keys.name_key("n")
_LINE_KEY, _BUCKET = keys.line_key(3, "sub"), keys.directory_key(7)


def _events(record: bytes) -> bytes:
    events = decode_events(_CHECKPOINT, record)
    current_put(events)
    is_hidden(events)
    pending_writes(events)
    return encode_events(_CHECKPOINT, events)


_KINDS: list[tuple[bytes, bytes, Callable[[bytes], bytes]]] = [
    (
        _CHECKPOINT,
        encode_events(
            _CHECKPOINT,
            [
                Put(1, _ID, 20),
                Writes(
                    2,
                    "3d0a2f31-5a2b-4c53-9a4e-7c3a1e0c9b11",
                    "~__pregel_pull",
                    (Write(0, "c", "null", b""),),
                    0,
                ),
                Writes(3, "task", "", (Write(-1, "__error__", "msgpack", b"\x04\x01\xc0"),), 5),
                Spill(4, _ID),
                Hidden(5),
            ],
        ),
        _events,
    ),
    (
        _THREAD,
        ThreadRecord(3, "n", 9, "c", _LINE, Census(1, 5), Base(1, 4, "a", 6, "b"), 2, True, (Reset(5, 2, 1),)).encode(),
        lambda record: ThreadRecord.decode(3, record).encode(),
    ),
    (
        _NAME,
        NameRecord("n", 3, (1, 2), bytes(16)).encode(),
        lambda record: NameRecord.decode(_NAME, record)._replace(name="n").encode(),
    ),
    (
        _LINE_KEY,
        encode_line(3, _LINE),
        lambda record: seal(_LINE_KEY, decode_line(_LINE_KEY, record).fields()),
    ),
    (
        _BUCKET,
        Tally(bytes(8), Census(4, 77)).encode(_BUCKET),
        lambda record: Tally.decode(_BUCKET, record).encode(_BUCKET),
    ),
]

# The first byte says which kind of record, and whether a whole record follows or a body still to be sealed.
SEEDS = [bytes((kind,)) + record for kind, (_, record, _) in enumerate(_KINDS)] + [
    bytes((len(_KINDS) + kind,)) + record[:-8] for kind, (_, record, _) in enumerate(_KINDS)
]


def one(data: bytes) -> None:
    if not data:
        return
    resealed, kind = divmod(data[0] % (2 * len(_KINDS)), len(_KINDS))
    key, _, again = _KINDS[kind]
    record = data[1:]
    if resealed:
        record += blake3(key + record).digest(8)
    try:
        second = again(record)
    except DamagedRecordError:
        return
    # Another writer's shorter or longer msgpack means the same; what is written here says it once for all.
    assert again(second) == second
    assert resealed or unseal(key, record, "it") == msgpack.unpackb(
        record[:-8], strict_map_key=False, unicode_errors="surrogatepass"
    )


def main() -> None:
    run(one, SEEDS)


if __name__ == "__main__":
    main()

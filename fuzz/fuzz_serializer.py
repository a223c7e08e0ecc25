"""The built-in serializer: hostile documents are refused or become values whose stored form is stable."""

from __future__ import annotations

import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from zoneinfo import ZoneInfo

import msgpack
from fuzzkit import instrumented, run

with instrumented():
    from ckpt.errors import DamagedObjectError, UnstorableValueError
    from ckpt.values.kinds import TAG, Opaque
    from ckpt.values.serializer import Serializer

_SERIALIZER = Serializer()
_VALUES: list[object] = [
    [None, True, -1, 1 << 70, 0.5, "text\ud800\x00", b"bytes", {"key": [1, (2, 3)]}],
    {1, "a", (2, b"")},
    frozenset({1}),
    {(1, 2): {"a": 1}, None: 3},
    datetime(2026, 1, 31, 10, 0, 0, 5, tzinfo=timezone(timedelta(hours=1), "CET"), fold=1),
    [
        date(2026, 1, 31),
        time(1, 2, tzinfo=UTC),
        timedelta(days=-1),
        datetime(1, 1, 1, tzinfo=ZoneInfo("UTC")),
    ],
    [uuid.UUID(int=5), Decimal("1.50"), 1 + 2j, Fraction(1, 3), PurePosixPath("/a/b"), bytearray(b"x")],
    [deque([1, 2], 5), OrderedDict(b=1, a=2), defaultdict(list, {"a": [1]}), Counter("aab")],
    [uuid.SafeUUID.safe, Opaque("", "", "ext:60", b"\x01"), Opaque("", "pickle", "document", b"\x80")],
    Opaque("lost.module", "Lost.Class", "dataclass", b"\x94\xa4lost\xa5Class\x80\x90"),
]
_LOST = msgpack.packb(msgpack.ExtType(50, msgpack.packb([5, [98, 1]])))
SEEDS = [_SERIALIZER.dumps_typed(value)[1] for value in _VALUES] + [
    b"\x92" + _LOST + b"\x91" * 140 + b"\x01",  # a value not revived, beside one nested too deep to be stored
]


def one(data: bytes) -> None:
    try:
        value = _SERIALIZER.loads_typed((TAG, data))
    except DamagedObjectError:
        return
    try:
        first = _SERIALIZER.dumps_typed(value)
    except UnstorableValueError:
        return
    again = _SERIALIZER.loads_typed(first)
    assert type(again) is type(value)
    assert _SERIALIZER.dumps_typed(again) == first


def main() -> None:
    run(one, SEEDS)


if __name__ == "__main__":
    main()

"""Inert views: whatever bytes a store holds, showing them never raises."""

from __future__ import annotations

import json

import msgpack
from fuzzkit import instrumented, run

with instrumented():
    from ckpt.values.inert import inert, summary, to_json

_TYPES = ("ckpt", "msgpack", "json", "null", "bytes", "bytearray", "pickle")


def _ext(code: int, *payload: object) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb(payload))


_MESSAGE = {"type": "human", "content": [{"type": "text", "text": "hi"}], "id": "m1", "tool_calls": []}
_DOCUMENTS: list[object] = [
    [_MESSAGE, {"type": "ai", "content": "x", "tool_calls": [{"name": "f", "args": {"a": 1}, "id": "1"}]}],
    _ext(5, "langchain_core.messages.human", "HumanMessage", _MESSAGE, "model_validate_json"),
    {
        "a": _ext(0, "uuid", "UUID", "00"),
        "b": _ext(38, 2026, 1, 31, 1, 2, 3, 4, 1, _ext(42, 0, 3600, 0, None)),
    },
    [
        _ext(44, bytes(16), None),
        _ext(48, "PurePosixPath", "/a"),
        _ext(51, "list", [["a", []]]),
        _ext(35, 1, 2),
    ],
    [_ext(57, "m", "M", {"a": 1}, [], ["a"], {"b": 2}, None), _ext(58, "json", b'{"a":1}'), _ext(49, 3, [1])],
    {"n": float("nan"), "i": float("inf"), "big": 1 << 63, "t": msgpack.Timestamp(1, 5), "bin": bytes(9)},
]
SEEDS = [bytes((kind,)) + msgpack.packb(document) for document in _DOCUMENTS for kind in (0, 1)] + [
    b'\x02{"a": [1, 2.5, null, "text"]}',
    b"\x04raw",
    b"\x06\x80\x04.",
]


def one(data: bytes) -> None:
    type_ = _TYPES[data[0] % len(_TYPES)] if data else "ckpt"
    value = inert(type_, data[1:])
    for width in (0, 1, 20, 200):
        assert len(summary(value, width)) <= width
    written = json.dumps(to_json(value), allow_nan=False)
    written.encode("utf-8")


def main() -> None:
    run(one, SEEDS)


if __name__ == "__main__":
    main()

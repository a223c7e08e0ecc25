"""Inert views: what they show of both serializers' bytes, and that nothing is imported or raised."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import math
import subprocess
import sys
import tracemalloc
from collections import OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, RemoveMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Interrupt, Send
from pydantic import BaseModel, ConfigDict, PrivateAttr

from ckpt.values import inert as module
from ckpt.values.inert import InertMessage, InertObject, inert, summary, to_json
from ckpt.values.kinds import KIND_CODES, MAX_DEPTH
from ckpt.values.serializer import Serializer

LANGGRAPH = JsonPlusSerializer()
OWN = Serializer()


@dataclasses.dataclass(frozen=True)
class Note:
    text: Any


class Point(NamedTuple):
    x: Any
    y: Any


class Color(Enum):
    RED = 1


class User(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: Any
    _secret: Any = PrivateAttr(default="s")


def theirs(value: object) -> Any:
    return inert(*LANGGRAPH.dumps_typed(value))


def ours(value: object) -> Any:
    return inert(*OWN.dumps_typed(value))


INTERRUPT = Interrupt(value="ok?", id="i")
PLAIN = {"a": [1, 2.5, None, True, "ü", b"y"], "b": {"c": {}}}


@pytest.mark.parametrize("show", [theirs, ours])
def test_plain_data_is_shown_as_it_is(show: Any) -> None:
    assert show(PLAIN) == PLAIN
    assert show(None) is None
    assert show(b"x") == b"x"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Note([1]), InertObject(__name__, "Note", {"text": [1]})),
        (Color.RED, InertObject(__name__, "Color", 1)),
        (Send("node", {"a": 1}), InertObject("langgraph.types", "Send", {"node": "node", "arg": {"a": 1}})),
        (
            _DeltaSnapshot([1]),
            InertObject("langgraph.checkpoint.serde.types", "_DeltaSnapshot", {"value": [1]}),
        ),
        (
            INTERRUPT,
            InertObject("langgraph.types", "Interrupt", dataclasses.asdict(INTERRUPT)),
        ),
        (UUID(int=1), InertObject("uuid", "UUID", "0" * 31 + "1")),
        ({1, 2}, InertObject("builtins", "set", [1, 2])),
        (Decimal("1.5"), InertObject("decimal", "Decimal", "1.5")),
        (datetime(2026, 1, 2, tzinfo=UTC), InertObject("datetime", "datetime", "2026-01-02T00:00:00+00:00")),
        (Path("a/b"), InertObject(type(Path()).__module__, type(Path()).__name__, ["a", "b"])),
        (User(name="x"), InertObject(__name__, "User", {"name": "x"})),
    ],
    ids=lambda part: type(part).__name__,
)
def test_objects_written_by_langgraph(value: object, shown: object) -> None:
    assert theirs(value) == shown
    assert theirs({"k": [value]}) == {"k": [shown]}


def test_arrays_written_by_langgraph_need_no_numpy() -> None:
    raw = msgpack.packb(msgpack.ExtType(6, msgpack.packb(["<f8", [2], "C", b"\0" * 16])))
    fields = {"dtype": "<f8", "shape": [2], "order": "C", "data": b"\0" * 16}
    assert inert("msgpack", raw) == InertObject("numpy", "ndarray", fields)


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (2**100, 2**100),
        ((1, (2,)), (1, (2,))),
        ({(1, 2): 3}, {(1, 2): 3}),
        (bytearray(b"x"), InertObject("builtins", "bytearray", b"x")),
        ({2, 1}, InertObject("builtins", "set", [1, 2])),
        (frozenset(), InertObject("builtins", "frozenset", [])),
        (datetime(2026, 1, 2, 3, 4, 5, 6), InertObject("datetime", "datetime", "2026-01-02T03:04:05.000006")),
        (datetime(2026, 1, 2, tzinfo=UTC), InertObject("datetime", "datetime", "2026-01-02T00:00:00+00:00")),
        (
            datetime(2026, 1, 2, fold=1, tzinfo=BERLIN),
            InertObject("datetime", "datetime", "2026-01-02T00:00:00[Europe/Berlin] (fold)"),
        ),
        (
            time(1, tzinfo=timezone(-timedelta(hours=1, minutes=30), "odd")),
            InertObject("datetime", "time", "01:00:00-01:30[odd]"),
        ),
        (date(2026, 1, 2), InertObject("datetime", "date", "2026-01-02")),
        (timedelta(1, 2, 3), InertObject("datetime", "timedelta", [1, 2, 3])),
        (BERLIN, InertObject("zoneinfo", "ZoneInfo", "Europe/Berlin")),
        (UUID(int=1), InertObject("uuid", "UUID", str(UUID(int=1)))),
        (Decimal("NaN"), InertObject("decimal", "Decimal", "NaN")),
        (1j, InertObject("builtins", "complex", [0.0, 1.0])),
        (PurePosixPath("a/b"), InertObject("pathlib", "PurePosixPath", "a/b")),
        (deque([1]), InertObject("collections", "deque", [1])),
        (deque([1], 2), InertObject("collections", "deque", {"maxlen": 2, "items": [1]})),
        (OrderedDict(a=1), InertObject("collections", "OrderedDict", {"a": 1})),
        (
            defaultdict(list, a=[]),
            InertObject("collections", "defaultdict", {"default_factory": "list", "items": {"a": []}}),
        ),
        (Color.RED, InertObject(__name__, "Color", "RED")),
        (Note((1,)), InertObject(__name__, "Note", {"text": (1,)})),
        (Point(1, 2), InertObject(__name__, "Point", {"x": 1, "y": 2})),
        (User(name="x", more=1), InertObject(__name__, "User", {"name": "x", "more": 1, "_secret": "s"})),  # type: ignore[call-arg]
    ],
    ids=lambda part: type(part).__name__,
)
def test_objects_written_by_the_builtin_serializer(value: object, shown: object) -> None:
    assert ours(value) == shown
    assert ours([value]) == [shown]


def test_bytes_of_other_serializers_inside_our_own_are_shown_too() -> None:
    foreign = OWN.loads_typed(LANGGRAPH.dumps_typed(Note(1)))
    assert ours([foreign]) == [InertObject(__name__, "Note", {"text": 1})]


@pytest.mark.parametrize("show", [theirs, ours])
def test_messages_are_recognised_by_their_class(show: Any) -> None:
    calls = [{"name": "f", "args": {"x": 1}, "id": "c1", "type": "tool_call"}]
    human, ai, tool, chunk, remove = show(
        [
            HumanMessage("hi", id="1", name="ann"),
            AIMessage("", id="2", tool_calls=calls),
            ToolMessage("done", tool_call_id="c1"),
            AIMessageChunk("part"),  # type: ignore[call-arg]
            RemoveMessage(id="2"),
        ]
    )
    assert (human.type, human.id, human.content, human.name) == ("human", "1", "hi", "ann")
    assert human.origin == ("langchain_core.messages.human", "HumanMessage")
    assert (ai.type, ai.tool_calls, ai.fields["tool_calls"]) == ("ai", calls, calls)
    assert (tool.type, tool.fields["tool_call_id"]) == ("tool", "c1")
    assert (chunk.type, chunk.content) == ("AIMessageChunk", "part")
    assert (remove.type, remove.id) == ("remove", "2")


def test_messages_are_recognised_by_their_shape() -> None:
    stored = {"content": "hi", "type": "human", "extra": 1}
    assert ours([stored]) == [InertMessage("human", None, "hi", [], None, stored)]
    for other in ({"type": "human"}, {"type": "query", "content": "x"}, {"type": [1], "content": "x"}):
        assert ours(other) == other


def test_keys_that_cannot_be_hashed_lose_nothing() -> None:
    raw = msgpack.packb({1: 1}).replace(b"\x01\x01", b"\x91\x01\x02")
    assert inert("msgpack", raw) == {(1,): 2}
    twice = b"\x82\x91\x01\x02\x91\x01\x03"
    assert inert("msgpack", twice) == InertObject("", "map", [[[1], 2], [[1], 3]])
    objects = ours({Note((1, 2)): 1, Point(1, 2): 2})
    assert list(objects.values()) == [1, 2]
    assert [key.name for key in objects] == ["Note", "Point"]


def test_other_tags() -> None:
    assert inert("null", b"") is None
    assert inert("bytearray", b"x") == b"x"
    assert inert("json", b'{"a": [1, NaN]}')["a"][0] == 1  # type: ignore[index]
    assert inert("json", b"{") == InertObject("", "undecodable", 1)
    assert inert("json", b"[" * 100_000) == InertObject("", "undecodable", 100_000)
    assert inert("pickle", b"123") == InertObject("", "pickle", 3)
    assert inert("msgpack+aes", b"1") == InertObject("", "msgpack+aes", 1)
    assert inert("ckpt", b"\xd4\x7f\x00") == InertObject("", "ext 127", b"\0")


@given(st.sampled_from(["msgpack", "ckpt", "json"]), st.binary(max_size=200))
@example("ckpt", b"\x91" * 5000)
@example("msgpack", b"\xdd\xff\xff\xff\xff")
@example("msgpack", b"\xd6\xff\x00\x00\x00\x00")
@example("msgpack", b"\xa1\xff")
def test_random_bytes_are_shown_not_raised(tag: str, data: bytes) -> None:
    value = inert(tag, data)
    assert len(summary(value, 40)) <= 40
    json.dumps(to_json(value), allow_nan=False).encode()


@given(st.integers(0, 63), st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
))  # fmt: skip
def test_extensions_of_the_wrong_shape_are_shown_not_raised(code: int, payload: object) -> None:
    raw = msgpack.packb([msgpack.ExtType(code, msgpack.packb(payload))])
    value = inert("msgpack", raw)
    summary(value, 1000)
    json.dumps(to_json(value), allow_nan=False).encode()


def test_a_nest_of_extensions_is_shown_not_crashed_on() -> None:
    raw = msgpack.packb(None)
    for _ in range(1_000):
        raw = msgpack.packb(msgpack.ExtType(34, b"\x91" + raw))
    value = inert("ckpt", raw)
    assert summary(value, 10) == "[[[[[[[[[…"
    json.dumps(to_json(value))


def ext(kind: str, payload: object) -> msgpack.ExtType:
    return msgpack.ExtType(KIND_CODES[kind], msgpack.packb(payload))


def peak(tag: str, raw: bytes) -> int:
    tracemalloc.start()
    try:
        inert(tag, raw)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_what_is_no_time_zone_is_not_written_out_again_and_again() -> None:
    value: object = "\\"
    for _ in range(16):
        value = ext("time", [0, 0, 0, 0, 0, ext("bytearray", [value])])
    assert len(json.dumps(to_json(inert("ckpt", msgpack.packb(value))))) < 16 * 200


@pytest.mark.parametrize(
    "zone", [["x" * 1000, 0, 0, None], [[0] * 1000, [], 0, None], [0, 0, 0, [1]], [0, 0, 0.5, None]]
)
def test_what_is_no_offset_is_not_counted_with(zone: list[object]) -> None:
    raw = msgpack.packb(ext("time", [0, 0, 0, 0, 0, ext("timezone", zone)]))
    shown = InertObject("", "time", [0, 0, 0, 0, 0, InertObject("datetime", "timezone", zone)])
    assert inert("ckpt", raw) == shown
    assert peak("ckpt", raw) < 1 << 20


@pytest.mark.parametrize("kind", ["int", "tuple", "fraction"])
def test_keys_of_one_hash_are_not_compared_with_each_other(kind: str) -> None:
    prime = 2**61 - 1
    numbers = [(prime * (2**64 + i) + 7).to_bytes(17, "big", signed=True) for i in range(200)]
    keys: list[object] = [msgpack.ExtType(KIND_CODES["int"], msgpack.packb(each)) for each in numbers]
    if kind == "tuple":
        keys = [ext("tuple", [*each]) for each in itertools.product((-1, -2), repeat=8)]
    elif kind == "fraction":
        keys = [ext("fraction", [each, 1]) for each in keys]
    shown = inert("ckpt", msgpack.packb(ext("dict", [[key, None] for key in keys])))
    assert isinstance(shown, InertObject)
    assert (shown.module, shown.name) == ("", "map")
    assert isinstance(shown.fields, list)
    assert len(shown.fields) == len(keys)


def test_large_keys_are_keys_as_others_are() -> None:
    large = {2**100 + i: i for i in range(500)} | {(i, 2**70): i for i in range(500)} | {-1: 0, -2: 0}
    assert ours(large) == large
    few = {(2**61 - 1) * i: i for i in range(90)} | {str(i): i for i in range(200)}
    assert ours(few) == few


def test_a_document_in_a_document_is_read_no_more_often_than_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def unpacker(*args: Any, **kwargs: Any) -> Any:
        made.append(args)
        return original(*args, **kwargs)

    original = msgpack.Unpacker
    monkeypatch.setattr(msgpack, "Unpacker", unpacker)
    raw = b"\xc0"
    for _ in range(12):
        raw = b"\x92" + msgpack.packb(ext("document", ["ckpt", raw])) + b"\xa3\xed\xa0\x80"
    shown: Any = inert("ckpt", raw)
    for _ in range(12):
        assert shown[1] == "\ud800"
        shown = shown[0]
    assert shown is None
    assert len(made) < 12 * 2 * 3


def test_documents_in_documents_go_as_deep_as_all_else() -> None:
    raw = b"\xc0"
    for _ in range(1_000):
        raw = msgpack.packb([ext("document", ["ckpt", raw])])
    value, depth = inert("ckpt", raw), 0
    while isinstance(value, list):
        value, depth = value[0], depth + 1
    assert isinstance(value, InertObject)
    assert value.name == "undecodable"
    assert depth == MAX_DEPTH + 1


@pytest.mark.parametrize("payload", [["bytes", 1 << 24], ["ckpt", "\xc0"], [1, b""], ["ckpt", b"", 1]])
def test_what_is_no_document_is_shown_as_it_is(payload: list[object]) -> None:
    raw = msgpack.packb(ext("document", payload))
    assert inert("ckpt", raw) == InertObject("", "document", payload)
    assert peak("ckpt", raw) < 1 << 20


def test_maps_as_keys_of_maps_are_gone_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []

    def hashable(key: object) -> object:
        steps.append(1)
        return original(key)

    original = module._hashable
    monkeypatch.setattr(module, "_hashable", hashable)
    depth, size = 100, 1000
    shown: Any = inert("msgpack", b"\x81" * depth + b"\xdc" + size.to_bytes(2) + b"\xc0" * (size + depth))
    assert len(steps) < 2 * size + 10 * depth
    for _ in range(depth - 2):
        assert shown.name == "map"
        shown = shown.fields[0][0]
    assert shown.fields == [[{(None,) * size: None}, None]]


def test_nothing_is_imported_to_show_a_value(tmp_path: Path) -> None:
    (tmp_path / "canary.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\nclass Bird: pass\n")
    script = """
import sys, msgpack
from ckpt.values.inert import inert, summary, to_json
for tag in ("msgpack", "ckpt"):
    for code in range(64):
        for tail in ([{}], [{}, "x"], [{}, []], [{}, [], [], None, None]):
            raw = msgpack.packb(msgpack.ExtType(code, msgpack.packb(["canary", "Bird", *tail])))
            value = inert(tag, raw)
            summary(value, 80), to_json(value)
assert not {"canary", "pydantic", "langgraph", "langchain_core", "numpy"} & set(sys.modules)
"""
    environment = {"PYTHONPATH": f"{Path(__file__).parents[2]}:{tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.5, None, True], "b": "x\ny"}, '{"a": [1, 2.5, null, true], "b": "x\\ny"}'),
        ({}, "{}"),
        ([], "[]"),
        ((1,), "[1]"),
        ({1: math.nan}, "{1: NaN}"),
        (b"abc", "<3 bytes>"),
        (InertObject("m", "Note", {"text": "x", "n": 1}), 'Note(text="x", n=1)'),
        (InertObject("m", "Note", {}), "Note()"),
        (InertObject("uuid", "UUID", "00"), 'UUID("00")'),
        (InertObject("", "undecodable", 12), "<undecodable, 12 bytes>"),
        (InertMessage("human", None, "hi", [], None, {}), 'human "hi"'),
        (InertMessage("ai", None, "", [{}, {}], None, {}), 'ai "" +2 tool calls'),
    ],
)  # fmt: skip
def test_a_summary_is_one_line(value: object, text: str) -> None:
    shown = summary(value, 100)
    assert len(shown) <= 100
    assert shown == text
    for width in range(20):
        assert summary(value, width) == (
            shown if len(shown) <= width else shown[: max(width - 1, 0)] + "…" * (width > 0)
        )


def test_a_summary_looks_no_further_than_it_shows() -> None:
    value: Any = []
    for _ in range(50_000):
        value = [value]
    assert summary(value, 5) == "[[[[…"
    assert summary(list(range(10**6)), 8) == "[0, 1, …"
    assert summary(10**5000, 5) == f"{hex(10**5000)[:4]}…"
    assert summary("x" * 10**7, 5) == '"xxx…'


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (PLAIN["b"], PLAIN["b"]),
        ((1, [b"x"]), [1, [{"$bytes": base64.b64encode(b"x").decode()}]]),
        (math.nan, {"$float": "nan"}),
        (-math.inf, {"$float": "-inf"}),
        (2**100, 2**100),
        ({1: "a"}, {"$map": [[1, "a"]]}),
        ({"$type": "a"}, {"$map": [["$type", "a"]]}),
        ("a\ud800", {"text": "a\ufffd", "text_b64": base64.b64encode(b"a\xed\xa0\x80").decode()}),
        (InertObject("m", "N", {"a": b""}), {"$type": "m.N", "fields": {"a": {"$bytes": ""}}}),
        (InertObject("", "pickle", 3), {"$type": "pickle", "fields": 3}),
        (InertMessage("ai", None, "x", [], None, {"type": "ai"}), {"type": "ai"}),
        (
            InertMessage("ai", None, "x", [], None, {"type": "ai"}, ("m", "AI")),
            {"$type": "m.AI", "fields": {"type": "ai"}},
        ),
    ],
    ids=lambda part: type(part).__name__,
)
def test_json_holds_everything(value: object, shown: object) -> None:
    assert to_json(value) == shown
    assert to_json([value]) == [shown]


def test_integers_too_long_for_decimal_digits_are_hex_in_json() -> None:
    assert to_json(10**5000) == {"$int": hex(10**5000)}

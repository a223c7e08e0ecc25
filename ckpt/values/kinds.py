"""The kinds of extensions: codes, payloads, and how built-in types come apart and together again.

The table is in `ckpt.values.serializer`. Bytes are not touched here, nor instances of classes.
"""

from __future__ import annotations

import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any
from zoneinfo import ZoneInfo

import msgpack
from msgpack import ext as msgpack_ext

TAG = "ckpt"
LANGGRAPH = "msgpack"
"""The type tag of what LangGraph's own serializer writes: plain data in it is plain msgpack, in UTF-8."""
MAX_DEPTH = 128
"""Nested arrays and maps, as written; a dataclass takes two. Safe for the stack of any thread."""

INT, BYTEARRAY, TUPLE, SET, FROZENSET, DICT = range(32, 38)
DEQUE, ORDEREDDICT, DEFAULTDICT, COUNTER, ENUM, FLAG, DATACLASS, NAMEDTUPLE, MODEL, DOCUMENT = range(49, 59)

SCALARS = frozenset({type(None), bool, int, float, str, bytes})
NATIVE = SCALARS | {list, dict}
# The packer takes these for its own whatever `strict_types` says, and their type would be lost.
INTERCEPTED = {bytearray, memoryview, msgpack.ExtType, getattr(msgpack_ext, "Bypass", bytearray)}
_FACTORIES = {c.__name__: c for c in (bool, bytes, dict, float, frozenset, int, list, set, str, tuple)}
_PATHS: dict[str, Any] = {c.__name__: c for c in (PurePosixPath, PureWindowsPath, PosixPath, WindowsPath)}
PLAIN_DATA = "turn it into plain data, a dataclass, a NamedTuple or a pydantic model before storing it"


@dataclass(frozen=True, repr=False)
class Opaque:
    """A stored value that could not be revived here. Storing it again writes the identical bytes.

    `kind` is a name of the module's table, or `ext:N` for an extension not in it; `raw` is the payload.
    """

    module: str
    name: str
    kind: str
    raw: bytes

    def __repr__(self) -> str:
        where = f"{self.module}.{self.name}".strip(".")
        return f"<Opaque {self.kind} {where}, {len(self.raw)} bytes>"


class Refusal(Exception):
    """Why one value cannot be stored; `suffix` leads from it to the culprit."""

    def __init__(self, reason: str, hint: str, suffix: str = "") -> None:
        super().__init__(reason)
        self.reason, self.hint, self.suffix = reason, hint, suffix


@dataclass(frozen=True)
class _Kind:
    name: str
    take: Callable[[Any], Any]
    make: Callable[[Any], object]
    width: int | None = None


def _pairs(value: Any) -> list[Any]:
    for name in getattr(value, "__dict__", ()):
        raise Refusal("an attribute set on a built-in container would be lost", "remove it", f".{name}")
    return [[key, each] for key, each in value.items()]


def _clock(value: Any) -> list[Any]:
    if value.tzinfo is not None and type(value.tzinfo) not in (timezone, ZoneInfo):
        raise Refusal("only datetime.timezone and zoneinfo.ZoneInfo are kept", "convert it first", ".tzinfo")
    return [value.hour, value.minute, value.second, value.microsecond, value.fold, value.tzinfo]


def _zone_key(value: ZoneInfo) -> str:
    if value.key is None:
        raise Refusal("a time zone without a key cannot be found again", "use ZoneInfo(key)")
    return value.key


def _zone_by_key(key: str) -> ZoneInfo:
    if "." in key:  # the tzdata package is searched by module name, and a dot would lead out of it
        raise ValueError(key)
    return ZoneInfo(key)


def _path(value: Any) -> list[str]:
    cls = type(value)
    if cls(str(value)) != value:
        raise Refusal("this path does not survive being written as text", "store str(path)")
    return [cls.__name__, str(value)]


def _defaultdict(value: Any) -> list[Any]:
    factory = value.default_factory
    name = None if factory is None else getattr(factory, "__name__", "")
    if name is not None and _FACTORIES.get(name) is not factory:
        allowed = ", ".join(_FACTORIES)
        raise Refusal("its default_factory cannot be stored", f"use one of {allowed}, or store dict(value)")
    return [name, _pairs(value)]


def _zone_offset(value: timezone) -> list[Any]:
    offset, *name = value.__getinitargs__()  # type: ignore[attr-defined]
    return [offset.days, offset.seconds, offset.microseconds, *(name or [None])]


def exact(made: Any, payload: Any) -> Any:
    if len(made) != len(payload):
        raise ValueError("two items became equal")
    return made


def whole(value: object, cls: type) -> Any:
    if type(value) is not cls:
        raise TypeError(f"expected {cls.__name__}")
    return value


KINDS = {
    INT: _Kind(
        "int",
        lambda v: v.to_bytes(v.bit_length() // 8 + 1, "big", signed=True),
        lambda p: int.from_bytes(whole(p, bytes), "big", signed=True),
    ),
    BYTEARRAY: _Kind("bytearray", bytes, lambda p: bytearray(whole(p, bytes))),
    TUPLE: _Kind("tuple", list, tuple),
    SET: _Kind("set", list, lambda p: exact(set(p), p)),
    FROZENSET: _Kind("frozenset", list, lambda p: exact(frozenset(p), p)),
    DICT: _Kind("dict", _pairs, lambda p: exact(dict(p), p)),
    38: _Kind(
        "datetime",
        lambda v: [v.year, v.month, v.day, *_clock(v)],
        lambda p: datetime(*p[:7]).replace(fold=p[7], tzinfo=p[8]),
        9,
    ),
    39: _Kind("date", lambda v: [v.year, v.month, v.day], lambda p: date(*p), 3),
    40: _Kind(
        "time",
        _clock,
        lambda p: time(*p[:4]).replace(fold=p[4], tzinfo=p[5]),
        6,
    ),
    41: _Kind("timedelta", lambda v: [v.days, v.seconds, v.microseconds], lambda p: timedelta(*p), 3),
    42: _Kind("timezone", _zone_offset, lambda p: timezone(timedelta(*p[:3]), *p[3:][: p[3] is not None]), 4),
    43: _Kind("zoneinfo", _zone_key, _zone_by_key),
    44: _Kind(
        "uuid",
        lambda v: [v.bytes, v.is_safe.value],
        lambda p: uuid.UUID(bytes=whole(p[0], bytes), is_safe=uuid.SafeUUID(p[1])),
        2,
    ),
    45: _Kind("decimal", lambda v: str(v).replace("e", "E"), lambda p: Decimal(whole(p, str))),
    46: _Kind("complex", lambda v: [v.real, v.imag], lambda p: complex(*p), 2),
    47: _Kind("fraction", lambda v: [v.numerator, v.denominator], lambda p: Fraction(*p), 2),
    48: _Kind("path", _path, lambda p: _PATHS[p[0]](whole(p[1], str)), 2),
    DEQUE: _Kind("deque", lambda v: [v.maxlen, list(v)], lambda p: exact(deque(p[1], p[0]), p[1]), 2),
    ORDEREDDICT: _Kind("ordereddict", _pairs, lambda p: exact(OrderedDict(p), p)),
    DEFAULTDICT: _Kind(
        "defaultdict",
        _defaultdict,
        lambda p: exact(defaultdict(None if p[0] is None else _FACTORIES[p[0]], p[1]), p[1]),
        2,
    ),
    COUNTER: _Kind("counter", _pairs, lambda p: exact(Counter(dict(p)), p)),
    DOCUMENT: _Kind("document", list, lambda p: Opaque("", whole(p[0], str), "document", whole(p[1], bytes)), 2),
}
BARE = frozenset({INT, BYTEARRAY, 43, 45})
CODES: dict[type, int] = {
    int: INT, bytearray: BYTEARRAY, tuple: TUPLE, set: SET, frozenset: FROZENSET, dict: DICT,
    datetime: 38, date: 39, time: 40, timedelta: 41, timezone: 42, ZoneInfo: 43, uuid.UUID: 44,
    Decimal: 45, complex: 46, Fraction: 47,
    deque: DEQUE, OrderedDict: ORDEREDDICT, defaultdict: DEFAULTDICT, Counter: COUNTER,
    **dict.fromkeys(_PATHS.values(), 48),
}  # fmt: skip
CLASS_KINDS = {ENUM: "enum", FLAG: "flag", DATACLASS: "dataclass", NAMEDTUPLE: "namedtuple", MODEL: "model"}
KIND_NAMES = {code: kind.name for code, kind in KINDS.items()} | CLASS_KINDS
KIND_CODES = {name: code for code, name in KIND_NAMES.items()}

"""Inert views: stored bytes as plain containers and named records, without importing or running anything.

Decodes what LangGraph's `JsonPlusSerializer` writes (`null`, `bytes`, `bytearray`, `json`, `msgpack`) and
the built-in serializer's own tag. Instances of classes become `InertObject` (module, name, fields) and chat
messages `InertMessage`. Nothing here fails on damage: what cannot be decoded is shown as such. Escaping text
for a terminal is the command line's job, finding a value by its path that of the tree.
"""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgpack

from ckpt.values.kinds import DOCUMENT, KIND_NAMES, MAX_DEPTH, SCALARS, TAG, whole

UNDECODABLE = "undecodable"
"""Name of the `InertObject` that stands for bytes that cannot be decoded; its fields are their number."""

_MESSAGES = "langchain_core.messages"
_MESSAGE_TYPES = frozenset({"human", "ai", "system", "developer", "tool", "function", "chat", "remove"}) | {
    f"{each}MessageChunk" for each in ("Human", "AI", "System", "Tool", "Function", "Chat")
}
_JSON_DEPTH_MAX = 200
INT_BITS_MAX = 14_000
"""Python refuses to write integers of more bits than about this in decimal."""
_SAME_HASH_MAX = 100
"""Keys of one hash that a dict may have: each is compared with all of them, and whoever writes chooses the hashes."""
_MAP = "map"
"""Name of the `InertObject` for a map that no dict can hold; its fields are the entries."""
_DELTA_SNAPSHOT = ("langgraph.checkpoint.serde.types", "_DeltaSnapshot")


@dataclass(frozen=True)
class InertObject:
    """An instance of a class that was not imported.

    `fields` is a dict of attributes, or the one value that describes the instance (a `UUID`: its text; an
    enum member: its name). An empty `module` marks bytes not looked into: `name` is then the type tag,
    `ext N` or `undecodable`, and `fields` their number, or the bytes themselves.
    """

    module: str
    name: str
    fields: object


@dataclass(frozen=True)
class InertMessage:
    """A chat message, recognised by its class or its shape.

    `fields` holds everything that was stored, in its order, the other attributes included. `origin` is the
    message's class as (module, name), or None for a message stored as a plain dict.
    """

    type: str
    id: str | None
    content: object
    tool_calls: list[Any]
    name: str | None
    fields: dict[Any, Any]
    origin: tuple[str, str] | None = field(default=None)


def inert(type_: str, data: bytes) -> object:
    """Return what the typed bytes hold as inert data. Never raises, whatever the bytes are."""
    try:
        return _shown(type_, data, _Decoder(None))
    except UnicodeDecodeError:
        return _shown(type_, data, _Decoder("surrogatepass"))


def _shown(type_: str, data: bytes, decoder: _Decoder) -> object:
    """Return what the bytes hold; raise UnicodeDecodeError only where `decoder` does not take lone surrogates."""
    if type_ == "null":
        return None
    if type_ in ("bytes", "bytearray"):
        return bytes(data)
    if type_ not in ("json", "msgpack", TAG):
        return InertObject("", type_, len(data))
    try:
        return json.loads(data) if type_ == "json" else decoder.document(data)
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError, msgpack.UnpackException) as error:
        if isinstance(error, UnicodeDecodeError) and decoder.errors is None:
            raise
        return InertObject("", UNDECODABLE, len(data))


class _Decoder:
    __slots__ = ("depth", "errors")

    def __init__(self, errors: str | None) -> None:
        self.errors, self.depth = errors, 0

    def document(self, raw: bytes) -> object:
        # An Unpacker, unlike unpackb, keeps its 40 kB of state off the C stack.
        unpacker = msgpack.Unpacker(
            None,
            read_size=len(raw),
            max_buffer_size=len(raw),
            raw=False,
            strict_map_key=False,
            unicode_errors=self.errors,
            ext_hook=self._extension,
            object_pairs_hook=_mapping,
        )
        unpacker.feed(raw)
        value: object = unpacker.unpack()
        if unpacker.tell() != len(raw):
            raise ValueError("bytes follow the end of the value")
        return value

    def _extension(self, code: int, raw: bytes) -> object:
        shape = self._foreign if code == DOCUMENT else _SHAPES.get(code)
        if shape is None:
            return InertObject("", f"ext {code}", raw)
        if self.depth >= MAX_DEPTH:
            return InertObject("", UNDECODABLE, len(raw))
        self.depth += 1
        payload = self.document(raw)
        self.depth -= 1
        try:
            return shape(payload)
        except UnicodeDecodeError:
            raise
        except (TypeError, ValueError, LookupError, AttributeError, OverflowError):
            return InertObject("", KIND_NAMES.get(code, f"ext {code}"), payload)

    def _foreign(self, payload: Any) -> object:
        """Return what another serializer wrote."""
        # Read as a part of the whole: apart, one with a lone surrogate would read those inside it twice, each of which
        # would do the same, and nothing but the stack would bound their depth.
        tag, raw = payload
        depth = self.depth
        self.depth += 1
        found = _shown(whole(tag, str), whole(raw, bytes), self)
        self.depth = depth
        return found


def _mapping(pairs: Iterable[Any]) -> object:
    pairs = list(pairs)
    try:
        made = _dict(pairs)
    except TypeError:
        try:
            made = _dict([(_hashable(key), value) for key, value in pairs])
        except TypeError:
            made = {}
    if len(made) != len(pairs):
        return InertObject("", _MAP, [list(pair) for pair in pairs])
    return _message(made, None) or made


def _dict(pairs: list[Any]) -> dict[Any, Any]:
    """Return the pairs as a dict, an empty one if too many keys have one hash. Raise TypeError for unhashable keys."""
    if len(pairs) > _SAME_HASH_MAX and max(Counter(hash(key) for key, _ in pairs).values()) > _SAME_HASH_MAX:
        return {}
    return dict(pairs)


def _hashable(key: object) -> object:
    """Return what stands for a key in a dict, or raise TypeError.

    No key that a program had holds a dict with such keys. In a nest of them each would be gone through again by all
    that are around it.
    """
    if isinstance(key, list | tuple):
        return tuple(_hashable(each) for each in key)
    if isinstance(key, dict):
        if not SCALARS.issuperset(map(type, key)):
            raise TypeError("a key holds a dict that has other keys than scalars")
        return tuple((name, _hashable(each)) for name, each in key.items())
    if isinstance(key, InertMessage):
        return _hashable(key.fields)
    if not isinstance(key, InertObject):
        return key
    if (key.module, key.name) == ("", _MAP):
        raise TypeError("a key holds a map that no dict can hold")
    return InertObject(key.module, key.name, _hashable(key.fields))


def _message(fields: dict[Any, Any], origin: tuple[str, str] | None) -> InertMessage | None:
    kind = fields.get("type")
    if "content" not in fields or type(kind) is not str or (origin is None and kind not in _MESSAGE_TYPES):
        return None
    calls = fields.get("tool_calls")
    id_, name = (each if type(each) is str else None for each in (fields.get("id"), fields.get("name")))
    return InertMessage(kind, id_, fields["content"], calls if type(calls) is list else [], name, fields, origin)


def _object(module: str, name: str, fields: object, *_: object) -> object:
    if type(module) is not str or type(name) is not str:
        raise TypeError("a class is named by text")
    if isinstance(fields, InertMessage) and fields.origin is None:
        fields = fields.fields  # recognised by shape a moment ago; the class knows better
    if isinstance(fields, dict) and (module == _MESSAGES or module.startswith(_MESSAGES + ".")):
        return _message(fields, (module, name)) or InertObject(module, name, fields)
    if (module, name) == ("langgraph.types", "Send") and type(fields) is list:
        fields = dict(zip(("node", "arg", "timeout"), fields, strict=False))
    return InertObject(module, name, fields)


def _model(module: str, name: str, fields: Any, *state: Any) -> object:
    parts = [fields, *state[2:4]]
    merged = {
        key: value
        for part in parts
        if part is not None
        for key, value in (part.fields if isinstance(part, InertMessage) else part).items()
    }
    return _object(module, name, merged)


def _named(module: str, name: str) -> Callable[[Any], object]:
    return lambda payload: InertObject(module, name, payload)


def _clock(hour: int, minute: int, second: int, microsecond: int, fold: int, zone: Any) -> str:
    text = f"{hour:02}:{minute:02}:{second:02}" + (f".{microsecond:06}" if microsecond else "")
    if isinstance(zone, InertObject) and zone.name == "timezone" and type(zone.fields) is list:
        days, seconds, fraction, name = zone.fields
        offset = whole(days, int) * 86_400 + whole(seconds, int)
        hours, rest = divmod(abs(offset), 3600)
        text += f"{'-' if offset < 0 else '+'}{hours:02}:{rest // 60:02}"
        text += f":{rest % 60:02}.{whole(fraction, int):06}" if rest % 60 or fraction else ""
        text += f"[{whole(name, str)}]" if name is not None else ""
    elif zone is not None:
        text += f"[{whole(zone.fields, str)}]"
    return text + (" (fold)" if fold else "")


def _date(year: int, month: int, day: int) -> str:
    return f"{year:04}-{month:02}-{day:02}"


def _uuid(payload: Any) -> InertObject:
    text = payload[0].hex()
    return InertObject("uuid", "UUID", "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])))


def _defaultdict(payload: Any) -> InertObject:
    factory, pairs = payload
    return InertObject("collections", "defaultdict", {"default_factory": factory, "items": _mapping(pairs)})


def _spread(shape: Callable[..., object]) -> Callable[[Any], object]:
    return lambda payload: shape(*payload)


_OWN_SHAPES: dict[str, Callable[[Any], object]] = {
    "int": lambda payload: int.from_bytes(payload, "big", signed=True),
    "bytearray": _named("builtins", "bytearray"),
    "tuple": tuple,
    "set": _named("builtins", "set"),
    "frozenset": _named("builtins", "frozenset"),
    "dict": _mapping,
    "datetime": lambda p: InertObject("datetime", "datetime", f"{_date(*p[:3])}T{_clock(*p[3:])}"),
    "date": lambda p: InertObject("datetime", "date", _date(*p)),
    "time": lambda p: InertObject("datetime", "time", _clock(*p)),
    "timedelta": _named("datetime", "timedelta"),
    "timezone": _named("datetime", "timezone"),
    "zoneinfo": _named("zoneinfo", "ZoneInfo"),
    "uuid": _uuid,
    "decimal": _named("decimal", "Decimal"),
    "complex": _named("builtins", "complex"),
    "fraction": _named("fractions", "Fraction"),
    "path": lambda p: _object("pathlib", *p),
    "deque": lambda p: InertObject("collections", "deque", p[1] if p[0] is None else {"maxlen": p[0], "items": p[1]}),
    "ordereddict": lambda p: InertObject("collections", "OrderedDict", _mapping(p)),
    "defaultdict": _defaultdict,
    "counter": lambda p: InertObject("collections", "Counter", _mapping(p)),
    "enum": _spread(_object),
    "flag": _spread(_object),
    "dataclass": _spread(_object),
    "namedtuple": _spread(_object),
    "model": _spread(_model),
}
_SHAPES: dict[int, Callable[[Any], object]] = {
    # JsonPlusSerializer: 0-5 are [module, name, argument or arguments, …]
    **dict.fromkeys(range(6), _spread(_object)),
    6: lambda p: InertObject("numpy", "ndarray", dict(zip(("dtype", "shape", "order", "data"), p, strict=True))),
    7: lambda p: InertObject(*_DELTA_SNAPSHOT, {"value": p}),
    **{code: _OWN_SHAPES[name] for code, name in KIND_NAMES.items() if code != DOCUMENT},
}


@dataclass(frozen=True)
class _Text:
    text: str


def summary(value: object, width: int) -> str:
    """Render inert data on one line, like JSON, in at most `width` characters; `…` is what was cut."""
    text, todo = "", [value]
    while todo and len(text) <= width:
        each = todo.pop()
        if isinstance(each, _Text):
            text += each.text
        else:
            todo.extend(reversed(_parts(each, width)))
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…" * (width > 0)


def _parts(value: Any, width: int) -> list[object]:
    """Return the text of a scalar, or a container's texts and items, no more than can be shown."""
    if value is None or isinstance(value, bool):
        return [_Text({None: "null", True: "true", False: "false"}[value])]
    if isinstance(value, int):
        return [_Text(str(value) if value.bit_length() <= INT_BITS_MAX else hex(value))]
    if isinstance(value, float):
        return [_Text(json.dumps(value))]
    if isinstance(value, str):
        return [_Text(json.dumps(value[: width + 1], ensure_ascii=False))]
    if isinstance(value, bytes):
        return [_Text(f"<{len(value)} bytes>")]
    if isinstance(value, list | tuple):
        items: list[object] = [_Text("[")]
        for each in islice(value, width + 1):
            items += [each, _Text(", ")]
        return [*(items[:-1] if value else items), _Text("]")]
    if isinstance(value, dict):
        entries: list[object] = [_Text("{")]
        for key, each in islice(value.items(), width + 1):
            entries += [key, _Text(": "), each, _Text(", ")]
        return [*(entries[:-1] if value else entries), _Text("}")]
    if isinstance(value, InertMessage):
        calls = len(value.tool_calls)
        more = f" +{calls} tool call{'s' * (calls > 1)}" if calls else ""
        return [_Text(f"{value.type} "), value.content, _Text(more)]
    if isinstance(value, InertObject):
        if not value.module and isinstance(value.fields, int):
            return [_Text(f"<{value.name}, {value.fields} bytes>")]
        opened = _Text(f"{value.name}(")
        if isinstance(value.fields, dict) and all(isinstance(key, str) for key in value.fields):
            named: list[object] = [opened]
            for key, each in islice(value.fields.items(), width + 1):
                named += [_Text(f"{key[: width + 1]}="), each, _Text(", ")]
            return [*(named[:-1] if value.fields else named), _Text(")")]
        return [opened, value.fields, _Text(")")]
    return [_Text(str(value))]  # msgpack.Timestamp, the one foreign type that the decoder makes


def to_json(value: object, *, _depth: int = 0) -> object:
    """Return inert data as what JSON can hold, losing nothing but the difference of list and tuple.

    bytes become {"$bytes": base64}, instances {"$type": "module.Name", "fields": …}, NaN and the infinities
    {"$float": "nan"}, dicts with a key that is not text or starts with `$` {"$map": [[key, value], …]}, text
    that is not valid Unicode {"text": approximation, "text_b64": base64}, integers of thousands of digits
    {"$int": hex}, and what is nested more than 200 levels deep {"$deep": summary}.
    """
    if _depth > _JSON_DEPTH_MAX:
        return {"$deep": summary(value, 200)}
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= INT_BITS_MAX else {"$int": hex(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, str):
        return value if _is_unicode(value) else _broken_text(value)
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, list | tuple):
        return [to_json(each, _depth=_depth + 1) for each in value]
    if isinstance(value, InertMessage):
        if value.origin is None:
            return to_json(value.fields, _depth=_depth)
        value = InertObject(*value.origin, value.fields)
    if isinstance(value, InertObject):
        name = f"{value.module}.{value.name}" if value.module else value.name
        return {"$type": to_json(name), "fields": to_json(value.fields, _depth=_depth + 1)}
    if not isinstance(value, dict):
        return {"$type": f"{type(value).__module__}.{type(value).__name__}", "fields": str(value)}
    if all(isinstance(key, str) and not key.startswith("$") and _is_unicode(key) for key in value):
        return {key: to_json(each, _depth=_depth + 1) for key, each in value.items()}
    entries = value.items()
    return {"$map": [[to_json(key, _depth=_depth + 1), to_json(each, _depth=_depth + 1)] for key, each in entries]}


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _broken_text(text: str) -> dict[str, str]:
    shown = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return {"text": shown, "text_b64": base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()}

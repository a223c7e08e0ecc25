"""`--set PATH=JSON`: new values for the channels that the paths touch.

A channel is one msgpack document. It is taken apart only along the path, and every other part goes back as it
came: instances of classes survive, as documents of the type they had, although no class is imported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgpack

from ckpt.cli.paths import Path, format_path, parse_path
from ckpt.errors import InvalidInputError, PathNotFoundError
from ckpt.history.readings import quote
from ckpt.repository.plain import is_plain
from ckpt.values.cut import MSGPACK_TYPES
from ckpt.values.kinds import DATACLASS, LANGGRAPH, MODEL, NAMEDTUPLE, TAG, TUPLE, Opaque
from ckpt.values.serializer import Serializer

_REPLACEABLE: Final = frozenset({*MSGPACK_TYPES, "null", "bytes", "bytearray", "json"})
_FIELDS: Final = frozenset({*range(6), DATACLASS, NAMEDTUPLE, MODEL})
"""Extensions whose payload is [module, name, fields, …]."""


def assigned(types: Mapping[str, str], load: Callable[[str], bytes], assignments: Iterable[str]) -> dict[str, object]:
    """Return the channels that change, given the type of each and what loads one, for `Repository.fork`.

    The assignments are applied in order. A new key may be added at the top and in mappings; an index and a
    field must exist. Raise InvalidInputError for what is not PATH=JSON, PathNotFoundError for a path that
    leads nowhere.
    """
    usual = LANGGRAPH if types and TAG not in types.values() else TAG
    changed: dict[str, tuple[str, Any]] = {}
    for assignment in assignments:
        path, value = _read(assignment)
        key = str(path[0])
        type_ = changed[key][0] if key in changed else types.get(key, usual)
        if type_ not in _REPLACEABLE:
            raise InvalidInputError(
                f"cannot set {format_path(path)}: it is stored as {quote(type_)}, which is not understood",
                hints=["set it in a program, with the serializer that wrote it"],
            )
        if len(path) == 1:
            kept = type_ if type_ in MSGPACK_TYPES else LANGGRAPH
            changed[key] = kept, _leaf(value, path, kept)
            continue
        if key not in changed and key not in types:
            raise _nothing(path[:1])
        if type_ not in MSGPACK_TYPES:
            raise _no_parts(path[:1], f"of type {type_}")
        whole = changed[key][1] if key in changed else _unpack(load(key))
        changed[key] = type_, _replace(whole, path, 1, _leaf(value, path, type_))
    return {
        key: value if is_plain(value) else Opaque("", type_, "document", _pack(value))
        for key, (type_, value) in changed.items()
    }


def _read(assignment: str) -> tuple[Path, Any]:
    # The path may hold "=" in a quoted key, so the first cut whose right side is JSON counts.
    cut = assignment.find("=")
    while cut > 0:
        try:
            return parse_path(assignment[:cut]), json.loads(assignment[cut + 1 :])
        except (ValueError, InvalidInputError):
            cut = assignment.find("=", cut + 1)
    raise InvalidInputError(
        f"--set {quote(assignment)} is not PATH=JSON",
        hints=["a text is JSON with its quotes: --set ticket.status='\"open\"'"],
    )


def _leaf(value: object, path: Path, type_: str) -> Any:
    """Return a value as it is read again from a document of this type, or raise InvalidInputError."""
    try:
        _, raw = Serializer().dumps_typed(value, path=format_path(path))
        found = _unpack(raw)
        _pack(value)  # what msgpack has no form for would become an extension that others cannot read
        if type_ != TAG:
            msgpack.packb([value, *path[1:]])  # only our own serializer reads halves of surrogate pairs
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"cannot set {format_path(path)}: it holds half of a surrogate pair, which a framework cannot read",
            hints=["write the character itself, or both halves: \\ud83d\\ude00"],
        ) from error
    except (OverflowError, ValueError) as error:
        raise InvalidInputError(
            f"cannot set {format_path(path)}: {error}", hints=["integers have 64 bits at most"]
        ) from error
    return found


def _replace(container: Any, path: Path, depth: int, value: Any) -> Any:
    if isinstance(container, msgpack.ExtType):
        return _inside(container, path, depth, value)
    part, last = path[depth], depth == len(path) - 1
    if type(container) is dict:
        key = part if part in container or str(part) not in container else str(part)
        if not last and key not in container:
            raise _nothing(path[: depth + 1])
        return {**container, key: value if last else _replace(container[key], path, depth + 1, value)}
    if type(container) is list and isinstance(part, int):
        if not -len(container) <= part < len(container):
            raise _nothing(path[: depth + 1])
        items = list(container)
        items[part] = value if last else _replace(items[part], path, depth + 1, value)
        return items
    raise _no_parts(path[:depth], f"of type {type(container).__name__}")


def _inside(found: msgpack.ExtType, path: Path, depth: int, value: Any) -> msgpack.ExtType:
    """Replace a part of a tuple, or a field that an instance has."""
    payload = _unpack(found.data)
    if found.code == TUPLE:
        return msgpack.ExtType(found.code, _pack(_replace(payload, path, depth, value)))
    if found.code in _FIELDS and type(payload) is list and len(payload) > 2 and type(payload[2]) is dict:
        if path[depth] not in payload[2]:  # a new field would be one that its class does not know
            raise _nothing(path[: depth + 1])
        payload[2] = _replace(payload[2], path, depth, value)
        return msgpack.ExtType(found.code, _pack(payload))
    raise _no_parts(path[:depth], "an instance of a class")


def _nothing(path: Path) -> PathNotFoundError:
    return PathNotFoundError(
        f"the state holds nothing at {format_path(path)}", hints=["ckpt show REV PATH shows what is there"]
    )


def _no_parts(path: Path, what: str) -> InvalidInputError:
    return InvalidInputError(
        f"cannot set a part of {format_path(path)}: it is {what}",
        hints=["only parts of mappings, lists and records can be set; set the whole value instead"],
    )


def _unpack(raw: bytes) -> Any:
    try:
        return msgpack.unpackb(raw, strict_map_key=False, unicode_errors="surrogatepass")
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise InvalidInputError(
            f"cannot take the value apart: {error}", hints=["set the whole value instead"]
        ) from error


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return packed

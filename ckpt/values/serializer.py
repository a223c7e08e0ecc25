"""The built-in serializer: Python values to typed bytes and back, equal in value and in type at every depth.

The bytes are one msgpack document. None, bool, int (64 bits), float, str, bytes, list and dict are msgpack's
own types; text is UTF-8, with lone surrogates written as three bytes each. All else is an extension whose
payload is itself one msgpack document, so that a reader can cut into it:

    code  kind         payload
     32   int          bin: two's complement, big-endian, as short as it goes (beyond 64 bits only)
     33   bytearray    bin
     34   tuple        [item, …]
     35   set          [item, …], ordered by the items' own bytes
     36   frozenset    as set
     37   dict         [[key, value], …]: a dict with a key other than None, bool, int, float, str, bytes
     38   datetime     [year, month, day, hour, minute, second, microsecond, fold, nil | timezone | zoneinfo]
     39   date         [year, month, day]
     40   time         [hour, minute, second, microsecond, fold, nil | timezone | zoneinfo]
     41   timedelta    [days, seconds, microseconds]
     42   timezone     [days, seconds, microseconds, nil | name]
     43   zoneinfo     str: the key
     44   uuid         [bin of 16 bytes, nil | 0 | -1 (is_safe)]
     45   decimal      str
     46   complex      [real, imaginary]
     47   fraction     [numerator, denominator]
     48   path         [class in pathlib, str]
     49   deque        [nil | maxlen, [item, …]]
     50   ordereddict  [[key, value], …]
     51   defaultdict  [nil | name of a builtin class, [[key, value], …]]
     52   counter      [[key, count], …]
     53   enum         [module, qualified name, member]
     54   flag         [module, qualified name, value]
     55   dataclass    [module, qualified name, {field: value}, [field without value, …]]
     56   namedtuple   [module, qualified name, {field: value}]
     57   model        as dataclass, then [field set by hand, …], nil | {extra}, nil | {private} (pydantic)
     58   document     [type tag, bin]: bytes that another serializer wrote

Codes up to 63 are reserved; msgpack's own timestamp (-1) stands for `msgpack.Timestamp`. Arrays, maps and
extensions nest `MAX_DEPTH` deep at most. Reviving never imports a module and runs no constructor, validator
or hook of a stored class. How bytes become pieces, and how values are shown, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import msgpack

from ckpt.errors import DamagedObjectError, UnstorableValueError
from ckpt.values.classes import Layout, find, layout_of, make, take
from ckpt.values.kinds import (
    BARE,
    CLASS_KINDS,
    CODES,
    COUNTER,
    DATACLASS,
    DEFAULTDICT,
    DEQUE,
    DICT,
    DOCUMENT,
    FROZENSET,
    INTERCEPTED,
    KIND_CODES,
    KIND_NAMES,
    KINDS,
    MAX_DEPTH,
    MODEL,
    NAMEDTUPLE,
    NATIVE,
    ORDEREDDICT,
    PLAIN_DATA,
    SCALARS,
    SET,
    TAG,
    TUPLE,
    Opaque,
    Refusal,
)


class Serializer:
    """Turns values into typed bytes and back. Holds no state that changes; threads may share one.

    `types` are classes to revive although their module and qualified name do not lead to them.
    """

    def __init__(self, types: Iterable[type] = ()) -> None:
        self._types = {(each.__module__, each.__qualname__): each for each in types}

    def dumps_typed(self, value: object, *, path: str = "") -> tuple[str, bytes]:
        """Return `(tag, bytes)`; equal values give equal bytes in every process.

        Raises `UnstorableValueError` for what would not come back equal in value and type, naming where it
        stands; `path` is that of the value itself.
        """
        if type(value) is Opaque and value.kind == "document":
            return value.name, value.raw
        try:
            if _is_flat(value):
                return TAG, msgpack.packb(value)
        except (UnicodeEncodeError, OverflowError):
            pass  # what the packer refuses takes the long way
        try:
            try:
                return TAG, _Writer(self._types, None).pack(value, 0)
            except UnicodeEncodeError:  # lone surrogates; the handler for them costs all other text a copy
                return TAG, _Writer(self._types, "surrogatepass").pack(value, 0)
        except (Refusal, ValueError, OverflowError, RecursionError) as error:
            raise _explain(_Writer(self._types, None), value, error, path) from error

    def loads_typed(self, data: tuple[str, bytes]) -> object:
        """Return the value; what cannot be revived comes as `Opaque`, at any depth.

        Raises `DamagedObjectError` if the bytes are not such a document.
        """
        tag, raw = data
        if tag != TAG:
            return Opaque("", tag, "document", bytes(raw))
        try:
            try:
                return _Reader(self._types, None).document(raw)
            except UnicodeDecodeError:
                return _Reader(self._types, "surrogatepass").document(raw)
        except DamagedObjectError:
            raise
        except Exception as error:  # damage may surface as anything, even from the hash of a revived key
            reason = str(error) or type(error).__name__
            raise DamagedObjectError(f"a stored value cannot be read: {reason}") from error


_TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep", "flatten it"


class _Writer:
    __slots__ = ("depths", "errors", "layouts", "types")

    def __init__(self, types: Mapping[tuple[str, str], type], errors: str | None) -> None:
        self.types, self.errors = types, errors
        self.depths: dict[int, int] = {}
        self.layouts: dict[type, Layout] = {}

    def pack(self, value: object, depth: int) -> bytes:
        if type(value) in NATIVE:
            if type(value) not in SCALARS and self._survey(value, depth):
                value = self._rebuild(value, depth)
        else:
            value = self._extension(value, depth)
        size = 256 if depth else 1 << 16
        packer = msgpack.Packer(default=self._default, strict_types=True, unicode_errors=self.errors, buf_size=size)
        return bytes(packer.pack(value))

    def _survey(self, value: object, depth: int) -> bool:
        """Bound the depth level by level, note where other types stand, and say if the packer needs help."""
        help_needed = False
        level = [value]
        while level:
            types = set(map(type, level))
            if not types <= NATIVE:
                help_needed = help_needed or not types.isdisjoint(INTERCEPTED)
                for each in level:
                    if type(each) not in NATIVE:
                        self.depths[id(each)] = max(depth, self.depths.get(id(each), 0))
            lists = [each for each in level if type(each) is list] if list in types else []
            dicts = [each for each in level if type(each) is dict] if dict in types else []
            if (lists or dicts) and depth >= MAX_DEPTH:
                raise Refusal(*_TOO_DEEP)
            level = [*chain.from_iterable(lists), *chain.from_iterable(map(dict.values, dicts))]
            help_needed = help_needed or not SCALARS.issuperset(map(type, chain.from_iterable(dicts)))
            if len(level) > 10_000:  # the same object many times over must not multiply from level to level
                level = list({id(each): each for each in level}.values())
            depth += 1
        return help_needed

    def _rebuild(self, value: object, depth: int) -> object:
        if type(value) is list:
            return [self._rebuild(each, depth + 1) for each in value]
        if type(value) is dict and SCALARS.issuperset(map(type, value)):
            return {key: self._rebuild(each, depth + 1) for key, each in value.items()}
        return value if type(value) in SCALARS else self._extension(value, depth)

    def _default(self, value: object) -> object:
        return self._extension(value, self.depths.get(id(value), 0))

    def _extension(self, value: object, depth: int) -> object:
        if type(value) is msgpack.Timestamp:
            return value  # the packer's own
        code, payload = self.expand(value)
        if isinstance(value, Opaque) and value.kind != "document":
            return msgpack.ExtType(code, payload)
        if code in (SET, FROZENSET):
            if depth >= MAX_DEPTH:
                raise Refusal(*_TOO_DEEP)
            items = sorted(self.pack(each, depth + 1) for each in payload)
            return msgpack.ExtType(code, msgpack.Packer().pack_array_header(len(items)) + b"".join(items))
        return msgpack.ExtType(code, self.pack(payload, depth))

    def expand(self, value: Any) -> tuple[int, Any]:
        """Return the extension's code and its payload one level deep."""
        cls = type(value)
        if cls is Opaque:
            code = KIND_CODES.get(value.kind, -1)
            if value.kind.startswith("ext:") and value.kind[4:].isdecimal():
                code = int(value.kind[4:])
            if not 0 <= code <= 127 or type(value.raw) is not bytes:
                raise Refusal("it is an Opaque that no serializer made", "store only what was loaded")
            return code, [value.name, value.raw] if value.kind == "document" else value.raw
        if cls in CODES:
            code = CODES[cls]
            return code, KINDS[code].take(value)
        layout = self.layouts.get(cls)
        if layout is None:
            layout = self.layouts[cls] = self._layout(cls)
        return layout.code, [cls.__module__, cls.__qualname__, *take(value, layout)]

    def _layout(self, cls: type) -> Layout:
        layout = layout_of(cls)
        name = f"{cls.__module__}.{cls.__qualname__}"
        if layout is None:
            raise Refusal(f"a value of type {name} cannot be stored", PLAIN_DATA)
        if find(self.types, cls.__module__, cls.__qualname__) is not cls:
            hint = f"define it at the top of a module, or use Serializer(types=[{cls.__name__}])"
            raise Refusal(f"the class {name} cannot be found again under this name", hint)
        return layout


def _is_flat(value: object) -> bool:
    """Whether a value is a dict of plain names and scalars but for what is empty, as metadata mostly is."""
    if type(value) is not dict or not SCALARS.issuperset(map(type, value)):
        return False
    others = [each for each in value.values() if type(each) not in SCALARS]
    return all(type(each) in NATIVE and not each for each in others)


class _Reader:
    __slots__ = ("depth", "errors", "layouts", "types")

    def __init__(self, types: Mapping[tuple[str, str], type], errors: str | None) -> None:
        self.types, self.errors, self.depth = types, errors, 0
        self.layouts: dict[tuple[str, str], tuple[type, Layout | None]] = {}

    def document(self, raw: bytes) -> object:
        # unpackb keeps 40 kB on the C stack, which a nest of extensions would exhaust; an Unpacker does not.
        unpacker = msgpack.Unpacker(
            None, read_size=len(raw), max_buffer_size=len(raw), raw=False, strict_map_key=False,
            unicode_errors=self.errors, ext_hook=self._extension,
        )  # fmt: skip
        unpacker.feed(raw)
        value: object = unpacker.unpack()
        if unpacker.tell() != len(raw):
            raise DamagedObjectError("a stored value cannot be read: bytes follow its end")
        return value

    def _extension(self, code: int, raw: bytes) -> object:
        if code < 0 or self.depth >= MAX_DEPTH:
            raise DamagedObjectError(f"a stored value cannot be read: extension {code} at depth {self.depth}")
        kind = KINDS.get(code)
        if kind is None and code not in CLASS_KINDS:
            return Opaque("", "", f"ext:{code}", raw)
        self.depth += 1
        payload: Any = self.document(raw)
        self.depth -= 1
        try:
            if code not in BARE and type(payload) is not list:
                raise TypeError("expected an array")
            if kind and kind.width not in (None, len(payload)):
                raise ValueError("expected another length")
            return kind.make(payload) if kind else make(self._class, code, payload)
        except (RecursionError, MemoryError):
            raise
        except Exception:  # foreign classes hash and compare the items, and may raise anything
            module = name = ""
            if code in CLASS_KINDS and type(payload) is list and [str, str] == [*map(type, payload[:2])]:
                module, name = payload[:2]
            # Of the kind `document`, raw would be taken for what the document holds.
            return Opaque(module, name, f"ext:{code}" if code == DOCUMENT else KIND_NAMES[code], raw)

    def _class(self, module: str, name: str) -> tuple[Any, Layout | None]:
        known = self.layouts.get((module, name))
        if known is None:
            cls = find(self.types, module, name)
            if cls is None:
                raise LookupError(name)
            known = self.layouts[module, name] = cls, layout_of(cls)
        return known


def _children(writer: _Writer, path: str, value: Any) -> Iterator[tuple[str, object]]:
    cls = type(value)
    if cls in SCALARS or cls is msgpack.Timestamp:
        return
    code, payload = (TUPLE, value) if cls is list else writer.expand(value)
    if cls is Opaque:
        return  # its payload is bytes, whatever its kind
    fields: list[Any] = []
    if code in (TUPLE, SET, FROZENSET, DEQUE):
        items = payload[1] if code == DEQUE else payload
        for index, each in enumerate(items):
            yield f"{path}[{'*' if code in (SET, FROZENSET) else index}]", each
    elif code in (DICT, ORDEREDDICT, DEFAULTDICT, COUNTER):
        fields = payload[1] if code == DEFAULTDICT else payload
    elif code in (DATACLASS, NAMEDTUPLE, MODEL):
        fields = [field for part in (payload[2], *payload[5:]) for field in (part or {}).items()]
    for key, each in fields:
        if type(key) is str and key.isidentifier():
            step = f"{path}.{key}" if path else key
        else:
            text = repr(key) if type(key) in SCALARS else f"<{type(key).__name__}>"
            text = f'"{key}"' if type(key) is str else text
            step = f"{path}[{text if len(text) <= 60 else text[:59] + '…'}]"
        yield from ((step, key), (step, each))


def _explain(writer: _Writer, root: object, error: Exception, start: str) -> UnstorableValueError:
    """Walk the value a second time to find out where it cannot be stored, and why."""
    refusal = error if isinstance(error, Refusal) else Refusal(str(error), PLAIN_DATA)
    too_deep = isinstance(error, (Refusal, RecursionError))
    open_paths: dict[int, str] = {}
    done: set[int] = set()
    deepest, depth = start, 0
    walks: list[tuple[int, Iterator[tuple[str, object]]]] = [(0, iter([(start, root)]))]
    while walks:
        owner, walk = walks[-1]
        path, value = next(walk, (None, None))
        if path is None:
            walks.pop()
            open_paths.pop(owner, None)
            done.add(owner)
            continue
        if id(value) in open_paths:
            reason = f"it contains itself (it is {open_paths[id(value)] or 'the value'} again)"
            refusal, deepest = Refusal(reason, "refer to it by a key or an id instead"), path
            break
        if too_deep and len(walks) > depth:
            deepest, depth = path, len(walks)
        try:
            children = list(_children(writer, path, value))
        except Refusal as found:
            refusal, deepest = found, path + found.suffix
            break
        if children and id(value) not in done and len(walks) <= MAX_DEPTH:
            open_paths[id(value)] = path
            walks.append((id(value), iter(children)))
    path = deepest.removeprefix(".")
    shown = path if len(path) <= 200 else f"{path[:120]} … {path[-60:]}"
    message = f"cannot store {shown or 'the value'}: {refusal.reason}; {refusal.hint}"
    return UnstorableValueError(message, path=path)

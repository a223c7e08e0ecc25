"""Instances of classes: their state as plain data and back, running none of their code, importing nothing."""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MemberDescriptorType, ModuleType
from typing import Any

from ckpt.values.kinds import DATACLASS, ENUM, FLAG, MODEL, NAMEDTUPLE, Refusal, exact, whole

_MODEL_STATE = ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")


@dataclass(frozen=True)
class Layout:
    """Where the instances of a class keep their state."""

    code: int
    names: tuple[str, ...] = ()
    slots: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _namespace(module: str) -> dict[str, Any]:
    found = sys.modules.get(module)
    # Past any __getattr__ or lazy loader, both of which import.
    return object.__getattribute__(found, "__dict__") if isinstance(found, ModuleType) else {}


def find(types: Mapping[tuple[str, str], type], module: object, name: object) -> type | None:
    if type(module) is not str or type(name) is not str:
        return None
    if (module, name) in types:
        return types[module, name]
    names: Mapping[str, Any] = _namespace(module)
    found = names.get(name)  # generic models stand under names with dots and brackets
    for part in () if found is not None else name.split("."):
        found = names.get(part)
        names = vars(found) if isinstance(found, type) else {}
    return found if isinstance(found, type) else None


def layout_of(cls: Any) -> Layout | None:
    """Return how to take instances of the class apart, or None if it is of no kind that can be stored."""
    if issubclass(cls, enum.Enum):
        return Layout(FLAG if issubclass(cls, enum.Flag) else ENUM)
    if issubclass(cls, tuple):
        names = getattr(cls, "_fields", None)
        named = type(names) is tuple and all(type(each) is str for each in names)
        return Layout(NAMEDTUPLE, names) if names is not None and named else None
    if _namespace("pydantic.main").get("BaseModel") in cls.__mro__:
        code, names = MODEL, tuple(getattr(cls, "__pydantic_fields__", None) or cls.model_fields)
    elif dataclasses.is_dataclass(cls):
        code, names = DATACLASS, tuple(each.name for each in dataclasses.fields(cls))
    else:
        return None
    try:
        object.__new__(cls)
    except TypeError:  # abstract, or with state in a built-in base class
        return None
    members = {name: each for base in reversed(cls.__mro__) for name, each in vars(base).items()}
    slots = {n: m for n, m in members.items() if type(m) is MemberDescriptorType and n not in _MODEL_STATE}
    return Layout(code, names, slots)


def _member(cls: Any, code: int, key: Any) -> object:
    if code == ENUM:
        return cls.__members__.get(whole(key, str))
    found = cls._value2member_map_.get(whole(key, int))
    if found is None and cls._missing_.__func__ is vars(enum.Flag)["_missing_"].__func__:
        found = enum.EnumType.__call__(cls, key)
    return found


def take(value: Any, layout: Layout) -> list[Any]:
    """Return the payload of an instance without its class."""
    code, names = layout.code, layout.names
    if code in (ENUM, FLAG):
        key = value._name_ if code == ENUM else value._value_
        found: Any = _member(type(value), code, key)
        # Flags of bits without a name are made anew for each call by some versions of Python.
        equal = code == FLAG and type(found) is type(value) and found._value_ == key
        if found is not value and not equal:
            raise Refusal("its class has no such member", "store a member that the class defines")
        return [key]
    try:
        state = dict(object.__getattribute__(value, "__dict__"))
    except AttributeError:
        state = {}
    if code == NAMEDTUPLE:
        state |= zip(names, tuple.__iter__(value), strict=True)
    for name, slot in layout.slots.items():
        try:
            state[name] = slot.__get__(value)
        except AttributeError:
            continue  # never assigned
    for name in state:
        if name not in names:
            raise Refusal("this attribute is not a field and would be lost", "make it a field", f".{name}")
    payload: list[Any] = [{name: state[name] for name in names if name in state}]
    if code != NAMEDTUPLE:
        payload.append([name for name in names if name not in state])
    if code == MODEL:
        fields_set, extra, private = (object.__getattribute__(value, name) for name in _MODEL_STATE)
        if not {type(extra), type(private)} <= {dict, type(None)}:
            raise Refusal("its extra or private attributes are no dict", "build it as pydantic does")
        private = private and {name: private[name] for name in sorted(private)}
        payload += [sorted(fields_set), extra, private]
    return payload


def make(find: Callable[[str, str], tuple[Any, Layout | None]], code: int, payload: list[Any]) -> object:
    """Build an instance without running any code of its class; raise whatever fits if that cannot be."""
    module, qualified_name, first, *rest = payload
    cls, layout = find(module, qualified_name)
    if layout is None or layout.code != code:
        raise LookupError(qualified_name)
    if code in (ENUM, FLAG):
        member = _member(cls, code, first)
        if rest or member is None:
            raise LookupError(first)
        return member
    fields = whole(first, dict)
    if code == NAMEDTUPLE:
        if rest or tuple(fields) != layout.names:
            raise LookupError(qualified_name)
        return tuple.__new__(cls, fields.values())
    unset, *state = rest
    if sorted([*fields, *unset]) != sorted(layout.names) or len(state) != (3 if code == MODEL else 0):
        raise LookupError(qualified_name)
    made = object.__new__(cls)
    for name, each in fields.items():
        if name in layout.slots:
            layout.slots[name].__set__(made, each)
        else:
            object.__getattribute__(made, "__dict__")[name] = each
    if code == MODEL:
        fields_set, extra, private = state
        if not {type(extra), type(private)} <= {dict, type(None)} or not {*map(type, fields_set)} <= {str}:
            raise TypeError(qualified_name)
        values = (exact(set(fields_set), fields_set), extra, private)
        slots = vars(_namespace("pydantic.main")["BaseModel"])  # RootModel hides some behind class attributes
        for name, each in zip(_MODEL_STATE, values, strict=True):
            slots[name].__set__(made, each)
    return made

"""Which items a search of a store keeps: LangGraph's filters on values, and its conditions on namespaces.

Answers are those of LangGraph's `InMemoryStore`, except that a value which cannot be compared does not match,
where that store raises TypeError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import ge, gt, le, lt
from typing import Any

from langgraph.store.base import MatchCondition

from ckpt.errors import InvalidInputError

_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {"$gt": gt, "$gte": ge, "$lt": lt, "$lte": le}
_OPERATORS = ("$eq", "$ne", *_ORDER)


def check_filter(wanted: Mapping[str, Any]) -> None:
    """Raise InvalidInputError for a filter with an operator that is not known, at any depth.

    The keys of the filter itself are those of values, and what an operator compares with is data.
    """
    for inner in wanted.values():
        _check(inner)


def _check(wanted: object) -> None:
    if isinstance(wanted, Mapping):
        if _has_operators(wanted):
            for name in wanted:
                if name not in _OPERATORS:
                    raise _unsupported(name)
        else:
            check_filter(wanted)
    elif isinstance(wanted, list | tuple):
        for inner in wanted:
            _check(inner)


def _has_operators(wanted: Mapping[Any, Any]) -> bool:
    return any(isinstance(name, str) and name.startswith("$") for name in wanted)


def _unsupported(name: object) -> InvalidInputError:
    return InvalidInputError(
        f"Unsupported operator: {name}",
        hints=[
            f"a filter knows {', '.join(_OPERATORS)}, and none beside a plain key",
            'where a nested key begins with $, compare the whole: {"at": {"$eq": {"$key": 1}}}',
        ],
    )


def matches_filter(value: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether every key of a filter matches the value under it, None where there is none."""
    return all(_matches(value.get(key), inner) for key, inner in wanted.items())


def _matches(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        if _has_operators(wanted):
            return all(_holds(value, name, operand) for name, operand in wanted.items())
        return isinstance(value, Mapping) and all(_matches(value.get(key), inner) for key, inner in wanted.items())
    if isinstance(wanted, list | tuple):
        return isinstance(value, list | tuple) and len(value) == len(wanted) and all(map(_matches, value, wanted))
    return bool(value == wanted)


def _holds(value: Any, name: str, operand: Any) -> bool:
    if name == "$eq":
        return bool(value == operand)
    if name == "$ne":
        return bool(value != operand)
    try:
        return _ORDER[name](float(value), float(operand))
    except (TypeError, ValueError, OverflowError):
        # Texts that are no numbers, such as dates, compare as texts.
        return isinstance(value, str) and isinstance(operand, str) and _ORDER[name](value, operand)


def matches_namespace(namespace: tuple[str, ...], conditions: Sequence[MatchCondition]) -> bool:
    """Return whether a namespace begins or ends as all conditions say; `*` stands for any label."""
    return all(_fits(namespace, condition) for condition in conditions)


def _fits(namespace: tuple[str, ...], condition: MatchCondition) -> bool:
    path = condition.path
    if condition.match_type not in ("prefix", "suffix"):
        raise InvalidInputError(f"Unsupported match type: {condition.match_type}", hints=["use prefix or suffix"])
    if len(namespace) < len(path):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(wanted in ("*", label) for wanted, label in zip(path, part, strict=True))


def common_prefix(conditions: Sequence[MatchCondition]) -> tuple[str, ...]:
    """Return labels with which every namespace that fits the conditions begins."""
    longest: tuple[str, ...] = ()
    for condition in conditions:
        if condition.match_type == "prefix":
            path = condition.path
            known = tuple(path[: path.index("*")] if "*" in path else path)
            longest = max(longest, known, key=len)
    return longest

"""`--set PATH=JSON`: new values for the keys that the paths touch. The state given is never changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ckpt.cli.paths import Path, format_path, parse_path
from ckpt.errors import InvalidInputError, PathNotFoundError
from ckpt.history.readings import quote


def assigned(state: Mapping[str, object], assignments: Iterable[str]) -> dict[str, object]:
    """Return the keys of `state` that change, with the assignments applied in order.

    A new key may be added at the top and in mappings; an index must exist. Raise InvalidInputError for what
    is not PATH=JSON, PathNotFoundError for a path that leads nowhere.
    """
    values: dict[str, object] = {}
    for assignment in assignments:
        path, value = _read(assignment)
        key = str(path[0])
        if len(path) == 1:
            values[key] = value
            continue
        if key not in values and key not in state:
            raise PathNotFoundError(f"the state has no key {format_path(path[:1])}")
        values[key] = _replace(values.get(key, state.get(key)), path, 1, value)
    return values


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


def _replace(container: Any, path: Path, depth: int, value: Any) -> Any:
    part, last = path[depth], depth == len(path) - 1
    if type(container) is dict:
        key = part if part in container or str(part) not in container else str(part)
        if not last and key not in container:
            raise PathNotFoundError(f"the state holds nothing at {format_path(path[: depth + 1])}")
        return {**container, key: value if last else _replace(container[key], path, depth + 1, value)}
    if type(container) in (list, tuple) and isinstance(part, int):
        if not -len(container) <= part < len(container):
            raise PathNotFoundError(f"the state holds nothing at {format_path(path[: depth + 1])}")
        items = list(container)
        items[part] = value if last else _replace(items[part], path, depth + 1, value)
        return type(container)(items)
    raise InvalidInputError(
        f"cannot set a part of {format_path(path[:depth])}: it is a {type(container).__name__}",
        hints=["only parts of mappings and lists can be set; set the whole value instead"],
    )

"""From a file to the table that holds the configuration; what stands in that table is not looked at here.

No error quotes a file: any line of it may hold a password.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from ckpt.errors import InvalidInputError

SECTIONS: Final = ("tool.ckpt", "ckpt", "checkpointer")
"""Where a configuration may stand inside a larger document."""

FORMATS: Final = (".toml", ".yaml", ".yml")
"""How the name of a configuration file ends."""

_MERGED_MAX: Final = 10_000
"""Keys that the tables of a YAML file may get by merging (`<<`): where each merges the last one twice, they double."""

_MERGE: Final = "tag:yaml.org,2002:merge"


def parsed(path: Path) -> Mapping[str, object]:
    """Return the document in a file whose name ends in `.toml`, `.yaml` or `.yml`, or raise InvalidInputError."""
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InvalidInputError(
            f"{path} is no configuration file by its name", hints=[f"one ends in {', '.join(FORMATS)}"]
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InvalidInputError(f"there is no configuration file {path}") from error
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidInputError(f"the configuration file {path} cannot be read: {reason}") from error
    document = _parse_toml(path, text) if suffix == ".toml" else _parse_yaml(path, text)
    if not isinstance(document, Mapping):
        raise InvalidInputError(f"{path} holds {kind_of(document)}, not a table of keys")
    return document


def _parse_toml(path: Path, text: str) -> object:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"{path} is not TOML: {error}") from error
    except ValueError:
        # All that Python itself refuses beside: more digits than it turns into a number.
        raise InvalidInputError(f"{path} is not a configuration: a number in it has too many digits") from None
    except RecursionError:
        raise InvalidInputError(f"{path} is not a configuration: its tables or lists are nested too deeply") from None


def _parse_yaml(path: Path, text: str) -> object:
    try:
        yaml = import_module("yaml")
    except ImportError as error:
        raise InvalidInputError(
            f"reading {path} needs PyYAML, which is not installed",
            hints=["pip install 'ckpt-store[yaml]', or write the configuration as TOML"],
        ) from error
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            twice = _said_twice(yaml, node)
            if twice is None and _merged_keys(yaml, node) <= _MERGED_MAX:
                return loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        place = _place(getattr(error, "problem_mark", None))
    else:
        if twice is not None:
            raise InvalidInputError(f"{path} has a key twice{_place(twice)}", hints=["keep one of them"])
        raise InvalidInputError(
            f"{path} merges a table into itself, or more than {_MERGED_MAX:,} keys into its tables",
            hints=["write the keys out in place of <<, or merge fewer tables"],
        )
    # Outside the handler, so that no cause is kept: the parser's own words quote the file, secrets included.
    raise InvalidInputError(
        f"{path} is not YAML{place}", hints=["put text that begins with a sign such as * ! & @ % into quotes"]
    )


def _place(mark: Any) -> str:
    return f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""


def _said_twice(yaml: Any, root: Any) -> Any:
    """Return where a table of a YAML document has a key again, of which the parser would take the last; else None.

    Looked for before anything is constructed, which writes merged tables (`<<`) into those that they are merged with.
    """
    for node in _nodes(yaml, root):
        names: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                name = (key.tag, key.value)
                if name in names:
                    return key.start_mark
                names.add(name)
    return None


def _merged_keys(yaml: Any, root: Any) -> int:
    """Return how many keys constructing a YAML document writes into its tables for those that they merge."""
    sizes: dict[int, int] = {}

    def size(table: Any) -> int:
        if id(table) not in sizes:
            sizes[id(table)] = _MERGED_MAX + 1  # until it is known: for a table that merges itself, by whatever way
            sizes[id(table)] = sum(key.tag != _MERGE for key, _ in table.value) + gained(table)
        return sizes[id(table)]

    def gained(table: Any) -> int:
        merged = [value for key, value in table.value if key.tag == _MERGE]
        merged += [each for value in merged if isinstance(value, yaml.SequenceNode) for each in value.value]
        return sum(size(each) for each in merged if isinstance(each, yaml.MappingNode))

    return sum(gained(node) for node in _nodes(yaml, root) if isinstance(node, yaml.MappingNode))


def _nodes(yaml: Any, root: Any) -> Iterator[Any]:
    """Yield each node of a YAML document once."""
    nodes, seen = [root], {id(root)}
    for node in nodes:
        yield node
        below: list[Any] = []
        if isinstance(node, yaml.MappingNode):
            below = [each for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            below = node.value
        for each in below:
            if id(each) not in seen:
                seen.add(id(each))
                nodes.append(each)


def sections(document: Mapping[str, object]) -> dict[str, object]:
    """Return what stands under each of `SECTIONS` that the document has, in their order."""
    tool = document.get("tool")
    found = {"tool.ckpt": tool["ckpt"]} if isinstance(tool, Mapping) and "ckpt" in tool else {}
    return found | {name: document[name] for name in SECTIONS[1:] if name in document}


def find_section(document: Mapping[str, object], where: str) -> tuple[str, object]:
    """Return the name and content of the one section; without any, `""` and the document. `where` is for errors."""
    found = sections(document)
    if len(found) > 1:
        raise InvalidInputError(
            f"{where} has more than one configuration: {' and '.join(found)}", hints=["keep one of them"]
        )
    return next(iter(found.items()), ("", document))


def kind_of(value: object) -> str:
    """Return what kind of value this is, in words; never the value, which may be a secret."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return "a table"
    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"

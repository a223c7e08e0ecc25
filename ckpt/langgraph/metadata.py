"""Which metadata a checkpoint carries: what LangGraph gives, plus plain values of the config that are no secrets.

Also how a saver's serde and the built-in serializer share one store.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import EXCLUDED_METADATA_KEYS, CheckpointMetadata
from langgraph.checkpoint.serde.base import SerializerProtocol

from ckpt.errors import CkptError, InvalidInputError, UnstorableValueError
from ckpt.history.commits import StoredValue
from ckpt.langgraph.plain import plain_scalar
from ckpt.repository.arguments import check_mapping
from ckpt.repository.incoming import Typed
from ckpt.values.kinds import TAG
from ckpt.values.serializer import Serializer

_PLAIN = Serializer()
_HEADER_VERSION = 4
"""LangGraph migrates checkpoints of lesser versions, which a commit does not need."""

_SECRET = re.compile(
    r"passw|pwd|secret|token(?!i[sz])|(?:api|access|private)[_\-. ]?key|credential|authori[sz]ation|bearer",
    re.IGNORECASE,
)


def looks_secret(key: str, value: object) -> bool:
    """Return whether a key's name suggests that its value should not be stored. A number of tokens is no token."""
    found = {each.lower() for each in _SECRET.findall(key)}
    return bool(found) and not (found == {"token"} and isinstance(value, int | float))


def merged_metadata(
    config: RunnableConfig, metadata: Mapping[str, Any], allowed: Collection[str] | None
) -> dict[str, Any]:
    """Return the metadata to be stored with a checkpoint.

    All that the call gives is kept. From the config's metadata and configurable values come those that are str,
    int, float or bool (of an enum of those its value), whose key is a str, does not begin with `__` and is not one of
    LangGraph's own. `allowed` names the keys to take; None takes all whose names do not look like secrets.
    """
    check_mapping("the metadata of a checkpoint", metadata)
    merged = dict(metadata)
    for source in (config.get("metadata") or {}, config.get("configurable") or {}):
        check_mapping("the metadata of a config", source)
        entries: Mapping[Any, Any] = source
        for key, value in entries.items():
            if not isinstance(key, str) or key in merged or key in EXCLUDED_METADATA_KEYS or key.startswith("__"):
                continue
            wanted = key in allowed if allowed is not None else not looks_secret(key, value)
            if wanted and isinstance(value, str | int | float):
                merged[key] = plain_scalar(value)
    return merged


def matches(metadata: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether metadata holds every key wanted with an equal value; True and 1 are different values."""
    return all(key in metadata and _equal(metadata[key], value) for key, value in wanted.items())


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, bool) != isinstance(b, bool):
        return False
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)


def dump_metadata(serde: SerializerProtocol, metadata: Mapping[str, Any]) -> Typed:
    """Serialize metadata: by the built-in serializer when it is plain, so that it can be read under any serde."""
    try:
        return Typed(*_PLAIN.dumps_typed(metadata))
    except CkptError:
        return dump_value(serde, metadata, "the metadata")


def load_metadata(serde: SerializerProtocol, value: StoredValue, data: bytes) -> CheckpointMetadata:
    """Undo `dump_metadata`."""
    return cast(CheckpointMetadata, Reading(serde).loads_typed((value.type, data)))


def dump_value(serde: SerializerProtocol, value: object, path: str) -> Typed:
    """Serialize a value; `path` says in errors whose it is.

    Raises UnstorableValueError for a value that the serde refuses, and InvalidInputError for a serde that returns
    something else than a str and bytes.
    """
    typed: Any
    try:
        typed = serde.dumps_typed(value)
    except CkptError:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise UnstorableValueError(
            f"cannot store {path}: {reason}", path=path, hints=["turn it into plain data, or give the saver a serde"]
        ) from error
    if isinstance(typed, (tuple, list)) and len(typed) == 2:
        tag, data = typed
        if isinstance(tag, str) and isinstance(data, (bytes, bytearray, memoryview)):
            return Typed(tag, data if type(data) is bytes else bytes(data))
    raise InvalidInputError(
        f"the serde {type(serde).__name__} made no (str, bytes) of {path}",
        hints=["its dumps_typed returns a type tag and the bytes"],
    )


class Reading:
    """A serde that also reads what the built-in serializer wrote: plain metadata, and all of `Repository.commit`."""

    def __init__(self, serde: SerializerProtocol) -> None:
        self._serde = serde
        self.dumps_typed = serde.dumps_typed

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Return the value; what only the built-in serializer knows is read by it, whatever the serde is."""
        own = data[0] == TAG and not isinstance(self._serde, Serializer)
        return (_PLAIN if own else self._serde).loads_typed(data)

    def header(self, header: StoredValue, data: bytes) -> dict[str, Any]:
        """Return what a checkpoint holds besides its id, time and values; a commit gets what LangGraph relies on."""
        loaded: dict[str, Any] = self.loads_typed((header.type, data))
        if header.type != TAG:
            return loaded
        return {"v": _HEADER_VERSION, "channel_versions": {}, "versions_seen": {}, **loaded}

"""What may be said when a repository is opened: read once, in one place, and before a store is made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ckpt.errors import InvalidInputError
from ckpt.repository.arguments import check_count, several
from ckpt.repository.lifetimes import Lifetimes
from ckpt.repository.retention import Retention
from ckpt.values.rope import LENGTH_MAX


class Options(NamedTuple):
    """The options of a repository, read."""

    max_checkpoint_size: int
    lifetimes: Lifetimes
    retention: Retention
    types: list[type]

    @staticmethod
    def of(graph: str, max_checkpoint_size: int, ttl: object, retention: object, types: Iterable[type]) -> Options:
        """Read options as they were given, or raise InvalidInputError."""
        if not isinstance(graph, str):
            raise InvalidInputError(f"graph={graph!r}: the name of a graph is a text")
        check_count("max_checkpoint_size", max_checkpoint_size, least=1)
        classes = several(types, "types")
        for each in classes:
            if not isinstance(each, type):
                raise InvalidInputError(
                    f"types holds {each!r}, which is no class", hints=["give the classes themselves"]
                )
        # What is longer could be written, and not be read.
        return Options(min(max_checkpoint_size, LENGTH_MAX), Lifetimes.of(ttl), Retention.of(retention), classes)

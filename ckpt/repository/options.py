"""What may be said when a repository is opened, checked before anything is."""

from __future__ import annotations

from collections.abc import Iterable

from ckpt.errors import InvalidInputError
from ckpt.history.keys import check_text
from ckpt.repository.arguments import check_count, several
from ckpt.repository.lifetimes import Lifetimes
from ckpt.repository.retention import Retention


def check_options(
    graph: object, max_checkpoint_size: object, ttl: object, retention: object, actor: object, types: Iterable[type]
) -> None:
    """Raise InvalidInputError unless a repository can be opened with these."""
    check_text("the name of a graph", graph)
    check_text("actor", actor)
    check_count("max_checkpoint_size", max_checkpoint_size, least=1)
    Lifetimes.of(ttl)
    Retention.of(retention)
    classes(types)


def classes(given: Iterable[type]) -> list[type]:
    """Return the classes that were given, or raise InvalidInputError."""
    found = several(given, "types")
    for each in found:
        if not isinstance(each, type):
            raise InvalidInputError(f"types holds {each!r}, which is no class", hints=["give the classes themselves"])
    return found

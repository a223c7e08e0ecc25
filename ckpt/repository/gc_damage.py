"""What is said where a collection is refused, as what is needed cannot be read: who needs it, and what to do."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from ckpt.errors import IntegrityError, ObjectMissingError
from ckpt.history.records import ThreadRecord
from ckpt.repository.core import Core
from ckpt.repository.mark import Marker, forks_of, thread_records
from ckpt.repository.scopes import MEMORY, at, prefixes, registered, root_of
from ckpt.storage.base import Reading

_NAMES_MAX = 20


class _Needing(NamedTuple):
    """A thread or memory that needs what cannot be read."""

    graph: str
    is_memory: bool
    thread: ThreadRecord
    living: list[str]
    """Itself unless it was deleted, and those of its forks that see what cannot be read."""


def refusal(core: Core, error: IntegrityError) -> IntegrityError:
    """Return the error of a collection that stumbled over damaged or missing objects or records.

    Looks at all threads again, each by itself, which costs as much as marking them does, or more where they share much.
    """
    try:
        needing = list(_needing(core))
    except IntegrityError:
        return error  # not even which threads there are can be told
    threads = [each for each in needing if not each.is_memory]
    living = [(each.graph, name) for each in threads for name in each.living]
    hints = ["restore a backup, or see what is affected with: ckpt fsck"]
    hints += [f"or give up what cannot be read: {_delete(*each)}" for each in dict.fromkeys(living)][:_NAMES_MAX]
    if threads:
        hints.append("what is deleted is out of the way once nothing can bring it back: ckpt gc --grace 0s")
    if len(threads) < len(needing):
        hints.append("items of a memory go with its delete and its prune, a whole memory with its drop")
    what = [f"{'memory' if each.is_memory else 'thread'} {each.thread.name!r}{_where(each)}" for each in needing]
    more = [f"{len(what) - _NAMES_MAX} more"] if len(what) > _NAMES_MAX else []
    told = f"; what cannot be read is needed by {', '.join([*what[:_NAMES_MAX], *more])}" if what else ""
    message = f"nothing was collected, as not all that is needed can be read: {error}{told}"
    if isinstance(error, ObjectMissingError):
        return ObjectMissingError(message, ids=error.ids, hints=hints)
    return type(error)(message, hints=hints)


def _needing(core: Core) -> Iterator[_Needing]:
    store = root_of(core.storage)
    scopes = registered(store)
    for prefix in prefixes(store):
        reading = at(store, prefix)
        scope = scopes.get(prefix)
        graph, is_memory = (scope.graph, scope.kind == MEMORY) if scope is not None else ("", False)
        for number, raw in thread_records(reading):
            try:
                core.consistently(partial(_mark, core, reading, number))
            except IntegrityError:
                thread = ThreadRecord.decode(number, raw)
                forks = [(fork.name, moments[-1]) for fork, moments in forks_of(reading, number) if not fork.deleted]
                living = [name for name, moment in forks if _sees_damage(core, reading, number, moment)]
                yield _Needing(graph, is_memory, thread, living if thread.deleted else [thread.name, *living])


def _sees_damage(core: Core, reading: Reading, number: int, moment: int) -> bool:
    try:
        core.consistently(partial(_mark, core, reading, number, moment))
    except IntegrityError:
        return True
    return False


def _mark(core: Core, reading: Reading, number: int, moment: int | None = None) -> None:
    # A new one for each attempt, to which nothing is marked already.
    Marker(core).mark_thread(reading, number, moment)


def _where(needing: _Needing) -> str:
    graph = f" of graph {needing.graph!r}" if needing.graph else ""
    return graph + (" (deleted)" if needing.thread.deleted else "")


def _delete(graph: str, name: str) -> str:
    words = ["ckpt", "delete", *(["--graph", graph] if graph else []), *(["-t"] if name.startswith("-") else []), name]
    return shlex.join(words)

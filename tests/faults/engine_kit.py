"""What the fault tests share: checkpoints to write, and all the questions one can ask a repository."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgpack

from ckpt.history.commits import StoredValue
from ckpt.repository import Repository
from ckpt.repository.engine import StoredCheckpoint
from ckpt.repository.incoming import Channel, NewCheckpoint, Typed

Answer = object
Question = tuple[str, Callable[[Repository], Answer]]


def packed(value: object) -> Typed:
    """Return a value as a serializer would."""
    return Typed("msgpack", msgpack.packb(value))


def checkpoint(
    thread: str,
    checkpoint_id: str,
    values: Mapping[str, object],
    *,
    parent: str | None = None,
    namespace: str = "",
    metadata: object = None,
) -> NewCheckpoint:
    """Return a checkpoint to put."""
    return NewCheckpoint(
        thread=thread,
        namespace=namespace,
        checkpoint_id=checkpoint_id,
        parent_id=parent,
        timestamp=f"time of {checkpoint_id}",
        header=packed({"v": 4, "of": checkpoint_id}),
        metadata=packed(metadata if metadata is not None else {"step": checkpoint_id}),
        channels={name: Channel(lambda value=value: packed(value)) for name, value in values.items()},
    )


def put(repository: Repository, *args: object, **kwargs: object) -> None:
    """Put what `checkpoint` makes of the arguments."""
    repository.put(checkpoint(*args, **kwargs))  # type: ignore[arg-type]


def put_writes(
    repository: Repository,
    thread: str,
    checkpoint_id: str,
    task: str,
    writes: Sequence[tuple[int, str, object]],
    *,
    namespace: str = "",
) -> None:
    """Attach writes of a task."""
    typed = [(index, channel, packed(value)) for index, channel, value in writes]
    repository.put_writes(thread, namespace, checkpoint_id, task, f"path of {task}", typed)


def contents(repository: Repository, stored: StoredCheckpoint | None) -> Answer:
    """Return everything that one checkpoint holds, as plain data."""
    if stored is None:
        return None
    commit = stored.commit
    values = [commit.header, commit.metadata, *commit.channels.values()]
    values += [StoredValue(write.type, write.rope) for write in stored.writes]
    loaded = repository.load(values)
    channels = dict(zip(commit.channels, loaded[2:], strict=False))
    pending = [
        (write.task_path, write.task_id, write.index, write.channel, data)
        for write, data in zip(stored.writes, loaded[2 + len(channels) :], strict=True)
    ]
    parents = [parent.checkpoint_id for parent in commit.parents]
    return (stored.checkpoint_id, commit.timestamp, parents, loaded[:2], list(channels.items()), pending)


def lines(repository: Repository) -> list[tuple[str, str, list[str]]]:
    """Return (thread, namespace, ids) of all that is listed."""
    found = []
    for thread in repository.thread_names():
        timeline = repository.timeline(thread)
        assert timeline is not None
        for namespace in timeline.namespaces():
            ids = [stored.checkpoint_id for stored in repository.read_all(thread, namespace)]
            found.append((thread, namespace, ids))
    return found


def questions(repository: Repository) -> list[Question]:
    """Return every question that a sound repository answers, each on its own: names, heads, lists, checkpoints."""
    asked: list[Question] = [("names", lambda repo: repo.thread_names())]
    found = lines(repository)
    for thread, namespace, ids in found:
        asked += [
            (f"head of {thread}/{namespace}", _by_id(thread, namespace, None)),
            (f"list of {thread}/{namespace}", _listed(thread, namespace)),
            (f"absent id in {thread}/{namespace}", _by_id(thread, namespace, "absent")),
        ]
        asked += [(f"{thread}/{namespace}/{each}", _by_id(thread, namespace, each)) for each in ids]
    threads = dict.fromkeys(thread for thread, _, _ in found)
    asked += [(f"list of all of {thread}", _listed(thread, None)) for thread in threads]
    asked.append(("absent thread", _by_id("there is none", "", None)))
    return asked


def everything(repository: Repository) -> dict[str, Answer]:
    """Return the answer to every question."""
    return {label: ask(repository) for label, ask in questions(repository)}


def _by_id(thread: str, namespace: str, checkpoint_id: str | None) -> Callable[[Repository], Answer]:
    return lambda repo: contents(repo, repo.read(thread, namespace, checkpoint_id))


def _listed(thread: str, namespace: str | None) -> Callable[[Repository], Answer]:
    def ask(repository: Repository) -> Answer:
        rows: Iterable[StoredCheckpoint] = repository.read_all(thread, namespace)
        return [(row.namespace, contents(repository, row)) for row in rows]

    return ask

"""The same random operations on every storage at once: no two ever give a different answer.

Each store has two handles that know nothing of each other, as two processes have them, and each operation goes
through either. What the engine takes from outside, the time and random ids, is the same for all. Left out of the
comparison are sizes that depend on where objects lie, since a storage over a network is not asked what it has
already, and which of two channels an object counts for that they share: the first, in the order of the keys.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg_pool
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.base import ERROR, INTERRUPT, RESUME, SCHEDULED
from stores import BACKENDS, new_store

from ckpt.encryption import encrypted
from ckpt.errors import CkptError
from ckpt.history import clock
from ckpt.langgraph import CkptSaver
from ckpt.repository import CheckpointInfo, Diff, Repository
from ckpt.storage.base import Storage
from ckpt.storage.memory import MemoryStorage
from ckpt.storage.postgres import PostgresStorage
from ckpt.storage.urls import open_storage

KEY = bytes(range(32))
HANDLES = 2
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
Operation = tuple[str, dict[str, Any]]


class Ids:
    """Stands in for what makes ids: they depend on the operation and on nothing else."""

    def __init__(self) -> None:
        self.operation = self.made = 0

    def begin(self, operation: int) -> None:
        self.operation, self.made = operation, 0

    def __call__(self, ticks: int) -> str:
        self.made += 1
        return f"{self.operation:02}+{self.made}"


class _Frozen(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return NOW


class Member:
    """One store under test. Each method is an operation, and returns all that one may see of it."""

    def __init__(self, name: str, open_another: Callable[[], Storage]) -> None:
        self.name = name
        self._open_another = open_another
        self._savers: list[CkptSaver] = []
        for _ in range(HANDLES):
            self.open()

    def open(self) -> int:
        """Open one more handle and return its number."""
        self._savers.append(CkptSaver(Repository(self._open_another())))
        return len(self._savers) - 1

    def close(self) -> None:
        for saver in self._savers:
            saver.repository.close()

    def answer(self, operation: Operation) -> object:
        name, arguments = operation
        saver = self._savers[arguments["handle"]]
        given = {key: value for key, value in arguments.items() if key != "handle"}
        try:
            return comparable(getattr(self, name)(saver, **given))
        except CkptError as error:
            return type(error).__name__, str(error), error.hints

    # -- what LangGraph calls -------------------------------------------------------------------------

    @staticmethod
    def put(
        saver: CkptSaver,
        thread: str,
        namespace: str,
        checkpoint_id: str,
        parent: str | None,
        values: Mapping[str, object],
        versions: Sequence[int],
        unchanged: set[str],
        metadata: dict[str, Any],
    ) -> object:
        channel_versions: Any = dict(zip(values, versions, strict=False))
        if parent == "head":
            parent = id_of(saver.get_tuple(config(thread, namespace)))
        checkpoint: Any = {
            "v": 4,
            "id": checkpoint_id,
            "ts": f"time of {checkpoint_id}",
            "channel_values": whole(values),
            "channel_versions": channel_versions,
            "versions_seen": {},
            "updated_channels": None,
        }
        new = {name: version for name, version in channel_versions.items() if name not in unchanged}
        details: Any = metadata | ({"parents": {"": "05"}} if namespace else {})
        return saver.put(config(thread, namespace, parent), checkpoint, details, new)

    @staticmethod
    def put_writes(
        saver: CkptSaver,
        thread: str,
        namespace: str,
        checkpoint_id: str | None,
        writes: list[tuple[str, object]],
        task: str,
    ) -> object:
        if checkpoint_id is None:
            checkpoint_id = id_of(saver.get_tuple(config(thread, namespace)))
        return checkpoint_id and saver.put_writes(
            config(thread, namespace, checkpoint_id),
            [(channel, whole(value)) for channel, value in writes],
            task,
            f"path {task[::-1]}",
        )

    @staticmethod
    def get_tuple(saver: CkptSaver, thread: str, namespace: str, checkpoint_id: str | None) -> object:
        return saver.get_tuple(config(thread, namespace, checkpoint_id))

    @staticmethod
    def list(
        saver: CkptSaver,
        thread: str | None,
        namespace: str | None,
        checkpoint_id: str | None,
        filter: dict[str, Any] | None,
        before: str | None,
        limit: int | None,
    ) -> object:
        where = config(thread, namespace, checkpoint_id) if thread is not None else None
        earlier = config("any", "", before) if before is not None else None
        return [*saver.list(where, filter=filter, before=earlier, limit=limit)]

    @staticmethod
    def get_delta_channel_history(saver: CkptSaver, thread: str, namespace: str) -> object:
        return saver.get_delta_channel_history(config=config(thread, namespace), channels=["x", "y"])

    @staticmethod
    def copy_thread(saver: CkptSaver, thread: str, new: str) -> None:
        saver.copy_thread(thread, new)

    @staticmethod
    def delete_thread(saver: CkptSaver, thread: str) -> None:
        saver.delete_thread(thread)

    @staticmethod
    def delete_for_runs(saver: CkptSaver, runs: Sequence[str]) -> None:
        saver.delete_for_runs(runs)

    @staticmethod
    def prune(saver: CkptSaver, threads: Sequence[str], strategy: str) -> None:
        saver.prune(threads, strategy=strategy)

    # -- what people call -----------------------------------------------------------------------------

    @staticmethod
    def commit(saver: CkptSaver, thread: str, values: Mapping[str, object]) -> object:
        """In another graph of the store: LangGraph cannot read what has a serializer of its own."""
        other = Repository(saver.repository.storage, graph="other")
        made = other.commit(thread, whole(values))
        return made, other.state("@", thread=thread), other.log(thread=thread), other.graphs()

    @staticmethod
    def fork(
        saver: CkptSaver, revision: str, thread: str, new: str, values: Mapping[str, object] | None
    ) -> CheckpointInfo:
        return saver.repository.fork(revision, new, thread=thread, values=whole(values))

    @staticmethod
    def checkout(saver: CkptSaver, revision: str, thread: str) -> CheckpointInfo:
        return saver.repository.checkout(revision, thread=thread)

    @staticmethod
    def rewind(saver: CkptSaver, thread: str, steps: int) -> CheckpointInfo:
        return saver.repository.rewind(thread, steps)

    @staticmethod
    def tag(saver: CkptSaver, tag: str, revision: str, thread: str) -> CheckpointInfo:
        return saver.repository.tag(tag, revision, thread=thread)

    @staticmethod
    def untag(saver: CkptSaver, tag: str) -> None:
        saver.repository.untag(tag)

    @staticmethod
    def delete(saver: CkptSaver, thread: str) -> None:
        saver.repository.delete(thread)

    @staticmethod
    def undo(saver: CkptSaver) -> object:
        return told(saver.repository.undo())

    @staticmethod
    def keep_last(saver: CkptSaver, thread: str, count: int, dry_run: bool) -> object:
        return saver.repository.prune([thread], keep_last=count, dry_run=dry_run)

    @staticmethod
    def log(saver: CkptSaver, revision: str | None, **options: Any) -> object:
        return saver.repository.log(revision, **options)

    @staticmethod
    def diff(saver: CkptSaver, old: str, new: str, thread: str, other: str) -> object:
        repository = saver.repository
        before, after = repository.resolve(old, thread=thread), repository.resolve(new, thread=other)
        return repository.diff(before, after, internal=True), repository.changes(after), repository.writes(after)

    @staticmethod
    def gc(saver: CkptSaver, grace: timedelta, dry_run: bool) -> object:
        report = saver.repository.gc(grace=grace, dry_run=dry_run)
        return report.threads_removed, report.objects_removed

    @staticmethod
    def overview(saver: CkptSaver) -> object:
        repository = saver.repository
        stats = repository.stats()
        return [
            repository.threads(),
            repository.tags(),
            [told(each) for each in repository.operations()],
            (stats.checkpoints, stats.threads, stats.heads, stats.objects, stats.bytes_logical, stats.bytes_unique),
            [(channel.name, channel.logical) for channel in stats.channels],
            sum(channel.unique for channel in stats.channels),
        ]

    @staticmethod
    def fsck(saver: CkptSaver) -> object:
        report = saver.repository.fsck()
        assert report.problems == []
        return report


def config(thread: str, namespace: str | None, checkpoint_id: str | None = None) -> Any:
    given = {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id}
    return {"configurable": {key: value for key, value in given.items() if value is not None}}


def whole(value: Any) -> Any:
    """Return a drawn value with its long texts written out."""
    if isinstance(value, str):
        return value.replace("<long>", LONG)
    if isinstance(value, list):
        return [whole(each) for each in value]
    return {whole(key): whole(each) for key, each in value.items()} if isinstance(value, dict) else value


def id_of(found: Any) -> str | None:
    return found and found.config["configurable"]["checkpoint_id"]


def told(operation: Any) -> object:
    return dataclasses.replace(operation, time=0.0)


def comparable(answer: Any) -> Any:
    """Return an answer without what storing a checkpoint took."""
    if isinstance(answer, CheckpointInfo):
        return dataclasses.replace(answer, bytes_new=0)
    if isinstance(answer, Diff):
        return comparable(answer.old), comparable(answer.new), answer.changes
    if isinstance(answer, list):
        return [comparable(each) for each in answer]
    if dataclasses.is_dataclass(answer) and hasattr(answer, "head"):
        return dataclasses.replace(answer, head=comparable(answer.head))  # type: ignore[type-var]
    if type(answer) is dict:
        return {key: comparable(each) for key, each in answer.items()}
    return tuple(comparable(each) for each in answer) if type(answer) is tuple else answer


# -- operations ------------------------------------------------------------------------------------------

LONG = "long enough to be an object of its own and to be shared between checkpoints; " * 4
TEXTS = st.sampled_from(["", "short", "a\x00b ünï 名", "<long>", "<long>1", "<long><long><long><long>"])
"""What stands for `LONG` here is written out where it is stored, so that a failure can be read."""
VALUE = st.one_of(
    TEXTS,
    st.lists(TEXTS, max_size=6),
    st.lists(st.integers(0, 30).map("message {}: <long>".format), min_size=10, max_size=30),
    st.dictionaries(TEXTS, st.integers(-1, 1) | st.none() | st.booleans(), max_size=2),
    st.sampled_from([b"\xff" * 300, (1, 2), {"a", 1}, NOW, None]),
)
VALUES = st.dictionaries(st.sampled_from("xyz"), VALUE, max_size=3)
PLAIN = st.dictionaries(st.sampled_from("xyz"), TEXTS | st.lists(TEXTS, max_size=2), max_size=2)
THREADS = st.sampled_from(["a", "b", "ünï\x00 %_*"])
NAMESPACES = st.sampled_from(["", "", "sub:1", "sub:1|deep:2"])
IDS = st.sampled_from([f"{number:02}" for number in range(1, 13)])
RUNS = st.sampled_from(["r1", "r2"])
METADATA = st.fixed_dictionaries(
    {"source": st.sampled_from(["input", "loop"]), "step": st.integers(-1, 2)},
    optional={"run_id": RUNS, "flag": st.sampled_from([True, 1, 0, None]), "note": TEXTS, "tags": st.lists(RUNS)},
)
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "source": st.sampled_from(["input", "loop", "fork"]),
        "step": st.integers(0, 1),
        "flag": st.sampled_from([True, 1]),
        "run_id": RUNS,
    },
)
REVISIONS = st.one_of(
    st.sampled_from(["@", "@~1", "@~2", "@@{1}", "#0", 'thread:"a"', "tag:v1", "tag:v2~1", "id:0", "b", "~"]),
    IDS.map(lambda each: f'ckpt:"{each}"'),
)
HANDLE = st.integers(0, HANDLES - 1)


def operation(name: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Operation]:
    return st.tuples(st.just(name), st.fixed_dictionaries({**arguments, "handle": HANDLE}))


PUT = operation(
    "put",
    thread=THREADS,
    namespace=NAMESPACES,
    checkpoint_id=IDS,
    parent=st.sampled_from(["head", "head", "head", None]) | IDS,
    values=VALUES,
    versions=st.lists(st.integers(1, 3), max_size=3),
    unchanged=st.sets(st.sampled_from("xyz")),
    metadata=METADATA,
)
PUT_WRITES = operation(
    "put_writes",
    thread=THREADS,
    namespace=NAMESPACES,
    checkpoint_id=st.none() | IDS,
    writes=st.lists(st.tuples(st.sampled_from(["x", "y", ERROR, INTERRUPT, RESUME, SCHEDULED]), VALUE), max_size=3),
    task=st.sampled_from(["t1", "t2", "t3"]),
)
LIST = operation(
    "list",
    thread=THREADS | st.none(),
    namespace=NAMESPACES | st.none(),
    checkpoint_id=st.none() | st.none() | IDS,
    filter=st.none() | FILTERS,
    before=st.none() | IDS,
    limit=st.none() | st.integers(-1, 4),
)
LOG = operation(
    "log",
    revision=st.none() | REVISIONS,
    thread=st.none() | THREADS,
    namespace=NAMESPACES,
    limit=st.none() | st.integers(0, 3),
    all_heads=st.booleans(),
    subgraphs=st.booleans(),
)
OPERATIONS = st.one_of(
    *[PUT] * 4,
    *[PUT_WRITES] * 3,
    *[LIST] * 2,
    LOG,
    operation("get_tuple", thread=THREADS, namespace=NAMESPACES, checkpoint_id=st.none() | IDS),
    operation("get_delta_channel_history", thread=THREADS, namespace=NAMESPACES),
    operation("copy_thread", thread=THREADS, new=THREADS),
    operation("delete_thread", thread=THREADS),
    operation("delete_for_runs", runs=st.lists(RUNS, max_size=2)),
    operation("prune", threads=st.lists(THREADS, max_size=2), strategy=st.sampled_from(["keep_latest", "delete", ""])),
    operation("commit", thread=THREADS, values=PLAIN),
    operation("fork", revision=REVISIONS, thread=THREADS, new=THREADS, values=st.none() | st.none() | PLAIN),
    operation("checkout", revision=REVISIONS, thread=THREADS),
    operation("rewind", thread=THREADS, steps=st.integers(0, 3)),
    operation("tag", tag=st.sampled_from(["v1", "v2", "not a tag"]), revision=REVISIONS, thread=THREADS),
    operation("untag", tag=st.sampled_from(["v1", "v2"])),
    operation("delete", thread=THREADS),
    operation("undo"),
    operation("keep_last", thread=THREADS, count=st.integers(0, 3), dry_run=st.booleans()),
    operation("diff", old=REVISIONS, new=REVISIONS, thread=THREADS, other=THREADS),
    operation("gc", grace=st.sampled_from([timedelta(0), timedelta(days=14)]), dry_run=st.booleans()),
    operation("overview"),
)
EVERYTHING: list[Operation] = [
    ("list", dict.fromkeys(["thread", "namespace", "checkpoint_id", "filter", "before", "limit"])),
    ("log", {"revision": None, "subgraphs": True}),
    ("overview", {}),
]


# -- the test --------------------------------------------------------------------------------------------


@contextmanager
def members(request: pytest.FixtureRequest) -> Iterator[list[Member]]:
    """New stores: one on each backend, an encrypted file, and a schema reached through a pool of the caller's."""
    with ExitStack() as stack:
        found: list[Member] = []
        memory = MemoryStorage()
        opens: dict[str, Callable[[], Storage]] = {"memory": lambda: memory}
        for backend in BACKENDS[1:]:
            url = stack.enter_context(new_store(backend, request))
            opens[backend] = lambda url=url: open_storage(url)  # type: ignore[misc]
        file = stack.enter_context(new_store("sqlite", request))
        opens["encrypted sqlite"] = lambda: encrypted(open_storage(file), KEY)
        database, _, schema = stack.enter_context(new_store("postgres", request)).rpartition("schema=")
        pool = stack.enter_context(psycopg_pool.ConnectionPool(database.rstrip("?&"), min_size=1, max_size=2))
        opens["postgres through a pool"] = lambda: PostgresStorage(pool, schema=schema)
        for name, open_another in opens.items():
            found.append(Member(name, open_another))
            stack.callback(found[-1].close)
        yield found


def same_answer(members: Sequence[Member], ids: Ids, number: int, operation: Operation) -> None:
    answers = {}
    for member in members:
        ids.begin(number)
        answers[member.name] = member.answer(operation)
    expected = answers["memory"]
    for name, found in answers.items():
        assert found == expected, f"operation {number} on {name}: {operation}"


# Not shrunk: on six stores that takes longer than a test may, and which operation differed is said.
@settings(
    max_examples=25,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(beginning=st.lists(PUT, min_size=10, max_size=20), then=st.lists(OPERATIONS, min_size=20, max_size=40))
def test_all_storages_give_the_same_answers(
    request: pytest.FixtureRequest, beginning: list[Operation], then: list[Operation]
) -> None:
    ids = Ids()
    operations = beginning + then
    with pytest.MonkeyPatch.context() as patched, members(request) as stores:
        patched.setattr(clock, "uuid6_text", ids)
        patched.setattr(clock, "datetime", _Frozen)
        for number, each in enumerate(operations):
            same_answer(stores, ids, number, each)
        # A handle that has seen nothing of it is told the same.
        (new,) = {member.open() for member in stores}
        for name, arguments in EVERYTHING:
            for handle in (new, 0):
                same_answer(stores, ids, len(operations), (name, {**arguments, "handle": handle}))
        same_answer(stores, ids, len(operations), ("fsck", {"handle": new}))

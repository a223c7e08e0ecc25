"""The engine against a model made of dicts and lists, side by side through random histories."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import msgpack
import pytest
from history_model import Event, Forked, Line, Pruned, Put, Reset, View, Wrote, length_at, path_of, view
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from stores import BACKENDS, SHARED, new_store

from ckpt.errors import AlreadyExistsError, HeadMovedError, ThreadDeletedError
from ckpt.history import keys
from ckpt.history.commits import StoredValue
from ckpt.repository import Repository, open_repository, remove_short
from ckpt.repository.incoming import Channel, NewCheckpoint, Typed
from ckpt.repository.prune import keep_last
from ckpt.storage.memory import MemoryStorage

NAMES = ("a", "b", "c", "d")
NAMESPACES = ("", "sub", "sub|deep")
IDS = tuple(f"{number:02d}" for number in range(24))
LONG = "long enough to be an object of its own and to be shared between checkpoints; " * 4


def packed(value: object) -> Typed:
    return Typed("msgpack", msgpack.packb(value))


class Machine(RuleBasedStateMachine):
    """Runs on the store that `store` yields the URL of; one that is `durable` is opened again now and then."""

    def __init__(self, store: AbstractContextManager[str], *, durable: bool, encryption_key: bytes | None) -> None:
        super().__init__()
        self.threads: dict[str, list[Event]] = {}
        self.lines: dict[str, tuple[int, ...]] = {}
        """The lines of each thread: its own last, before it those that it was forked from."""
        self.numbers = count(1)
        self.ghosts: dict[str, set[str]] = {}
        self.unclaimed: dict[str, set[tuple[str, str]]] = {}
        """Writes whose checkpoint others have passed, which may be let go with what is pruned."""
        self.durable = durable
        self.encryption_key = encryption_key
        self.place = ExitStack()
        self.url = self.place.enter_context(store)
        self.repository = self.open()

    def open(self) -> Repository:
        return open_repository(self.url, encryption_key=self.encryption_key)

    def teardown(self) -> None:
        self.repository.close()
        self.place.close()

    # -- what is done to both -------------------------------------------------------------------------

    def put(self, name: str, event: Put) -> None:
        self.repository.put(
            NewCheckpoint(
                thread=name,
                namespace=event.namespace,
                checkpoint_id=event.checkpoint_id,
                parent_id=event.parent,
                timestamp=None,
                header=packed({"id": event.checkpoint_id}),
                metadata=packed({"step": 1}),
                channels={key: Channel(lambda value=value: packed(value)) for key, value in event.values.items()},
            )
        )

    def write(self, name: str, event: Wrote) -> None:
        typed = [(index, channel, packed(value)) for index, channel, value in event.writes]
        self.repository.put_writes(name, event.namespace, event.checkpoint_id, event.task, path_of(event.task), typed)

    @initialize(name=st.sampled_from(NAMES))
    def begin(self, name: str) -> None:
        self.do_put(name, Put("", "05", None, {"x": "first"}))

    def do_put(self, name: str, event: Put) -> None:
        self.put(name, event)
        events = self.begun(name)
        events.append(replace(event, by=self.lines[name][-1]))

    def begun(self, name: str, lines: tuple[int, ...] = ()) -> list[Event]:
        """Return what happened to a thread, which begins here if there is none."""
        if name not in self.threads:
            self.threads[name] = []
            self.lines[name] = (*lines, next(self.numbers))
            self.unclaimed[name] = set().union(*self.unclaimed.values()) if lines else set()
        return self.threads[name]

    def gone(self, name: str, namespace: str, checkpoint_id: str) -> bool:
        """Whether this id was deleted or pruned: what becomes of writes to it is another test's matter."""
        pruned = any(
            isinstance(event, Pruned) and (namespace, checkpoint_id) in event.gone
            for event in self.threads.get(name, ())
        )
        unclaimed = (namespace, checkpoint_id) in self.unclaimed.get(name, ())
        return pruned or unclaimed or checkpoint_id in self.ghosts.get(name, ())

    def passes_by(self, name: str) -> None:
        told = view(self.threads[name])
        self.unclaimed[name] |= {
            (namespace, each)
            for namespace, each in told.wrote.keys() - told.puts.keys()
            if each <= told.lines.get(namespace, Line()).greatest
        }

    @rule(
        name=st.sampled_from(NAMES),
        namespace=st.sampled_from(NAMESPACES),
        checkpoint_id=st.sampled_from(IDS),
        parent=st.sampled_from(["head", "head", "none", *IDS]),
        values=st.dictionaries(st.sampled_from("xyz"), st.sampled_from(["", "short", LONG, LONG + "1", LONG * 30])),
    )
    def commits(self, name: str, namespace: str, checkpoint_id: str, parent: str, values: dict[str, str]) -> None:
        named: str | None = parent
        if parent == "head":
            named = view(self.threads.get(name, [])).lines.get(namespace, Line()).head
        elif parent == "none":
            named = None
        if self.gone(name, namespace, checkpoint_id) or (named and self.gone(name, namespace, named)):
            return
        self.do_put(name, Put(namespace, checkpoint_id, named, values))

    @rule(
        name=st.sampled_from(NAMES),
        namespace=st.sampled_from(NAMESPACES),
        checkpoint_id=st.sampled_from(["head", "head", *IDS]),
        task=st.sampled_from("pqr"),
        writes=st.lists(
            st.tuples(st.integers(-2, 2), st.sampled_from("xy"), st.sampled_from(["w", "v", LONG])),
            min_size=1,
            max_size=4,
        ),
    )
    def writes(
        self, name: str, namespace: str, checkpoint_id: str, task: str, writes: list[tuple[int, str, str]]
    ) -> None:
        if checkpoint_id == "head":
            head = view(self.threads.get(name, [])).lines.get(namespace, Line()).head
            if head is None:
                return
            checkpoint_id = head
        if self.gone(name, namespace, checkpoint_id):
            return
        event = Wrote(namespace, checkpoint_id, task, tuple(writes))
        self.write(name, event)
        self.begun(name).append(event)

    @precondition(lambda self: self.threads)
    @rule(data=st.data(), new=st.sampled_from(NAMES))
    def copies(self, data: st.DataObject, new: str) -> None:
        source = data.draw(st.sampled_from(sorted(self.threads)))
        if new in self.threads:
            with pytest.raises(AlreadyExistsError):
                self.repository.copy_thread(source, new)
            return
        self.repository.copy_thread(source, new)
        self.begun(new, self.lines[source]).extend(self.threads[source])

    @precondition(lambda self: self.threads)
    @rule(data=st.data(), new=st.sampled_from(NAMES))
    def forks(self, data: st.DataObject, new: str) -> None:
        source, checkpoint_id = self.draw_checkpoint(data)
        if checkpoint_id is None or new in self.threads:
            return
        events = self.threads[source]
        at_head = checkpoint_id == view(events).lines[""].head
        length = length_at(events, checkpoint_id)
        left = self.lines[source][: self.lines[source].index(self.put_by(events, checkpoint_id)) + 1]
        pruned = [event for event in events[length:] if isinstance(event, Pruned)]
        if not at_head and any(event.collected and event.by not in left for event in pruned):
            return  # of what the fork would show again, some may have been collected
        self.repository.fork(f'ckpt:"{checkpoint_id}"', new, thread=source)
        if at_head:
            self.begun(new, self.lines[source]).extend(events)
            return
        gone = [event for event in pruned if event.by in left]
        kept: list[Event] = [
            event
            for event in events[:length]
            if not (isinstance(event, Wrote) and (event.namespace, event.checkpoint_id) == ("", checkpoint_id))
        ]
        there = {(event.namespace, event.checkpoint_id) for event in kept if isinstance(event, Put)}
        kept += [replace(event, gone=event.gone & there) for event in gone]
        self.begun(new, left).extend([*kept, Forked(checkpoint_id)])

    @staticmethod
    def put_by(events: list[Event], checkpoint_id: str) -> int:
        """Return the line in which this root checkpoint was put last."""
        puts = [event for event in events if isinstance(event, Put) and not event.namespace]
        return [put.by for put in puts if put.checkpoint_id == checkpoint_id][-1]

    def draw_checkpoint(self, data: st.DataObject) -> tuple[str, str | None]:
        source = data.draw(st.sampled_from(sorted(self.threads)))
        ids = view(self.threads[source]).ids("")
        return source, data.draw(st.sampled_from(ids)) if ids else None

    @precondition(lambda self: self.threads)
    @rule(data=st.data())
    def checks_out(self, data: st.DataObject) -> None:
        name, checkpoint_id = self.draw_checkpoint(data)
        if checkpoint_id is None:
            return
        events = self.threads[name]
        told = view(events)
        made = self.repository.checkout(f'ckpt:"{checkpoint_id}"', thread=name).checkpoint_id
        if checkpoint_id == told.lines[""].head:
            assert made == checkpoint_id
            return
        assert made > max(each for _, each in told.puts)
        self.threads[name] = [
            *events,
            Put("", made, checkpoint_id, told.puts["", checkpoint_id].values, self.lines[name][-1]),
            Reset(length_at(events, checkpoint_id)),
        ]

    @precondition(lambda self: self.threads)
    @rule(data=st.data(), forget=st.booleans())
    def deletes(self, data: st.DataObject, forget: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.threads)))
        if forget:
            self.repository.delete(name)
            self.repository.undo()
            return
        self.repository.delete_thread(name)
        told = view(self.threads.pop(name))
        self.ghosts.setdefault(name, set()).update(each for _, each in [*told.puts, *told.wrote])
        late = max((each for ns, each in told.puts if not ns), default=None)
        if late is not None:
            with pytest.raises(ThreadDeletedError):
                self.put(name, Put("", "99", late, {}))
            with pytest.raises(ThreadDeletedError):
                self.write(name, Wrote("", late, "p", ((0, "x", "late"),)))

    @precondition(lambda self: self.threads)
    @rule(data=st.data(), count=st.integers(1, 3))
    def prunes(self, data: st.DataObject, count: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.threads)))
        events = self.threads[name]
        told = view(events)
        kept: set[tuple[str, str | None]] = set()
        for namespace, line in told.lines.items():
            ids = told.ids(namespace)
            newest = [each for each in ids if each == line.head]
            newest += [each for each in ids if each != line.head][: count - len(newest)]
            kept |= {(namespace, each) for each in newest}
        for root in [each for namespace, each in kept if not namespace and each is not None]:
            then = view(events[: length_at(events, root)]).lines
            kept |= {(namespace, line.head) for namespace, line in then.items() if namespace}
        gone = told.puts.keys() - kept
        report = self.repository.prune_thread(name, keep_last(count))
        assert set(report.removed) == gone
        events.append(Pruned(frozenset(gone), self.lines[name][-1]))
        self.passes_by(name)

    @rule(one_by_one=st.booleans())
    def collects(self, one_by_one: bool) -> None:
        for name in self.threads:
            self.passes_by(name)
        with pytest.MonkeyPatch.context() as patch:
            if one_by_one:
                patch.setattr(remove_short, "ROWS_MAX", -1)
            self.repository.gc(grace=timedelta(0))
        for events in self.threads.values():
            events[:] = [replace(each, collected=True) if isinstance(each, Pruned) else each for each in events]

    @precondition(lambda self: self.durable)
    @rule()
    def reopens(self) -> None:
        self.repository.close()
        self.repository = self.open()

    @rule()
    def another_process_comes(self) -> None:
        """From here on nothing is remembered of what was read and written, in the store that stays open."""
        self.repository = Repository(self.repository.storage)

    # -- what must be equal -----------------------------------------------------------------------------

    @invariant()
    def agrees(self) -> None:
        assert self.repository.thread_names() == sorted(self.threads)
        for name, events in self.threads.items():
            told = view(events)
            for namespace in NAMESPACES:
                self.agrees_on(name, namespace, told)
            every = [(row.namespace, row.checkpoint_id) for row in self.repository.read_all(name, None)]
            assert sorted(every) == sorted(told.puts)
            assert [each for _, each in every] == sorted((each for _, each in every), reverse=True)

    @invariant()
    def agrees_on_the_past(self) -> None:
        """From every root checkpoint time travel leads to where the namespaces stood then."""
        for name, events in self.threads.items():
            timeline = self.repository.timeline(name)
            assert timeline is not None
            for root in view(events).ids(""):
                moment = timeline.moment(root)
                assert moment is not None
                then = view(events[: length_at(events, root)]).lines
                for namespace in NAMESPACES[1:]:
                    head = timeline.head_at(moment[0], namespace, moment[1])
                    assert head == then.get(namespace, Line()).head, f"{name}/{namespace} at {root}"

    def agrees_on(self, name: str, namespace: str, told: View) -> None:
        line = told.lines.get(namespace, Line())
        head = self.repository.read(name, namespace)
        assert (head and head.checkpoint_id) == line.head, f"head of {name}/{namespace}"
        rows = list(self.repository.read_all(name, namespace))
        assert [row.checkpoint_id for row in rows] == told.ids(namespace), f"list of {name}/{namespace}"
        for row in rows:
            put = told.puts[namespace, row.checkpoint_id]
            alone = self.repository.read(name, namespace, row.checkpoint_id)
            for stored in (row, alone):
                assert stored is not None
                loaded = self.repository.load(list(stored.commit.channels.values()))
                values = {key: msgpack.unpackb(data) for key, data in zip(stored.commit.channels, loaded, strict=True)}
                assert values == put.values
                assert [parent.checkpoint_id for parent in stored.commit.parents] == (
                    [put.parent] if put.parent else []
                )
                data = self.repository.load([StoredValue(write.type, write.rope) for write in stored.writes])
                pending = [(*write[:4], msgpack.unpackb(each)) for write, each in zip(stored.writes, data, strict=True)]
                assert pending == told.pending(namespace, row.checkpoint_id), f"{name}/{namespace}/{row.checkpoint_id}"
        absent: Any = self.repository.read(name, namespace, "never")
        assert absent is None


_SETTINGS = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    stateful_step_count=30,
    print_blob=True,
    report_multiple_bugs=False,
)
_EXAMPLES = {"memory": 60, "encrypted memory": 20, "sqlite": 20, "postgres": 10, "redis": 15}
"""The servers cost a round trip for each of the many answers that are compared."""


@pytest.mark.parametrize("backend", [*BACKENDS, "encrypted memory"])
def test_the_engine_tells_what_the_model_tells(backend: str, request: pytest.FixtureRequest) -> None:
    def machine() -> Machine:
        storage = backend.rpartition(" ")[2]
        return Machine(
            new_store(storage, request),
            durable=backend in SHARED,
            encryption_key=bytes(range(32)) if storage != backend else None,
        )

    run_state_machine_as_test(machine, settings=settings(_SETTINGS, max_examples=_EXAMPLES[backend]))


# -- histories that were once told wrongly ---------------------------------------------------------------


@pytest.fixture
def repository() -> Repository:
    return Repository(MemoryStorage())


def put(repository: Repository, thread: str, checkpoint_id: str, parent: str | None = None, ns: str = "") -> None:
    repository.put(
        NewCheckpoint(
            thread, ns, checkpoint_id, parent, None, packed({}), packed({}), {"x": Channel(lambda: packed(1))}
        )
    )


def head(repository: Repository, thread: str, namespace: str = "") -> str | None:
    found = repository.read(thread, namespace)
    return found.checkpoint_id if found is not None else None


def listed(repository: Repository, thread: str) -> list[str]:
    return [row.checkpoint_id for row in repository.read_all(thread)]


@pytest.mark.parametrize("collected", [False, True], ids=["deleted", "collected"])
def test_a_late_put_into_a_deleted_fork_is_refused(repository: Repository, collected: bool) -> None:
    put(repository, "base", "05")
    repository.copy_thread("base", "fork")
    repository.delete_thread("fork")
    if collected:
        repository.gc(grace=timedelta(0))
    with pytest.raises(ThreadDeletedError):
        put(repository, "fork", "99", "05")
    with pytest.raises(ThreadDeletedError):
        repository.put_writes("fork", "", "05", "task", "", [(0, "x", packed("late"))])
    assert repository.thread_names() == ["base"]


@pytest.mark.parametrize("collected", [False, True], ids=["deleted", "collected"])
def test_a_late_put_into_a_deleted_thread_is_refused_though_a_fork_keeps_its_beginning(
    repository: Repository, collected: bool
) -> None:
    put(repository, "base", "05")
    repository.copy_thread("base", "fork")
    put(repository, "base", "06", "05")
    put(repository, "base", "16", ns="sub")
    repository.delete_thread("base")
    if collected:
        repository.gc(grace=timedelta(0))
    for namespace, parent in (("", "05"), ("", "06"), ("sub", "16")):
        with pytest.raises(ThreadDeletedError):
            put(repository, "base", "99", parent, ns=namespace)
        with pytest.raises(ThreadDeletedError):
            repository.put_writes("base", namespace, parent, "task", "", [(0, "x", packed("late"))])
    assert repository.thread_names() == ["fork"]
    assert listed(repository, "fork") == ["05"]


def test_a_namespace_goes_back_to_where_an_earlier_rewind_had_put_it(repository: Repository) -> None:
    put(repository, "a", "05")
    put(repository, "a", "11", ns="sub")
    put(repository, "a", "13", "05")
    made = repository.checkout('ckpt:"05"', thread="a").checkpoint_id
    assert head(repository, "a", "sub") is None
    put(repository, "a", "12", ns="sub")
    put(repository, "a", "9", made)
    repository.checkout(f'ckpt:"{made}"', thread="a")
    assert head(repository, "a", "sub") is None
    repository.fork(f'ckpt:"{made}"', "b", thread="a")
    assert head(repository, "b", "sub") is None


@pytest.mark.parametrize("late", [("12", "13"), ("11", None)], ids=["of a host whose clock is behind", "put again"])
def test_a_late_put_into_a_rewound_namespace_leaves_earlier_moments_as_they_were(
    repository: Repository, late: tuple[str, str | None]
) -> None:
    put(repository, "a", "05")
    put(repository, "a", "11", ns="sub")
    put(repository, "a", "06", "05")
    put(repository, "a", "13", "11", ns="sub")
    put(repository, "a", "07", "06")
    repository.checkout('ckpt:"06"', thread="a")
    assert head(repository, "a", "sub") == "11"
    put(repository, "a", *late, ns="sub")
    assert head(repository, "a", "sub") == "11"
    repository.fork('ckpt:"07"', "b", thread="a")
    assert head(repository, "b", "sub") == "13"
    assert repository.fsck().problems == []


def test_rewinding_again_and_again_costs_no_more_each_time(repository: Repository) -> None:
    def size() -> int:
        return len(repository._core.storage.read([keys.thread_key(1)])[0] or b"")

    put(repository, "a", "05")
    put(repository, "a", "06", "05")
    sizes = []
    for target in 20 * ["05", "06"]:
        before = head(repository, "a")
        repository.checkout(f'ckpt:"{target}"', thread="a")
        sizes.append(size())
    assert max(sizes) <= sizes[1] + 2
    repository.undo()
    assert head(repository, "a") == before
    # Where another namespace has begun, each rewind is told of, as it may have to go back to any.
    put(repository, "a", "11", ns="sub")
    told = size()
    repository.checkout('ckpt:"06"', thread="a")
    assert head(repository, "a", "sub") is None
    assert size() > told + 2
    repository.undo()
    assert head(repository, "a", "sub") == "11"
    assert size() <= told + 2


def test_a_fork_at_an_older_checkpoint_leaves_out_writes_of_every_base(repository: Repository) -> None:
    put(repository, "a", "05")
    repository.put_writes("a", "", "05", "task", "", [(0, "x", packed("of the base"))])
    put(repository, "a", "06", "05")
    repository.copy_thread("a", "b")
    put(repository, "b", "05")
    put(repository, "b", "07", "06")
    repository.fork('ckpt:"05"', "c", thread="b")
    found = repository.read("c", "", "05")
    assert found is not None
    assert found.writes == []


def test_a_fork_knows_the_greatest_id_of_a_namespace(repository: Repository) -> None:
    put(repository, "a", "01")
    put(repository, "a", "09", ns="sub")
    put(repository, "a", "08", "09", ns="sub")
    repository.copy_thread("a", "b")
    for name in ("a", "b"):
        put(repository, name, "085", ns="sub")
        assert head(repository, name, "sub") == "08"


def test_a_checkpoint_put_again_has_moved_the_head(repository: Repository) -> None:
    put(repository, "a", "01")
    put(repository, "a", "05", ns="sub")
    put(repository, "a", "03", "05", ns="sub")
    put(repository, "a", "05", ns="sub")
    assert head(repository, "a", "sub") == "05"
    put(repository, "a", "02", "01")
    put(repository, "a", "09", ns="sub")
    put(repository, "a", "03", "02")
    repository.fork('ckpt:"02"', "b", thread="a")
    assert head(repository, "b", "sub") == "05"


def test_what_a_fork_does_not_see_does_not_decide_its_head(repository: Repository) -> None:
    for step, name in enumerate(["01", "02", "09"]):
        put(repository, "a", name, [None, "01", "02"][step])
    repository.fork('ckpt:"02"', "b", thread="a")
    put(repository, "b", "05")
    assert listed(repository, "b") == ["05", "02", "01"]
    assert head(repository, "b") == "05"


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "with another fork"])
def test_a_fork_does_not_bring_back_what_was_pruned(repository: Repository, shared: bool) -> None:
    for step in range(1, 6):
        put(repository, "a", f"0{step}", f"0{step - 1}" if step > 1 else None)
    if shared:
        repository.copy_thread("a", "another")
    repository.prune_thread("a", keep_last(2))
    assert listed(repository, "a") == ["05", "04"]
    repository.fork('ckpt:"04"', "b", thread="a")
    assert listed(repository, "b") == ["04"]


def put_below(repository: Repository, checkpoint_id: str, above: str) -> None:
    metadata = packed({"parents": {"": above}})
    repository.put(NewCheckpoint("a", "sub", checkpoint_id, None, None, packed({}), metadata, {}))


@pytest.mark.parametrize("by", ["fork", "checkout"])
def test_a_subgraph_that_was_stored_before_the_checkpoint_it_ran_under(repository: Repository, by: str) -> None:
    """Puts of a graph and of its subgraph run side by side, so the later one may be first."""
    put(repository, "a", "01")
    put_below(repository, "02", above="01")
    put_below(repository, "05", above="04")
    put(repository, "a", "03", "01")
    put(repository, "a", "04", "03")
    if by == "fork":
        repository.fork('ckpt:"03"', "b", thread="a")
    else:
        repository.checkout('ckpt:"03"', thread="a")
    assert head(repository, "b" if by == "fork" else "a", "sub") == "02"
    repository.copy_thread("a", "whole")
    assert head(repository, "whole", "sub") == ("05" if by == "fork" else "02")


def test_a_fork_keeps_its_namespaces_when_its_base_is_rewound_and_pruned(repository: Repository) -> None:
    put(repository, "a", "05")
    put(repository, "a", "14", ns="sub")
    put(repository, "a", "15", "05")
    repository.copy_thread("a", "d")
    repository.checkout('ckpt:"05"', thread="a")
    repository.prune_thread("a", keep_last(1))
    assert (head(repository, "a", "sub"), head(repository, "d", "sub")) == (None, "14")


def test_what_another_process_did_to_the_head_counts_and_not_what_is_remembered() -> None:
    storage = MemoryStorage()
    one, two = Repository(storage), Repository(storage)
    following = [
        NewCheckpoint("a", "", f"0{n}", f"0{n - 1}", None, packed({}), packed({}), expect_head=True) for n in range(5)
    ]
    put(one, "a", "01")
    two.put(following[2])
    one.put(following[3])
    with pytest.raises(HeadMovedError, match="is 03, not 02"):
        two.put(following[3]._replace(checkpoint_id="04"))
    two.put(following[4])
    assert head(one, "a") == "04"

"""Time travel on a pruned thread against a twin that nobody pruned: from what stays, both lead to the same.

Histories are random: turns of a graph with a subgraph that remembers and one that does not, rewinds, tags, forks that
come and go, hosts whose clocks are behind, and prunes of every kind in between.
"""

from __future__ import annotations

import inspect
import sys
from datetime import timedelta
from itertools import count
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lifetime_kit import ids, opener
from stores import BACKENDS, new_store

from ckpt.repository import Repository
from ckpt.repository.incoming import NewCheckpoint, Typed
from ckpt.repository.prune import keep_last
from ckpt.storage.memory import MemoryStorage

POLICIES: list[Any] = ["keep_latest", {"keep_last": 2}, {"keep_last": 3}]


def packed(value: object) -> Typed:
    return Typed("msgpack", msgpack.packb(value))


class Twins:
    """The same history in two stores, of which one is pruned. Ids of checkouts differ; all others are given here."""

    def __init__(self, pruned: Repository) -> None:
        self.pruned, self.whole = pruned, Repository(MemoryStorage())
        self.numbers = count(1)
        self.same: dict[str, str] = {}
        """Root checkpoints of the pruned thread: what they are in the twin."""
        self.tasks: dict[str, set[str]] = {}
        """For each root checkpoint the namespaces of the tasks of its step."""
        self.root: str | None = None

    def new_id(self, behind: bool = False) -> str:
        return f"{'0' if behind else '9'}{next(self.numbers):05}"

    def put(self, repository: Repository, checkpoint_id: str, parent: str | None, namespace: str, above: Any) -> None:
        metadata = packed({"parents": {} if above is None else {"": above}})
        repository.put(NewCheckpoint("t", namespace, checkpoint_id, parent, None, packed({}), metadata, {}))

    def root_put(self, made: str) -> None:
        self.put(self.pruned, made, self.root, "", None)
        self.put(self.whole, made, self.same.get(self.root or ""), "", None)
        self.same[made], self.root = made, made

    def sub_put(self, namespace: str, behind: bool = False, above: str | None = None) -> None:
        """The next checkpoint of a subgraph in the step of the root's head, or of one that is still on its way."""
        made, above = self.new_id(behind), above or self.root
        if ":" in namespace:
            self.tasks.setdefault(above or "", set()).add(namespace)
        parents = [repository.read("t", namespace) for repository in (self.pruned, self.whole)]
        ours, theirs = [row.checkpoint_id if row is not None else None for row in parents]
        assert ours == theirs
        self.put(self.pruned, made, ours, namespace, above)
        self.put(self.whole, made, ours, namespace, self.same.get(above or "", above))

    def race(self, early: bool) -> None:
        """A subgraph's checkpoint that reaches the store before the root's under which it runs; `early`: before two."""
        roots = [self.new_id() for _ in range(2 if early else 1)]
        self.sub_put("remembers", above=roots[-1])
        for each in roots:
            self.root_put(each)

    def checkout(self, checkpoint_id: str) -> None:
        made = self.pruned.checkout(f'ckpt:"{checkpoint_id}"', thread="t").checkpoint_id
        self.same[made] = self.whole.checkout(f'ckpt:"{self.same[checkpoint_id]}"', thread="t").checkpoint_id
        self.root = made

    def roots(self) -> list[str]:
        return ids(self.pruned, "t")

    def check(self) -> None:
        """Every root checkpoint that stays leads where it leads in the twin."""
        ours, theirs = self.pruned.timeline("t"), self.whole.timeline("t")
        if ours is None or theirs is None:
            return
        assert theirs.head() == self.same.get(self.root or "")
        assert ours.head() == self.root
        for namespace in ("remembers", "remembers|deep"):
            head = ours.head(namespace)
            assert head == theirs.head(namespace)
            assert head is None or head in ids(self.pruned, "t", namespace)
            for root in self.roots():
                now, then = ours.moment(root), theirs.moment(self.same[root])
                assert now is not None
                assert then is not None
                head = ours.head_at(now[0], namespace, now[1])
                assert head == theirs.head_at(then[0], namespace, then[1]), f"{namespace} at {root}"
                assert head is None or head in ids(self.pruned, "t", namespace)
        visible = self.roots()
        for root, tasks in self.tasks.items():
            for task in tasks:
                row, twin = self.pruned.read("t", task), self.whole.read("t", task)
                if root in visible or row is not None:
                    assert (row and row.checkpoint_id) == (twin and twin.checkpoint_id)

    def travel(self, checkpoint_id: str) -> None:
        """Fork both there, and look at what the fork continues from."""
        self.pruned.fork(f'ckpt:"{checkpoint_id}"', "there", thread="t")
        self.whole.fork(f'ckpt:"{self.same[checkpoint_id]}"', "there", thread="t")
        for namespace in ("remembers", "remembers|deep"):
            row, twin = (repository.read("there", namespace) for repository in (self.pruned, self.whole))
            assert (row and row.checkpoint_id) == (twin and twin.checkpoint_id)
        for repository in (self.pruned, self.whole):
            repository.delete_thread("there")


ACTS = [
    "root",
    "root",
    "sub",
    "sub",
    "deep",
    "task",
    "race",
    "late",
    "behind",
    "behind sub",
    "checkout",
    "tag",
    "untag",
]
PRUNES = ["gc", "passing", "passing sub", "keep_latest", "prune", "prune and undo", "fork", "unfork"]


def act(both: Twins, what: str, data: st.DataObject) -> None:
    pruned = both.pruned
    roots = both.roots()
    if what in ("root", "behind") or not roots:
        both.root_put(both.new_id(what == "behind"))
    elif what in ("sub", "behind sub", "deep"):
        both.sub_put("remembers|deep" if what == "deep" else "remembers", what == "behind sub")
    elif what == "task":
        both.sub_put(f"node:{both.root}")
    elif what in ("race", "early"):
        both.race(what == "early")
    elif what == "late":
        pruned.put_writes("t", "", both.root or "", "task", "", [(0, "x", packed("late"))])
    elif what == "checkout":
        target = data.draw(st.sampled_from(roots))
        if target != both.root:
            both.checkout(target)
    elif what in ("tag", "untag"):
        tags = set(pruned.tags())
        if what == "untag" and tags:
            pruned.untag(data.draw(st.sampled_from(sorted(tags))))
        elif what == "tag":
            target = data.draw(st.sampled_from(roots))
            if target not in tags:
                pruned.tag(target, f'ckpt:"{target}"', thread="t")
    elif what == "gc":
        pruned.gc(grace=timedelta(0))
    elif what.startswith("passing"):
        pruned._upkeep._prune_in_passing(
            pruned.timeline("t").thread,  # type: ignore[union-attr]
            "remembers" if "sub" in what else "",
        )
    elif what == "keep_latest":
        pruned.prune_thread("t", keep_last(1))
    elif what.startswith("prune"):
        (report,) = pruned.prune(["t"], keep_last=1)
        if "undo" in what and report.removed:
            pruned.undo()
    elif what == "fork" and "fork" not in pruned.thread_names():
        pruned.fork(f'ckpt:"{data.draw(st.sampled_from(roots))}"', "fork", thread="t")
    elif what == "unfork" and "fork" in pruned.thread_names():
        pruned.delete_thread("fork")


def history(both: Twins, data: st.DataObject) -> None:
    for what in data.draw(st.lists(st.sampled_from(ACTS + PRUNES), min_size=5, max_size=40)):
        act(both, what, data)
        both.check()
    both.pruned.gc(grace=timedelta(0))
    both.check()
    for root in both.roots():
        both.travel(root)
    assert both.pruned.fsck().problems == []


_EXAMPLES = {"memory": 80, "encrypted memory": 10, "sqlite": 10, "postgres": 5, "redis": 8}


@pytest.mark.parametrize("backend", [*BACKENDS, "encrypted memory"])
def test_what_stays_leads_where_it_did(backend: str, request: pytest.FixtureRequest) -> None:
    @settings(max_examples=_EXAMPLES[backend], deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
    @given(data=st.data(), policy=st.sampled_from(POLICIES))
    def run(data: st.DataObject, policy: Any) -> None:
        storage = backend.rpartition(" ")[2]
        with new_store(storage, request) as url, opener(url) as opened:
            key = {} if storage == backend else {"encryption_key": bytes(range(32))}
            history(Twins(opened(retention=policy, **key)), data)

    run()


def test_a_subgraph_whose_clock_was_behind_stands_at_later_roots_where_it_stood() -> None:
    both = Twins(Repository(MemoryStorage(), retention="keep_latest"))
    for behind in (False, False, True):
        if not behind:
            both.root_put(both.new_id())
        both.sub_put("remembers", behind)
    both.pruned.gc(grace=timedelta(0))
    both.check()
    both.root_put(both.new_id())
    both.sub_put("remembers")
    both.check()


def test_what_a_rewind_left_behind_is_hidden_without_an_alarm_and_a_fork_keeps_it() -> None:
    both = Twins(Repository(MemoryStorage()))
    for _ in range(2):
        both.root_put(both.new_id())
    rewound_to = both.root or ""
    both.sub_put(task := f"node:{rewound_to}")
    (left_behind,) = ids(both.pruned, "t", task)
    both.pruned.fork("t", "fork")
    both.root_put(both.new_id())
    both.checkout(rewound_to)
    both.pruned.prune_thread("t", keep_last(1))
    assert both.pruned.read("t", task, left_behind) is None
    found = both.pruned.read("fork", task, left_behind)
    assert found is not None
    assert found.checkpoint_id == left_behind
    assert both.pruned.fsck().problems == []


def test_where_a_rewind_led_is_told_as_before_when_the_root_checkpoint_there_goes() -> None:
    """The subgraph's came to the store before the root's: only the root's row tells that it had not begun there."""
    both = Twins(Repository(MemoryStorage(), retention="keep_latest"))
    both.root_put(both.new_id())
    both.race(early=False)
    rewound_to = both.root or ""
    both.root_put(both.new_id())
    both.checkout(rewound_to)
    for _ in range(2):
        both.root_put(both.new_id())
    both.check()
    act(both, "passing", None)  # type: ignore[arg-type]
    assert rewound_to not in both.roots()
    both.check()


def test_a_thread_may_be_rewound_more_often_than_python_calls_within_calls() -> None:
    repository = Repository(MemoryStorage())
    first = repository.commit("t", {"n": 0}).checkpoint_id
    metadata = packed({"parents": {"": first}})
    repository.put(NewCheckpoint("t", "sub", f"{first}.", None, None, packed({}), metadata, {}))
    repository.commit("t", {"n": 1})
    for n in range(200):
        repository.commit("t", {"n": n})
        repository.rewind("t")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        found = repository.read("t", "sub")
        problems = repository.fsck().problems
    finally:
        sys.setrecursionlimit(limit)
    assert (found and found.checkpoint_id, problems) == (f"{first}.", [])

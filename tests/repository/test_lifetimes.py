"""Lifetimes: an expired thread is absent at once, a run under way is not cut off, and nothing stays behind."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from clock_kit import NOW, Clock
from lifetime_kit import Opener, ids, laid_down, put, records, typed

from ckpt.errors import (
    NotFoundError,
    RevisionNotFoundError,
    ThreadDeletedError,
)
from ckpt.repository import Repository
from ckpt.storage.base import Batch, RecordChangedError

TEXT = "a text of its own, which is long enough to be an object " * 9


# -- absent at once -----------------------------------------------------------------------------------


def test_an_expired_thread_reads_as_absent_at_once(opened: Opener, time: Clock) -> None:
    repository, other = opened(ttl="30d"), opened()
    repository.commit("t", {"n": 1})
    other.commit("kept", {"n": 2})
    time.after(days=30, milliseconds=-1)
    for each in (repository, other):
        assert each.thread("t").state() == {"n": 1}
        assert each.threads("t")[0].expires == datetime.fromtimestamp(NOW / 1000, UTC) + timedelta(days=30)
        assert each.threads("kept")[0].expires is None
    time.after(milliseconds=1)
    for each in (repository, other):
        assert each.thread_names() == ["kept"]
        assert [info.name for info in each.threads()] == ["kept"]
        assert each.thread("kept").state() == {"n": 2}


ABSENT: dict[str, Callable[[Repository, str, str], object]] = {
    "state": lambda repository, revision, checkpoint_id: repository.state("t"),
    "resolve by name": lambda repository, revision, checkpoint_id: repository.resolve("t"),
    "resolve in it": lambda repository, revision, checkpoint_id: repository.resolve("@", thread="t"),
    "resolve by tag": lambda repository, revision, checkpoint_id: repository.resolve("tag:good"),
    "resolve by id": lambda repository, revision, checkpoint_id: repository.resolve(revision),
    "by checkpoint id": lambda repository, revision, checkpoint_id: repository.resolve(f"ckpt:{checkpoint_id}"),
    "log": lambda repository, revision, checkpoint_id: repository.log(thread="t"),
    "fork": lambda repository, revision, checkpoint_id: repository.fork(revision, "new"),
    "fork in it": lambda repository, revision, checkpoint_id: repository.fork(revision, "new", thread="t"),
    "copy": lambda repository, revision, checkpoint_id: repository.copy_thread("t", "new"),
    "rewind": lambda repository, revision, checkpoint_id: repository.rewind("t"),
    "tag": lambda repository, revision, checkpoint_id: repository.tag("new", revision),
    "delete": lambda repository, revision, checkpoint_id: repository.delete("t"),
    "expire": lambda repository, revision, checkpoint_id: repository.expire("t", "9d"),
    "prune": lambda repository, revision, checkpoint_id: repository.prune(["t"], keep_last=1),
}


@pytest.mark.parametrize("path", ABSENT)
def test_no_path_leads_to_an_expired_thread(opened: Opener, time: Clock, path: str) -> None:
    repository, other = opened(ttl="1h"), opened()
    repository.commit("t", {"n": 1})
    made = repository.commit("t", {"n": 2})
    repository.tag("good", "t")
    time.after(hours=1)
    before = records(repository)
    for each in (repository, other):
        with pytest.raises(NotFoundError):
            ABSENT[path](each, made.spec, made.checkpoint_id)
    assert records(repository) == before


def test_listings_leave_it_out(opened: Opener, time: Clock) -> None:
    repository, other = opened(ttl="1h"), opened()
    made = repository.commit("t", {"n": 1})
    repository.tag("good", "t")
    assert repository.read("t") is not None
    time.after(hours=1)
    for each in (repository, other):
        assert each.read("t") is None
        assert each.read("t", "", made.checkpoint_id) is None
        assert ids(each, "t", None) == []
        assert each.timeline("t") is None
        assert (each.log(), each.tags(), each.threads(), each.thread_names()) == ([], {}, [], [])
        assert each.graphs()[0].threads == 0


def test_its_name_is_free(opened: Opener, time: Clock) -> None:
    repository = opened(ttl="1h")
    for name in ("forked", "copied", "begun"):
        repository.commit(name, {"old": name})
    time.after(hours=1)
    repository.commit("source", {"n": 1})
    repository.fork("source", "forked")
    repository.copy_thread("source", "copied")
    repository.commit("begun", {"n": 1})
    for name in ("forked", "copied", "begun"):
        assert repository.thread(name).state() == {"n": 1}
        assert len(repository.log(thread=name)) == 1
    assert repository.gc(grace=timedelta(0)).threads_removed == 3
    assert repository.thread_names() == ["begun", "copied", "forked", "source"]
    assert repository.fsck().problems == []


# -- what renews --------------------------------------------------------------------------------------


def test_a_write_renews_and_a_read_does_when_asked(opened: Opener, time: Clock) -> None:
    plain, reading = opened(ttl="10d"), opened(ttl={"default_ttl": 10 * 24 * 60, "refresh_on_read": True})
    for name in ("written", "read", "listed", "resolved", "logged", "handled", "of a subgraph"):
        put(plain, name, "01")
    plain.put_writes("written", "", "01", "task", "", [(0, "c", typed("w"))])
    for turn in range(3):
        time.after(days=9)
        if turn % 2:
            put(plain, "written", f"1{turn}", "01")
        else:
            plain.put_writes("written", "", "01", f"task {turn}", "", [(0, "c", typed("w"))])
        for each in (plain, reading):
            assert each.read("read") is not None
        assert ids(reading, "listed") == ["01"]
        assert reading.resolve("resolved").checkpoint_id == "01"
        assert len(reading.log(thread="logged")) == len(reading.thread("handled").log(limit=1)) == 1
        assert reading.log(thread="of a subgraph", namespace="inner:1") == []
    assert plain.thread_names() == ["handled", "listed", "logged", "of a subgraph", "read", "resolved", "written"]
    time.after(days=9)
    assert plain.read("read") is not None
    assert plain.thread("resolved").log() != []
    assert plain.log(thread="logged") != []
    time.after(days=1)
    assert plain.thread_names() == []


def test_a_log_of_all_threads_renews_them_and_an_overview_does_not(opened: Opener, time: Clock) -> None:
    repository = opened(ttl={"default_ttl": 60, "refresh_on_read": True})
    for name in ("one", "other"):
        put(repository, name, "01")
    before = [info.expires for info in repository.threads()]
    time.after(minutes=30)
    assert [info.expires for info in repository.threads()] == before
    assert len(repository.log()) == 2
    later = [info.expires for info in repository.threads()]
    assert later == [each + timedelta(minutes=30) for each in before if each is not None]


def test_a_read_writes_only_when_a_twentieth_of_the_lifetime_has_passed(opened: Opener, time: Clock) -> None:
    repository = opened(ttl={"default_ttl": 100, "refresh_on_read": True})
    put(repository, "t", "01")
    for minutes, writes in ((4, False), (1, True), (4, False), (2, True)):
        time.after(minutes=minutes)
        before = records(repository)
        assert repository.read("t") is not None
        assert (records(repository) != before) is writes
    # What the reader wrote is what the writer in the same process goes on from.
    put(repository, "t", "02", "01")
    assert ids(repository, "t") == ["02", "01"]


def test_a_lifetime_of_its_own_wins_over_the_policy(opened: Opener, time: Clock) -> None:
    repository, bare = opened(ttl="1h"), opened()
    for name in ("longer", "ever", "shorter"):
        repository.commit(name, {"n": 1})
    given = datetime.fromtimestamp(NOW / 1000, UTC)
    assert repository.expire("longer", "2h") == given + timedelta(hours=2)
    assert repository.expire("ever", None) is None
    assert bare.expire("shorter", timedelta(minutes=1)) == given + timedelta(minutes=1)
    time.after(seconds=59)
    for each in (repository, bare):
        each.commit("shorter", {"n": 2})
        time.after(seconds=59)
    time.after(seconds=1)
    assert repository.thread_names() == ["ever", "longer"]
    repository.commit("longer", {"n": 2})
    repository.commit("ever", {"n": 2})
    time.after(minutes=119)
    assert repository.thread_names() == ["ever", "longer"]
    time.after(minutes=1)
    assert repository.thread_names() == ["ever"]


def test_a_policy_that_was_changed_or_removed(opened: Opener, time: Clock) -> None:
    hour = opened(ttl="1h")
    for name in ("removed", "longer", "untouched"):
        hour.commit(name, {"n": 1})
    opened().commit("removed", {"n": 2})
    opened(ttl="3h").commit("longer", {"n": 2})
    assert [opened().threads(name)[0].expires for name in ("removed", "longer", "untouched")] == [
        datetime.fromtimestamp(NOW / 1000, UTC) + timedelta(hours=hours) for hours in (1, 3, 1)
    ]


def test_threads_from_before_the_policy_get_a_lifetime_when_they_are_written_to(opened: Opener, time: Clock) -> None:
    opened().commit("old", {"n": 1})
    opened().commit("older", {"n": 1})
    repository = opened(ttl="1h")
    repository.commit("old", {"n": 2})
    time.after(hours=1)
    assert repository.thread_names() == ["older"]


def test_whose_clock_counts(opened: Opener, time: Clock) -> None:
    """The writer's says when a thread expires, the reader's when that is: a host that is late reads it longer."""
    writer, reader = opened(ttl="1h"), opened()
    time.after(minutes=5)
    put(writer, "t", "01")
    time.after(minutes=-5)
    time.after(minutes=64)
    assert reader.read("t") is not None
    time.after(minutes=1)
    assert reader.read("t") is None


# -- runs under way, and new ones ---------------------------------------------------------------------


def test_a_new_run_on_the_name_of_an_expired_thread_starts_anew(opened: Opener, time: Clock) -> None:
    repository, other = opened(ttl="1h"), opened(ttl="1h")
    repository.commit("t", {"n": 1})
    time.after(hours=2)
    made = other.commit("t", {"n": 2})
    assert [info.checkpoint_id for info in repository.log(thread="t")] == [made.checkpoint_id]
    assert made.step == 0
    assert repository.thread("t").state() == {"n": 2}
    repository.gc(grace=timedelta(0))
    assert other.thread("t").state() == {"n": 2}
    assert repository.fsck().problems == []


LATE: dict[str, Callable[[Repository], None]] = {
    "put": lambda repository: put(repository, "t", "03", "02"),
    "writes": lambda repository: repository.put_writes("t", "", "02", "task", "", [(0, "c", typed("w"))]),
    "subgraph": lambda repository: put(repository, "t", "021", None, namespace="sub", above={"": "02"}),
    "subgraph writes": lambda repository: repository.put_writes("t", "old", "015", "task", "", [(0, "c", typed("w"))]),
}


@pytest.fixture(params=["the same process", "another process"])
def expired_under_way(request: pytest.FixtureRequest, opened: Opener, time: Clock) -> Repository:
    """A thread that expired while a run was between two steps."""
    repository = opened(ttl="1h")
    put(repository, "t", "01")
    put(repository, "t", "015", namespace="old", above={"": "01"})
    put(repository, "t", "02", "01")
    time.after(hours=1)
    repository = repository if request.param == "the same process" else opened(ttl="1h")
    assert repository.thread_names() == []
    return repository


@pytest.mark.parametrize("late", LATE)
def test_a_run_that_began_before_goes_on(expired_under_way: Repository, time: Clock, late: str) -> None:
    LATE[late](expired_under_way)
    assert {"02", "01"} <= set(ids(expired_under_way, "t"))
    put(expired_under_way, "t", "04", "03" if late == "put" else "02")
    assert ids(expired_under_way, "t")[0] == "04"
    time.after(minutes=59)
    assert expired_under_way.thread_names() == ["t"]
    assert expired_under_way.fsck().problems == []


@pytest.mark.parametrize(
    ("late", "end"),
    [(late, "swept") for late in LATE]
    + [(late, end) for late in LATE if late != "subgraph" for end in ("swept and begun anew", "begun anew")],
)
def test_a_run_that_began_before_is_refused_once_the_thread_is_swept(
    expired_under_way: Repository, late: str, end: str
) -> None:
    repository = expired_under_way
    if "swept" in end:
        assert repository.sweep() == 1
        assert repository.sweep() == 0
    if "anew" in end:
        put(repository, "t", "11")
    with pytest.raises(ThreadDeletedError, match=r"thread 't' has expired, and checkpoint 0\d+ with it") as caught:
        LATE[late](repository)
    assert caught.value.hints == ("start a new run on this name without a checkpoint_id",)
    assert ids(repository, "t", None) == (["11"] if "anew" in end else [])


@pytest.mark.parametrize("late", LATE)
def test_deleting_an_expired_thread_ends_it_for_runs_under_way(expired_under_way: Repository, late: str) -> None:
    assert expired_under_way.delete_thread("t") is False
    with pytest.raises(ThreadDeletedError):
        LATE[late](expired_under_way)


def test_a_deleted_thread_is_still_called_deleted(opened: Opener, time: Clock) -> None:
    repository = opened(ttl="1h")
    put(repository, "t", "01")
    repository.delete_thread("t")
    with pytest.raises(ThreadDeletedError, match="was deleted"):
        put(repository, "t", "02", "01")


def test_a_subgraph_of_a_deleted_thread_does_not_begin_a_new_one(opened: Opener) -> None:
    repository = opened()
    put(repository, "t", "01")
    repository.delete_thread("t")
    with pytest.raises(ThreadDeletedError, match="was deleted"):
        put(repository, "t", "011", None, namespace="sub", above={"": "01"})
    assert repository.thread_names() == []


def test_a_thread_that_lives_on_is_not_replaced(opened: Opener, time: Clock) -> None:
    """Between the look at an expired thread and its replacement, a run under way may renew it."""
    repository, other = opened(ttl="1h"), opened(ttl="1h")
    put(repository, "t", "01")
    time.after(hours=1)
    place = repository._directory.place("t")
    put(other, "t", "02", "01")
    _, change = repository._directory.create("t", place=place)
    with pytest.raises(RecordChangedError):
        repository.storage.publish(Batch(change.expected, change.records))
    assert ids(other, "t") == ["02", "01"]


# -- forks, tags, and what goes -----------------------------------------------------------------------


def test_forks_live_on_and_keep_what_they_share(opened: Opener, time: Clock) -> None:
    repository = opened(ttl="1h")
    for turn in range(3):
        repository.commit("t", {"text": f"{TEXT}{turn}", "turn": turn})
    shared = repository.resolve("@~1", thread="t")
    repository.tag("tip", "t")
    repository.tag("shared", "@~1", thread="t")
    fork = repository.fork("@~1", "fork", thread="t")
    repository.expire("fork", None)
    time.after(hours=1)
    for _ in range(2):
        assert repository.thread_names() == ["fork"]
        assert repository.thread("fork").state() == {"text": f"{TEXT}1", "turn": 1}
        assert [info.step for info in repository.log(thread="fork")] == [1, 0]
        assert repository.resolve("tag:shared").thread == "fork"
        assert repository.resolve(f"id:{shared.id}").checkpoint_id == fork.checkpoint_id
        with pytest.raises(RevisionNotFoundError):
            repository.resolve("tag:tip")
        repository.gc(grace=timedelta(0))
    repository.rewind("fork")
    assert repository.thread("fork").state() == {"text": f"{TEXT}0", "turn": 0}
    assert repository.fsck().problems == []
    repository.delete_thread("fork")
    repository.gc(grace=timedelta(0))
    assert repository.stats().objects == 0
    assert {key[:1] for key in records(repository)} <= {b"o", b"n"}


def test_how_long_a_fork_lives(opened: Opener, time: Clock) -> None:
    hour, bare, day = opened(ttl="1h"), opened(), opened(ttl="1d")
    hour.commit("t", {"n": 1})
    bare.fork("t", "as its source")
    day.fork("t", "as its policy")
    hour.expire("t", "2h")
    bare.fork("t", "for ever")
    day.fork("t", "as its policy again")
    hour.expire("t", None)
    bare.fork("t", "for ever as well")
    lifetimes = {info.name: info.expires for info in bare.threads()}
    now = datetime.fromtimestamp(NOW / 1000, UTC)
    assert lifetimes == {
        "t": None,
        "as its source": now + timedelta(hours=1),
        "as its policy": now + timedelta(days=1),
        "for ever": None,
        "as its policy again": now + timedelta(days=1),
        "for ever as well": None,
    }


def test_after_collection_nothing_of_an_expired_thread_remains(opened: Opener, time: Clock) -> None:
    repository = opened(ttl="1h")
    repository.commit("other", {"text": TEXT, "n": 1})
    repository.expire("other", None)
    repository.gc(grace=timedelta(0))
    kept, objects = records(repository), repository.stats().objects
    for turn in range(4):
        repository.commit("t", {"text": TEXT, "own": f"{TEXT}{turn}"})
    head = repository.resolve("t").checkpoint_id
    put(repository, "t", "sub-1", namespace="sub", above={"": head})
    put(repository, "t", "deep-1", namespace="sub|deep")
    repository.put_writes("t", "", head, "task", "path", [(0, "c", typed(TEXT + "written"))])
    repository.put_writes("t", "sub", "never put", "task", "", [(0, "c", typed(TEXT + "early"))])
    repository.tag("good", "t")
    assert len(records(repository)) > len(kept) + 9
    time.after(hours=1)
    assert repository.gc(grace=timedelta(days=14), dry_run=True).threads_removed == 1
    assert repository.gc(grace=timedelta(days=14)).threads_removed == 1
    left = {key: raw for key, raw in records(repository).items() if key[:1] != b"o"}
    assert left.keys() == {key for key in kept if key[:1] != b"o"}
    assert repository.stats().objects == objects
    assert laid_down(repository) == [key for key, _ in repository.storage.scan_index(b"", 1000)]
    assert len(laid_down(repository)) == objects
    assert repository.fsck().problems == []
    assert repository.thread("other").state() == {"text": TEXT, "n": 1}


def test_an_object_lives_until_its_last_owner_goes(opened: Opener, time: Clock) -> None:
    repository = opened(ttl="1h")
    repository.commit("one", {"text": TEXT})
    time.after(minutes=30)
    repository.commit("two", {"text": TEXT})
    for minutes, names in ((30, ["two"]), (30, [])):
        time.after(minutes=minutes)
        repository.gc(grace=timedelta(0))
        assert repository.thread_names() == names
        assert all(repository.thread(name).state() == {"text": TEXT} for name in names)
        assert bool(repository.stats().objects) is bool(names)


def test_a_thread_on_a_base_that_expired_first(opened: Opener, time: Clock) -> None:
    repository = opened(ttl="1h")
    repository.commit("t", {"n": 1})
    time.after(minutes=30)
    repository.fork("t", "fork")
    repository.tag("both", "t")
    time.after(minutes=30)
    repository.gc(grace=timedelta(0))
    assert repository.tags()["both"].thread == "fork"
    time.after(minutes=30)
    repository.gc(grace=timedelta(0))
    assert {key[:1] for key in records(repository)} == {b"o"}
    assert repository.stats().objects == 0
    assert repository.fsck().problems == []


def test_memories_do_not_expire_with_the_threads(opened: Opener, time: Clock) -> None:
    repository = opened(ttl="1h")
    repository.memory().put(("user",), "name", {"is": "Ana"})
    repository.commit("t", {"n": 1})
    time.after(hours=1)
    repository.gc(grace=timedelta(0))
    item = repository.memory().get(("user",), "name")
    assert item is not None
    assert item.value == {"is": "Ana"}
    assert repository.thread_names() == []


def test_a_fork_takes_the_name_of_what_it_was_forked_from_and_which_has_expired(opened: Opener, time: Clock) -> None:
    repository = opened()
    for number in range(2):
        repository.commit("name", {"n": number})
    repository.fork("name", "fork")
    repository.expire("name", "1h")
    time.after(hours=1)
    # The checkpoint is the expired thread's row.
    repository.fork("fork~1", "name")
    assert [repository.state(name) for name in ("name", "fork")] == [{"n": 0}, {"n": 1}]
    assert repository.fsck().problems == []
    repository.gc(grace=timedelta(0))
    for name in ("name", "fork"):
        repository.delete(name)
    repository.gc(grace=timedelta(0))
    assert repository.fsck().problems == []
    assert repository.stats().objects == 0

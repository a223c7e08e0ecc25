"""One damaged checkpoint is the matter of its thread: others are listed, pruned and collected, and it can be let go."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from damage_kit import damaging, fill_with_one_damaged, flipped, texts
from stores import BACKENDS, new_store

import ckpt
from ckpt.cli.main import cli
from ckpt.errors import (
    DamagedObjectError,
    DamagedRecordError,
    IntegrityError,
    PartlyDoneError,
    ThreadDeletedError,
    ThreadNotFoundError,
)
from ckpt.history import keys
from ckpt.objects.ids import ObjectId, index_key
from ckpt.repository import Repository, remove_short
from ckpt.repository.browse import Browser
from ckpt.storage.base import Batch

AT_ONCE = timedelta(0)
LONG = {"texts": [f"{number} is {number**9} to the ninth" for number in range(2000)]}


@pytest.fixture(params=[*BACKENDS, "encrypted"])
def repository(request: pytest.FixtureRequest) -> Iterator[Repository]:
    backend, key = ("sqlite", f"hex:{'5' * 64}") if request.param == "encrypted" else (request.param, None)
    with new_store(backend, request) as url, fill_with_one_damaged(url, key) as repository:
        yield repository


def damage_frame(path: str | Path, commit: str) -> None:
    """Damage the frame of a SQLite store that has a commit."""
    with ckpt.open(path) as repository:
        ((frame, _),) = repository.storage.locate([index_key(ObjectId(bytes.fromhex(commit)))]).values()
    with closing(sqlite3.connect(path)) as database:
        (data,) = database.execute("SELECT data FROM frame WHERE number = ?", (frame,)).fetchone()
        database.execute("UPDATE frame SET data = ? WHERE number = ?", (flipped(data), frame))
        database.commit()


def asked_anew(repository: Repository) -> Repository:
    """Return a repository on the same store that has read nothing yet."""
    return Repository(repository.storage)


def test_other_threads_are_listed_and_the_damaged_one_with_what_is_known(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    sound = {each.name: each for each in asked_anew(repository).threads("[gf]*")}
    with caplog.at_level(logging.WARNING):
        found = {each.name: each for each in asked_anew(repository).threads()}
    assert {name: found[name] for name in ("good", "fine")} == sound
    assert {each.status for each in sound.values()} == {"idle"}
    bad = found["bad"]
    assert (bad.checkpoints, bad.status, bad.head, bad.updated, bad.heads) == (4, "damaged", None, None, 0)
    (record,) = caplog.records
    assert "thread 'bad' is damaged: object " in record.getMessage()
    with pytest.raises(IntegrityError):
        asked_anew(repository).state("bad")


def test_a_fork_sees_the_damage_of_its_base(repository: Repository) -> None:
    repository.copy_thread("bad", "copy")
    found = {each.name: each for each in asked_anew(repository).threads()}
    assert {name: info.status for name, info in found.items()} == {
        "good": "idle",
        "fine": "idle",
        "bad": "damaged",
        "copy": "damaged",
    }
    assert (found["copy"].forked_from, found["copy"].checkpoints) == ("bad", 4)


def test_what_was_removed_meanwhile_is_no_damage(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    describe, stumbled = Browser.thread, 0

    def stumbling(self: Browser) -> object:
        nonlocal stumbled
        if self.timeline.thread.name == "good" and stumbled < 2:
            stumbled += 1
            with repository.storage.exclusive() as session:
                session.raise_epoch()
            raise DamagedObjectError("read where something else lies by now")
        return describe(self)

    truth = {each.name: each for each in asked_anew(repository).threads()}
    monkeypatch.setattr(Browser, "thread", stumbling)
    assert {each.name: each for each in asked_anew(repository).threads()} == truth
    assert stumbled == 2


def test_a_damaged_thread_can_be_deleted_and_the_rest_is_collected_then(repository: Repository) -> None:
    asked_anew(repository).prune(["good", "fine"], keep_last=1)
    before = repository.storage.usage()
    for dry_run in (True, False):
        with pytest.raises(DamagedObjectError, match="needed by thread 'bad'\n") as caught:
            asked_anew(repository).gc(grace=AT_ONCE, dry_run=dry_run)
        assert "or give up what cannot be read: ckpt delete bad" in caught.value.hints
        assert any("ckpt gc --grace 0s" in hint for hint in caught.value.hints)
    assert repository.storage.usage().frames == before.frames
    asked_anew(repository).delete("bad")
    with pytest.raises(DamagedObjectError, match=r"needed by thread 'bad' \(deleted\)\n") as caught:
        asked_anew(repository).gc()
    assert not any("ckpt delete" in hint for hint in caught.value.hints)
    report = asked_anew(repository).gc(grace=AT_ONCE)
    assert report.threads_removed == 1 and report.objects_removed > 0
    left = asked_anew(repository)
    assert {each.name: each.status for each in left.threads()} == {"good": "idle", "fine": "idle"}
    assert left.state("good") == texts(2)
    left.commit("bad", texts(5))
    assert asked_anew(repository).state("bad") == texts(5)


def test_a_refused_collection_names_all_who_need_what_is_damaged(repository: Repository) -> None:
    repository.copy_thread("bad", "-copy of it")
    storage = repository.storage
    damaging(storage, graph="another graph").commit("other", texts(77))
    repository.delete("bad")
    with pytest.raises(DamagedObjectError) as caught:
        asked_anew(repository).gc(grace=AT_ONCE)
    assert caught.value.message.endswith("needed by thread 'bad' (deleted), thread 'other' of graph 'another graph'")
    told = [hint.rpartition(": ")[2] for hint in caught.value.hints if "give up" in hint]
    assert told == ["ckpt delete -t '-copy of it'", "ckpt delete --graph 'another graph' other"]
    repository.delete("-copy of it")
    Repository(storage, graph="another graph").delete("other")
    assert asked_anew(repository).gc(grace=AT_ONCE).threads_removed == 3


def test_a_collection_with_a_policy_prunes_what_it_can_and_is_refused_alike(repository: Repository) -> None:
    keeping = Repository(repository.storage, retention="keep_latest")
    with pytest.raises(DamagedObjectError, match="needed by thread 'bad'\\n"):
        keeping.gc(grace=AT_ONCE)
    found = {each.name: each.checkpoints for each in asked_anew(repository).threads()}
    assert found == {"good": 1, "fine": 1, "bad": 4}


def test_only_forks_that_see_the_damage_are_to_be_given_up(repository: Repository) -> None:
    repository.fork("good", "early")
    damaging(repository.storage).commit("good", texts(77))
    asked_anew(repository).copy_thread("good", "late")
    asked_anew(repository).delete("bad")
    for told in (["ckpt delete good", "ckpt delete late"], ["ckpt delete late"], []):
        with pytest.raises(DamagedObjectError) as caught:
            asked_anew(repository).gc()
        assert [hint.rpartition(": ")[2] for hint in caught.value.hints if "give up" in hint] == told
        if told:
            asked_anew(repository).delete(told[0].rpartition(" ")[2])
    asked_anew(repository).gc(grace=AT_ONCE)
    assert asked_anew(repository).state("early") == texts(2)


def test_damage_in_what_was_pruned_names_the_thread(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    made = []
    for number in range(3):
        with ckpt.open(path) as repository:  # each begins a pack of its own
            made.append(repository.commit("fine", texts(number)))
    with ckpt.open(path) as repository:
        repository.commit("fine", texts(5))
        repository.prune(["fine"], keep_last=1)
    damage_frame(path, made[0].id)
    for grace in (timedelta(days=14), AT_ONCE):
        with (
            ckpt.open(path) as repository,
            pytest.raises(DamagedObjectError, match=r"not all that is needed .* needed by thread 'fine'\n"),
        ):
            repository.gc(grace=grace)
    with ckpt.open(path) as repository:
        assert repository.state("fine") == texts(5)


def test_a_refused_collection_names_a_memory(repository: Repository) -> None:
    repository.delete("bad")
    repository.gc(grace=AT_ONCE)
    damaging(repository.storage).memory("notes").put(("a",), "k", LONG)
    with pytest.raises(DamagedObjectError, match="needed by memory 'notes'\n") as caught:
        asked_anew(repository).gc(grace=AT_ONCE)
    assert "items of a memory go with its delete and its prune, a whole memory with its drop" in caught.value.hints
    assert not any("ckpt delete" in hint for hint in caught.value.hints)
    asked_anew(repository).memory("notes").drop()
    asked_anew(repository).gc(grace=AT_ONCE)


def damage_record(repository: Repository, thread: str, how: str) -> None:
    """Damage the record of a checkpoint in the middle of a thread: whatever the storage seals, it finds it so."""
    known = repository._directory.find(thread)
    assert known is not None
    rows = repository.storage.scan(*keys.checkpoints_range(known[0].number, ""))
    key, value = rows[len(rows) // 2]
    damaged = {"missing": None, "flipped": flipped(value), "zeroed": bytes(len(value))}[how]
    repository.storage.publish(Batch({}, {key: damaged}))


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("how", ["missing", "flipped", "zeroed"])
def test_a_thread_of_which_a_record_is_damaged_is_listed_and_let_go(
    repository: Repository, how: str, one_by_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if one_by_one:
        monkeypatch.setattr(remove_short, "ROWS_MAX", -1)
    repository.delete("bad")
    repository.gc(grace=AT_ONCE)
    for number in range(5):
        repository.commit("torn", texts(number))
    repository.tag("middle", "@~2", thread="torn")
    head = repository.resolve("torn")
    sound = {each.name: each for each in asked_anew(repository).threads() if each.name != "torn"}
    damage_record(repository, "torn", how)
    found = {each.name: each for each in asked_anew(repository).threads()}
    torn = found.pop("torn")
    assert found == sound
    assert (torn.status, torn.checkpoints, torn.head) == ("damaged", 5, None)
    with pytest.raises(DamagedRecordError, match="needed by thread 'torn'\n") as caught:
        asked_anew(repository).gc(grace=AT_ONCE)
    assert any(hint.endswith("ckpt delete torn") for hint in caught.value.hints)
    with pytest.raises(PartlyDoneError):
        asked_anew(repository).prune(["good", "torn"], keep_last=1)
    asked_anew(repository).delete("torn")
    asked_anew(repository).gc(grace=AT_ONCE)
    left = asked_anew(repository)
    # What was damaged of the other thread, and nothing needs, stays in its pack.
    assert {(problem.kind, problem.needed_by) for problem in left.fsck().problems} <= {("object", ())}
    assert (left.tags(), {each.name for each in left.threads()}) == ({}, set(sound))
    with pytest.raises(ThreadDeletedError):
        left.put_writes("torn", "", head.checkpoint_id, "task", "", [])


# -- the command line ------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "store.db"
    fill_with_one_damaged(str(path)).close()
    monkeypatch.setenv("CKPT_STORE", str(path))
    return path


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, list(arguments), prog_name="ckpt")
    return done.exit_code, done.stdout, done.stderr


def test_ckpt_threads_lists_the_damaged_one(store: Path) -> None:
    code, out, _ = run("threads")
    assert code == 0
    assert {line.split()[0]: line.split()[1] for line in out.splitlines()[1:]} == {
        "good": "idle",
        "fine": "idle",
        "bad": "damaged",
    }
    code, out, _ = run("threads", "--status", "damaged", "--json")
    (found,) = json.loads(out)["items"]
    assert (found["thread"], found["checkpoints"], found["head"], found["updated"]) == ("bad", 4, None, None)


def test_ckpt_delete_needs_no_commit(store: Path) -> None:
    assert run("delete", "bad", "-n")[:2] == (0, "Would delete bad (4 checkpoints). Nothing was changed.\n")
    assert run("delete", "bad", "-y")[:2] == (0, "Deleted bad (4 checkpoints). To undo: ckpt undo\n")
    assert run("gc", "--grace", "0s")[0] == 0
    with ckpt.open(store) as repository:
        assert [each.name for each in repository.threads()] == ["fine", "good"]


def test_ckpt_delete_counts_the_tag_names_what_cannot_be_read(store: Path) -> None:
    with ckpt.open(store) as repository:  # begins a pack of its own
        made = repository.commit("torn", texts(7))
        repository.tag("gone", "torn")
        repository.tag("whole", "good")
    damage_frame(store, made.id)
    with ckpt.open(store) as repository:
        with pytest.raises(PartlyDoneError, match=r"what these tags name cannot be read: 'gone' \(object ") as caught:
            repository.tags()
        assert caught.value.done == (("whole", repository.resolve("good")),)
        assert (repository.tag_names("torn"), repository.tag_names("fine")) == (["gone"], [])
    code, out, told = run("tag")
    assert (code, [line.split()[0] for line in out.splitlines()]) == (6, ["whole"])
    assert "error: what these tags name cannot be read: 'gone' (object " in told
    code, out, told = run("tag", "--json")
    assert (code, [each["tag"] for each in json.loads(out)["items"]]) == (6, ["whole"])
    with ckpt.open(store) as repository:
        repository.untag("whole")
        with pytest.raises(DamagedObjectError, match="'gone'"):
            repository.tags()
        repository.tag("whole", "good")
    assert run("delete", "torn", "-y")[:2] == (0, "Deleted torn (1 checkpoint, 1 tag). To undo: ckpt undo\n")
    with ckpt.open(store) as repository:
        assert list(repository.tags()) == ["whole"]
        with pytest.raises(ThreadNotFoundError):
            repository.tag_names("torn")


@pytest.mark.parametrize("more", [("--all",), ("bad", "good", "fine")])
def test_ckpt_prune_does_the_other_threads_and_then_reports(store: Path, more: tuple[str, ...]) -> None:
    code, out, told = run("prune", *more, "--keep-last", "1", "-y")
    assert (code, "\nRemoved 4 checkpoints, kept 2. To undo: " in out) == (6, True)
    assert "error: nothing was removed from 'bad' (object " in told
    assert "ckpt delete THREAD" in told
    with ckpt.open(store) as repository:
        assert {each.name: each.checkpoints for each in repository.threads()} == {"good": 1, "fine": 1, "bad": 4}


def test_ckpt_prune_reports_in_json_what_was_done(store: Path) -> None:
    code, out, told = run("prune", "--all", "--keep-last", "1", "-n", "--json")
    assert code == 6
    assert {each["thread"] for each in json.loads(out)["threads"]} == {"good", "fine"}
    assert json.loads(told.splitlines()[-1])["code"] == "PARTLY_DONE"


def test_a_prune_tells_what_it_did_to_the_others(store: Path) -> None:
    with ckpt.open(store) as repository:
        with pytest.raises(PartlyDoneError, match="nothing was removed from 'bad'") as caught:
            repository.prune(["good", "bad", "fine"], keep_last=1)
        assert [(each.thread, len(each.removed)) for each in caught.value.done] == [("good", 2), ("fine", 2)]
        with pytest.raises(ThreadNotFoundError):
            repository.prune(["fine", "nope"], keep_last=1)


def test_a_prune_of_damaged_threads_alone_finds_damage(store: Path) -> None:
    code, out, told = run("prune", "bad", "--keep-last", "1", "-y", "--json")
    assert (code, out, json.loads(told.splitlines()[-1])["code"]) == (5, "", "OBJECT_DAMAGED")

"""The `spec` of a checkpoint: it comes back as that checkpoint, of that thread and namespace, and as nothing else."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifetime_kit import Opener, put

from ckpt.encryption import encrypted
from ckpt.errors import AmbiguousRevisionError, InvalidInputError, RevisionNotFoundError
from ckpt.repository import CheckpointInfo, Repository, resolve
from ckpt.storage.base import Reading
from ckpt.storage.memory import MemoryStorage

ODD = [
    "plain", "two words", "a@b", "t~1", "t^", "t#2", "t@{1}", 'say "no"', "back\\slash", "x:y", "tag:v1", "id:beef",
    'thread:"t"', "日本語", "\u202e", " ", "@", "HEAD", "..", "a|b", "-n", "\n", "t}@{id:beef}", "",
]  # fmt: skip
PIECES = st.sampled_from([*ODD, "~", "^2", "#", "@{", "}", '"', "\\", "@{id:8c1f}", "\ud800", "\x00", "é", "beef"])
NAMES = st.lists(PIECES, max_size=4).map("".join) | st.text(max_size=8)


def everything(repository: Repository) -> list[CheckpointInfo]:
    listed = repository.log_of_each(subgraphs=True)
    assert {info.thread for info in listed} == set(repository.thread_names())
    return listed


def require_exact(repository: Repository) -> None:
    for info in everything(repository):
        for context in ({}, {"thread": "plain"}, {"namespace": "inner:1"}):
            found = repository.resolve(info.spec, **context)  # type: ignore[arg-type]
            assert (found.thread, found.namespace, found.checkpoint_id, found.id) == (
                info.thread, info.namespace, info.checkpoint_id, info.id,
            )  # fmt: skip


def test_each_checkpoint_comes_back_from_its_spec(opened: Opener) -> None:
    """Of threads, forks, forks of forks, copies and equal threads, in all namespaces, on and off the line."""
    repository = opened()
    for name in ODD:
        put(repository, name, "1")
        put(repository, name, "1a", namespace="inner:1")
        put(repository, name, "2", "1")
        put(repository, name, "2a", "1a", namespace="inner:1")
    repository.fork("@", "fork", thread="t~1")
    repository.fork("@~1", "older", thread="t~1")
    put(repository, "older", "3", "1")
    put(repository, "older", "3a", "1a", namespace="inner:1")
    repository.fork("@", "fork of a fork", thread="older")
    repository.copy_thread("older", "copy")
    repository.rewind("copy")
    repository.fork("@~1", "left", thread="plain")
    repository.prune(["plain"], keep_last=1)
    put(repository, "no root", "5", namespace="inner:1")
    repository.delete("x:y")
    repository.tag("v1", "@", thread="fork")
    require_exact(repository)
    repository.fork("@", "pruned", thread="t^")
    repository.delete("t^")
    require_exact(repository)


@given(st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_whatever_the_threads_are_called(names: list[str]) -> None:
    with Repository(MemoryStorage()) as repository:
        for name in names:
            put(repository, name, "1")
            put(repository, name, "2", "1")
        repository.tag("v1", "@", thread=names[0])
        for name in names:
            if f"{name}~1" not in repository.thread_names():
                repository.fork("@", f"{name}~1", thread=name)
        require_exact(repository)


def test_what_is_done_by_the_spec_of_a_forks_checkpoint_is_done_to_the_fork(opened: Opener) -> None:
    repository = opened()
    for number in range(3):
        repository.commit("t", {"n": number})
    repository.fork("@", "fork", thread="t")
    before = repository.log(thread="t")
    _, middle, first = repository.log(thread="fork")
    assert repository.checkout(middle.spec).thread == "fork"
    repository.tag("kept", first.spec)
    assert repository.tags()["kept"].thread == "fork"
    assert repository.fork(middle.spec, "again").thread == "again"
    repository.undo()
    assert [info.id for info in repository.log(thread="t")] == [info.id for info in before]
    assert repository.resolve("t").is_current
    with pytest.raises(RevisionNotFoundError, match="thread 't' has no checkpoint whose id begins so"):
        repository.resolve(repository.resolve("fork").spec.replace('"fork"', '"t"'))


def test_the_suffix_looks_in_the_whole_thread() -> None:
    with Repository(MemoryStorage()) as repository:
        made = [repository.commit("t", {"n": number}) for number in range(9)]
        repository.tag("v1", "@", thread="t")
        repository.rewind("t", 5)
        aside = repository.resolve(f"ckpt:{made[8].checkpoint_id}", thread="t")
        for text in (f"t@{{id:{aside.id[:12]}}}", f"@@{{id:{aside.id}}}", f"v1~3@{{id:{aside.id.upper()}}}"):
            assert repository.resolve(text, thread="t") == aside
            assert repository.resolve(f"{text}~2", thread="t").id == made[6].id
        for missing in ("nobody@{id:8c1f}", 'thread:"nobody"@{id:8c1f}'):
            with pytest.raises(RevisionNotFoundError, match="no thread or checkpoint matches"):
                repository.resolve(missing)
        with pytest.raises(InvalidInputError, match="no thread is given"):
            repository.resolve("@@{id:8c1f}")


def test_too_few_digits_name_all_that_begin_so() -> None:
    with Repository(MemoryStorage()) as repository:
        for number in range(600):
            put(repository, "t", f"{number:03}")
        infos = repository.log(thread="t")
        short = next(short for short, count in Counter(info.id[:4] for info in infos).items() if count > 1)
        with pytest.raises(AmbiguousRevisionError) as caught:
            repository.resolve(f"t@{{id:{short}}}")
        alike = sorted((info for info in infos if info.id.startswith(short)), key=lambda info: info.id)
        assert caught.value.candidates == tuple(info.spec for info in alike)


def test_the_candidates_of_an_ambiguous_id_can_be_told_apart() -> None:
    with Repository(MemoryStorage()) as repository:
        for name in ("one", "other"):
            put(repository, name, "1")
        (one, other) = repository.log_of_each()
        assert one.id == other.id
        with pytest.raises(AmbiguousRevisionError) as caught:
            repository.resolve(f"id:{one.id}")
        assert caught.value.candidates == (one.spec, other.spec)
        assert [json.loads(each[7 : each.index("@")]) for each in caught.value.candidates] == ["one", "other"]
        assert [repository.resolve(each).thread for each in caught.value.candidates] == ["one", "other"]


def test_a_whole_id_is_looked_up_where_an_encrypted_index_has_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def scanned(reading: Reading) -> None:
        raise AssertionError("all records were read")

    with Repository(encrypted(MemoryStorage(), bytes(32))) as repository:
        made = [repository.commit("t", {"n": number}) for number in range(100)]
        monkeypatch.setattr(resolve, "rows", scanned)
        assert [repository.resolve(info.spec).id for info in made] == [info.id for info in made]
        with pytest.raises(AssertionError, match="all records were read"):
            repository.resolve(f"id:{made[50].id[:-1]}")

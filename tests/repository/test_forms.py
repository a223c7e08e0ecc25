"""What a method takes, it takes in every form in which the rest of the interface gives it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ckpt.errors import InvalidInputError, NotFoundError
from ckpt.repository import Repository, open_repository


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with open_repository(tmp_path / "store.db") as opened:
        opened.commit("t", {"n": 1})
        opened.commit("t", {"n": 2})
        yield opened


def test_an_operation_is_undone_by_its_id_its_spec_and_itself(repository: Repository) -> None:
    for name in ("a", "b", "c", "d"):
        repository.tag(name, "t")
    newest, third, second, first = repository.operations()
    repository.undo(second)
    assert sorted(repository.tags()) == ["a", "c", "d"]
    repository.undo(f"op:{first.id}")
    assert sorted(repository.tags()) == ["c", "d"]
    repository.undo(third.id)
    repository.undo()
    assert not repository.tags()
    assert [each.undone for each in repository.operations()[-4:]] == [True] * 4
    with pytest.raises(NotFoundError):
        repository.undo("op:fff")
    assert newest.kind == "tag"


@pytest.mark.parametrize("grace", ["0s", timedelta(0)])
def test_a_grace_is_a_text_or_a_timedelta(repository: Repository, grace: str | timedelta) -> None:
    repository.delete("t")
    assert repository.gc(grace="1d").threads_removed == 0
    assert repository.gc(grace=grace).threads_removed == 1
    for odd in ("soon", 3, None):
        with pytest.raises(InvalidInputError, match="is not a duration"):
            repository.gc(grace=odd)  # type: ignore[arg-type]


def test_what_was_tagged_is_told_with_its_tags(repository: Repository) -> None:
    assert repository.tag("good", "t").tags == ("good",)
    told = repository.tag("best", "t")
    assert told.tags == ("best", "good")
    assert told == repository.resolve("t")


def test_a_diff_takes_revisions_and_checkpoints(repository: Repository) -> None:
    older, newer = repository.resolve("t~1"), repository.resolve("t")
    expected = repository.diff(older, newer)
    assert [change.path for change in expected.changes.changes] == [("n",)]
    for old, new in (("t~1", "t"), (older, "t"), (f"id:{older.id}", newer)):
        assert repository.diff(old, new) == expected
    assert repository.diff(None, "t").old is None
    with pytest.raises(NotFoundError):
        repository.diff("nope", "t")

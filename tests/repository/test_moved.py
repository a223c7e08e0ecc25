"""Checkout and rewind while a run goes on: what they say of the thread is true, or they change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from lifetime_kit import Opener, put, typed

from ckpt.errors import HeadMovedError, InvalidInputError
from ckpt.repository import CheckpointInfo, Repository
from ckpt.repository.acts import Acts
from ckpt.repository.browse import Browser

Act = Callable[[Repository], CheckpointInfo]
ACTS: dict[str, Act] = {
    "rewind": lambda repository: repository.rewind("t"),
    "a relative revision": lambda repository: repository.checkout("@~1", thread="t"),
    "a fixed one": lambda repository: repository.checkout("tag:second"),
    "the last step": lambda repository: repository.checkout("t#1"),
}


@pytest.fixture
def told(opened: Opener) -> Repository:
    repository = opened()
    for number in range(3):
        repository.commit("t", {"n": number})
    repository.tag("second", "@~1", thread="t")
    return repository


def meanwhile(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Have something done between what resolves a revision and what acts on it, once."""
    checkout = Acts.checkout

    def late(self: Acts, *arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(Acts, "checkout", checkout)
        do()
        return checkout(self, *arguments, **named)

    monkeypatch.setattr(Acts, "checkout", late)


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_a_run_that_commits_in_between_has_it_refused(
    opened: Opener, told: Repository, act: Act, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, other = told.resolve("t"), opened()
    meanwhile(monkeypatch, lambda: other.commit("t", {"n": "run"}))
    with pytest.raises(HeadMovedError) as caught:
        act(told)
    now = told.resolve("t")
    doing = "rewinding it" if act is ACTS["rewind"] else "checking it out"
    assert caught.value.exit_code == 4
    assert str(caught.value) == f"thread 't' moved while you were {doing} (now {now.id[:8]}, was {before.id[:8]})"
    assert caught.value.hints == ("a run is probably active. Look with ckpt log -n 3 -t t, then try again",)
    assert told.state("t") == {"n": "run"}
    assert now.parents == (before.id,)
    assert [operation.kind for operation in told.operations()] == ["tag"]
    assert act(told).parents == (told.resolve("t").parents)  # once more, when it stands still


def test_what_waits_at_the_head_does_not_move_it(
    opened: Opener, told: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = opened()
    head = told.resolve("t").checkpoint_id

    def work() -> None:
        put(other, "t", "99", namespace="inner:1")
        other.put_writes("t", "", head, "task", "", [(0, "n", typed("late"))])

    meanwhile(monkeypatch, work)
    assert told.rewind("t").step == 2
    assert told.state("t") == {"n": 1}


def test_who_has_shown_a_head_can_have_it_expected(told: Repository) -> None:
    target, head = told.resolve_with_head("@~2", thread="t")
    assert (target.step, head) == (0, told.resolve("t"))
    told.commit("t", {"n": 3})
    for act in (
        lambda: told.checkout(target.spec, expected_head=head),
        lambda: told.checkout("t", expected_head=head),
        lambda: told.rewind("t", 2, expected_head=head),
    ):
        with pytest.raises(HeadMovedError, match=f"was {head.id[:8]}"):
            act()
    assert told.state("t") == {"n": 3}
    now = told.resolve("t")
    assert told.rewind("t", 3, expected_head=now).parents == (target.id,)
    with pytest.raises(InvalidInputError, match="as a str"):
        told.checkout("t", expected_head=now.id)  # type: ignore[arg-type]


@pytest.mark.parametrize("revision", ["@", "@{1}", "@~1", "t@{1}", "tag:second", "tag:second@{2}"])
def test_a_resolution_sees_a_thread_at_one_moment(
    opened: Opener, told: Repository, revision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is put once it has begun: suffixes walk from the head that the anchor had, which is the head told."""
    other, describe = opened(), Browser.describe
    for namespace in ("", "inner:1"):
        still = told.resolve_with_head(revision, thread="t")

        def late(self: Browser, *arguments: Any, namespace: str = namespace) -> Any:
            monkeypatch.setattr(Browser, "describe", describe)
            found = describe(self, *arguments)
            put(other, "t", "9" if not namespace else "99", told.resolve("t").checkpoint_id, namespace=namespace)
            return found

        monkeypatch.setattr(Browser, "describe", late)
        found = told.resolve_with_head(revision, thread="t")
        assert [info.id for info in found] == [info.id for info in still]
        assert found[1].is_current


def test_a_fork_that_somebody_has_gone_on_with_is_not_given_values(
    opened: Opener, told: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = opened()
    meanwhile(monkeypatch, lambda: other.commit("fork", {"n": "run"}))
    with pytest.raises(HeadMovedError, match="thread 'fork' moved while you were setting its values"):
        told.fork("@", "fork", thread="t", values={"n": "mine"})
    assert told.state("fork") == {"n": "run"}

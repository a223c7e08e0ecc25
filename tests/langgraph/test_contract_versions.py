"""`get_next_version`: strings that sort by age, whatever kind of version a thread began with."""

from __future__ import annotations

import random
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from saver_kit import put, values

UPSTREAM = f"{41:032}.{0.8444218515250482:016}"


WHOLE = [None, 0, 1, 9, 10, 99, 12345678901234567890]
OTHER = [0.0, 2.5, 9.75, 1e16, 1e21, "7", "41", UPSTREAM, f"{9:032}.{0.0:016}"]


@pytest.mark.parametrize("current", [*WHOLE, *OTHER])
def test_versions_grow_as_strings_from_any_beginning(saver: Any, current: object) -> None:
    versions = [saver.get_next_version(current, None)]
    for _ in range(300):
        versions.append(saver.get_next_version(versions[-1], None))
    assert all(type(each) is str for each in versions)
    assert versions == sorted(versions)
    assert len(set(versions)) == len(versions)
    if isinstance(current, str) and "." in current:
        assert versions[0] > current


def test_a_thread_begun_with_another_saver_goes_on(saver: Any) -> None:
    theirs = InMemorySaver()
    version = None
    for _ in range(12):
        version = theirs.get_next_version(version, None)
        ours = saver.get_next_version(version, None)
        assert ours > version
        assert theirs.get_next_version(ours, None) > ours


def test_an_older_version_never_sorts_after_a_newer_one_of_any_kind(saver: Any) -> None:
    generator = random.Random(7)
    for _ in range(200):
        older = generator.randrange(10**9)
        newer = older + generator.randrange(1, 10**9)
        kinds = (int, float, lambda number: f"{number:032}.{generator.random():016}")
        assert saver.get_next_version(generator.choice(kinds)(older), None) < saver.get_next_version(
            generator.choice(kinds)(newer), None
        )


def test_the_versions_made_can_be_stored(saver: Any) -> None:
    first = saver.get_next_version(None, None)
    second = saver.get_next_version(first, None)
    put(saver, "t", "1", {"a": 1}, versions={"a": first})
    put(saver, "t", "2", {"a": 2}, parent="1", versions={"a": second})
    assert values(saver, "t", "1") == {"a": 1}
    assert values(saver, "t", "2") == {"a": 2}

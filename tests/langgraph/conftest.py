"""Fixtures of the saver's tests: each runs on every storage, many both sync and async."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from graph_kit import Scenario
from langgraph.checkpoint.memory import InMemorySaver
from saver_kit import Calls
from stores import BACKENDS, store_url

from ckpt.langgraph import CkptSaver

MakeSaver = Callable[..., CkptSaver]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_saver(backend: str, request: pytest.FixtureRequest) -> Iterator[MakeSaver]:
    """A factory of savers over one store: the same file or server, or the same repository in memory."""
    opened: list[CkptSaver] = []
    url = store_url(backend, request)

    def make(**options: Any) -> CkptSaver:
        if backend == "memory" and opened:
            saver = CkptSaver(opened[0].repository, **options)
        else:
            saver = CkptSaver(url, **options)
        opened.append(saver)
        return saver

    yield make
    for saver in reversed(opened):
        saver.close()


@pytest.fixture
def saver(make_saver: MakeSaver) -> CkptSaver:
    return make_saver()


@pytest.fixture(params=["sync", "async"])
def api(request: pytest.FixtureRequest, saver: CkptSaver) -> Calls:
    """The saver's methods, called directly or through their async twins."""
    return Calls(saver, request.param == "async")


@pytest.fixture(params=["one saver", "a new saver each turn"])
def same(request: pytest.FixtureRequest, make_saver: MakeSaver) -> Callable[[Scenario], Any]:
    """Run a scenario on LangGraph's own memory saver and on ours; the two must not differ.

    A scenario asks for a saver at every turn: always the same one, or one just opened on the store.
    """

    def compare(scenario: Scenario) -> Any:
        reference = InMemorySaver()
        expected = scenario(lambda: reference)
        if request.param == "one saver":
            ours = make_saver()
            found = scenario(lambda: ours)
        else:
            found = scenario(make_saver)
        assert found == expected
        return found

    return compare

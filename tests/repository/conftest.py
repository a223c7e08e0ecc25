"""Fixtures of the tests of lifetimes and retention: a clock that they move, and repositories over one store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clock_kit import Clock
from lifetime_kit import Opener, opener
from stores import BACKENDS, store_url


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture(params=BACKENDS)
def opened(request: pytest.FixtureRequest) -> Iterator[Opener]:
    """A function that opens repositories with options of their own, all over one store."""
    with opener(store_url(request.param, request)) as opened:
        yield opened

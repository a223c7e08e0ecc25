"""Stores for the tests of memory, on every backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from memory_kit import STORES, Clock

import ckpt
from ckpt.repository import Memory, Repository


@pytest.fixture(params=list(STORES))
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return STORES[request.param](request, tmp_path)


@pytest.fixture
def repository(store_url: str) -> Iterator[Repository]:
    with ckpt.open(store_url) as repository:
        yield repository


@pytest.fixture
def memory(repository: Repository) -> Memory:
    return repository.memory()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)

"""The contract of storages, on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckpt.storage.base import Storage
from ckpt.storage.postgres import PostgresStorage
from ckpt.testing import StorageContract


class TestPostgres(StorageContract):
    @pytest.fixture(autouse=True)
    def database(self, postgres_url: str) -> None:
        self.url = postgres_url

    def open_storage(self, location: Path) -> Storage:
        return PostgresStorage(self.url)

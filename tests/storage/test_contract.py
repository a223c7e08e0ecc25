"""The contract of storages, on those that come with ckpt."""

from __future__ import annotations

from pathlib import Path

from ckpt.storage.base import Storage
from ckpt.storage.memory import MemoryStorage
from ckpt.storage.sqlite import SqliteStorage
from ckpt.testing import StorageContract


class TestMemory(StorageContract):
    def open_storage(self, location: Path) -> Storage:
        return MemoryStorage()

    def reopen(self, storage: Storage, location: Path) -> Storage:
        return storage


class TestSqlite(StorageContract):
    def open_storage(self, location: Path) -> Storage:
        return SqliteStorage(location / "store.db")

"""The contract of storages holds when what they keep is encrypted."""

from __future__ import annotations

from pathlib import Path

from ckpt.encryption import encrypted
from ckpt.storage.base import Storage
from ckpt.storage.memory import MemoryStorage
from ckpt.storage.sqlite import SqliteStorage
from ckpt.testing import StorageContract

KEY = bytes(range(32))


class TestEncryptedMemory(StorageContract):
    def open_storage(self, location: Path) -> Storage:
        return encrypted(MemoryStorage(), KEY)

    def reopen(self, storage: Storage, location: Path) -> Storage:
        return storage


class TestEncryptedSqlite(StorageContract):
    def open_storage(self, location: Path) -> Storage:
        return encrypted(SqliteStorage(location / "store.db"), KEY)

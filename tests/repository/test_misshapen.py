"""Records that are sealed as they should be and say what cannot be: damage, whatever reads them."""

from __future__ import annotations

import pytest

from ckpt.errors import IntegrityError
from ckpt.history import keys
from ckpt.history.records import Base, ThreadRecord
from ckpt.repository import Repository
from ckpt.repository.scopes import MEMORY, within
from ckpt.storage.base import Batch, Storage
from ckpt.storage.memory import MemoryStorage


def thread_record(storage: Storage, number: int) -> ThreadRecord:
    raw = storage.read([keys.thread_key(number)])[0]
    assert raw is not None
    return ThreadRecord.decode(number, raw)


def put(storage: Storage, key: bytes, record: bytes) -> None:
    storage.publish(Batch({}, {key: record}))


@pytest.mark.parametrize(("number", "base"), [(1, 1), (1, 2), (2, 2), (2, 0), (2, 3)])
def test_a_base_that_is_not_older_than_its_fork_is_damage(number: int, base: int) -> None:
    storage = MemoryStorage()
    repository = Repository(storage)
    repository.thread("t").commit({"x": 1})
    repository.thread("t").fork("f").tag("v1")
    left = thread_record(storage, number)
    said = left._replace(base=Base(base, left.sequence, None, left.sequence, left.greatest), forks=1)
    put(storage, keys.thread_key(number), said.encode())
    repository = Repository(storage)
    named = f"thread number {number} is damaged"
    for read in (repository.threads, repository.gc, repository.log, repository.thread(left.name).state):
        with pytest.raises(IntegrityError, match=named):
            read()
    assert any(named in problem.message and left.name in problem.needed_by for problem in repository.fsck().problems)


@pytest.mark.parametrize("base", [1, 2])
def test_a_memory_whose_base_is_not_older_is_damage(base: int) -> None:
    storage = MemoryStorage()
    repository = Repository(storage)
    repository.memory("m").put(("a",), "k", {"x": 1})
    scope = within(storage, MEMORY, "")
    left = thread_record(scope, 1)
    put(scope, keys.thread_key(1), left._replace(base=Base(base, left.sequence, None, left.sequence, "")).encode())
    repository = Repository(storage)
    with pytest.raises(IntegrityError, match="thread number 1 is damaged"):
        repository.memory("m").get(("a",), "k")
    assert any("thread number 1 is damaged" in problem.message for problem in repository.fsck().problems)

"""Disguised keys: a bijection that hides every hash and keeps every range and order the engine relies on."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.encryption import encrypted
from ckpt.encryption.disguise import Disguise
from ckpt.history import keys
from ckpt.storage.base import Batch, Storage
from ckpt.storage.memory import MemoryStorage
from ckpt.storage.scoped import ScopedStorage

KEY = bytes(range(32))
NAMES = [f"user-{number}@example.org" for number in range(700)]
SPACES = ["", "inner", "inner:1|deep", *(f"task:{number}" for number in range(40))]
LABELS = [(), ("users",), ("users", "ana"), ("users", "ana", "notes"), ("users", "bob"), ("docs",)]
PATHS = [keys.namespace_path(labels) for labels in (*LABELS, *((f"label {n}",) for n in range(30)))]
IDS = [f"1f1e53f3-{number:04d}" for number in range(12)]
SCOPES = [keys.scope_prefix("g", name) for name in ("", "billing", "support", *(f"graph {n}" for n in range(600)))]


@given(st.binary(max_size=80), st.binary(min_size=32, max_size=32))
def test_keys_come_back(key: bytes, secret: bytes) -> None:
    disguise = Disguise(secret)
    hidden = disguise.record_key(key)
    assert disguise.original_key(hidden) == key
    assert len(hidden) == len(key)


@given(st.sampled_from("dngrtso"), st.binary(max_size=40), st.sampled_from(SCOPES[:3]))
def test_keys_of_the_grammar_and_their_beginnings_come_back(letter: str, rest: bytes, scope: bytes) -> None:
    disguise = Disguise(KEY)
    key = scope + letter.encode() + rest
    assert disguise.original_key(disguise.record_key(key)) == key


def test_no_hash_shows() -> None:
    disguise = Disguise(KEY)
    name = keys.name_key("ana")
    scope = keys.scope_prefix("g", "billing")
    for key, digest in [
        (name, name[2:]),
        (keys.tag_key("v1"), keys.tag_key("v1")[1:]),
        (keys.line_key(7, "inner"), keys.line_key(7, "inner")[-16:]),
        (keys.checkpoint_key(7, "inner", "id"), keys.line_key(7, "inner")[-16:]),
        (scope + keys.thread_key(1), scope[1:]),
        (keys.item_key(7, PATHS[2], "key"), keys.item_key(7, b"", "key")[-16:]),
        (keys.item_key(7, PATHS[2], "key"), PATHS[1][1:]),
        (keys.item_key(7, PATHS[2], "key"), PATHS[2][-16:]),
        (keys.namespace_key(7, PATHS[3]), PATHS[3][-16:]),
        (scope + name, name[2:]),
        (keys.registration_key(scope), scope[1:]),
    ]:
        hidden = disguise.record_key(key)
        assert digest in key
        assert digest not in hidden
        assert Disguise(KEY[::-1]).record_key(key) != hidden
    buckets = [disguise.record_key(keys.directory_key(bucket)) for bucket in range(256)]
    assert sorted(buckets) == [keys.directory_key(bucket) for bucket in range(256)] != buckets


def test_what_must_stay_in_order_stays_readable() -> None:
    disguise = Disguise(KEY)
    for key in (keys.COUNTERS, keys.operation_key(300), keys.thread_key(70_000), keys.checkpoint_key(3, "", "id")):
        assert disguise.record_key(key) == key
    inner = disguise.record_key(keys.checkpoint_key(3, "inner", "id"))
    assert inner.endswith(b"id")
    assert inner.startswith(keys.thread_key(3) + b"c\x01")
    # The bucket of a name is that of its directory record.
    assert (
        disguise.record_key(keys.name_key("ana"))[1:2]
        == disguise.record_key(keys.directory_key(keys.name_bucket("ana")))[1:]
    )


def written() -> set[bytes]:
    found = {keys.COUNTERS, *(keys.directory_key(bucket) for bucket in range(256))}
    found |= {keys.name_key(name) for name in NAMES}
    found |= {keys.tag_key(name) for name in NAMES[:50]}
    found |= {keys.operation_key(number) for number in range(0, 600, 50)}
    for thread in (1, 2, 255, 256, 70_000):
        found.add(keys.thread_key(thread))
        found |= {keys.line_key(thread, space) for space in SPACES[1:]}
        found |= {keys.checkpoint_key(thread, space, each) for space in SPACES for each in IDS}
        found |= {keys.namespace_key(thread, path) for path in PATHS}
        found |= {keys.item_key(thread, path, each) for path in PATHS for each in IDS[:4]}
    return found


def ranges() -> Iterator[tuple[bytes, bytes]]:
    yield from (keys.ALL_BUCKETS, keys.ALL_NAMES, keys.ALL_OPERATIONS, keys.ALL_TAGS, keys.ALL_THREADS)
    yield from (keys.bucket_range(bucket) for bucket in range(256))
    for thread in (1, 2, 255, 256, 70_000, 9):
        yield keys.thread_range(thread)
        yield keys.lines_range(thread)
        yield from (keys.checkpoints_range(thread, space) for space in (None, *SPACES, "absent"))
        for path in (*PATHS, keys.namespace_path(["absent"])):
            yield keys.namespaces_range(thread, path)
            yield keys.items_range(thread, path)
            yield keys.own_items_range(thread, path)


@pytest.fixture(scope="module", params=["", "billing"])
def store(request: pytest.FixtureRequest) -> Storage:
    """All keys above in one scope, and some of another one that must never turn up."""
    root = encrypted(MemoryStorage(), KEY)
    prefixes = {name: keys.scope_prefix("g", name) for name in ("", "billing", "support")}
    for name, prefix in prefixes.items():
        mine = written() if name == request.param else {keys.name_key("other"), keys.thread_key(9)}
        root.publish(Batch(records={prefix + key: key for key in mine}))
    prefix = prefixes[request.param]
    return ScopedStorage(root, prefix) if prefix else root


def test_every_range_holds_what_it_should(store: Storage) -> None:
    everything = written()
    for start, end in ranges():
        wanted = sorted(key for key in everything if start <= key < end)
        for reverse in (False, True):
            rows = store.scan(start, end, reverse=reverse)
            assert sorted(rows) == [(key, key) for key in wanted]
        assert store.view([], [(start, end)]).ranges[0] == rows[::-1]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_pages_join_up_in_both_directions(store: Storage, size: int) -> None:
    chosen = [*ranges()]
    for start, end in chosen if size > 1 else random.Random(1).sample(chosen, 40):
        if start == b"n\xff":
            continue  # ends where all names end, so that a page of it cannot be told from one of all names
        whole = store.scan(start, end)
        forward, position = [], start
        while page := store.scan(position, end, limit=size):
            assert len(page) == size or len(forward) + len(page) == len(whole)
            forward += page
            position = page[-1][0] + b"\x00"
        assert forward == whole
        if end == keys.after_prefix(start):  # the engine reads whole prefixes backwards, and nothing else
            backward, position = [], end
            while page := store.scan(start, position, limit=size, reverse=True):
                backward += page
                position = page[-1][0]
            assert backward == whole[::-1]


def test_the_ids_of_a_namespace_and_the_threads_keep_their_order(store: Storage) -> None:
    for space in SPACES:
        rows = store.scan(*keys.checkpoints_range(256, space))
        assert [keys.checkpoint_id_of(key, 256) for key, _ in rows] == IDS
        before = keys.checkpoint_key(256, space, IDS[5])
        start, _ = keys.checkpoints_range(256, space)
        found = store.scan(start, before, reverse=True, limit=3)
        assert [keys.checkpoint_id_of(key, 256) for key, _ in found] == [IDS[4], IDS[3], IDS[2]]
    rows = store.scan(*keys.ALL_THREADS)
    numbers = [int.from_bytes(key[2 : 2 + key[1]], "big") for key, _ in rows]
    assert numbers == sorted(numbers)
    heads = [key for key, _ in rows if key == keys.thread_key(int.from_bytes(key[2 : 2 + key[1]], "big"))]
    assert [rows.index((key, key)) for key in heads] == [numbers.index(n) for n in (1, 2, 255, 256, 70_000)]


def test_every_scope_is_found_by_skipping_from_one_to_the_next() -> None:
    storage = encrypted(MemoryStorage(), KEY)
    present = {scope for scope in SCOPES if scope}
    assert any(scope.endswith(b"\xff") for scope in present)
    records = {scope + keys.thread_key(number): b"" for scope in present for number in (1, 2)}
    storage.publish(Batch(records={**records, keys.thread_key(1): b"", keys.name_key("n"): b""}))
    found = []
    start, end = keys.ALL_SCOPES
    while page := storage.scan(start, end, limit=1):
        found.append(keys.scope_of(page[0][0]))
        start = keys.after_prefix(found[-1])
    assert len(found) == len(present)
    assert set(found) == present


def test_index_keys_of_every_length_come_back() -> None:
    disguise = Disguise(KEY)
    given = [b"", b"a", bytes(15), bytes(16), b"\xff" * 16, bytes(17), b"b" * 16]
    hidden = disguise.index_keys(given)
    assert disguise.original_index_keys(hidden) == given
    assert [old == new for old, new in zip(given, hidden, strict=True)] == [len(key) != 16 for key in given]
    assert hidden[3] == disguise.index_keys([bytes(16)])[0]

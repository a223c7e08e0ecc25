"""An independent reader, written from `docs/format.md`, and the engine read the same from a store."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import engine_content
import kept_stores
import pytest
import reader

import ckpt

SOURCE = Path(reader.__file__)


@pytest.fixture(scope="module")
def busy_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with forks of forks, subgraphs, tags, rewinds, spills, pruned rows and collected packs."""
    path = tmp_path_factory.mktemp("store") / "busy.db"
    kept_stores.fill_more(path)
    return path


def test_the_reader_shares_no_code_with_the_engine() -> None:
    imported = {
        alias.name.partition(".")[0] if isinstance(node, ast.Import) else str(node.module).partition(".")[0]
        for node in ast.walk(ast.parse(SOURCE.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported - set(sys.stdlib_module_names) == {"blake3", "msgpack", "zstandard"}
    assert len(SOURCE.read_text(encoding="utf-8").splitlines()) <= 220


def test_the_reader_finds_what_the_engine_finds(busy_store: Path) -> None:
    with ckpt.open(busy_store, readonly=True) as repository:
        expected = engine_content.content(repository)
    found = reader.Store(busy_store).content()
    assert found["threads"].keys() == expected["threads"].keys()
    for name, thread in expected["threads"].items():
        assert found["threads"][name] == thread
    assert found == expected


def test_the_store_has_what_makes_reading_hard(busy_store: Path) -> None:
    store = reader.Store(busy_store)
    events = [event for record in store.under(b"t").values() for event in _events(record)]
    assert {event[0] for event in events} == {0, 1, 2, 3}
    threads = [fields for key, fields in store.under(b"t").items() if _is_thread(key)]
    assert any(fields[6] and fields[6][2] for fields in threads), "a fork that left at an older checkpoint"
    assert any(fields[6] and not fields[6][2] for fields in threads), "a fork that left at the head"
    assert any(len(store.segments(int.from_bytes(key[2:], "big"))) > 2 for key in store.under(b"t") if _is_thread(key))
    assert any(fields[8] for fields in threads), "a deleted thread that others were forked from"
    assert any(fields[9] for fields in threads), "a thread that was rewound"
    assert any(previous for previous, _ in store.frames.values()), "a pack of several frames"
    assert any(len(ghosts) for _, _, _, ghosts in store.under(b"n").values()), "a name with a deleted thread"
    kinds = {kind for number in store.frames for kind, _ in _objects(store, number)}
    assert kinds == {0x62, 0x63, 0x72}


def test_every_changed_byte_of_a_record_is_noticed(busy_store: Path) -> None:
    store = reader.Store(busy_store)
    for key, record in list(store.records.items())[::7]:
        for position in range(len(record)):
            changed = bytearray(record)
            changed[position] ^= 1
            with pytest.raises(AssertionError):
                reader.unseal(key, bytes(changed))


def _is_thread(key: bytes) -> bool:
    return len(key) == 2 + key[1]


def _events(record: object) -> list[list[object]]:
    return [each for each in record if isinstance(each, list)] if _is_event_list(record) else []  # type: ignore[attr-defined]


def _is_event_list(record: object) -> bool:
    return isinstance(record, list) and all(isinstance(each, list) for each in record)


def _objects(store: reader.Store, number: int) -> list[tuple[int, bytes]]:
    if number not in store.opened:
        store.open_pack(number)
    return store.opened[number]

"""The test vectors of `docs/format.md`: today's code makes exactly these bytes, and reads them back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import make_vectors as made
import msgpack
import pytest
import reader

from ckpt.errors import DamagedObjectError, DamagedRecordError
from ckpt.history.checkpoints import decode_events, encode_events
from ckpt.history.commits import decode_commit, encode_commit
from ckpt.history.items import ItemRecord, item_entry
from ckpt.history.records import NameRecord, Tally, ThreadRecord, decode_line, encode_line
from ckpt.history.seal import entry, summed, unseal
from ckpt.objects.frames import StoredObject, cut
from ckpt.objects.ids import object_id
from ckpt.objects.packs import PackReader
from ckpt.objects.varint import decode_varint
from ckpt.repository.spill import open_spills
from ckpt.values.cut import Cutter
from ckpt.values.rope import decode_items

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "format.md"
VECTORS: dict[str, Any] = json.loads(made.FILE.read_text(encoding="utf-8"))


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def decode_frame(data: bytes) -> list[StoredObject]:
    """Return the objects of a frame that ends where the bytes end, or raise DamagedObjectError."""
    (frame,) = cut(data, 1)
    return frame.objects()


def cases(name: str) -> Any:
    found = VECTORS[name]
    named = found.items() if isinstance(found, dict) else enumerate(found)
    return pytest.mark.parametrize("vector", [pytest.param(each, id=str(label)) for label, each in named])


def test_making_them_again_gives_the_same_file() -> None:
    assert made.text() == made.FILE.read_text(encoding="utf-8"), "run: python tests/format/make_vectors.py"


@cases("varint")
def test_varint(vector: dict[str, Any]) -> None:
    data = raw(vector["bytes"])
    assert decode_varint(data + b"\x00", 0) == (vector["number"], len(data))
    assert reader.varint(data, 0) == (vector["number"], len(data))


@cases("varint_invalid")
def test_varint_invalid(vector: str) -> None:
    with pytest.raises(DamagedObjectError):
        decode_varint(raw(vector), 0)


@cases("object")
def test_object(vector: dict[str, Any]) -> None:
    assert object_id(vector["kind"], raw(vector["data"])).hex() == vector["id"]
    assert vector["id"].startswith(vector["index_key"])


@cases("frame")
def test_frame(vector: dict[str, Any]) -> None:
    expected = [(kind, raw(data)) for kind, data in vector["objects"]]
    assert decode_frame(raw(vector["bytes"])) == expected
    assert reader.frame_objects(raw(vector["bytes"])) == expected


@cases("frame_invalid")
def test_frame_invalid(vector: str) -> None:
    with pytest.raises(DamagedObjectError):
        decode_frame(raw(vector))


def test_pack() -> None:
    vector = VECTORS["pack"]
    frames = PackReader().read([raw(block) for block in vector["blocks"]])
    assert [frame.objects() for frame in frames] == [decode_frame(raw(each)) for each in vector["frames"]]


@cases("rope")
def test_rope(vector: dict[str, Any]) -> None:
    expected = [(kind, length, siblings, raw(payload)) for kind, length, siblings, payload in vector["items"]]
    assert decode_items(raw(vector["bytes"])) == expected
    assert reader.rope_items(raw(vector["bytes"])) == expected


@cases("rope_invalid")
def test_rope_invalid(vector: str) -> None:
    with pytest.raises(DamagedObjectError):
        decode_items(raw(vector))


@cases("commit")
def test_commit(vector: dict[str, Any]) -> None:
    commit = decode_commit(raw(vector["bytes"]))
    assert encode_commit(commit).hex() == vector["bytes"]
    assert commit in made.COMMITS.values()
    assert [name for name, *_ in vector["channels"]] == list(commit.channels)


@cases("seal")
def test_seal(vector: dict[str, Any]) -> None:
    key, body, record = (raw(vector[part]) for part in ("key", "body", "record"))
    expected = msgpack.unpackb(body)
    assert record.startswith(body)
    assert unseal(key, record, "it") == expected
    assert reader.unseal(key, record) == expected
    with pytest.raises(DamagedRecordError):
        unseal(key + b"x", record, "it")
    for position in range(len(record)):
        with pytest.raises(DamagedRecordError):
            unseal(key, record[:position] + bytes((record[position] ^ 1,)) + record[position + 1 :], "it")
        with pytest.raises(DamagedRecordError):
            unseal(key, record[:position], "it")


@cases("census")
def test_census(vector: dict[str, Any]) -> None:
    salt, rows = raw(vector["salt"]), [(raw(key), raw(record)) for key, record in vector["rows"]]
    found = summed((item_entry if key == made.ITEM_KEY else entry)(salt, key, record) for key, record in rows)
    assert (found.count, f"{found.digest:016x}") == (vector["count"], vector["digest"])
    assert reader.census(salt, rows) == (found.count, found.digest)


def test_a_lease_adds_nothing_to_a_census() -> None:
    of_items = [vector for vector in VECTORS["census"] if vector["rows"] and raw(vector["rows"][0][0]) == made.ITEM_KEY]
    assert len({vector["rows"][0][1] for vector in of_items}) == 2
    assert len({vector["digest"] for vector in of_items}) == 1


@cases("record")
def test_record(vector: dict[str, Any]) -> None:
    key, record = raw(vector["key"]), raw(vector["record"])
    assert reader.unseal(key, record) == unseal(key, record, "it")
    kind = vector["name"].partition(",")[0].partition(" of")[0]
    again = {
        "thread": lambda: ThreadRecord.decode(int.from_bytes(key[2:], "big"), record).encode(),
        "line": lambda: encode_line(1, decode_line(key, record)),
        "name": lambda: NameRecord.decode(key, record).encode(),
        "tags": lambda: Tally.decode(key, record).encode(key),
        "operations": lambda: Tally.decode(key, record).encode(key),
        "directory": lambda: Tally.decode(key, record).encode(key),
        "item": lambda: ItemRecord.decode(key, record).encode(key),
        "checkpoint": lambda: encode_events(key, decode_events(key, record)),
    }
    if kind in again:
        assert again[kind]() == record


def test_spilled_writes_come_back_in_their_place() -> None:
    vector = VECTORS["record"][-1]
    assert object_id(0x62, raw(vector["blob"])).hex() == vector["blob_id"]
    events = decode_events(raw(vector["key"]), raw(vector["record"]))
    opened = open_spills(events, lambda ids: dict.fromkeys(ids, raw(vector["blob"])))
    assert opened == made.EVENTS[:3]


@pytest.mark.parametrize("name", made.VALUES)
def test_value(name: str) -> None:
    found = made.SERIALIZER.loads_typed(("ckpt", raw(VECTORS["value"][name]["bytes"])))
    assert type(found) is type(made.VALUES[name])
    assert found == made.VALUES[name]
    assert repr(found) == repr(made.VALUES[name])


@cases("cut")
def test_cut(vector: dict[str, Any]) -> None:
    objects: dict[bytes, bytes] = {}

    def emit(kind: int, data: bytes) -> Any:
        oid = object_id(kind, data)
        objects[oid] = data
        return oid

    rope, _ = Cutter(emit).cut(vector["type"], raw(vector["bytes"]))
    assert rope.hex() == vector["rope"]
    assert [oid.hex() for oid in objects] == vector["objects"]

    def value(items: list[tuple[int, int, int, bytes]]) -> bytes:
        return b"".join(
            (payload, objects.get(payload, b""))[kind == 1] if kind < 2 else value(reader.rope_items(objects[payload]))
            for kind, _, _, payload in items
        )

    assert value(reader.rope_items(raw(vector["rope"]))).hex() == vector["bytes"]


def test_every_kind_of_value_has_a_vector() -> None:
    from ckpt.values.kinds import KIND_NAMES

    codes = {each.code for data in _documents() for each in _extensions(data)}
    assert set(KIND_NAMES) <= codes


def _documents() -> list[bytes]:
    return [raw(vector["bytes"]) for vector in VECTORS["value"].values()]


def _extensions(data: bytes) -> list[msgpack.ExtType]:
    found: list[msgpack.ExtType] = []

    def note(code: int, payload: bytes) -> msgpack.ExtType:
        found.append(msgpack.ExtType(code, payload))
        found.extend(_extensions(payload) if 32 <= code < 59 else [])
        return found[-1]

    msgpack.unpackb(data, ext_hook=note, strict_map_key=False, unicode_errors="surrogatepass")
    return found


def test_the_examples_of_the_document_are_real() -> None:
    """Every hex example in `docs/format.md` that names a vector is that vector."""
    document = DOCUMENT.read_text(encoding="utf-8")
    examples = re.findall(r"<!-- vector: (\S+) -->\n\n```\n(.*?)```", document, re.DOTALL)
    assert len(examples) >= 4
    for path, block in examples:
        found: Any = VECTORS
        for part in path.split("/"):
            found = found[int(part)] if isinstance(found, list) else found[part.replace("_", " ")]
        shown = "".join(line.partition("  ")[0] for line in block.splitlines())
        assert shown.replace(" ", "") == found, path

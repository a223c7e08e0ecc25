"""Make the test vectors of the format: `python tests/format/make_vectors.py` writes `vectors.json`.

Everything in `docs/format.md` that is bytes has a vector here, so that another implementation can check
itself. Bytes are hex. A test makes them anew and compares; change them only together with the format.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from hashlib import sha256
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgpack
from pydantic import BaseModel

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1])]

from ckpt.history import keys  # noqa: E402
from ckpt.history.checkpoints import Hidden, Put, Spill, Write, Writes, encode_events  # noqa: E402
from ckpt.history.commits import Commit, Parent, StoredValue, encode_commit  # noqa: E402
from ckpt.history.items import ItemRecord, Lease, Version, item_entry  # noqa: E402
from ckpt.history.records import Base, Line, NameRecord, Reset, Tally, ThreadRecord, encode_line  # noqa: E402
from ckpt.history.seal import Census, census, seal, summed  # noqa: E402
from ckpt.objects.frames import StoredObject, encode_frame  # noqa: E402
from ckpt.objects.ids import Kind, ObjectId, index_key, object_id  # noqa: E402
from ckpt.objects.varint import encode_varint  # noqa: E402
from ckpt.repository.directory import ghost_hash  # noqa: E402
from ckpt.repository.operations import Operation  # noqa: E402
from ckpt.repository.spill import spill  # noqa: E402
from ckpt.repository.tags import Tag  # noqa: E402
from ckpt.values.cut import Cutter  # noqa: E402
from ckpt.values.kinds import Opaque  # noqa: E402
from ckpt.values.rope import BLOB, ROPE, Item, encode_items, inline  # noqa: E402
from ckpt.values.serializer import Serializer  # noqa: E402

FILE = HERE / "vectors.json"

# -- values of every kind that the built-in serializer knows --------------------------------------------


class Color(enum.Enum):
    RED = "r"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Note:
    text: str
    later: int = dataclasses.field(init=False, repr=False, compare=False)


class Point(NamedTuple):
    x: int
    y: int


class Person(BaseModel):
    name: str
    age: int = 3


CLASSES: list[type] = [Color, Access, Note, Point, Person]
for each in CLASSES:
    each.__module__ = "example"  # however this file is imported

SERIALIZER = Serializer(CLASSES)

VALUES: dict[str, object] = {
    "None": None,
    "True": True,
    "-1": -1,
    "2 ** 64 - 1": 2**64 - 1,
    "1.5": 1.5,
    "text with NUL and a lone surrogate": "a\x00\ud800",
    "bytes": b"\x00\xff",
    "list": [1, [2]],
    "dict in the order given": {"b": 1, "a": None, 3: 4},
    "int 2 ** 64": 2**64,
    "int -(2 ** 63) - 1": -(2**63) - 1,
    "bytearray": bytearray(b"ab"),
    "tuple": (1, "a"),
    "set": {3, 1, 2},
    "frozenset": frozenset({1}),
    "dict with a tuple as key": {(1, 2): "x"},
    "datetime": datetime(2026, 1, 31, 12, 30, 15, 250, tzinfo=UTC),
    "datetime in a named zone": datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    "date": date(2026, 1, 31),
    "time": time(12, 30),
    "timedelta": timedelta(days=-1, microseconds=5),
    "timezone": timezone(timedelta(hours=1), "CET"),
    "zoneinfo": ZoneInfo("Europe/Berlin"),
    "uuid": uuid.UUID("00112233-4455-6677-8899-aabbccddeeff"),
    "decimal": Decimal("1.50"),
    "complex": 1 + 2j,
    "fraction": Fraction(1, 3),
    "path": PurePosixPath("/a/b"),
    "deque": deque([1, 2], 5),
    "ordereddict": OrderedDict([("b", 1), ("a", 2)]),
    "defaultdict": defaultdict(list, {"a": [1]}),
    "counter": Counter("aab"),
    "enum": Color.RED,
    "flag": Access.READ | Access.WRITE,
    "dataclass with a field never set": Note.__new__(Note),
    "namedtuple": Point(1, 2),
    "model": Person(name="Ada"),
    "document": [Opaque("", "pickle", "document", b"\x80\x04.")],
    "an extension of another writer": Opaque("", "", "ext:60", b"\x01"),
    "timestamp": msgpack.Timestamp(1, 5),
}
vars(VALUES["dataclass with a field never set"])["text"] = "hi"  # type: ignore[arg-type]


# -- the vectors ----------------------------------------------------------------------------------------

ZERO, ONES = ObjectId(bytes(32)), ObjectId(b"\x01" * 32)
EMPTY = StoredValue("ckpt", encode_items([inline(b"\x80", 1)]))
COUNT = StoredValue("msgpack", encode_items([inline(b"\x05", 1)]))
COMMITS = {
    "without channels": Commit("", "1f0", None, (), EMPTY, EMPTY, {}),
    "of a subgraph, with a parent": Commit(
        "ask:1",
        "1f1",
        "2026-01-31T12:00:00+00:00",
        (Parent("1f0", ONES),),
        EMPTY,
        StoredValue("ckpt", encode_items([inline(b"\x81\xa4step\x01", 1)])),
        {"z": COUNT, "a\ud800": StoredValue("null", b"\x00\x01")},
    ),
    "whose parent was never stored": Commit("", "b", None, (Parent("a", b""),), EMPTY, EMPTY, {"n": COUNT}),
}
TASK = "3d0a2f31-5a2b-4c53-9a4e-7c3a1e0c9b11"
EVENTS: list[Any] = [
    Put(1, ONES, 212),
    Writes(2, TASK, "~__pregel_pull, a", (Write(0, "n", *COUNT), Write(-3, "__interrupt__", *COUNT)), 0),
    Writes(3, "not a UUID", "", (Write(0, "n", "null", b""),), 17),
    Spill(4, ZERO),
    Hidden(5),
]
SALT = bytes(range(8))
LINES = {
    "new": Line(""),
    "of a subgraph": Line("ask:1", "1f1", "1f2", 7, Census(2, 0x0123456789ABCDEF), Census(1, 0x89ABCDEF), 7),
}
THREADS = {
    "new": ThreadRecord(1, "chat", salt=SALT),
    "with everything": ThreadRecord(
        300,
        "chat",
        9,
        "1f2",
        Line("", "1f1", "1f2", 8, Census(3, 5), Census(2, 7), 9),
        Census(1, 6),
        Base(1, 4, "1f0", 9, "1f1"),
        2,
        True,
        (Reset(5, 2, 1),),
        salt=SALT,
    ),
    "a whole copy": ThreadRecord(2, "copy", base=Base(1, 4, None, 4, "1f0"), salt=SALT),
}
ITEM_KEY = keys.item_key(1, keys.namespace_path(["users", "ana"]), "diet")
ITEM = ItemRecord(
    ("users", "ana"),
    "diet",
    (Version(1_800_000_000_000_000, 1_800_000_000_000_000, 60_000_000, StoredValue(*COUNT)),),
)
READ = ITEM._replace(lease=Lease(1_800_000_000_000_000, 1_800_000_090_000_000))
ITEMS = {
    "item": ITEM,
    "item, read since": READ,
    "item, read and deleted": READ.adding(Version(1_800_000_040_000_000, 1_800_000_040_000_000, 0, None)),
}


def _lines(count: int) -> str:
    return "".join(f"line {i}: {Random(i).randrange(1 << 30)}\n" for i in range(count))


CUTS: dict[str, tuple[str, bytes]] = {
    "short": ("msgpack", msgpack.packb("short")),
    "a leaf": ("msgpack", msgpack.packb(["x" * 300])),
    "messages": ("msgpack", msgpack.packb([{"id": i, "text": f"message {i} " * 20} for i in range(40)])),
    "small elements in runs": ("msgpack", msgpack.packb([f"element {i}" for i in range(500)])),
    "the first six end a run": ("msgpack", msgpack.packb([f"32 {i} " * 20 for i in range(12)])),
    "a map of texts": ("msgpack", msgpack.packb({"a.py": _lines(200), "b.py": "", "c.py": _lines(10)})),
    "a document in an extension": (
        "ckpt",
        msgpack.packb(msgpack.ExtType(34, msgpack.packb(["y" * 200, "z" * 5000, list(range(100))]))),
    ),
    "a text of one line": ("msgpack", msgpack.packb(" ".join(map(str, range(3000))))),
    "long bytes": ("pickle", b"".join(sha256(bytes([n])).digest() * 3 for n in range(250))),
    "not msgpack": ("json", b'{"a": "' + b"j" * 5000 + b'"}'),
    "broken msgpack": ("msgpack", b"\xdc\xff\xff" + b"b" * 5000),
}


def vectors() -> dict[str, Any]:
    """Return all vectors as JSON data."""
    frame = [
        StoredObject(Kind.BLOB, b"abc"),
        StoredObject(Kind.ROPE, b"\x0c\x01abc"),
        StoredObject(Kind.COMMIT, b""),
    ]
    second = [StoredObject(Kind.BLOB, b"\x00" * 300)]
    rope_items = [
        inline(b"\x92\xa1a", 0),
        Item(BLOB, 300, 1, ONES),
        Item(ROPE, 70_000, 1000, ZERO),
        inline(b"\xc0", 1),
    ]
    return {
        "about": "test vectors of ckpt's store format 1; bytes are hex, see docs/format.md",
        "varint": [
            {"number": number, "bytes": encode_varint(number).hex()}
            for number in (0, 1, 127, 128, 300, 16_383, 16_384, 1 << 32, (1 << 63) - 1)
        ],
        "varint_invalid": ["", "80", "ffff", "ff" * 9 + "01"],
        "object": [
            _object(Kind.BLOB, b""),
            _object(Kind.BLOB, b"abc"),
            _object(Kind.ROPE, b"abc"),
            _object(Kind.COMMIT, b"abc"),
        ],
        "frame": [
            {"objects": [[kind, data.hex()] for kind, data in objects], "bytes": encode_frame(objects).hex()}
            for objects in ([], frame, second)
        ],
        "frame_invalid": ["", "01", "016203000000", "01620300000061626364", "016103000000616263"],
        "pack": {
            "about": "a zstd stream of raw blocks, one for each frame, its end never written",
            "blocks": [block.hex() for block in _raw_blocks([encode_frame(frame), encode_frame(second)])],
            "frames": [encode_frame(frame).hex(), encode_frame(second).hex()],
        },
        "rope": [
            {
                "items": [[kind, length, siblings, payload.hex()] for kind, length, siblings, payload in items],
                "bytes": encode_items(items).hex(),
            }
            for items in ([], [inline(b"\xc0", 1)], rope_items)
        ],
        "rope_invalid": ["03", "0401", "050101", "0300" + "00" * 32, "0101" + "00" * 32],
        "commit": {name: _commit(commit) for name, commit in COMMITS.items()},
        "key": _keys(),
        "seal": [
            {"key": key.hex(), "body": body.hex(), "record": seal(key, msgpack.unpackb(body)).hex()}
            for key, body in ((b"c", b"\x07"), (b"d\x05", b"\x92\x01\xcf" + b"\x80" * 8))
        ],
        "census": [
            *(
                _census(rows, census(SALT, rows))
                for rows in ([], [(b"na", seal(b"na", 1))], [(b"na", seal(b"na", 2)), (b"nb", seal(b"nb", 1))])
            ),
            *(
                _census(
                    [(ITEM_KEY, each.encode(ITEM_KEY))], summed([item_entry(SALT, ITEM_KEY, each.encode(ITEM_KEY))])
                )
                for each in (ITEM, READ)
            ),
        ],
        "record": _records(),
        "ghost": [{"checkpoint_id": text, "hash": ghost_hash(text).hex()} for text in ("", "1f0")],
        "value": {name: _value(value) for name, value in VALUES.items()},
        "cut": {name: _cut(*typed) for name, typed in CUTS.items()},
    }


def _object(kind: int, data: bytes) -> dict[str, Any]:
    oid = object_id(kind, data)
    return {"kind": kind, "data": data.hex(), "id": oid.hex(), "index_key": index_key(oid).hex()}


def _census(rows: list[tuple[bytes, bytes]], counted: Census) -> dict[str, Any]:
    return {
        "salt": SALT.hex(),
        "rows": [[key.hex(), record.hex()] for key, record in rows],
        "count": counted.count,
        "digest": f"{counted.digest:016x}",
    }


def _raw_blocks(frames: list[bytes]) -> list[bytes]:
    """Return zstd streams of raw blocks, whose bytes do not depend on the library."""
    blocks = [(len(raw) << 3).to_bytes(3, "little") + raw for raw in frames]
    return [bytes.fromhex("28b52ffd0048") + blocks[0], *blocks[1:]]


def _commit(commit: Commit) -> dict[str, Any]:
    data = encode_commit(commit)
    return {
        "namespace": commit.namespace,
        "checkpoint_id": commit.checkpoint_id,
        "timestamp": commit.timestamp,
        "parents": [[parent.checkpoint_id, parent.commit.hex()] for parent in commit.parents],
        "header": [commit.header.type, commit.header.rope.hex()],
        "metadata": [commit.metadata.type, commit.metadata.rope.hex()],
        "channels": [[name, value.type, value.rope.hex()] for name, value in commit.channels.items()],
        "bytes": data.hex(),
        "id": object_id(Kind.COMMIT, data).hex(),
    }


def _keys() -> dict[str, str]:
    made = {
        "number 0": keys.number_key(0),
        "number 255": keys.number_key(255),
        "number 256": keys.number_key(256),
        "counter": keys.COUNTERS,
        "directory of 'chat'": keys.directory_key(keys.name_bucket("chat")),
        "name 'chat'": keys.name_key("chat"),
        "name U+D800": keys.name_key("\ud800"),
        "operations": keys.OPERATIONS,
        "operation 1": keys.operation_key(1),
        "tags": keys.TAGS,
        "tag 'v1'": keys.tag_key("v1"),
        "thread 1": keys.thread_key(1),
        "thread 300": keys.thread_key(300),
        "line of 'ask:1' in thread 1": keys.line_key(1, "ask:1"),
        "checkpoint '1f0' in thread 1": keys.checkpoint_key(1, "", "1f0"),
        "checkpoint 'é' of 'ask:1' in thread 300": keys.checkpoint_key(300, "ask:1", "é"),
    }
    return {name: key.hex() for name, key in made.items()}


def _records() -> list[dict[str, Any]]:
    name_key, bucket = keys.name_key("chat"), keys.directory_key(keys.name_bucket("chat"))
    checkpoint, spilled = keys.checkpoint_key(1, "", "1f0"), b"spill"
    tag = Tag("v1", 1, "", "1f0", ONES)
    made = [(f"thread, {name}", keys.thread_key(each.number), each.encode()) for name, each in THREADS.items()]
    made += [(f"line, {name}", keys.line_key(1, each.namespace), encode_line(1, each)) for name, each in LINES.items()]
    made += [(name, ITEM_KEY, each.encode(ITEM_KEY)) for name, each in ITEMS.items()]
    made += [
        ("name", name_key, NameRecord("chat", 1, (3,), bytes(8)).encode()),
        ("name of a deleted thread", name_key, NameRecord("chat", None, (1,)).encode()),
        ("directory", bucket, Tally(SALT, Census(1, 77)).encode(bucket)),
        ("counter", keys.COUNTERS, seal(keys.COUNTERS, 2)),
        ("tags", keys.TAGS, Tally(SALT).replaced(keys.tag_key("v1"), None, tag.encode()).encode(keys.TAGS)),
        ("tag", keys.tag_key("v1"), tag.encode()),
        ("operations", keys.OPERATIONS, Tally(SALT, Census(1, 78)).encode(keys.OPERATIONS)),
        (
            "operation",
            keys.operation_key(1),
            Operation(1, 1.5, "tag", "tag v1", "me", False, ("v1", None, b"")).encode(),
        ),
        ("checkpoint", checkpoint, encode_events(checkpoint, EVENTS)),
        ("spill", spilled, encode_events(spilled, [each for each in EVENTS if isinstance(each, Writes)])),
    ]
    found = [{"name": name, "key": key.hex(), "record": record.hex()} for name, key, record in made]
    return [*found, {"name": "checkpoint, spilled", **_spilled(checkpoint)}]


def _spilled(key: bytes) -> dict[str, str]:
    objects: dict[ObjectId, bytes] = {}

    class Draft:
        def add(self, kind: int, data: bytes) -> ObjectId:
            objects[object_id(kind, data)] = data
            return object_id(kind, data)

    record = encode_events(key, spill(EVENTS[:3], Draft()))  # type: ignore[arg-type]
    ((oid, data),) = objects.items()
    return {"key": key.hex(), "record": record.hex(), "blob": data.hex(), "blob_id": oid.hex()}


def _value(value: object) -> dict[str, str]:
    type_, data = SERIALIZER.dumps_typed(value)
    assert type_ == "ckpt"
    # Python writes it otherwise from 3.12 on.
    shown = f"OrderedDict({list(value.items())!a})" if isinstance(value, OrderedDict) else ascii(value)
    return {"repr": shown, "bytes": data.hex()}


def _cut(type_: str, data: bytes) -> dict[str, Any]:
    made: list[str] = []

    def emit(kind: int, piece: bytes) -> ObjectId:
        oid = object_id(kind, piece)
        if oid.hex() not in made:
            made.append(oid.hex())
        return oid

    rope, _ = Cutter(emit).cut(type_, data)
    return {"type": type_, "bytes": data.hex(), "rope": rope.hex(), "objects": made}


def text() -> str:
    """Return the content of the file."""
    return json.dumps(vectors(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")

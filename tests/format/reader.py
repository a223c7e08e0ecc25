"""A reader of stores in a SQLite file, written from `docs/format.md` alone; it imports nothing of `ckpt`.

`python tests/format/reader.py store.db` prints what it finds as JSON. It checks what a reader must check:
seals, lengths, and the hash of every object. It reads the whole store into memory.
"""

from __future__ import annotations

import json
import sqlite3
import struct
import sys
import uuid
from itertools import chain
from pathlib import Path
from typing import Any

import msgpack
import zstandard
from blake3 import blake3

Item = tuple[int, int, int, bytes]


def varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while data[at] >= 0x80:
        number |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return number | data[at] << shift, at + 1


def unpack(data: bytes) -> Any:
    return msgpack.unpackb(data, strict_map_key=False, unicode_errors="surrogatepass")


def unseal(key: bytes, record: bytes) -> Any:
    assert blake3(key + record[:-8]).digest(8) == record[-8:], f"the seal of {key!r} is broken"
    return unpack(record[:-8])


def census(salt: bytes, rows: list[tuple[bytes, bytes]]) -> tuple[int, int]:
    digest = 0
    for key, record in rows:
        body = record[:-8]
        if key[:1] == b"t" and key[2 + key[1] : 3 + key[1]] == b"i":
            body = msgpack.packb([None, *unpack(body)[1:]], unicode_errors="surrogatepass")
        digest ^= int.from_bytes(blake3(salt + key + body).digest(8), "big")
    return len(rows), digest


def frame_objects(raw: bytes) -> list[tuple[int, bytes]]:
    count, at = varint(raw, 0)
    kinds, lengths = raw[at : at + count], struct.unpack_from(f"<{count}I", raw, at + count)
    start, objects = at + 5 * count, []
    for kind, length in zip(kinds, lengths, strict=True):
        objects.append((kind, raw[start : start + length]))
        start += length
    return objects


def rope_items(rope: bytes) -> list[Item]:
    items, at = [], 0
    while at < len(rope):
        head, at = varint(rope, at)
        siblings, at = varint(rope, at)
        size = 32 if head & 3 else head >> 2
        items.append((head & 3, head >> 2, siblings, rope[at : at + size]))
        at += size
    return items


def number_key(number: int) -> bytes:
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return bytes((len(data),)) + data


def name_hash(name: str) -> bytes:
    return blake3(name.encode("utf-8", "surrogatepass")).digest(16)


class Store:
    def __init__(self, path: Path) -> None:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        query = connection.execute
        query("BEGIN")
        assert query("PRAGMA application_id").fetchone()[0] == 0x636B7074, "not a store"
        assert query("PRAGMA user_version").fetchone()[0] == 1, "another format"
        self.records: dict[bytes, bytes] = dict(query("SELECT key, value FROM record ORDER BY key"))
        self.places: dict[bytes, int] = dict(query("SELECT key, place FROM object"))
        rows = query("SELECT number, previous, data FROM frame")
        self.frames: dict[int, tuple[int, bytes]] = {row[0]: row[1:] for row in rows}
        self.opened: dict[int, list[tuple[int, bytes]]] = {}
        connection.close()

    def open_pack(self, number: int) -> None:
        numbers = [number]
        while previous := self.frames[numbers[-1]][0]:
            numbers.append(previous)
        stream = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        for each in reversed(numbers):
            self.opened[each] = frame_objects(stream.decompress(self.frames[each][1]))

    def object(self, oid: bytes) -> bytes:
        frame, position = divmod(self.places[oid[:16]], 1 << 16)
        if frame not in self.opened:
            self.open_pack(frame)
        kind, data = self.opened[frame][position]
        assert blake3(bytes((kind,)) + data).digest() == oid, f"object {oid.hex()} is damaged"
        return data

    def value(self, rope: bytes) -> bytes:
        parts = []
        for kind, length, _, payload in rope_items(rope):
            part = (lambda data: data, self.object, lambda oid: self.value(self.object(oid)))[kind](payload)
            assert len(part) == length
            parts.append(part)
        return b"".join(parts)

    def typed(self, type_: str, rope: bytes) -> list[str]:
        return [type_, self.value(rope).hex()]

    def under(self, prefix: bytes) -> dict[bytes, Any]:
        return {key: unseal(key, value) for key, value in self.records.items() if key.startswith(prefix)}

    def segments(self, number: int) -> list[tuple[int, Any, set[str], int]]:
        """(thread number, moment, bare ids, made) of a thread and its bases, newest first."""
        found: list[tuple[int, Any, set[str], int]] = []
        moment, bare, made = None, set[str](), 0
        while True:
            key = b"t" + number_key(number)
            record = unseal(key, self.records[key])
            found.append((number, moment, bare, made))
            if record[6] is None:
                return found
            number, moment, left_at, made, _ = record[6]
            bare = bare | {left_at} - {None}

    def events(self, record: list[Any]) -> list[list[Any]]:
        opened = [[event] if event[0] != 2 else unseal(b"spill", self.object(event[2])) for event in record]
        return sorted(chain.from_iterable(opened), key=lambda event: event[1])

    def rows(self, number: int, namespace: str) -> dict[str, list[list[Any]]]:
        """The events of every checkpoint of a namespace, as the thread sees them, by checkpoint id."""
        found: dict[str, list[list[Any]]] = {}
        for thread, moment, bare, made in reversed(self.segments(number)):
            prefix = b"t" + number_key(thread) + b"c"
            prefix += b"\x01" + name_hash(namespace) if namespace else b"\x00"
            for key, record in self.under(prefix).items():
                name = key[len(prefix) :].decode("utf-8", "surrogatepass")
                events = self.events(record)
                seen = [e for e in events if moment is None or e[1] <= (made if e[0] == 3 else moment)]
                if not namespace and name in bare:
                    seen = [event for event in seen if event[0] == 0]
                if seen:
                    found.setdefault(name, []).extend(seen)
        return dict(sorted(found.items(), reverse=True))

    def checkpoint(self, name: str, events: list[list[Any]]) -> dict[str, Any] | None:
        decisive = [event for event in events if event[0] in (0, 3)]
        if not decisive or decisive[-1][0] == 3:
            return None
        commit = decisive[-1][2]
        namespace, id_, timestamp, parents, *rest, channels = unpack(self.object(commit))
        entries = zip(channels[::3], channels[1::3], channels[2::3], strict=True)
        return {
            "id": name,
            "commit": commit.hex(),
            "named": [namespace, id_],
            "timestamp": timestamp,
            "parents": [[parent, oid.hex()] for parent, oid in parents],
            "header": self.typed(*rest[0:2]),
            "metadata": self.typed(*rest[2:4]),
            "channels": {channel: self.typed(*value) for channel, *value in entries},
            "writes": self.writes(events),
        }

    def writes(self, events: list[list[Any]]) -> list[list[Any]]:
        slots: dict[tuple[str, int], list[Any]] = {}
        for _, _, task, path, writes, _ in (event for event in events if event[0] == 1):
            task = str(uuid.UUID(bytes=task)) if isinstance(task, bytes) else task
            for index, channel, type_, rope in writes:
                if index < 0 or (task, index) not in slots:
                    slots[task, index] = [path, task, index, channel, *self.typed(type_, rope)]
        return sorted(slots.values(), key=lambda write: write[:3])

    def thread(self, number: int) -> dict[str, Any]:
        segments = self.segments(number)
        names = {""}
        for thread, *_ in segments:
            names |= {line[0] for line in self.under(b"t" + number_key(thread) + b"l").values()}
        namespaces = {}
        for name in sorted(names):
            made = [self.checkpoint(*row) for row in self.rows(number, name).items()]
            namespaces[name] = [each for each in made if each is not None]
        return {
            "head": self.under(b"t" + number_key(number))[b"t" + number_key(number)][3][1],
            "namespaces": namespaces,
        }

    def content(self) -> dict[str, Any]:
        names = {number: name for name, number, *_ in self.under(b"n").values() if number is not None}
        tags = [tag for key, tag in self.under(b"g").items() if key != b"g" and tag[1] in names]
        log = [[int.from_bytes(key[2:], "big"), *each[:5]] for key, each in self.under(b"o").items() if key != b"o"]
        return {
            "threads": {name: self.thread(number) for number, name in names.items()},
            "tags": {tag[0]: [names[tag[1]], *tag[2:4], tag[4].hex()] for tag in tags},
            "operations": log,
        }


if __name__ == "__main__":
    json.dump(Store(Path(sys.argv[1])).content(), sys.stdout, indent=1)

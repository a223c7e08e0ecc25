"""Counts the records of a store as `docs/format.md` says (I9, I15, I17); like `reader`, without the engine's code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import reader


def miscounted(records: dict[bytes, bytes]) -> list[str]:
    """Return what the records of a store say of each other that is not so; none when all is as it was written."""
    prefixes = {b"", *(key[:17] for key in records if key[:1] == b"s")}
    found: list[str] = []
    for prefix in sorted(prefixes):
        own = {key[len(prefix) :]: raw for key, raw in records.items() if key.startswith(prefix)}
        scope = _Scope({key: raw for key, raw in own.items() if prefix or key[:1] not in (b"r", b"s")})
        found += [f"{prefix.hex()} {each}" for each in scope.miscounted()]
    return found


class _Scope:
    def __init__(self, records: dict[bytes, bytes]) -> None:
        self.records = records

    def under(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        return [(key, raw) for key, raw in self.records.items() if key.startswith(prefix) and key != prefix]

    def fields(self, key: bytes) -> Any:
        return reader.unseal(key, self.records[key])

    def miscounted(self) -> Iterator[str]:
        for key in (b"g", b"o", *(b"d" + bytes((bucket,)) for bucket in range(256))):
            rows = self.under(b"n" + key[1:] if key[:1] == b"d" else key)
            count, digest, salt = self.fields(key) if key in self.records else (0, 0, b"")
            if (count, digest) != reader.census(salt, rows):
                yield f"tally {key!r}"
        for key in self.records:
            if key[:1] == b"t" and len(key) == 2 + key[1]:
                yield from self.thread(key)

    def thread(self, key: bytes) -> Iterator[str]:
        _, _, _, root, *lines, base, forks, deleted, _, _, salt = self.fields(key)
        if deleted and not forks:
            return
        line_rows = self.under(key + b"l")
        if tuple(lines) != reader.census(salt, line_rows):
            yield f"lines of {key!r}"
        if spaces := self.under(key + b"n"):
            yield from self.memory(key, salt, root, spaces)
            return
        for line in [root, *(self.fields(each) for each, _ in line_rows)]:
            namespace, head, _, _, count, digest, low_count, low_digest, newest = line
            start = key + b"c" + (b"\x01" + reader.name_hash(namespace) if namespace else b"\x00")
            rows = self.under(start)
            low = [row for row in rows if base is not None and row[0][len(start) :] <= base[4].encode()]
            if (count, digest) != reader.census(salt, rows):
                yield f"checkpoints of {namespace!r} in {key!r}"
            if (low_count, low_digest) != reader.census(salt, low):
                yield f"low checkpoints of {namespace!r} in {key!r}"
            if newest and not deleted and self.fields(start + head.encode())[-1][1] != newest:
                yield f"head of {namespace!r} in {key!r}"

    def memory(self, key: bytes, salt: bytes, root: Any, spaces: list[tuple[bytes, bytes]]) -> Iterator[str]:
        if (root[4], root[5]) != reader.census(salt, spaces):
            yield f"namespaces of {key!r}"
        counted = 0
        for space, _ in spaces:
            labels, *told = self.fields(space)
            items = self.under(key + b"i" + space[len(key) + 1 :] + b"\x00")
            counted += len(items)
            if tuple(told) != reader.census(salt, items):
                yield f"items of {labels!r} in {key!r}"
        if counted != len(self.under(key + b"i")):
            yield f"items of no namespace in {key!r}"

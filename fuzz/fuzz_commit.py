"""Commits: hostile bytes are refused, and what is decoded is a commit: of the right types, and stable."""

from __future__ import annotations

from fuzzkit import instrumented, run

with instrumented():
    from ckpt.errors import DamagedObjectError
    from ckpt.history.commits import Commit, Parent, StoredValue, decode_commit, encode_commit
    from ckpt.values.rope import encode_items, inline

_EMPTY = StoredValue("ckpt", encode_items([inline(b"\x80", 1)]))
_TEXT = StoredValue("msgpack", encode_items([inline(b"\xa3abc", 1)]))

SEEDS = [
    encode_commit(Commit("", "1f0", None, (), _EMPTY, _EMPTY, {})),
    encode_commit(
        Commit("sub:1", "1f1", "2026", (Parent("1f0", bytes(32)),), _EMPTY, _EMPTY, {"a": _TEXT, "\ud800": _TEXT})
    ),
    encode_commit(Commit("", "1", "t", (Parent("0", b""), Parent("9", bytes(32))), _TEXT, _EMPTY, {"b": _EMPTY})),
    # Channels as a map, which can be indexed like an array.
    b"\x99\xa0\xa11\xc0\x90\xa4ckpt\xc4\x00\xa4ckpt\xc4\x00\x81\xa1a\xa1b",
]


def one(data: bytes) -> None:
    try:
        commit = decode_commit(data)
    except DamagedObjectError:
        return
    assert type(commit.namespace) is str
    assert type(commit.checkpoint_id) is str
    assert commit.timestamp is None or type(commit.timestamp) is str
    for parent in commit.parents:
        assert [*map(type, parent)] == [str, bytes]
    for name, value in {"header": commit.header, "metadata": commit.metadata, **commit.channels}.items():
        assert [type(name), *map(type, value)] == [str, str, bytes]
    assert decode_commit(encode_commit(commit)) == commit


def main() -> None:
    run(one, SEEDS)


if __name__ == "__main__":
    main()

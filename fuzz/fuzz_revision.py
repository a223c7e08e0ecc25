"""Revisions: any text is read or refused, and every reading can be written so that it has no other one."""

from __future__ import annotations

from fuzzkit import instrumented, run

with instrumented():
    from ckpt.errors import RevisionSyntaxError
    from ckpt.history.revisions import format_revision, parse

_TEXTS = [
    "support-42~3",
    'thread:"a b\\u0000"^2#-1',
    "thread:acme",
    "tag:v1.2@{next:tools}",
    "id:8c1f~1@{run:abc}",
    'thread:"acme"@{id:8c1f}',
    'ckpt:"1f1e"@{"x"}',
    "op:3f",
    "@~2^1",
    "HEAD@{2h ago}",
    "@{2026-01-31T10:00Z}",
    "@{2026-01-31T10:00:00.5+02:00}#7",
    'x@{next:"a}b"}@{5}',
    "acme~1~1^1#1@{1}",
]
SEEDS = [text.encode("utf-8", "surrogatepass") for text in _TEXTS] + [
    b"\xff" + 'thread:"\ud800\ud83d\ude00x"~1'.encode("utf-16-le", "surrogatepass")
]


def one(data: bytes) -> None:
    if data[:1] == b"\xff":  # never the first byte of UTF-8: what follows are UTF-16 units, lone surrogates too
        text = data[1 : len(data) - 1 + len(data) % 2].decode("utf-16-le", "surrogatepass")
    else:
        text = data.decode("utf-8", "replace")
    try:
        readings = parse(text)
    except RevisionSyntaxError:
        return
    assert readings
    for reading in readings:
        assert parse(format_revision(reading)) == (reading,)


def main() -> None:
    run(one, SEEDS)


if __name__ == "__main__":
    main()

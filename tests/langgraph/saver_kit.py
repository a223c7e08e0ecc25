"""Small builders that the saver's contract tests share: configs, checkpoints, one-line puts.

Not its job: fixtures (conftest) and graphs (graph_kit). Ids are short strings on purpose, so that a
test reads as the order it means; a saver must treat them as opaque.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from typing import Any

VERSIONS = itertools.count(1)


def config(thread: object, checkpoint_id: str | None = None, ns: str | None = "") -> dict[str, Any]:
    """A runnable config; a None id or namespace is left out."""
    configurable: dict[str, Any] = {"thread_id": thread}
    if ns is not None:
        configurable["checkpoint_ns"] = ns
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


def checkpoint(checkpoint_id: str, values: dict[str, Any] | None = None, **extra: Any) -> dict[str, Any]:
    """A checkpoint whose channels carry a version never used before, unless `channel_versions` is given."""
    values = {} if values is None else values
    version = next(VERSIONS)
    return {
        "v": 4,
        "id": checkpoint_id,
        "ts": "2026-01-31T12:00:00.000000+00:00",
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, version),
        "versions_seen": {},
        "updated_channels": None,
        **extra,
    }


def put(
    saver: Any,
    thread: object,
    checkpoint_id: str,
    values: dict[str, Any] | None = None,
    *,
    parent: str | None = None,
    ns: str = "",
    metadata: dict[str, Any] | None = None,
    versions: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Put one checkpoint, all of its channels named in `new_versions`, and return the saver's config."""
    stored = checkpoint(checkpoint_id, values)
    if versions is not None:
        stored["channel_versions"] = versions
    new_versions = dict(stored["channel_versions"])
    result = saver.put(config(thread, parent, ns), stored, metadata or {}, new_versions)
    assert isinstance(result, dict)
    return result


async def aput(
    saver: Any,
    thread: object,
    checkpoint_id: str,
    values: dict[str, Any] | None = None,
    parent: str | None = None,
) -> None:
    """The same through `aput`, in the root namespace."""
    stored = checkpoint(checkpoint_id, values)
    await saver.aput(config(thread, parent), stored, {}, dict(stored["channel_versions"]))


def ids(tuples: Any) -> list[str]:
    """The checkpoint ids of tuples, in the order given."""
    return [found.config["configurable"]["checkpoint_id"] for found in tuples]


def values(saver: Any, thread: object, checkpoint_id: str | None = None, ns: str = "") -> dict[str, Any]:
    """The channel values of one checkpoint, the head's without an id."""
    found = saver.get_tuple(config(thread, checkpoint_id, ns))
    assert found is not None
    return dict(found.checkpoint["channel_values"])


def parent_id(found: Any) -> str | None:
    """The parent's id as the tuple says it, None without a parent."""
    if found.parent_config is None:
        return None
    return str(found.parent_config["configurable"]["checkpoint_id"])


class Calls:
    """A saver's methods under their plain names, called directly or each through an event loop of its own."""

    def __init__(self, saver: Any, asynchronous: bool) -> None:
        self.saver = saver
        self.asynchronous = asynchronous

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not self.asynchronous:
            return getattr(self.saver, name)  # type: ignore[no-any-return]
        method = getattr(self.saver, f"a{name}")

        def call(*arguments: Any, **named: Any) -> Any:
            async def run() -> Any:
                return await method(*arguments, **named)

            return asyncio.run(run())

        return call

    def list(self, *arguments: Any, **named: Any) -> list[Any]:
        if not self.asynchronous:
            return list(self.saver.list(*arguments, **named))

        async def run() -> list[Any]:
            return [found async for found in self.saver.alist(*arguments, **named)]

        return asyncio.run(run())


class NonceCipher:
    """A toy cipher with LangGraph's protocol: a random nonce, so equal values never look equal."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        nonce = os.urandom(8)
        return "toy", nonce + self._stream(nonce, plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        assert ciphername == "toy"
        return self._stream(ciphertext[:8], ciphertext[8:])

    @staticmethod
    def _stream(nonce: bytes, data: bytes) -> bytes:
        return bytes(byte ^ nonce[position % 8] for position, byte in enumerate(data))

"""The savers over one Redis server: ours, and LangGraph's `RedisSaver` where the server has the modules it needs.

Not here: starting a server (`servers`) and what is measured on it (`shared`).
"""

from __future__ import annotations

import importlib.util
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from langgraph.checkpoint.base import CheckpointTuple

from benchmarks.contenders import Contender, Ours, Saver, put_again
from benchmarks.figures import Figures
from benchmarks.servers import NoServerError, Server
from benchmarks.wire import Wire, connect, wire

_NEEDED = {"ReJSON", "search"}
_SOCKET = "redis.sock"
_PREFIX = "bench"


class CkptRedis(Ours):
    """`CkptSaver` under a prefix of its own."""

    modules = ("ckpt.langgraph", "ckpt.storage.redis")


class RedisContender(Contender):
    """LangGraph's `RedisSaver` with its defaults, which are for one saver in a database.

    It has no `copy_thread`. Its users read every checkpoint and put it again under the new name, which this does
    too.
    """

    name = "redis"
    modules = ("langgraph.checkpoint.redis",)

    def _open(self) -> Saver:
        from langgraph.checkpoint.redis import RedisSaver

        saver = RedisSaver(self.place)
        saver.setup()
        return saver

    def _close(self, saver: Any) -> None:
        saver._redis.close()

    def copy_thread(self, source: str, target: str) -> None:
        for found in list(self.saver.list({"configurable": {"thread_id": source}})):
            put_again(self.saver, found, target)

    def compared(self, found: CheckpointTuple) -> Any:
        """It adds fields of its own to a checkpoint, and takes some out of the metadata."""
        checkpoint = found.checkpoint
        return checkpoint["id"], checkpoint["channel_values"], checkpoint["channel_versions"], found.parent_config


class RedisServer(Server):
    """A Redis server with an empty database, which is empty again after each use.

    Raises `NoServerError` if the database holds anything: it might be somebody's.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        with redis.Redis.from_url(url) as client:
            if client.dbsize():
                raise NoServerError("the Redis database is not empty; name one that is")
            modules = {_text(each.get("name") or each.get(b"name")) for each in client.module_list()}
            version = client.info("server")["redis_version"]
        self._has_peer = modules >= _NEEDED and importlib.util.find_spec("langgraph.checkpoint.redis") is not None
        without = "" if self._has_peer else ", without the modules and the package that RedisSaver needs"
        self.version = f"Redis {version}{without}"

    @contextmanager
    def new(self) -> Iterator[Sequence[Contender]]:
        mark = "&" if "?" in self._url else "?"
        contenders: list[Contender] = [CkptRedis(f"{self._url}{mark}key_prefix={_PREFIX}{secrets.token_hex(6)}")]
        if self._has_peer:
            contenders.append(RedisContender(self._url))
        try:
            yield contenders
        finally:
            for each in contenders:
                each.close()
            with redis.Redis.from_url(self._url) as client:
                client.flushdb()

    @contextmanager
    def wired(self) -> Iterator[tuple[RedisServer, Wire]]:
        with wire(self._socket, _SOCKET) as lent:
            options = redis.connection.parse_url(self._url)  # type: ignore[no-untyped-call]
            user = f"{options['username']}:{options['password']}@" if "password" in options else ""
            yield RedisServer(f"unix://{user}{lent.folder}/{_SOCKET}?db={options.get('db', 0)}"), lent

    def _socket(self) -> socket.socket:
        options = redis.connection.parse_url(self._url)  # type: ignore[no-untyped-call]
        return connect(options.get("host", "localhost"), options.get("port", 6379), options.get("path", ""))

    def sizes(self, contenders: Sequence[Contender], checkpoints: int) -> Figures:
        taken: dict[str, float] = {each.name: 0 for each in contenders}
        with redis.Redis.from_url(self._url) as client:
            for key in client.scan_iter():
                name = "ckpt" if _text(key).startswith(f"{{{_PREFIX}") else "redis"
                taken[name] += client.memory_usage(key, samples=0) or 0
            if self._has_peer:
                for index in client.execute_command("FT._LIST"):
                    taken["redis"] += _index_bytes(client.execute_command("FT.INFO", index))
        return {
            "bytes_memory": taken,
            "bytes_memory_each": {name: size / checkpoints for name, size in taken.items()},
        }


def _index_bytes(info: Any) -> float:
    """Return what a search index says that it takes, in either form of the answer."""
    pairs = info.items() if isinstance(info, dict) else zip(info[::2], info[1::2], strict=True)
    facts = {_text(name): value for name, value in pairs}
    return float(facts["total_index_memory_sz_mb"]) * 1024**2


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)

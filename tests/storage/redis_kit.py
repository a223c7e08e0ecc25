"""What the tests of the Redis store share: clients that count, and a proxy that loses requests or answers."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis

from ckpt.storage.redis_lua import KEY_NAMES


class CountingClient(redis.Redis):
    """Remembers every command it sends, with its arguments."""

    def __init__(self, url: str) -> None:
        super().__init__(connection_pool=redis.ConnectionPool.from_url(url))
        self.sent: list[tuple[Any, ...]] = []

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.sent.append(args)
        return super().execute_command(*args, **options)


def keys_of(prefix: str) -> dict[str, str]:
    """Return the server's keys of a store by their short names."""
    return {name: f"{{{prefix}}}:{name}" for name in KEY_NAMES}


class Proxy:
    """Stands between clients and a server on this machine.

    `lose` says what becomes of the next requests, one letter each: `q` the request is lost, `a` its answer; in
    both cases the connection breaks.
    """

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self.port = int(self._listener.getsockname()[1])
        self.lose = ""
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._upstream))
                with self._lock:
                    self._open += [client, server]
                threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        fate = ""
        with client, server, suppress(OSError, ValueError):
            while True:
                ready, _, _ = select.select([client, server], [], [])
                for source in ready:
                    data = source.recv(1 << 16)
                    if source is client and data:
                        with self._lock:
                            fate, self.lose = fate or self.lose[:1], self.lose[1:]
                    if not data or fate == "q" or (fate == "a" and source is server):
                        return
                    (server if source is client else client).sendall(data)

    def close(self) -> None:
        self._listener.close()
        with self._lock:
            for each in self._open:
                each.close()


@contextmanager
def proxied(port: int) -> Iterator[Proxy]:
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()

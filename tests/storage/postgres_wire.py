"""A wire between a PostgreSQL client and its server that counts what goes over it and can be cut.

A request is what the client sends before it waits for an answer: one round trip. Works for connections without
encryption, which is what the URL that it offers asks for.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from psycopg.conninfo import conninfo_to_dict

Cut = Literal["before", "after", "during"]
"""Where a connection breaks: before a request reaches the server, after the server has answered it and before the
client has the answer, or while the server is at it, who does not notice."""


class Wire:
    """A socket that leads to a server; `url` opens it."""

    def __init__(self, dsn: str) -> None:
        parameters = conninfo_to_dict(dsn)
        self._host, self._port = str(parameters.get("host", "localhost")), str(parameters.get("port", "5432"))
        self.folder = Path(tempfile.mkdtemp(prefix="ckpt-wire-"))
        user, database = parameters.get("user", "postgres"), parameters.get("dbname", "postgres")
        self.url = f"postgresql://{user}@/{database}?host={self.folder}&sslmode=disable&gssencmode=disable"
        if password := parameters.get("password"):
            self.url += f"&password={password}"
        self.requests: list[bytes] = []
        self.cuts: list[tuple[bytes, Cut]] = []
        """Each cuts once: the next request that holds these bytes."""
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / ".s.PGSQL.5432"))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _connect(self) -> socket.socket:
        if self._host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{self._host}/.s.PGSQL.{self._port}")
            return server
        return socket.create_connection((self._host, int(self._port)))

    def _carry(self, client: socket.socket) -> None:
        try:
            server = self._connect()
        except OSError:
            client.close()
            return
        self._open += [client, server]
        silent, answered = threading.Event(), threading.Event()
        threading.Thread(target=_answers, args=(server, client, silent, answered), daemon=True).start()
        with contextlib.suppress(OSError):
            for request in _requests(client):
                self.requests.append(request)
                cut = self._cut(request)
                if cut is None:
                    server.sendall(request)
                    continue
                silent.set()
                if cut != "before":
                    answered.clear()
                    server.sendall(request)
                if cut == "after":
                    answered.wait(10)
                _close(client)
                if cut != "during":
                    _close(server)
                return
        _close(client)
        _close(server)

    def _cut(self, request: bytes) -> Cut | None:
        for each in self.cuts:
            if each[0] in request:
                self.cuts.remove(each)
                return each[1]
        return None

    def close(self) -> None:
        self._listener.close()
        for each in self._open:
            _close(each)
        shutil.rmtree(self.folder, ignore_errors=True)


def _close(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (more := source.recv(size - len(data))):
            raise ConnectionResetError
        data += more
    return data


def _requests(client: socket.socket) -> Iterator[bytes]:
    """Yield what a client sends, up to each message after which it waits for an answer."""
    size = _exactly(client, 4)
    yield size + _exactly(client, int.from_bytes(size, "big") - 4)
    request = b""
    while True:
        kind = _exactly(client, 1)
        size = _exactly(client, 4)
        request += kind + size + _exactly(client, int.from_bytes(size, "big") - 4)
        if kind in b"QSpX":  # query, sync, password, terminate
            yield request
            request = b""


def _answers(server: socket.socket, client: socket.socket, silent: threading.Event, answered: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := server.recv(1 << 16):
            if not silent.is_set():
                client.sendall(data)
            elif data[-6:-1] == b"Z\x00\x00\x00\x05":  # ready for the next query
                answered.set()
    if not silent.is_set():
        _close(client)


@contextmanager
def wire_to(dsn: str) -> Iterator[Wire]:
    """Open a wire to the server of this URL."""
    wire = Wire(dsn)
    try:
        yield wire
    finally:
        wire.close()


def counted(wire: Wire, call: Callable[[], object]) -> int:
    """Return how many round trips a call takes."""
    before = len(wire.requests)
    call()
    return len(wire.requests) - before

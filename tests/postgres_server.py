"""A PostgreSQL server for the tests, started once per session, and a database on it for each who asks.

The server is the one that `CKPT_TEST_POSTGRES` names (a URL), else one of our own: the binaries of a package
(`server_packages`), on a private socket in a temporary directory, stopped and removed at the end. Without either,
tests that need it are skipped, and say so; where `CI` is set they fail instead.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import server_packages

if TYPE_CHECKING:
    import psycopg

UNPRIVILEGED = "nobody"
_START_SECONDS = 60
_SETTINGS = {
    "max_connections": "200",
    # Nobody cuts the power of a test.
    "fsync": "off",
    "shared_buffers": "64MB",
    "autovacuum_naptime": "5s",
}

# Ends the program when its standard input does, and so also when the tests are killed.
_WHILE_WATCHED = 'exec 3<&0; "$@" & server=$!; (cat <&3 >/dev/null; kill -{signal} $server) & wait $server'


def as_user() -> dict[str, Any]:
    """Return the options of a process that say as whom it runs: servers refuse to run as root."""
    return {"user": UNPRIVILEGED} if os.geteuid() == 0 else {}


class Program:
    """A program that answers as a PostgreSQL server, which can be stopped and started again. It ends with the tests."""

    _process: subprocess.Popen[bytes] | None = None

    def run(self, url: str, *command: str, ending: str = "INT") -> None:
        """Start it and wait until it answers at a URL; `ending` is the signal that stops it."""
        import psycopg

        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _WHILE_WATCHED.format(signal=ending), "sh", *command],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the tests; the server ends when they do
            **as_user(),
        )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                psycopg.connect(url).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it at once, as a machine that goes down; a second call does nothing."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGQUIT)
            self._process.wait(30)
        self._process = None


class Server(Program):
    """A server of our own, which can be stopped and started again; the benchmarks start theirs here too.

    `binaries` is the directory of the programs to use instead of the packaged ones.
    """

    def __init__(self, settings: Mapping[str, str] = _SETTINGS, binaries: Path | None = None) -> None:
        self._settings = {"listen_addresses": "", "log_min_messages": "panic", **settings}
        self._binaries = _packaged() if binaries is None else binaries
        self.folder = Path(tempfile.mkdtemp(prefix="ckpt-pg-"))
        try:
            if os.geteuid() == 0:
                # PostgreSQL refuses to run as root.
                shutil.chown(self.folder, UNPRIVILEGED)
                self._make_readable()
            self._run("initdb", "-D", str(self._data), "-U", "postgres", "--auth=trust", "-E", "utf8", "--no-sync")
        except BaseException:
            self.remove()
            raise

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self.folder}"

    def _make_readable(self) -> None:
        """Copy the binaries when the unprivileged user may not enter the directory they are in."""
        try:
            self._run("postgres", "--version")
        except PermissionError:
            package = self._binaries.parents[1]
            for each in (package, package.with_name(f"{package.name}.libs")):
                shutil.copytree(each, self.folder / each.name)
            self._binaries = self.folder / self._binaries.relative_to(package.parent)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._binaries / program), *arguments], cwd="/", check=True, capture_output=True, **as_user()
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        postgres = str(self._binaries / "postgres")
        self.run(self.url, postgres, "-D", str(self._data), "-k", str(self.folder), *options)

    def remove(self) -> None:
        """Stop the server and remove all that it wrote."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _packaged() -> Path:
    found = server_packages.postgres_binaries()
    if found is None:
        raise ImportError(f"there is no package {server_packages.POSTGRES}")
    return found


def running() -> Iterator[str]:
    """Yield the URL of a server; skip, or fail in CI, when there is none to be had."""
    if named := os.environ.get("CKPT_TEST_POSTGRES"):
        yield named
        return
    try:
        server = Server()
    except (ImportError, OSError, subprocess.CalledProcessError) as error:
        unavailable(f"{type(error).__name__}: {error}")
    try:
        server.start()
        yield server.url
    finally:
        server.remove()


def unavailable(reason: str) -> NoReturn:
    """Skip a test that needs a PostgreSQL server, or fail where one has to be."""
    remedy = f"pip install {server_packages.POSTGRES} or set CKPT_TEST_POSTGRES"
    text = f"NO POSTGRESQL SERVER, its tests did not run: {reason}; {remedy}"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """The URL of a PostgreSQL database that tests may fill; each takes a schema of its own."""
    yield from running()


@pytest.fixture
def postgres_url(postgres_dsn: str) -> Iterator[str]:
    """The URL of a store that is not there yet, as `postgres_schema` has it."""
    with postgres_schema(postgres_dsn) as url:
        yield url


@contextmanager
def postgres_schema(dsn: str) -> Iterator[str]:
    """Yield the URL of a store that is not there yet, in a schema of its own, which is dropped at the end.

    Its connections carry the schema's name too, by which a test can find them.
    """
    import psycopg

    schema = f"t_{secrets.token_hex(6)}"
    yield f"{dsn}{'&' if '?' in dsn else '?'}application_name={schema}&schema={schema}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE'.encode())


def schema_of(url: str) -> str:
    """Return the schema that the URL of a store here names."""
    return url.rpartition("schema=")[2]


@pytest.fixture
def admin(postgres_dsn: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection that sees all that is in the database."""
    import psycopg

    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        yield connection

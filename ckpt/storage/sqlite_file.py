"""The file behind a SQLite store: creating it, recognising it, opening connections to it.

A file that is something else is refused with an error that says what it is, and is never written to.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ckpt.addresses import how_to_create
from ckpt.errors import (
    CkptError,
    FormatTooNewError,
    IntegrityError,
    InvalidInputError,
    NotAStoreError,
    StoreLockedError,
    StoreNotFoundError,
    StoreUnavailableError,
)
from ckpt.storage import sqlite_fork

APPLICATION_ID = 0x636B7074
"""`ckpt` in ASCII, in the header of every store file."""

FORMAT = 1
"""The newest format this version reads and the one it writes; kept in SQLite's `user_version`."""

_MAGIC = b"SQLite format 3\x00"
_OWN_DIRECTORY = ".ckpt"
"""The directory in which the command line looks for a store; made where it is missing."""

_BUSY_SECONDS = 60.0
_BUSY_SECONDS_MAX = 86_400
_CACHE_KB_MAX = 1 << 30
_SCHEMA = (
    "CREATE TABLE frame (number INTEGER PRIMARY KEY, previous INTEGER NOT NULL, data BLOB NOT NULL)",
    "CREATE TABLE object (key BLOB PRIMARY KEY, place INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE record (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO counter (name, value) VALUES ('epoch', 1)",
)
_IN_WAL = b"\x02\x02"
"""What stands in bytes 18 and 19 of a file in WAL mode."""

_SYNCHRONOUS = frozenset({"off", "normal", "full", "extra"})


@dataclass(frozen=True, slots=True)
class Options:
    """What the query part of a `sqlite://` URL may set.

    `synchronous`: `full` (the default: a checkpoint survives a power cut once `put` returned), `normal` (it
    survives a crash of the process, and the newest may be lost in a power cut), `extra`, or `off` (for data that
    can be made again). `cache_kb`: page cache per connection. `busy_timeout`: seconds to wait for a lock.
    """

    synchronous: str = "full"
    cache_kb: int = 8192
    busy_timeout: float = _BUSY_SECONDS

    def __post_init__(self) -> None:
        if self.synchronous not in _SYNCHRONOUS:
            raise InvalidInputError(f"synchronous={self.synchronous!r} is not one of {', '.join(sorted(_SYNCHRONOUS))}")
        if not 0 <= self.cache_kb <= _CACHE_KB_MAX:
            raise InvalidInputError(f"cache_kb={self.cache_kb} is not between 0 and {_CACHE_KB_MAX}")
        if not 0 <= self.busy_timeout <= _BUSY_SECONDS_MAX:
            raise InvalidInputError(
                f"busy_timeout={self.busy_timeout} is not between 0 and {_BUSY_SECONDS_MAX} seconds"
            )


def prepare(path: Path, *, create: bool, readonly: bool, options: Options, in_use: bool = False) -> sqlite3.Connection:
    """Make sure that `path` is a store of a format known here, creating it if asked; return a connection to it.

    `in_use`: this process has the file open as a store already, so only SQLite may open it.

    A new file is created with mode 0600, whatever the umask, before SQLite opens it. Several processes may do
    this at once. Raises StoreNotFoundError, NotAStoreError, FormatTooNewError, StoreUnavailableError, or
    IntegrityError for a store that was cut short.
    """
    if "\x00" in str(path):
        raise InvalidInputError(f"{str(path)!r} is no path: it holds a NUL")
    if path.is_dir():
        raise NotAStoreError(
            f"{path} is a directory, not a store", hints=[f"name a file in it, such as {path / 'store.db'}"]
        )
    if path.exists() and not path.is_file():
        raise NotAStoreError(f"{path} is a device or a pipe, not a store", hints=["name another file"])
    if in_use:
        with translated(path):
            connection = connect(path, readonly=readonly, options=options)
            with _closed_on_failure(connection):
                if connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID:
                    return connection
            connection.close()
    try:
        if not path.exists():
            _create(path, create=create)
        with open(path, "rb") as file:
            head = file.read(100)
    except PermissionError as error:
        raise StoreUnavailableError(f"no permission to open {path}", hints=["check its owner and mode"]) from error
    except OSError as error:
        raise StoreUnavailableError(f"{path} cannot be opened: {error.strerror}") from error
    if head and not (len(head) == 100 and head.startswith(_MAGIC)):
        raise NotAStoreError(f"{path} is not a database; it was left untouched", hints=["name another file"])
    ours = bool(head) and int.from_bytes(head[68:72], "big") == APPLICATION_ID
    if ours:
        _check_format(path, int.from_bytes(head[60:64], "big"))
        if head[18:20] == _IN_WAL:
            # In the other mode another process may be just about to write the pages that the header counts, as it
            # does when it creates the file. SQLite looks there itself, under its lock.
            _check_length(path, head)
    with translated(path):
        connection = connect(path, readonly=readonly, options=options)
        with _closed_on_failure(connection):
            if ours and head[18:20] == _IN_WAL:
                # The header may be older than what the write-ahead log says.
                _check_format(path, int(connection.execute("PRAGMA user_version").fetchone()[0]))
            else:
                _initialise(connection, path, create=create, options=options)
    return connection


@contextmanager
def _closed_on_failure(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _create(path: Path, *, create: bool) -> None:
    if not create:
        raise StoreNotFoundError(f"there is no store at {path}", hints=[how_to_create(str(path))])
    if path.parent.name == _OWN_DIRECTORY and path.parent.parent.is_dir():
        path.parent.mkdir(mode=0o700, exist_ok=True)
    if not path.parent.is_dir():
        raise StoreNotFoundError(f"there is no directory {path.parent} to create a store in", hints=["create it first"])
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except FileExistsError:
        return  # another process was first
    os.fchmod(descriptor, 0o600)
    os.close(descriptor)


def _check_length(path: Path, head: bytes) -> None:
    """Refuse a file that lacks pages which its header counts, unless they are in the write-ahead log."""
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        return
    page_size = int.from_bytes(head[16:18], "big")
    expected = int.from_bytes(head[28:32], "big") * (65536 if page_size == 1 else page_size)
    if path.stat().st_size < expected:
        raise damaged(path, ValueError(f"it is {path.stat().st_size} bytes long and should have {expected}"))


def _check_format(path: Path, version: int) -> None:
    if version > FORMAT:
        raise FormatTooNewError(
            f"{path} has store format {version}; this ckpt reads up to {FORMAT}",
            hints=["update ckpt: pip install -U ckpt-store"],
        )


def _initialise(connection: sqlite3.Connection, path: Path, *, create: bool, options: Options) -> None:
    def pragma(name: str) -> int:
        return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

    # In one transaction: another process may make this file a store between two looks at it.
    connection.execute("BEGIN")
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    application = pragma("application_id")
    connection.execute("COMMIT")
    if application != APPLICATION_ID and (tables or application):
        if {"checkpoints", "writes"} <= tables:
            raise NotAStoreError(
                f"{path} is a database of LangGraph's SqliteSaver, not a store; it was left untouched",
                hints=["give ckpt a new file; both can live side by side"],
            )
        raise NotAStoreError(
            f"{path} is a SQLite database of another program; it was left untouched",
            hints=["name another file"],
        )
    if not tables and not create:
        raise StoreNotFoundError(f"there is no store at {path} yet", hints=[how_to_create(str(path))])
    if not tables:
        # Takes effect on an empty file only: lets `compact` give pages back a few at a time.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have been first: what counts is what stands here under the lock.
        if not pragma("application_id"):
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")
    _check_format(path, pragma("user_version"))
    if create:
        _switch_to_wal(connection, options.busy_timeout)


def _switch_to_wal(connection: sqlite3.Connection, seconds: float) -> None:
    # SQLite does not wait for a lock in this one statement, so the waiting is done here.
    deadline = time.monotonic() + seconds
    while True:
        try:
            if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] == "wal":
                return
        except sqlite3.OperationalError as error:
            if time.monotonic() > deadline or "locked" not in str(error):
                raise
        if time.monotonic() > deadline:
            raise sqlite3.OperationalError("database is locked: it cannot be switched to WAL mode")
        time.sleep(0.01)


_LOG_MAX = 16 << 20
"""To how many bytes the write-ahead log is cut when it begins anew; a long read makes it grow beyond that."""


def connect(path: Path, *, readonly: bool, options: Options) -> sqlite3.Connection:
    """Open a connection in autocommit mode, usable from any thread, one at a time.

    Raises StoreUnavailableError in a process that was forked while the file was in use.
    """
    sqlite_fork.check(path)
    mode = "ro" if readonly else "rw"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=options.busy_timeout,
        isolation_level=None,
        check_same_thread=False,
    )
    with _closed_on_failure(connection):
        connection.execute(f"PRAGMA synchronous = {options.synchronous}")
        connection.execute(f"PRAGMA cache_size = -{options.cache_kb}")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_MAX}")
    return connection


_WHOLE_PAGES_MAX, _RECORD_PAGES_MAX = 4096, 16_384
"""16 and 64 MB: above, looking at every page, or at those of the records, before a first absence would be felt."""

_VACUUM_BELOW = 64 << 20
_PAGES_AT_ONCE = 1000


def compact(connection: sqlite3.Connection) -> None:
    """Give free pages back to the file system and empty the write-ahead log.

    A small file is rewritten, which also fills its pages; a large one gives its free pages back in many short
    transactions, so that writers do not wait.
    """
    size, free = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
    if size * connection.execute("PRAGMA page_size").fetchone()[0] <= _VACUUM_BELOW:
        connection.execute("VACUUM")
    else:
        for _ in range(0, free, _PAGES_AT_ONCE):
            connection.execute(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})").fetchall()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def check(connection: sqlite3.Connection) -> list[str]:
    """Return what misleads lookups of records, as far as a quick look can tell; empty when nothing."""
    roots = "SELECT count(*), count(DISTINCT rootpage) FROM sqlite_master WHERE rootpage > 0"
    tables, trees = connection.execute(roots).fetchone()
    if tables != trees:
        return ["two tables are in the same place"]
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    if pages > _RECORD_PAGES_MAX:
        return []
    # Only a look at the whole file tells that a page belongs to nothing any more: another stands in its place.
    table = "" if pages <= _WHOLE_PAGES_MAX else "('record')"
    found = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check{table}")]
    if found != ["ok"]:
        return found
    # A page of another table may be a sound one.
    (strange,) = connection.execute(
        "SELECT count(*) FROM record WHERE typeof(key) <> 'blob' OR typeof(value) <> 'blob'"
    ).fetchone()
    return ["a record holds no bytes"] if strange else []


def verify(connection: sqlite3.Connection) -> list[str]:
    """Return what SQLite finds wrong with the structure of the file, one sentence each; empty when nothing."""
    try:
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [] if found == ["ok"] else found


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite raises into errors that say what to do."""
    try:
        yield
    except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
        raise translate(path, error) from error


def translate(path: Path, error: Exception) -> CkptError:
    """Return the error to raise for what SQLite raised."""
    text = str(error)
    if not isinstance(error, sqlite3.OperationalError) or "malformed" in text or "no such table" in text:
        return damaged(path, error)
    if "locked" in text or "busy" in text:
        return StoreLockedError(f"{path} is locked by another process", hints=["wait for it to finish, then try again"])
    if "full" in text:
        return StoreUnavailableError(
            f"there is no space left to write to {path}", hints=["free some space; nothing was written"]
        )
    if "readonly" in text:
        return StoreUnavailableError(f"{path} cannot be written to", hints=["check its owner and mode"])
    if "unable to open" in text and path.exists() and not os.access(path.parent, os.W_OK):
        return StoreUnavailableError(
            f"{path} cannot be opened: SQLite needs to write beside it, and {path.parent} does not let it",
            hints=[
                "copy the file, with the -wal file beside it if there is one, to where you may write, and open that"
            ],
        )
    return StoreUnavailableError(f"{path} cannot be used: {text}")


def damaged(path: Path, error: Exception | str) -> IntegrityError:
    """Return the error for a database file that is not whole."""
    return IntegrityError(
        f"the database file {path} is damaged: {error}",
        hints=[
            "stop writing to it, and keep a copy",
            "if it can still be opened, ckpt fsck names what is affected; else restore a backup, "
            "or see what sqlite3's .recover can save",
        ],
    )

"""Addresses of stores as people type them: a mistyped one told from a path, a folder's store, what to type next.

What was mistyped may hold a password, and must not become a file's name.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

STORE_FOLDER: Final = ".ckpt"
STORE_FILE: Final = "store.db"
"""Where `ckpt init` makes the store of a folder."""

_ADDRESS = re.compile(
    r"\s*(?:(?:postgres|postgresql|redis|rediss|unix|sqlite|memory|mysql|mariadb|mongodb|file|https?)(?:\+\w+)?(?::|//)"
    r"|//[^/]*@"
    r"|(?:host|hostaddr|port|dbname|user|password|passfile|service|sslmode|options|application_name"
    r"|connect_timeout|target_session_attrs)\s*=)",
    re.IGNORECASE,
)

PATH_HINT = "write a URL with ://, or put ./ before a path"


def is_mistyped(text: str) -> bool:
    """Return whether a text without `://` begins as a URL or as a connection string of PostgreSQL does.

    No path that begins with a directory does.
    """
    return _ADDRESS.match(text) is not None


def inside_folder(given: str) -> str:
    """Return the store's file if `given` is a folder made by `ckpt init`, or holds one; else `given` itself.

    A `.ckpt` that does not exist yet is such a folder: no file may stand where one is looked for.
    """
    if "://" in given:
        return given
    path = Path(given)
    try:
        path.is_dir()
    except OSError:  # a name that can be none, which is said where it is opened
        return given
    if path.is_dir() or (path.name == STORE_FOLDER and not path.exists()):
        if path.name == STORE_FOLDER or (path / STORE_FILE).exists():
            return str(path / STORE_FILE)
        if (path / STORE_FOLDER / STORE_FILE).exists():
            return str(path / STORE_FOLDER / STORE_FILE)
    return given


def how_to_create(store: str) -> str:
    """Return the hint for where there is no store yet. `store` is its path, or its URL without secrets."""
    return f"create one with: ckpt init --store {shlex.quote(store)}"

"""Addresses of stores as people type them: one that was mistyped told from a path, and the one to type next.

What was mistyped may hold a password, and must not become a file's name.
"""

from __future__ import annotations

import re
import shlex

_ADDRESS = re.compile(
    r"\s*(?:(?:postgres|postgresql|redis|rediss|unix|sqlite|memory|mysql|mariadb|mongodb)(?:\+\w+)?:"
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


def how_to_create(store: str) -> str:
    """Return the hint for where there is no store yet. `store` is its path, or its URL without secrets."""
    return f"create one with: ckpt init --store {shlex.quote(store)}"

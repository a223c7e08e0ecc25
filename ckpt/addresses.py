"""Telling a path from an address that was mistyped, which may hold a password and must not become a file's name."""

from __future__ import annotations

import re

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

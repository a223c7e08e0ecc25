"""`Config`: a checked configuration, and what it means to whoever opens the store.

How one is read is the work of `ckpt.config.loading`, opening the store that of the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote, urlencode

IN_QUERY: Final = ("synchronous", "cache_kb", "busy_timeout", "schema", "pool_size", "key_prefix")
"""The keys that open a store as the query of its URL."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Config:
    """A checked configuration, as `load` and `from_environment` make it. What was not set is None.

    `type` is `memory`, `sqlite`, `postgres` or `redis`. Its repr shows neither the encryption key nor what a URL
    may hold beside the host and the database.
    """

    type: str
    path: str | None = None
    url: str | None = None
    synchronous: str | None = None
    cache_kb: int | None = None
    busy_timeout: timedelta | None = None
    schema: str | None = None
    pool_size: int | None = None
    key_prefix: str | None = None
    graph: str | None = None
    encryption_key: str | bytes | None = None
    ttl: timedelta | None = None
    ttl_refresh_on_read: bool | None = None
    ttl_sweep_interval: timedelta | None = None
    retention: str | Mapping[str, int | timedelta] | None = field(default=None, hash=False)
    max_checkpoint_size: int | None = None

    def open_options(self) -> tuple[str, dict[str, Any]]:
        """Return the URL and the keywords for `ckpt.open` or `CkptSaver`; only keywords that are set.

        `ttl` is a timedelta, or, where reading refreshes it or an interval is set, a mapping in LangGraph's shape
        (`default_ttl`, `refresh_on_read`, `sweep_interval_minutes`, in minutes). `retention` is `"everything"`,
        `"keep_latest"`, or a mapping of `keep_last` (a count) and `keep_within` (a timedelta). The URL holds the
        password, if there is one.
        """
        keywords = {
            "graph": self.graph,
            "encryption_key": self.encryption_key,
            "ttl": self._lifetime(),
            "retention": self.retention
            if self.retention is None or isinstance(self.retention, str)
            else dict(self.retention),
            "max_checkpoint_size": self.max_checkpoint_size,
        }
        return self._address(), {name: value for name, value in keywords.items() if value is not None}

    def _address(self) -> str:
        if self.path is not None:
            address = f"sqlite:///{quote(self.path)}"
        else:
            address = self.url or "memory://"
        given = {name: value for name in IN_QUERY if (value := getattr(self, name)) is not None}
        if self.busy_timeout is not None:
            given["busy_timeout"] = self.busy_timeout.total_seconds()
        if not given:
            return address
        return f"{address}{'&' if '?' in address else '?'}{urlencode(given, quote_via=quote)}"

    def _lifetime(self) -> timedelta | dict[str, object] | None:
        if self.ttl is None or (self.ttl_refresh_on_read is None and self.ttl_sweep_interval is None):
            return self.ttl
        shaped: dict[str, object] = {"default_ttl": _minutes(self.ttl)}
        if self.ttl_refresh_on_read is not None:
            shaped["refresh_on_read"] = self.ttl_refresh_on_read
        if self.ttl_sweep_interval is not None:
            shaped["sweep_interval_minutes"] = _minutes(self.ttl_sweep_interval)
        return shaped

    def __repr__(self) -> str:
        shown = {each.name: getattr(self, each.name) for each in fields(self)}
        if self.encryption_key is not None:
            shown["encryption_key"] = "***"
        if self.url is not None:
            shown["url"] = _without_secrets(self.url)
        return f"Config({', '.join(f'{name}={value!r}' for name, value in shown.items() if value is not None)})"


def _minutes(duration: timedelta) -> float:
    minutes = duration / timedelta(minutes=1)
    return int(minutes) if minutes.is_integer() else minutes


def _without_secrets(url: str) -> str:
    """Return a URL without what stands before its last @ and without its query, either of which may be secret."""
    scheme, _, rest = url.partition("://")
    if "?" in rest.rpartition("@")[0]:
        # Nothing tells whether the @ is part of a password in the query, or the question mark of one before the @.
        return f"{scheme}://***"
    credentials, at, place = rest.rpartition("@")
    place, question, _ = place.partition("?")
    return f"{scheme}://{'***@' if at and credentials else ''}{place}{'?***' if question else ''}"

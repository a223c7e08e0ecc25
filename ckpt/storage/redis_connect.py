"""Reaching a Redis server: reading URLs, and making the clients of redis-py, all without telling a secret.

What is sent to it is the matter of `ckpt.storage.redis_client`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.cluster import ClusterPipeline
from redis.connection import SSLConnection
from redis.exceptions import RedisError
from redis.retry import Retry

from ckpt.errors import InvalidInputError

DEFAULT_PREFIX = "ckpt"
_PREFIX = re.compile(r"[A-Za-z0-9_.:/@+-]{1,100}")
_SECRETS = frozenset({"password", "ssl_password", "ssl_keyfile"})
"""What the server is told and nobody else: passwords, and where a key lies."""

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 30.0
_CONNECTIONS_MAX = 10_000
Client = Redis | RedisCluster


@dataclass(frozen=True, slots=True)
class Address:
    """Where a store is: the URL as redis-py takes it, the URL to show, and the prefix of the store's keys."""

    server: str
    shown: str
    prefix: str


def parse_url(url: str, key_prefix: str | None = None) -> Address:
    """Read `redis://[user[:password]@]host[:port][/database][?options]`, `rediss://` for TLS, or `unix:///socket`.

    `key_prefix` is ours (the argument counts before the URL's); all other options are those of
    `redis.Redis.from_url`. Raises InvalidInputError, which never repeats a password, also for what would be misread:
    an '@' behind the host ends a password that has a '/', '?' or '#' in it.
    """
    form = "write redis://user:password@host:6379/0?key_prefix=ckpt, or rediss:// for TLS"
    try:
        parts = urlsplit(url.encode().decode())  # half a surrogate pair would fail later, in an error with the URL
    except ValueError:
        raise InvalidInputError("the redis URL is not Unicode, or has a stray bracket [ or ]", hints=[form]) from None
    if "@" in parts.path + parts.query + parts.fragment:
        raise InvalidInputError(
            "the redis URL has an '@' that cannot be told from the one before the host",
            hints=["percent-encode what is meant literally: '@' is %40, '/' is %2F, '?' is %3F, '#' is %23", form],
        )
    unix = parts.scheme == "unix"
    try:
        port, _ = parts.port, unquote(parts.hostname or "").encode("idna")  # as the socket will, with a bare error
    except ValueError:
        raise InvalidInputError("the redis URL has no possible host, or no port up to 65535", hints=[form]) from None
    if not (unix or re.fullmatch(r"/?|/\d+/?", parts.path)) or parts.fragment:
        raise InvalidInputError("what follows the host in a redis URL is the number of a database", hints=[form])
    options = parse_qsl(parts.query, keep_blank_values=True)
    prefixes = [value for name, value in options if name == "key_prefix"]
    if len(prefixes) > 1:
        raise InvalidInputError("the redis URL sets key_prefix twice", hints=["keep one of them"])
    prefix = checked_prefix(key_prefix if key_prefix is not None else prefixes[-1] if prefixes else DEFAULT_PREFIX)
    options = [(name, value) for name, value in options if name != "key_prefix"]
    user = f"{quote(unquote(parts.username), safe='')}@" if parts.username else ""
    host = parts.hostname or ("" if unix else "localhost")
    place = f"{user}{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"
    public = [(name, value) for name, value in options if name not in _SECRETS]
    if prefix != DEFAULT_PREFIX:
        public.append(("key_prefix", prefix))
    path = parts.path.rstrip("/")
    return Address(
        server=f"{parts.scheme}://{parts.netloc}{path}" + (f"?{urlencode(options)}" if options else ""),
        shown=f"{parts.scheme}://{place}{path}" + (f"?{urlencode(public, safe=':/')}" if public else ""),
        prefix=prefix,
    )


def checked_prefix(prefix: str) -> str:
    """Return a prefix that can stand in a key, between the braces of its hash tag, or raise InvalidInputError."""
    if not _PREFIX.fullmatch(prefix):
        raise InvalidInputError(
            f"key_prefix={prefix!r} cannot be used", hints=["use 1 to 100 letters, digits, or any of _ . : / @ + -"]
        )
    return prefix


def connect(server: str) -> Redis:
    """Return a client for a URL. It connects when it is first used, and leaves trying again to us."""
    try:
        client = Redis.from_url(server, **settings())
        # Options that redis-py does not know are found out only when a connection is made.
        client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    except (TypeError, ValueError, RedisError) as error:
        names = [name for name, _ in parse_qsl(urlsplit(server).query, keep_blank_values=True)]
        named = [name for name in names if re.search(f"['\"`]{re.escape(name)}['\"`]", str(error))]
        # Without a cause: the words of redis-py may repeat a value.
        raise InvalidInputError(
            f"redis-py does not take what the redis URL sets for {' or '.join(map(repr, named or names))}",
            hints=["options are those of redis.Redis.from_url, and key_prefix"],
        ) from None
    check_client(client)
    return client


def settings() -> dict[str, Any]:
    """Return what each client of ours is made with; a URL may say otherwise. Trying again is left to us."""
    return {
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": False,
        "protocol": 2,
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_timeout": _ANSWER_SECONDS,
        "max_connections": _CONNECTIONS_MAX,
    }


def check_client(client: object) -> Client:
    """Return a client that can be used here, or raise InvalidInputError."""
    if not isinstance(client, Redis | RedisCluster) or isinstance(client, Pipeline | ClusterPipeline):
        raise InvalidInputError(
            f"a {type(client).__module__}.{type(client).__name__} is no client for a store",
            hints=["pass a redis.Redis or redis.RedisCluster, not an asyncio client, a pipeline or a pool"],
        )
    if client.get_encoder().decode_responses:
        raise InvalidInputError(
            "the redis client has decode_responses=True, which would damage what is stored",
            hints=["pass a client without decode_responses; it may share everything else"],
        )
    return client


def address_of(client: Client, prefix: str) -> Address:
    """Return where a client that was passed in leads, as far as it says."""
    options = {"key_prefix": prefix} if prefix != DEFAULT_PREFIX else {}
    if isinstance(client, RedisCluster):
        node_of: Callable[[], Any] = client.get_default_node
        shown = f"redis://{node_of().host}:{node_of().port}"
    else:
        known = client.connection_pool.connection_kwargs
        database = known.get("db") or 0
        if known.get("path"):
            shown = f"unix://{quote(str(known['path']))}"
            options = ({"db": str(database)} if database else {}) | options
        else:
            # Behind a sentinel the host is found anew for each connection.
            host = getattr(client.connection_pool, "service_name", None) or known.get("host", "localhost")
            secure = issubclass(client.connection_pool.connection_class, SSLConnection)
            shown = f"redis{'s' if secure else ''}://{host}:{known.get('port', 6379)}/{database}"
    return Address("", shown + (f"?{urlencode(options, safe=':/')}" if options else ""), prefix)

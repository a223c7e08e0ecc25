"""Talking to a Redis server: URLs, connections, sending a script, and what an answer or a failure means.

Nothing here knows batches. Every script may be sent twice: those that write name their sender and their turn,
and the server applies each turn once.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.cluster import ClusterPipeline
from redis.connection import SSLConnection
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as NoConnectionError
from redis.exceptions import TimeoutError as NoAnswerError
from redis.retry import Retry

from ckpt.errors import (
    CkptError,
    ConflictError,
    FormatTooNewError,
    IntegrityError,
    InvalidInputError,
    NotAStoreError,
    StoreUnavailableError,
    StoreUnreachableError,
)
from ckpt.forking import renewed_in_child
from ckpt.storage.base import UNSETTLED
from ckpt.storage.redis_lua import DAMAGED, FORMAT, KEY_NAMES
from ckpt.storage.redis_scripts import Script

DEFAULT_PREFIX = "ckpt"
_PREFIX = re.compile(r"[A-Za-z0-9_.:/@+-]{1,100}")
_SECRETS = frozenset({"password", "ssl_password", "ssl_keyfile"})
"""What the server is told and nobody else: passwords, and where a key lies."""

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 30.0
_CONNECTIONS_MAX = 10_000
_PAUSES = (0.0, 0.1, 0.4, 1.5)
"""Seconds before each further try when a connection broke or the server is away."""

_WAIT_SECONDS = 30.0
"""How long a call waits for a connection when all are in use."""

_LOOK_SECONDS_MAX = 0.02
_FORMAT_DIGITS_MAX = 9
_RESTORE = "restore a backup; what is left cannot be trusted"
_ALL_IN_USE = ("Too many connections", "No connection available")
"""The words by which the pools of redis-py say it, those of older versions and those that wait themselves too."""

Client = Redis | RedisCluster
Argument = bytes | str | int


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
        client = Redis.from_url(server, retry=Retry(NoBackoff(), 0), **_settings())
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


def _settings() -> dict[str, Any]:
    return {
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


class Link:
    """A client bound to the keys of one store. Safe for many threads, and after a fork."""

    def __init__(self, client: Client, address: Address) -> None:
        self._client = client
        self._server = address.server
        self.url = address.shown
        self.keys = [f"{{{address.prefix}}}:{name}".encode() for name in KEY_NAMES]
        self._owned = bool(address.server)
        self._closed = False
        self.in_child()
        renewed_in_child(self)

    def in_child(self) -> None:
        """Forget in a forked process the threads of the one that forked it, which may have held the lock."""
        self._lock = Lock()
        self._active = 0

    # -- sending ------------------------------------------------------------------------------------

    def open(self, script: Script, *arguments: Argument) -> tuple[str, list[Any]]:
        """Run the script that opens a store; once more when the connection breaks, so that it is told soon."""
        return self._run(script, arguments, _PAUSES[:1])

    def read(self, script: Script, *arguments: Argument) -> tuple[str, list[Any]]:
        """Run a script that only reads; again for about two seconds when the connection breaks."""
        return self._run(script, arguments, _PAUSES)

    def write(self, script: Script, *arguments: Argument) -> tuple[str, list[Any]]:
        """Run a script that may be sent again until its outcome is known, for about two seconds."""
        return self._run(script, arguments, _PAUSES, writes=True)

    def _run(
        self, script: Script, arguments: Sequence[Argument], pauses: Sequence[float], *, writes: bool = False
    ) -> tuple[str, list[Any]]:
        with self._in_use():
            waits = iter(pauses)
            deadline, unsettled = time.monotonic() + _WAIT_SECONDS, False
            while True:
                try:
                    reply = self._send(script, arguments)
                    break
                except (RedisError, RedisClusterException, OSError) as error:
                    if _all_in_use(error) and time.monotonic() < deadline:
                        # Without a queue, in which an interrupt could leave a turn that is nobody's.
                        time.sleep(random.uniform(0, _LOOK_SECONDS_MAX))
                        continue
                    demoted = _is(error, ReadOnlyError, "READONLY")
                    wait = next(waits, None) if demoted or _is_broken(error) else None
                    if wait is None:
                        raise self.translate(error, unsettled=unsettled) from error
                    if demoted:
                        # The primary became a replica: a new connection may lead to the new primary.
                        self._drop_idle()
                    else:
                        unsettled = writes
                    time.sleep(wait)
                except BaseException:
                    # Interrupted while it took or gave back a connection, redis-py keeps that one for nobody.
                    if self._owned:
                        self._client = connect(self._server)
                    raise
            return self._answer(reply)

    def _drop_idle(self) -> None:
        if self._owned and isinstance(self._client, Redis):
            self._client.connection_pool.disconnect(inuse_connections=False)

    def _send(self, script: Script, arguments: Sequence[Argument]) -> list[Any]:
        execute: Callable[..., Any] = self._client.execute_command
        rest = (len(self.keys), *self.keys, *arguments)
        try:
            try:
                return list(execute("EVALSHA", script.digest, *rest))
            except NoScriptError:
                return list(execute("EVAL", script.source, *rest))
        except ResponseError as error:
            # Older versions of redis-py have no class for it outside of clusters.
            moved = isinstance(error, MovedError) or str(error).startswith("MOVED ")
            if not moved or not self._owned or isinstance(self._client, RedisCluster):
                raise
            self._use_cluster()
            return self._send(script, arguments)

    def _use_cluster(self) -> None:
        """Speak to a cluster, which is what the server has turned out to be."""
        cluster = RedisCluster.from_url(self._server, **_settings())
        self._drop_idle()
        self._client = cluster

    # -- what came back -------------------------------------------------------------------------------

    def _answer(self, reply: list[Any]) -> tuple[str, list[Any]]:
        status, rest = reply[0].decode(), reply[1:]
        if status == "gone":
            raise IntegrityError(
                f"the store at {self.url} is not the one that was opened: it was removed or replaced meanwhile",
                hints=["look who flushed the server or evicted its keys; open it again to begin a new store"],
            )
        if status == "lost":
            raise IntegrityError(
                f"the store at {self.url} has lost its key {rest[0].decode()!r} or a part of it",
                hints=[
                    _RESTORE,
                    "look at the server's maxmemory-policy: only noeviction keeps what it is given",
                ],
            )
        if status == "scored":
            hint = "restore a backup, or give each of its members the score 0 again"
            raise self.damaged(rest[0].decode(), "a member with a score other than 0", hint)
        if status == "unlocked":
            raise ConflictError(
                f"the store at {self.url} was held for too long without a word, and others went on",
                hints=["nothing was applied: do it again"],
            )
        if status == "foreign":
            raise NotAStoreError(
                f"the key {rest[0].decode()!r} at {self.url} belongs to another program; it was left untouched",
                hints=["give the store a prefix of its own: ?key_prefix=name"],
            )
        if status == "format":
            raise self.too_new(rest[0])
        return status, rest

    def too_new(self, version: bytes | None) -> CkptError:
        """Return the error for a format that is not known here."""
        if version is None or not version.isdigit() or len(version) > _FORMAT_DIGITS_MAX or int(version) < FORMAT:
            return IntegrityError(f"the store at {self.url} does not say its format", hints=["restore a backup"])
        return FormatTooNewError(
            f"{self.url} has store format {int(version)}; this ckpt reads up to {FORMAT}",
            hints=["update ckpt: pip install -U ckpt-store"],
        )

    def damaged(self, key: str, what: str = "what cannot be read", hint: str = _RESTORE) -> IntegrityError:
        """Return the error for a store of which a key holds what no script of ours writes."""
        hints = [hint, "look which other program writes to the server, and give each a prefix of its own"]
        return IntegrityError(f"the store at {self.url} is damaged: its key {key!r} holds {what}", hints=hints)

    def translate(self, error: Exception, *, unsettled: bool = False) -> CkptError:
        """Return the error to raise for what redis-py raised."""
        text = str(error) or type(error).__name__
        if DAMAGED in text:
            return self.damaged(text.partition(DAMAGED)[2].partition(">")[0])
        unknown = [UNSETTLED] if unsettled else []
        if _is_unauthenticated(error) or _is(error, NoPermissionError, "NOPERM"):
            return StoreUnavailableError(
                f"{self.url} refuses us: {text}",
                hints=["check user and password", "the user needs the commands and keys that docs/redis.md lists"],
            )
        if _is(error, OutOfMemoryError, "OOM "):
            return StoreUnavailableError(
                f"{self.url} has reached its maxmemory; nothing was written",
                hints=["free what was let go with: ckpt gc", "raise maxmemory"],
            )
        if _all_in_use(error):
            return StoreUnavailableError(
                f"{self.url} cannot be used: all connections were in use for {_WAIT_SECONDS:.0f} seconds",
                hints=["raise max_connections", *unknown],
            )
        if "WRONGTYPE" in text:
            return NotAStoreError(
                f"a key of the store at {self.url} was overwritten by another program",
                hints=["restore a backup; give each program a prefix of its own"],
            )
        if _is(error, ReadOnlyError, "READONLY"):
            return StoreUnavailableError(
                f"{self.url} is a replica that takes no writes", hints=["name the primary, or open it with readonly"]
            )
        if _is_broken(error):
            hints = ["see whether the server runs and can be reached, then try again"]
            if self.url.startswith("rediss:"):
                hints.append(
                    "see whether this port speaks TLS, and ssl_ca_certs, ssl_certfile and ssl_keyfile are right"
                )
            elif "reset" in text or "closed" in text:
                hints.append("where the server speaks TLS on this port, write rediss://")
            return StoreUnreachableError(f"{self.url} cannot be reached: {text}", hints=hints + unknown)
        hint = "these are the server's words; docs/redis.md says what a store needs of it"
        return StoreUnavailableError(f"{self.url} cannot be used: {text}", hints=[hint, *unknown])

    def eviction_policy(self) -> str:
        """Return the server's `maxmemory-policy`, or nothing where the server does not tell."""
        info: Callable[[str], Any] = self._client.info
        with self._in_use():
            try:
                return str(info("memory").get("maxmemory_policy", ""))
            except (RedisError, RedisClusterException, OSError):
                return ""

    # -- the end --------------------------------------------------------------------------------------

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        self.check_open()
        with self._lock:
            self._active += 1
        try:
            yield
        finally:
            with self._lock:
                self._active -= 1
                last = self._closed and not self._active
            if last:
                self._disconnect()

    def check_open(self) -> None:
        """Raise StoreUnavailableError when the store has been closed."""
        if self._closed:
            raise StoreUnavailableError(f"the store {self.url} has been closed", hints=["open it again"])

    def close(self) -> None:
        """Let no call begin; the last one under way closes the connections. Leaves a client passed in as it is."""
        with self._lock:
            first, self._closed = not self._closed, True
            idle = first and not self._active
        if idle:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._owned:
            self._client.close()


def _all_in_use(error: Exception) -> bool:
    """Whether a pool has as many connections as it may have, and others have them all."""
    return any(words in str(error) for words in _ALL_IN_USE)


def _is_unauthenticated(error: Exception) -> bool:
    """Whether a server wants other credentials; without any it reads short commands alone, which scripts are not."""
    return isinstance(error, AuthenticationError | AuthorizationError) or "unauthenticated" in str(error)


def _is_broken(error: Exception) -> bool:
    """Whether the connection, or the server, went away."""
    if _is_unauthenticated(error) or _all_in_use(error):
        return False
    return isinstance(error, NoConnectionError | NoAnswerError | OSError)


def _is(error: Exception, kind: type[RedisError], code: str) -> bool:
    """Whether a server refused something for this reason.

    From within a script the code comes first since Redis 7 and in Valkey, and redis-py has a class for it; before, it
    stands somewhere in the text.
    """
    return isinstance(error, kind) or code in str(error)

"""Talking to a Redis server: sending a script, again where that helps, and what an answer or a failure means.

Nothing here knows batches. Every script may be sent twice: those that write name their sender and their turn,
and the server applies each turn once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

from redis import Redis, RedisCluster
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    SlotNotCoveredError,
)
from redis.exceptions import ConnectionError as NoConnectionError
from redis.exceptions import TimeoutError as NoAnswerError

from ckpt.errors import (
    CkptError,
    ConflictError,
    FormatTooNewError,
    IntegrityError,
    NotAStoreError,
    StoreUnavailableError,
    StoreUnreachableError,
)
from ckpt.forking import renewed_in_child
from ckpt.storage.base import UNSETTLED
from ckpt.storage.redis_connect import Address, Client, connect, settings
from ckpt.storage.redis_lua import DAMAGED, FORMAT, KEY_NAMES
from ckpt.storage.redis_scripts import Script

_PAUSES = (0.0, 0.1, 0.4, 1.5)
"""Seconds before each further try when a connection broke or the server is away."""

_SILENT_MAX = 2
"""Tries that may end without a word from the server, after what `socket_timeout` says; others are soon over."""

_WAIT_SECONDS = 30.0
"""How long a call waits for a connection when all are in use, and for a server that runs somebody's long script."""

_LOOK_SECONDS_MAX = 0.02
_BUSY_LOOK_SECONDS_MAX = 0.2
_FORMAT_DIGITS_MAX = 9
_RESTORE = "restore a backup; what is left cannot be trusted"
_ALL_IN_USE = ("Too many connections", "No connection available")
"""The words by which the pools of redis-py say it, those of older versions and those that wait themselves too."""

Argument = bytes | str | int


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
        """Run a script that only reads; again for about two seconds when the connection breaks, once in silence."""
        return self._run(script, arguments, _PAUSES)

    def write(self, script: Script, *arguments: Argument) -> tuple[str, list[Any]]:
        """Run a script that may be sent again until its outcome is known, for as long as one that reads."""
        return self._run(script, arguments, _PAUSES, writes=True)

    def _run(
        self, script: Script, arguments: Sequence[Argument], pauses: Sequence[float], *, writes: bool = False
    ) -> tuple[str, list[Any]]:
        with self._in_use():
            waits, silent = iter(pauses), 0
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
                    if _is_busy(error) and time.monotonic() < deadline:
                        time.sleep(random.uniform(0, _BUSY_LOOK_SECONDS_MAX))
                        continue
                    silent += isinstance(error, NoAnswerError)
                    demoted = _is(error, ReadOnlyError, "READONLY") or _is_without_primary(error)
                    again = silent < _SILENT_MAX and (demoted or _is_broken(error))
                    wait = next(waits, None) if again else None
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
        cluster = RedisCluster.from_url(self._server, **settings())
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
        if "MISCONF" in text:
            nothing = "" if unsettled else "; nothing was written"
            return StoreUnavailableError(
                f"{self.url} cannot save to its disk, and takes no writes{nothing}",
                hints=["free space on the server's disk, and read its log: it goes on once it has saved", *unknown],
            )
        if _is_busy(error):
            return StoreUnavailableError(
                f"{self.url} has been running a script for longer than {_WAIT_SECONDS:.0f} seconds",
                hints=["wait for it to end, or end it: redis-cli SCRIPT KILL", *unknown],
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


def _is_without_primary(error: Exception) -> bool:
    """Whether nobody in a cluster answers for the store, as while a replica takes over."""
    return isinstance(error, ClusterDownError | SlotNotCoveredError)


def _is_busy(error: Exception) -> bool:
    """Whether a server did nothing as it is running a script, which may be anybody's."""
    return isinstance(error, ResponseError) and str(error).startswith("BUSY ")


def _is(error: Exception, kind: type[RedisError], code: str) -> bool:
    """Whether a server refused something for this reason.

    From within a script the code comes first since Redis 7 and in Valkey, and redis-py has a class for it; before, it
    stands somewhere in the text.
    """
    return isinstance(error, kind) or code in str(error)

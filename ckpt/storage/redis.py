"""A store on a Redis or Valkey server, alone or a cluster, shared by any number of processes.

Plain Redis 6.2 or newer, without modules. Every call of the seam is one script, so one round trip and one
moment. As durable as the server is told to be: `publish` returns when the server has it in memory, and what
happens then is decided by its `appendfsync` and its replicas. See `ckpt.storage.redis_scripts` for the layout.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, TypeVar
from uuid import uuid4

from ckpt.addresses import how_to_create
from ckpt.errors import (
    CkptError,
    IntegrityError,
    StoreLockedError,
    StoreNotFoundError,
    StoreUnavailableError,
    StoreUnreachableError,
)
from ckpt.forking import renewed_in_child
from ckpt.storage import base
from ckpt.storage import redis_scripts as scripts
from ckpt.storage.base import (
    Batch,
    EpochChangedError,
    Exclusive,
    RecordChangedError,
)
from ckpt.storage.lending import LendingReads
from ckpt.storage.redis_client import Argument, Link
from ckpt.storage.redis_connect import (
    DEFAULT_PREFIX,
    Client,
    address_of,
    check_client,
    checked_prefix,
    connect,
    parse_url,
)
from ckpt.storage.redis_lua import FORMAT
from ckpt.storage.redis_reading import Reading, dated, entry, epoch_of
from ckpt.storage.redis_session import Session, check_sizes, record_arguments

_T = TypeVar("_T")
_LOCK_SECONDS_MAX = 60.0
_PAGE = 5000
_LOOKS = 3
_PAUSE_MIN, _PAUSE_MAX = 0.002, 0.1


class _Sender:
    """One at a time, batches of a sender carry growing numbers, so that the server knows one it has applied."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.turns = count(1)


class RedisStorage(LendingReads):
    """The store under one prefix of a server, named by a URL or reached through a client of redis-py.

    A client passed in is used as it is and never closed. With `create` a missing store is begun. Raises
    StoreNotFoundError, NotAStoreError, FormatTooNewError, StoreUnavailableError, or IntegrityError for a store
    that lost one of its keys.
    """

    def __init__(
        self,
        server: str | Client,
        *,
        key_prefix: str | None = None,
        create: bool = True,
        readonly: bool = False,
    ) -> None:
        if isinstance(server, str):
            address = parse_url(server, key_prefix)
            client: Client = connect(address.server)
        else:
            client = check_client(server)
            address = address_of(client, checked_prefix(DEFAULT_PREFIX if key_prefix is None else key_prefix))
        self._link = Link(client, address)
        self._readonly = readonly
        self.in_child()
        renewed_in_child(self)
        try:
            self._id = self._open(create and not readonly)
        except BaseException:
            self._link.close()
            raise
        self._reading = Reading(self._link, self._id)

    def in_child(self) -> None:
        """Number batches anew: two processes must not do so as one sender."""
        self._handle = uuid4().hex[:16]
        self._senders: deque[_Sender] = deque()
        self._sender_numbers = count(1)

    def _open(self, create: bool) -> bytes:
        status, reply = self._link.open(scripts.OPEN, uuid4().hex if create else "", FORMAT)
        if status == "none":
            raise StoreNotFoundError(f"there is no store at {self.url}", hints=[how_to_create(self.url)])
        version, store_id = reply
        if version != b"%d" % FORMAT or store_id is None:
            raise self._link.too_new(version)
        return bytes(store_id)

    @property
    def url(self) -> str:
        return self._link.url

    @property
    def remote(self) -> bool:
        return True

    @property
    def ranking(self) -> base.Ranking | None:
        return None

    def _lend(self, call: Callable[[base.Reading], _T]) -> _T:
        return call(self._reading)

    def fetch(self, keys: Collection[bytes], known: Collection[int] = ()) -> base.Fetched:
        return self._reading.fetch(keys, known)

    # -- writing ------------------------------------------------------------------------------------

    def _check_writable(self) -> None:
        self._link.check_open()
        if self._readonly:
            raise StoreUnavailableError(
                f"the store {self.url} was opened read-only", hints=["open it without readonly=True to change it"]
            )

    def publish(self, batch: Batch) -> list[int]:
        self._check_writable()
        arguments = _arguments(batch)
        with self._sender() as (name, turn):
            status, reply = self._until_free(
                scripts.PUBLISH, self._id, "", name, turn, "" if batch.epoch is None else dated(batch.epoch), *arguments
            )
        if status == "changed":
            raise RecordChangedError(dict(zip(batch.expected, reply, strict=True)))
        if status == "epoch":
            raise EpochChangedError(epoch_of(reply[0]))
        if status == "stale":
            raise StoreUnavailableError(
                f"{self.url} refused a write: a copy of this process writes under its name",
                hints=["open the store anew in each process that was not made by os.fork; nothing was written"],
            )
        return [int(number) for number in reply[0].split(b",") if number]

    @contextmanager
    def _sender(self) -> Iterator[tuple[str, int]]:
        try:
            sender = self._senders.pop()
        except IndexError:
            sender = _Sender(f"{self._handle}.{next(self._sender_numbers)}")
        try:
            yield sender.name, next(sender.turns)
        finally:
            self._senders.append(sender)

    def _until_free(self, script: scripts.Script, *arguments: Argument) -> tuple[str, list[Any]]:
        """Send a script that another holder of the lock keeps from running until it runs."""
        deadline = time.monotonic() + _LOCK_SECONDS_MAX
        pause = _PAUSE_MIN
        while True:
            status, reply = self._link.write(script, *arguments)
            if status != "locked":
                return status, reply
            if time.monotonic() > deadline:
                raise StoreLockedError(
                    f"{self.url} is locked by another process", hints=["wait for it to finish, then try again"]
                )
            time.sleep(random.uniform(pause / 2, pause))
            pause = min(2 * pause, _PAUSE_MAX)

    @contextmanager
    def exclusive(self) -> Iterator[Exclusive]:
        """As the seam says. A holder that dies, or makes no call for ten seconds, loses the store to others.

        ConflictError then says so at its next call, and nothing of what it wrote is applied.
        """
        self._check_writable()
        token = uuid4().hex
        # Whether it is held is known only from the answer, which an interrupt may keep from us.
        held = True
        try:
            _, (epoch, next_frame) = self._until_free(scripts.LOCK, self._id, token)
            session = Session(Reading(self._link, self._id, token), epoch_of(epoch), next_frame)
            yield session
            if session.changed:
                with self._sender() as (name, turn):
                    self._link.write(scripts.APPLY, self._id, token, name, turn, *session.arguments())
                held = False
        except StoreUnreachableError:
            # The lock expires sooner than a server that is silent is given up once more.
            held = False
            raise
        finally:
            if held:
                # Where this fails too, the lock expires.
                with suppress(CkptError):
                    self._link.write(scripts.UNLOCK, self._id, token)

    # -- care ---------------------------------------------------------------------------------------

    def check(self) -> None:
        """Do nothing: each call looks whether a key is gone, or records out of order, before an absence is told."""

    def verify(self) -> list[str]:
        """As the seam says; reads the whole index and, inside the server, all frames: again where they do not fit.

        A collector at work lays frames down before it drops those that they stand for: what was seen in between is
        damage only if it is seen each time.
        """
        try:
            for _ in range(_LOOKS):
                if not (found := self._walked()):
                    break
        except IntegrityError as error:
            return [error.message]
        policy = self._link.eviction_policy()
        if policy.startswith("allkeys"):
            found.append(
                f"the server's maxmemory-policy is {policy}: when it is full it removes keys of the store; "
                "only noeviction keeps what it is given"
            )
        return found

    def _walked(self) -> list[str]:
        before = self._reading.usage()
        found: list[str] = []
        last, objects = b"", 0
        while page := self._reading.scan_index(last, _PAGE):
            for key, _ in page:
                if objects and key <= last:
                    found.append(f"the index is out of order at {key.hex()}")
                last, objects = max(last, key), objects + 1
        number, size = 0, 0
        while frames := self._reading.scan_frames(number, _PAGE):
            number = frames[-1][0]
            size += sum(length for _, _, length in frames)
        if before == self._reading.usage():  # otherwise somebody wrote meanwhile
            if objects != before.objects:
                found.append(f"the index holds {objects} objects and should hold {before.objects}")
            if size != before.frames:
                found.append(f"the frames hold {size} bytes and should hold {before.frames}")
        return found

    def compact(self) -> None:
        """Do nothing: the server uses freed memory again by itself."""
        self._link.check_open()

    def close(self) -> None:
        self._link.close()


def _arguments(batch: Batch) -> list[Argument]:
    check_sizes([*batch.expected.values(), *batch.records.values(), *(frame.data for frame in batch.frames)])
    arguments: list[Argument] = [len(batch.expected)]
    for key, value in batch.expected.items():
        arguments += record_arguments(key, value)
    arguments.append(len(batch.records))
    for key, value in batch.records.items():
        arguments += record_arguments(key, value)
    arguments.append(len(batch.frames))
    for frame in batch.frames:
        positions: dict[bytes, int] = {}
        for position, key in enumerate(frame.keys):
            positions.setdefault(key, position)
        index = b"".join(sorted(entry(key, 0, position) for key, position in positions.items()))
        arguments += (frame.previous, int(frame.optional), index, frame.data)
    return arguments

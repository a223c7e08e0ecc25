"""What the saver and the store have in common: their life cycle, what their copies share, and small things."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions

from ckpt.errors import InvalidInputError
from ckpt.forking import renewed_in_child
from ckpt.langgraph.plain import plain_text
from ckpt.objects.cache import Cache
from ckpt.repository import Repository, open_repository

if TYPE_CHECKING:
    from ckpt.encryption import EncryptionKey

logger = logging.getLogger(__name__)

WORKERS = 8
"""Threads on which the async methods run."""

_VERSIONS_CACHE = 256
_warned: list[str] = []

_ENCRYPTED = "give the repository encrypted(storage, key) of ckpt.encryption, or the saver a URL"

_T = TypeVar("_T")


class Shared:
    """What all copies of a saver share: the repository, the pool of threads, and what the saver remembers."""

    def __init__(self, repository: Repository, *, owned: bool) -> None:
        self.repository = repository
        self.owned = owned
        self.versions: Cache[bytes, ChannelVersions] = Cache(_VERSIONS_CACHE)
        self.in_child()
        renewed_in_child(self)

    def in_child(self) -> None:
        """Begin anew in a forked process: the threads of a pool, and whoever held the lock, stay behind."""
        self._pools: dict[int, ThreadPoolExecutor] = {}
        self._lock = Lock()
        self._left: list[tuple[Future[None], frozenset[str]]] = []

    @classmethod
    def of(
        cls, store: str | Path | Repository, *, graph: str, encryption_key: EncryptionKey | None, **options: Any
    ) -> Shared:
        """Open a store, which is then owned, or take a repository that is open already."""
        if not isinstance(store, Repository):
            opened = open_repository(store, graph=graph, encryption_key=encryption_key, **options)
            return cls(opened, owned=True)
        if graph not in ("", store.graph):
            raise InvalidInputError(
                f"graph={graph!r}, but the repository was opened on graph {store.graph!r}",
                hints=["open the repository with that graph, or leave graph= out"],
            )
        policies = {"encryption_key": encryption_key, "ttl": options.get("ttl"), "retention": options.get("retention")}
        for name, given in policies.items():
            if given is not None:
                raise InvalidInputError(
                    f"{name}= was given together with a repository that is open already",
                    hints=[_ENCRYPTED if name == "encryption_key" else f"open it as Repository(…, {name}=…)"],
                )
        return cls(store, owned=False)

    def pool(self, workers: int = WORKERS) -> ThreadPoolExecutor:
        """Return the pool of so many threads, which are started when they are needed."""
        with self._lock:
            if workers not in self._pools:
                self._pools[workers] = ThreadPoolExecutor(workers, thread_name_prefix="ckpt")
            return self._pools[workers]

    def submit(self, call: Callable[[], _T]) -> Future[_T]:
        """Have a thread of the pool make a call, with the caller's context variables, which a serde may look at."""
        return self.pool().submit(copy_context().run, call)

    def leave(self, call: Future[Any], lines: frozenset[str]) -> None:
        """Take note of a write that nobody waits for any more and that goes on all the same."""
        ended: Future[None] = Future()
        call.add_done_callback(lambda _: ended.set_result(None))
        with self._lock:
            self._left.append((ended, lines))

    def left(self, lines: frozenset[str]) -> list[Future[None]]:
        """Return the ends, none of which fails, of the writes left to themselves that concern one of these lines.

        A line is a thread, or a memory; no lines are all of them.
        """
        with self._lock:
            self._left = [(ended, others) for ended, others in self._left if not ended.done()]
            return [ended for ended, others in self._left if not (lines and others) or lines & others]

    def close(self) -> None:
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.shutdown(wait=True)
        if self.owned:
            self.repository.close()


class LifeCycle:
    """Opening and closing of what works on a `Shared`, and its pool of threads for the async methods."""

    _shared: Shared

    @classmethod
    def from_conn_string(cls, conn_string: str, **options: Any) -> Self:
        """Return one on the store that a path or URL names, to be used with `with` or `async with`."""
        make: Callable[..., Self] = cls
        return make(conn_string, **options)

    @property
    def repository(self) -> Repository:
        """The engine underneath."""
        return self._shared.repository

    def setup(self) -> Done[None]:
        """Do nothing: all is ready from the beginning. May be awaited."""
        return Done(None)

    def close(self) -> None:
        """Wait for asynchronous calls under way and release the store, unless the repository was handed in.

        A call that another thread makes meanwhile ends as it would have, or says that the store has been closed.
        """
        self._shared.close()

    async def aclose(self) -> None:
        """Do what `close` does, without blocking the event loop."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _read(self, call: Callable[[], _T], *lines: str) -> _T:
        """Return what a call returns that may block, and that only reads these lines, or any."""
        return await self._run(partial(self._shared.submit, call), frozenset(lines), writes=False)

    async def _write(self, call: Callable[[], _T], *lines: str) -> _T:
        """Return what a call returns that may block, and that writes to these lines, or to any.

        Cancelled while it is under way, it goes on, as a thread cannot be stopped. Whatever is asked for afterwards by
        an asynchronous call waits for its end: it must not come later than what was begun later.
        """
        return await self._run(partial(self._shared.submit, call), frozenset(lines), writes=True)

    async def _run(self, begin: Callable[[], Future[_T]], lines: frozenset[str], *, writes: bool) -> _T:
        """Return the result of what `begin` begins, as `_read` or `_write` does."""
        shared = self._shared
        while left := shared.left(lines):
            await asyncio.wait([asyncio.wrap_future(ended) for ended in left])
        under_way = begin()
        try:
            return await asyncio.wrap_future(under_way)
        except asyncio.CancelledError:
            if writes and not under_way.cancel():
                shared.leave(under_way, lines)
            raise


class Done(Generic[_T]):
    """A result that is there already, of a method that LangGraph has with `await` and without; true if it is."""

    def __init__(self, result: _T) -> None:
        self._result = result

    def __bool__(self) -> bool:
        return bool(self._result)

    def __await__(self) -> Generator[Any, None, _T]:
        yield from ()
        return self._result


def place(config: RunnableConfig) -> tuple[str, str, str | None]:
    """Return the thread, the namespace and the checkpoint id, if any, that a config names.

    Raises InvalidInputError where there is no thread or one of the others is no str.
    """
    configurable = _configurable(config)
    if "thread_id" not in configurable:
        raise InvalidInputError("the config names no thread", hints=[_CONFIG_FORM])
    namespace, checkpoint_id = _text_of(configurable, "checkpoint_ns"), _text_of(configurable, "checkpoint_id")
    return thread_name(configurable["thread_id"]), namespace or "", checkpoint_id


def thread_name(thread_id: object) -> str:
    """Return the name of the thread that an id of any type stands for; None stands for none."""
    if thread_id is None:
        raise InvalidInputError("the thread_id is None", hints=[_CONFIG_FORM])
    return plain_text(thread_id) if isinstance(thread_id, str) else str(thread_id)


def named_id(config: RunnableConfig) -> str | None:
    """Return the checkpoint id that a config names, if it does, or raise InvalidInputError."""
    return _text_of(_configurable(config), "checkpoint_id")


_CONFIG_FORM = 'write {"configurable": {"thread_id": "…"}}'


def _configurable(config: object) -> Mapping[str, Any]:
    # For a dict, which it mostly is, asking the abstract class would cost a multiple.
    found = config.get("configurable") if type(config) is dict or isinstance(config, Mapping) else None
    if type(found) is not dict and not isinstance(found, Mapping):
        raise InvalidInputError("the config has no configurable, which names the thread", hints=[_CONFIG_FORM])
    return found


def _text_of(configurable: Mapping[str, Any], name: str) -> str | None:
    found = configurable.get(name)
    if found is not None and not isinstance(found, str):
        raise InvalidInputError(f"{name} is a {type(found).__name__}, not a str", hints=["give a str, or leave it out"])
    return plain_text(found) if found is not None else None


def config_of(thread_id: str, namespace: str, checkpoint_id: str) -> RunnableConfig:
    """Return the config of one checkpoint."""
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id}}


def warn_encrypted() -> None:
    """Say once per process that encrypted values cannot be shared."""
    if not _warned:
        _warned.append("encrypted")
        logger.warning(
            "EncryptedSerializer encrypts each value with a random nonce, so no two are equal and nothing is "
            "stored only once: the store grows as with other savers. All works as before. CkptSaver(…, "
            "encryption_key=…) encrypts everything, metadata included, and still stores equal values once."
        )


def next_version(current: Any) -> str:
    """Return the version after `current`, whichever saver made it: zero-padded, so that versions sort by age.

    Raises InvalidInputError for what is none.
    """
    try:
        whole = current.split(".", 1)[0] or 0 if isinstance(current, str) else current
        number = 0 if whole is None else int(whole)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(
            f"a {type(current).__name__} that does not begin with a whole number is no version of a channel",
            hints=["give a version that a saver made, or None for the first one"],
        ) from error
    return f"{number + 1:032}"

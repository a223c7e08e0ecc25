"""`CkptStore`: LangGraph's long-term memory over a `Memory`, with the history of every item.

One class, sync and async. What LangGraph expects of a store is here; what a memory is, and what it keeps, is the
matter of `ckpt.repository.memory`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from langgraph.store.base import (
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    Op,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
)

from ckpt.errors import CkptError, InvalidInputError
from ckpt.langgraph.batches import Getting, OpBatch, Putting, changes_of
from ckpt.langgraph.filters import common_prefix, matches_filter, matches_namespace
from ckpt.langgraph.shared import Done, LifeCycle, Shared
from ckpt.langgraph.store_calls import StoreCalls
from ckpt.langgraph.sweeper import Sweeper
from ckpt.langgraph.together import Together
from ckpt.langgraph.vectors import Distance, Index, Texts, Vectors, best_similarities, decode_vectors, different
from ckpt.repository import Memory, MemoryChange, MemoryItem, MemoryVersion, Repository
from ckpt.repository.arguments import check_mapping, check_names
from ckpt.repository.lifetimes import minutes
from ckpt.repository.memory import DEFAULT_MEMORY, Moment
from ckpt.repository.memory_address import address_of
from ckpt.repository.memory_look import Address
from ckpt.repository.memory_reader import Entry
from ckpt.repository.memory_vectors import Ranked

if TYPE_CHECKING:
    from ckpt.encryption import EncryptionKey

logger = logging.getLogger(__name__)

_SWEEP_INTERVAL = timedelta(minutes=5)
# What has expired is always omitted, whatever `omit_expired` says.
_TTL_NAMES = ("default_ttl", "omit_expired", "refresh_on_read", "sweep_interval_minutes")

_Scored = tuple[Entry, float | None]


class CkptStore(LifeCycle, StoreCalls):
    """Keeps LangGraph's long-term memory, each value stored once, and every version of every item.

    `store` is a path, a URL or an open `Repository`, which then stays open when the store is closed; a `CkptSaver`
    on the same file shares its values. `name` is the memory within the graph. `index` is LangGraph's configuration of
    search by meaning, or that of its PostgresStore; vectors are kept with the items. `ttl` is LangGraph's
    configuration of lifetimes, in minutes: what has expired reads as absent at once, and is deleted by `sweep_ttl`, or
    in passing by writers every `sweep_interval_minutes`. Values are mappings that the built-in serializer takes.

    Safe for many threads, event loops and processes. Usable with `with` and `async with`, which close it.
    """

    supports_ttl = True

    def __init__(
        self,
        store: str | Path | Repository,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        graph: str = "",
        name: str = DEFAULT_MEMORY,
        encryption_key: EncryptionKey | None = None,
    ) -> None:
        for what, given in (("index", index), ("ttl", ttl)):
            check_mapping(what, {} if given is None else given)
        config: Mapping[str, object] = ttl or {}
        check_names("ttl", config, _TTL_NAMES)
        if type(refresh := config.get("refresh_on_read", True)) is not bool:
            raise InvalidInputError(f"ttl: refresh_on_read={refresh!r} is neither True nor False")
        minutes(config.get("default_ttl"), "default_ttl")
        self._sweep_interval = minutes(config.get("sweep_interval_minutes"), "sweep_interval_minutes")
        self._index = Index(index) if index else None
        self._distance: Distance = self._index.distance if self._index is not None else "cosine"
        self._shared = Shared.of(store, graph=graph, encryption_key=encryption_key)
        self.index_config = index
        self.ttl_config = ttl
        self.memory: Memory = self.repository.memory(name)
        self._gets: Together[Getting] = Together(self._shared.pool)
        # On one thread, as they would wait for each other: changes of one memory follow one another.
        self._puts: Together[Putting] = Together(partial(self._shared.pool, 1))
        self._swept = time.monotonic()
        self._sweeper: Sweeper | None = None
        self._sweeper_lock = Lock()

    # -- what LangGraph calls ---------------------------------------------------------------------------

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Run operations, and return their results in order.

        Reads see what was there before, all as of one moment and in one round trip. Of several puts of one item
        the last counts, and all are one transaction.
        """
        batch = OpBatch(ops)
        self._answer(batch, self._index.embed_queries(batch.queries) if self._index is not None else {})
        if batch.puts:
            texts = self._texts(batch)
            vectors = self._index.embed(different(texts.values())) if self._index is not None else {}
            self.memory.apply(changes_of(batch.puts, texts, vectors))
            self._sweep_if_due()
        return batch.results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do what `batch` does, off the event loop.

        What several tasks get at the same time is read together, and what they put is one transaction.
        """
        batch = OpBatch(ops)
        if batch.reads:
            made = await self._index.aembed_queries(batch.queries) if self._index is not None else []
            if all(isinstance(op, GetOp) for op in batch.reads.values()):
                getting = Getting(batch)
                await self._run(lambda: self._gets.submit(self._get_all, getting), frozenset(), writes=False)
            else:  # may take long: nobody else shall wait for it
                await self._read(lambda: self._answer(batch, self._checked(batch.queries, made)))
        if batch.puts:
            texts, vectors = await self._aembedded(batch)
            putting = Putting(self.memory, batch.puts, texts, vectors)
            await self._run(lambda: self._puts.submit(self._put_all, putting), frozenset(), writes=True)
            self._sweep_if_due()
        return batch.results

    def _texts(self, batch: OpBatch) -> dict[Address, Texts]:
        if self._index is None:
            return {}
        return {address: self._index.texts(op) for address, op in batch.puts.items()}

    def _checked(self, texts: list[str], made: Any) -> Vectors:
        return self._index.checked(texts, made) if self._index is not None else {}

    async def _aembedded(self, batch: OpBatch) -> tuple[dict[Address, Texts], Vectors]:
        """Return the texts of all puts and their vectors; on the event loop is nothing but the embedding itself."""
        index = self._index
        # Without a thread where there is nothing to look at: such puts stay in the order of their calls.
        if index is None or not any(map(index.paths, batch.puts.values())):
            return {}, {}

        def taken() -> tuple[dict[Address, Texts], list[str]]:
            texts = self._texts(batch)
            return texts, different(texts.values())

        texts, wanted = await self._read(taken)
        if not wanted:
            return texts, {}
        made = await index.aembed(wanted)
        return texts, await self._read(lambda: index.checked(wanted, made))

    def _put_all(self, jobs: Sequence[Putting]) -> None:
        self.memory.write([version for job in jobs for version in job.versions])

    def _get_all(self, jobs: Sequence[Getting]) -> None:
        """Fill in the results of several batches that only get items."""
        if len(jobs) == 1:
            return self._answer(jobs[0].batch, {})
        together = OpBatch([op for job in jobs for op in job.batch.reads.values()])
        self._answer(together, {})
        found = iter(together.results)
        for job in jobs:
            for at, result in zip(job.batch.reads, found, strict=False):
                job.batch.results[at] = result

    def _answer(self, batch: OpBatch, queries: Mapping[str, Sequence[float]]) -> None:
        """Fill in the results of all reads."""
        if not batch.reads:
            return
        renewed = self.memory.consistently(lambda: self._fill(batch, queries))
        if renewed:
            self.memory.renew(renewed)

    def _fill(self, batch: OpBatch, queries: Mapping[str, Sequence[float]]) -> list[Entry]:
        """Fill in the results of all reads; return what lives on for having been read."""
        found, several = self.memory.read(batch.addresses, batch.prefixes)
        items = dict(zip(batch.addresses, found, strict=True))
        below = dict(zip(batch.prefixes, several, strict=True))
        chosen: dict[int, list[_Scored]] = {}
        for at, op in batch.reads.items():
            if isinstance(op, GetOp):
                entry = items[address_of(op.namespace, op.key)]
                chosen[at] = [(entry, None)] if entry is not None else []
            elif isinstance(op, SearchOp):
                chosen[at] = self._search(op, below[tuple(op.namespace_prefix)], queries)
            else:
                conditions = op.match_conditions or ()
                batch.results[at] = _namespaces(op, below[common_prefix(conditions)])
        loaded = iter(self.memory.load([entry for scored in chosen.values() for entry, _ in scored]))
        renewed: list[Entry] = []
        for at, scored in chosen.items():
            op = batch.reads[at]
            made = [(item, score) for (_, score), item in zip(scored, loaded, strict=False) if item is not None]
            if isinstance(op, GetOp):
                batch.results[at] = _item(made[0][0]) if made else None
            else:
                batch.results[at] = [_found(item, score) for item, score in made]
            if not isinstance(op, ListNamespacesOp) and op.refresh_ttl:
                renewed += [entry for entry, _ in scored if entry.version.ttl]
        return renewed

    def _search(self, op: SearchOp, entries: list[Entry], queries: Mapping[str, Sequence[float]]) -> list[_Scored]:
        if op.filter:
            values = self.memory.peek(entries)
            entries = [entry for entry, value in zip(entries, values, strict=True) if matches_filter(value, op.filter)]
        if not op.query or op.query not in queries:
            return [(entry, None) for entry in entries[op.offset : op.offset + op.limit]]
        return self._nearest(op, entries, queries[op.query])

    def _nearest(self, op: SearchOp, entries: Sequence[Entry], query: Sequence[float]) -> list[_Scored]:
        """Return a page of the items nearest to a query, each by its nearest vector; then those that have no score."""
        having = [entry for entry in entries if entry.version.vectors]
        limit = op.offset + op.limit
        scored, left = Ranked([], list(range(len(having))))
        if self._distance == "cosine":
            scored, left = self.memory.nearest(having, query, limit)
        unscored: set[Address] = set()
        if left:
            for place, score in self._looked_at([having[at] for at in left], query, limit):
                if score is None:
                    unscored.add(Address(having[left[place]].namespace, having[left[place]].key))
                else:
                    scored.append((left[place], score))
        scored.sort(key=lambda each: (-each[1], each[0]))
        page: list[_Scored] = [(having[place], score) for place, score in scored[op.offset : limit]]
        rest = [
            entry for entry in entries if not entry.version.vectors or Address(entry.namespace, entry.key) in unscored
        ]
        start = max(op.offset - (len(entries) - len(rest)), 0)
        return page + [(entry, None) for entry in rest[start : start + op.limit - len(page)]]

    def _looked_at(
        self, entries: Sequence[Entry], query: Sequence[float], limit: int
    ) -> list[tuple[int, float | None]]:
        """Return the places and scores of items whose vectors the database did not know until now, or cannot compare.

        It has copies of length one, which tell angles and nothing else. None is the score of what nobody can compare.
        """
        vectors = [decode_vectors(packed) for packed in self.memory.vectors(entries)]
        if self._distance != "cosine":
            return list(enumerate(best_similarities(query, vectors, self._distance)))
        # Vectors of other dimensions can only be compared here, and would be sent for nothing.
        fit = [place for place, each in enumerate(vectors) if {len(vector) for vector in each} == {4 * len(query)}]
        scored, left = Ranked([], list(range(len(entries))))
        if self.memory.keep_vectors([entries[place] for place in fit], [vectors[place] for place in fit]):
            # Scores of the same make: what is equally near stays in order.
            scored, left = self.memory.nearest(entries, query, limit)
        return [*scored, *zip(left, best_similarities(query, [vectors[place] for place in left]), strict=True)]

    # -- lifetimes ------------------------------------------------------------------------------------

    def sweep_ttl(self) -> int:
        """Delete the items that have expired, and return how many; they read as absent already."""
        return self.memory.sweep()

    async def asweep_ttl(self) -> int:
        """Do what `sweep_ttl` does, off the event loop."""
        return await self._write(self.sweep_ttl)

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> Sweeper:
        """Do `sweep_ttl` every so many minutes, also while nobody writes, until `stop_ttl_sweeper` or `close`.

        Without a number those of the `ttl` configuration, or 5. As LangGraph's stores have it, for code that calls it
        and code that awaits it: returns a future to wait for or to cancel, the one there is while it sweeps already,
        and without a `ttl` configuration one that is done.
        """
        interval = minutes(sweep_interval_minutes, "sweep_interval_minutes") or self._sweep_interval or _SWEEP_INTERVAL
        with self._sweeper_lock:
            if self._sweeper is not None:
                if self._sweeper.runs:
                    return self._sweeper
                self._sweeper.stop()
            self._sweeper = Sweeper(self._sweep_in_passing, interval if self.ttl_config else None)
            return self._sweeper

    def stop_ttl_sweeper(self, timeout: float | None = None) -> Done[bool]:
        """Begin no more sweeps, and return True, awaited or not.

        Nothing is waited for, so that no `timeout` runs out: a sweep under way is ended by itself, before `close` is.
        """
        with self._sweeper_lock:
            if self._sweeper is not None:
                self._sweeper.stop()
        return Done(True)

    def close(self) -> None:
        """Stop sweeping, wait for calls under way and release the store, unless the repository was handed in."""
        self.stop_ttl_sweeper()
        super().close()

    def _sweep_if_due(self) -> None:
        interval = self._sweep_interval
        if interval is not None and time.monotonic() - self._swept >= interval.total_seconds():
            self._sweep_in_passing()

    def _sweep_in_passing(self) -> None:
        self._swept = time.monotonic()
        try:
            self._shared.pool().submit(self._sweep_quietly)
        except RuntimeError as error:  # no thread is to be had, as while the interpreter ends: no put fails for that
            logger.warning("expired items were not deleted: %s", error)

    def _sweep_quietly(self) -> None:
        try:
            self.sweep_ttl()
        except CkptError as error:
            logger.warning("expired items were not deleted: %s", error)

    # -- the past ---------------------------------------------------------------------------------------

    def get(
        self, namespace: tuple[str, ...], key: str, *, refresh_ttl: bool | None = None, as_of: Moment | None = None
    ) -> Item | None:
        """Return an item, or None; with `as_of`, an aware datetime or a moment of `history`, as it was then."""
        if as_of is None:
            return super().get(namespace, key, refresh_ttl=refresh_ttl)
        found = self.memory.get(namespace, str(key), as_of=as_of)
        return _item(found) if found is not None else None

    async def aget(
        self, namespace: tuple[str, ...], key: str, *, refresh_ttl: bool | None = None, as_of: Moment | None = None
    ) -> Item | None:
        """Do what `get` does, off the event loop."""
        if as_of is None:
            return await super().aget(namespace, key, refresh_ttl=refresh_ttl)
        return await self._read(lambda: self.get(namespace, key, as_of=as_of))

    def history(self, namespace: tuple[str, ...], key: str) -> list[MemoryVersion]:
        """Return all versions of an item, newest first: value, when, and whether it was deleted."""
        return self.memory.history(namespace, str(key))

    async def ahistory(self, namespace: tuple[str, ...], key: str) -> list[MemoryVersion]:
        """Do what `history` does, off the event loop."""
        return await self._read(lambda: self.history(namespace, key))

    def fork(self, name: str, *, as_of: Moment | None = None) -> CkptStore:
        """Create another memory from this one as it is, or was, in constant time and space; see `Memory.fork`.

        The store returned is on the same repository, which stays open when that store is closed.
        """
        self.memory.fork(name, as_of=as_of)
        return CkptStore(self.repository, index=self.index_config, ttl=self.ttl_config, name=name)

    async def afork(self, name: str, *, as_of: Moment | None = None) -> CkptStore:
        """Do what `fork` does, off the event loop."""
        return await self._write(lambda: self.fork(name, as_of=as_of))

    def diff(self, since: CkptStore | Moment, *, as_of: Moment | None = None) -> list[MemoryChange]:
        """Return what has changed here since a moment, or what differs from another store as it is now.

        With `as_of` this side is taken as it was then. See `Memory.diff`.
        """
        if isinstance(since, CkptStore):
            return self.memory.diff(since.memory, as_of=as_of)
        return self.memory.diff(since=since, as_of=as_of)

    async def adiff(self, since: CkptStore | Moment, *, as_of: Moment | None = None) -> list[MemoryChange]:
        """Do what `diff` does, off the event loop."""
        return await self._read(lambda: self.diff(since, as_of=as_of))


def _namespaces(op: ListNamespacesOp, entries: Iterable[Entry]) -> list[tuple[str, ...]]:
    namespaces = {entry.namespace for entry in entries}
    fitting = {each for each in namespaces if matches_namespace(each, op.match_conditions or ())}
    if op.max_depth is not None:
        fitting = {each[: op.max_depth] for each in fitting}
    return sorted(fitting)[op.offset : op.offset + op.limit]


def _item(item: MemoryItem) -> Item:
    return Item(
        value=item.value, key=item.key, namespace=item.namespace, created_at=item.created, updated_at=item.updated
    )


def _found(item: MemoryItem, score: float | None) -> SearchItem:
    return SearchItem(
        namespace=item.namespace,
        key=item.key,
        value=item.value,
        created_at=item.created,
        updated_at=item.updated,
        score=score,
    )

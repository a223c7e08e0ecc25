"""The savers that are compared, each over a store of its own, opened as its documentation says.

A contender hides what a benchmark must not care about: how the saver is opened and closed, what in the store
is its own, and how a thread is copied when the saver itself cannot. Here are those over files.

Not here: those over servers (`postgres`, `redis`), time (`replay`, `cold`) and which figure is good enough
(`bars`).
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver, ChannelVersions, Checkpoint, CheckpointTuple

from benchmarks.trace import Call, Put

Saver = BaseCheckpointSaver[str]


class Contender(ABC):
    """One saver over one store. `place` names the store, for another process too."""

    name: str
    """Who it is in figures: "ckpt", or the peer's."""
    modules: tuple[str, ...]
    """What a program that uses this saver has imported before it opens one."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._saver: Saver | None = None

    @property
    def saver(self) -> Saver:
        """The open saver; it opens on first use."""
        if self._saver is None:
            self._saver = self._open()
        return self._saver

    def close(self) -> None:
        """Close the saver as an application that ends properly does. `saver` opens it again."""
        if self._saver is not None:
            self._close(self._saver)
            self._saver = None

    def own(self, call: Call) -> Call:
        """Return a recorded call as LangGraph would have made it on this saver.

        Channel versions are the saver's own business, and part of what it stores. The recorded ones are those
        of SqliteSaver.
        """
        return call

    def own_checkpoint(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return a recorded checkpoint with this saver's versions in it."""
        return checkpoint

    def copy_thread(self, source: str, target: str) -> None:
        """Make `target` a copy of the thread `source`, in the cheapest way this saver offers."""
        self.saver.copy_thread(source, target)

    def crowd(self, count: int) -> Sequence[Contender]:
        """Return what `count` threads of one process work with at the same time: this one, if it bears that.

        What is returned is closed with this contender.
        """
        return [self] * count

    def compared(self, found: CheckpointTuple) -> Any:
        """Return what of a checkpoint this saver promises to give back as it was put."""
        return found

    @abstractmethod
    def _open(self) -> Saver: ...

    @abstractmethod
    def _close(self, saver: Saver) -> None: ...


class Ours(Contender):
    """`CkptSaver`, with its defaults."""

    name = "ckpt"

    @property
    def store(self) -> str:
        """The path or URL that the saver is given."""
        return self.place

    def _open(self) -> Saver:
        # Imported here, so that the process that measures another saver does not pay for this one.
        from ckpt.langgraph import CkptSaver

        return CkptSaver(self.store)

    def _close(self, saver: Any) -> None:
        saver.close()

    def own(self, call: Call) -> Call:
        if not isinstance(call, Put):
            return call
        return replace(
            call,
            checkpoint=self.own_checkpoint(call.checkpoint),
            new_versions=self._versions(call.new_versions),
        )

    def own_checkpoint(self, checkpoint: Checkpoint) -> Checkpoint:
        seen = {node: self._versions(versions) for node, versions in checkpoint["versions_seen"].items()}
        return {
            **checkpoint,
            "channel_versions": self._versions(checkpoint["channel_versions"]),
            "versions_seen": seen,
        }

    def _versions(self, recorded: ChannelVersions) -> ChannelVersions:
        return {channel: self._version(int(str(version).split(".")[0])) for channel, version in recorded.items()}

    def _version(self, number: int) -> str:
        return self.saver.get_next_version(f"{number - 1:032}" if number > 1 else None, None)

    def gc(self) -> None:
        """Collect and repack everything that can be, without waiting for the grace period."""
        from datetime import timedelta

        saver: Any = self.saver
        saver.repository.gc(grace=timedelta(0))


class FileContender(Contender):
    """One saver over one file, in a directory that exists and is its place."""

    def __init__(self, directory: str | Path) -> None:
        super().__init__(str(directory))
        self.path = Path(directory) / f"{self.name}.db"

    def bytes_on_disk(self) -> int:
        """Return the size of the store with everything that lies beside it (write-ahead log, shared
        memory).
        """
        return sum(file.stat().st_size for file in self.path.parent.glob(f"{self.path.name}*"))


class CkptContender(FileContender, Ours):
    """`CkptSaver` over a file."""

    modules = ("ckpt.langgraph",)

    @property
    def store(self) -> str:
        return str(self.path)


class SqliteContender(FileContender):
    """LangGraph's `SqliteSaver`, with its defaults: WAL, and `synchronous=FULL` as SQLite ships it.

    It has no `copy_thread`. Its users read every checkpoint and put it again under the new name, which this
    does too.
    """

    name = "sqlite"
    modules = ("langgraph.checkpoint.sqlite",)

    def _open(self) -> Saver:
        from langgraph.checkpoint.sqlite import SqliteSaver

        return SqliteSaver(sqlite3.connect(str(self.path), check_same_thread=False))

    def _close(self, saver: Any) -> None:
        saver.conn.close()

    def copy_thread(self, source: str, target: str) -> None:
        # Read through a second saver: the first holds its lock while a list is open, so that a put would wait
        # for ever.
        saver, reader = self.saver, self._open()
        for found in reader.list({"configurable": {"thread_id": source}}):
            put_again(saver, found, target)
        self._close(reader)


class HeadCopyContender(SqliteContender):
    """`SqliteSaver` whose users give up the history when they fork: the head alone is put under the new name.

    This is the least a fork can cost there, and less than a fork: nothing before it can be looked at or
    returned to.
    """

    name = "sqlite-head"

    def copy_thread(self, source: str, target: str) -> None:
        found = self.saver.get_tuple({"configurable": {"thread_id": source}})
        if found is not None:
            put_again(self.saver, found, target)


def put_again(saver: Saver, found: CheckpointTuple, thread: str) -> None:
    """Put a checkpoint that was read, and its pending writes, into another thread."""
    parent = found.parent_config["configurable"]["checkpoint_id"] if found.parent_config else None
    namespace = found.config["configurable"]["checkpoint_ns"]
    under: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": parent}}
    stored = saver.put(under, found.checkpoint, found.metadata, found.checkpoint["channel_versions"])
    writes: defaultdict[str, list[tuple[str, Any]]] = defaultdict(list)
    for task, channel, value in found.pending_writes or ():
        writes[task].append((channel, value))
    for task, written in writes.items():
        saver.put_writes(stored, written, task)


FILES: tuple[type[FileContender], ...] = (CkptContender, SqliteContender)

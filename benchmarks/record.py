"""Records what a graph asks of its saver.

The recorder is itself a saver in memory, so LangGraph runs on it as on any other, and every call is written
to the trace with its values as they were at that moment.

Not here: the graphs (`workloads`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver

from benchmarks.trace import CopyThread, GetTuple, Put, PutWrites, Trace, TraceWriter

_PLAIN = (str, int, float, bool, type(None))


def _plain(config: RunnableConfig) -> dict[str, Any]:
    """Return what savers read of a config; the rest is the running graph's machinery."""
    configurable = {
        key: value
        for key, value in config.get("configurable", {}).items()
        if isinstance(value, _PLAIN) and not key.startswith("__")
    }
    metadata = {key: value for key, value in config.get("metadata", {}).items() if isinstance(value, _PLAIN)}
    return {"configurable": configurable, "metadata": metadata}


class RecordingSaver(InMemorySaver):
    """A saver in memory that writes every call to a trace before answering it."""

    def __init__(self, trace: TraceWriter) -> None:
        super().__init__()
        self._trace = trace
        # LangGraph saves from several threads; the trace keeps one order that really happened.
        self._lock = threading.RLock()

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        with self._lock:
            self._trace.append(GetTuple(_plain(config)))
            return super().get_tuple(config)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        with self._lock:
            self._trace.append(Put(_plain(config), checkpoint, metadata, new_versions))
            return super().put(config, checkpoint, metadata, new_versions)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        with self._lock:
            self._trace.append(PutWrites(_plain(config), list(writes), task_id, task_path))
            super().put_writes(config, writes, task_id, task_path)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread, which the memory saver itself cannot; stored bytes are shared."""
        with self._lock:
            self._trace.append(CopyThread(source_thread_id, target_thread_id))
            for namespace, checkpoints in list(self.storage[source_thread_id].items()):
                self.storage[target_thread_id][namespace] = dict(checkpoints)
            for written, writes in list(self.writes.items()):
                if written[0] == source_thread_id:
                    self.writes[(target_thread_id, *written[1:])] = dict(writes)
            for blob, stored in list(self.blobs.items()):
                if blob[0] == source_thread_id:
                    self.blobs[(target_thread_id, *blob[1:])] = stored


def record(run: Callable[[RecordingSaver], None], path: Path) -> Trace:
    """Run graphs on a recorder and return the trace of their calls, kept in the file at `path`."""
    with TraceWriter(path) as writer:
        run(RecordingSaver(writer))
    return Trace(path)

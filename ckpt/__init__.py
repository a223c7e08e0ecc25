"""A content-addressed, git-like checkpoint store for people who build LLM agents as graphs.

`ckpt.open(url)` gives a `Repository`; `ckpt.langgraph.CkptSaver` is the LangGraph saver over one. Names are
loaded when they are first used, so that the command line starts without the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ckpt.errors import CkptError
    from ckpt.repository import CheckpointInfo, Diff, Operation, Repository, Stats, Thread, ThreadInfo
    from ckpt.repository import open_repository as open
    from ckpt.values.kinds import Opaque

__version__ = "0.1.0"

_HOMES = {
    "CheckpointInfo": ("ckpt.repository", "CheckpointInfo"),
    "CkptError": ("ckpt.errors", "CkptError"),
    "Diff": ("ckpt.repository", "Diff"),
    "Opaque": ("ckpt.values.kinds", "Opaque"),
    "Operation": ("ckpt.repository", "Operation"),
    "Repository": ("ckpt.repository", "Repository"),
    "Stats": ("ckpt.repository", "Stats"),
    "Thread": ("ckpt.repository", "Thread"),
    "ThreadInfo": ("ckpt.repository", "ThreadInfo"),
    "open": ("ckpt.repository", "open_repository"),
}

__all__ = [
    "CheckpointInfo",
    "CkptError",
    "Diff",
    "Opaque",
    "Operation",
    "Repository",
    "Stats",
    "Thread",
    "ThreadInfo",
    "__version__",
    "open",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ckpt' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

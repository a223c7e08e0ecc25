"""The repository: everything about a store that has meaning. Re-exports what users of the engine need."""

from ckpt.repository.diff import Change, Changes, ChannelChange
from ckpt.repository.engine import Engine, StoredCheckpoint
from ckpt.repository.fsck import FsckReport, Problem
from ckpt.repository.gc import GcReport
from ckpt.repository.infos import ChannelInfo, CheckpointInfo, ThreadInfo, WriteInfo
from ckpt.repository.memory import Memory, MemoryChange, MemoryItem, MemoryVersion, Put
from ckpt.repository.opening import open_repository
from ckpt.repository.operations import Operation
from ckpt.repository.prune import PruneReport
from ckpt.repository.reader import Diff
from ckpt.repository.repository import Repository
from ckpt.repository.scopes import GraphInfo
from ckpt.repository.stats import ChannelStats, Stats
from ckpt.repository.thread import Thread

__all__ = [
    "Change",
    "Changes",
    "ChannelChange",
    "ChannelInfo",
    "ChannelStats",
    "CheckpointInfo",
    "Diff",
    "Engine",
    "FsckReport",
    "GcReport",
    "GraphInfo",
    "Memory",
    "MemoryChange",
    "MemoryItem",
    "MemoryVersion",
    "Operation",
    "Problem",
    "PruneReport",
    "Put",
    "Repository",
    "Stats",
    "StoredCheckpoint",
    "Thread",
    "ThreadInfo",
    "WriteInfo",
    "open_repository",
]

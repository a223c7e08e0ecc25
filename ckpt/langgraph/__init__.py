"""The LangGraph saver and store: drop-ins for those that LangGraph ships, and ways to configure a saver."""

from ckpt.langgraph.factory import checkpointer, get_checkpointer
from ckpt.langgraph.saver import CkptSaver
from ckpt.langgraph.store import CkptStore

__all__ = ["CkptSaver", "CkptStore", "checkpointer", "get_checkpointer"]

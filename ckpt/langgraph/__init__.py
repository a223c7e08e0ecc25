"""The LangGraph saver: `CkptSaver`, a drop-in for the savers that LangGraph ships, and ways to configure one."""

from ckpt.langgraph.factory import checkpointer, get_checkpointer
from ckpt.langgraph.saver import CkptSaver

__all__ = ["CkptSaver", "checkpointer", "get_checkpointer"]

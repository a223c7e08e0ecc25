"""The LangGraph saver: `CkptSaver`, a drop-in for the savers that LangGraph ships."""

from ckpt.langgraph.saver import CkptSaver

__all__ = ["CkptSaver"]

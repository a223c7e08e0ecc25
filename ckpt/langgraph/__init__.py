"""The LangGraph saver and store: drop-ins for those that LangGraph ships, and ways to configure a saver."""

try:
    from ckpt.langgraph.factory import checkpointer, get_checkpointer
    from ckpt.langgraph.saver import CkptSaver
    from ckpt.langgraph.store import CkptStore
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] not in ("langgraph", "langchain_core"):
        raise
    raise ModuleNotFoundError(
        f"{error}: ckpt.langgraph needs LangGraph's checkpoint package; install it with:"
        " pip install 'ckpt-store[langgraph]'",
        name=error.name,
    ) from error

__all__ = ["CkptSaver", "CkptStore", "checkpointer", "get_checkpointer"]

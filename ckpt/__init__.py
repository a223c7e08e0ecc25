"""A content-addressed, git-like checkpoint store for people who build LLM agents as graphs."""

from ckpt.repository.repository import Repository
from ckpt.repository.repository import open_repository as open  # noqa: A004

__version__ = "0.1.0"
__all__ = ["Repository", "__version__", "open"]

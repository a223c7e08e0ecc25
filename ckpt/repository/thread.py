"""`Thread`: one thread as an object, for programs without a framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ckpt.history.keys import check_text

if TYPE_CHECKING:
    from ckpt.repository.infos import CheckpointInfo
    from ckpt.repository.repository import Repository


class Thread:
    """A named line of checkpoints. The thread comes into being with its first commit."""

    def __init__(self, repository: Repository, name: str) -> None:
        check_text("the name of a thread", name)
        self._repository = repository
        self.name = name

    def commit(self, values: Mapping[str, object], *, metadata: Mapping[str, object] | None = None) -> CheckpointInfo:
        """Append a checkpoint that holds exactly these values; see `Repository.commit`."""
        return self._repository.commit(self.name, values, metadata=metadata)

    def state(self, revision: str = "@") -> dict[str, Any]:
        """Return the values at the head, or at another revision (`@~2`, `#7`, a tag)."""
        return self._repository.state(revision, thread=self.name)

    def log(self, *, limit: int | None = None) -> list[CheckpointInfo]:
        """Return the checkpoints of this thread, all heads included, greatest id first."""
        return self._repository.log(thread=self.name, limit=limit)

    def fork(self, name: str, revision: str = "@", *, values: Mapping[str, object] | None = None) -> Thread:
        """Create another thread from the head, or from another revision of this one, and return it."""
        self._repository.fork(revision, name, thread=self.name, values=values)
        return Thread(self._repository, name)

    def checkout(self, revision: str) -> CheckpointInfo:
        """Continue from one of this thread's checkpoints; see `Repository.checkout`."""
        return self._repository.checkout(revision, thread=self.name)

    def rewind(self, steps: int = 1) -> CheckpointInfo:
        """Continue from the N-th ancestor of the head; see `Repository.rewind`."""
        return self._repository.rewind(self.name, steps)

    def tag(self, name: str, revision: str = "@") -> CheckpointInfo:
        """Name the head, or another revision of this thread; see `Repository.tag`."""
        return self._repository.tag(name, revision, thread=self.name)

    def delete(self) -> None:
        """Delete the thread; see `Repository.delete`."""
        self._repository.delete(self.name)

    def __repr__(self) -> str:
        return f"Thread({self.name!r})"

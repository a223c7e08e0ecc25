"""What the metadata of a checkpoint says of where it came from."""

from __future__ import annotations

from collections.abc import Mapping

from ckpt.history.commits import Commit
from ckpt.repository.core import Core
from ckpt.values.inert import inert


def root_parent(core: Core, commit: Commit) -> str | None:
    """Return the root checkpoint under which a subgraph ran when it made this one; None when it does not say.

    LangGraph notes it in the metadata, under `parents`: per namespace above, the checkpoint there.
    """
    (data,) = core.value_bytes([commit.metadata])
    metadata = inert(commit.metadata.type, data)
    parents = metadata.get("parents") if isinstance(metadata, Mapping) else None
    above = parents.get("") if isinstance(parents, Mapping) else None
    return above if isinstance(above, str) else None

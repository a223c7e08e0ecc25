"""From a URL or a path to a repository."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ckpt.encryption import check_key, protected
from ckpt.history.keys import check_text
from ckpt.repository.core import DEFAULT_MAX_CHECKPOINT_SIZE
from ckpt.repository.options import Options
from ckpt.repository.repository import Repository
from ckpt.storage.scoped import HEADER_KEY
from ckpt.storage.urls import open_storage

if TYPE_CHECKING:
    from ckpt.encryption import EncryptionKey


def open_repository(
    url: str | Path,
    *,
    create: bool = True,
    readonly: bool = False,
    graph: str = "",
    encryption_key: EncryptionKey | None = None,
    max_checkpoint_size: int = DEFAULT_MAX_CHECKPOINT_SIZE,
    ttl: str | timedelta | Mapping[str, object] | None = None,
    retention: str | Mapping[str, object] | None = None,
    actor: str = "",
    types: Iterable[type] = (),
) -> Repository:
    """Open the store that a URL or a path names, and in it one graph: by default the one without a name.

    `memory://` is a new store each time, `sqlite:///relative` and `sqlite:////absolute` are files, and so is
    anything without `://`. `types` are classes of stored values that cannot be found by their module and name;
    `actor` is who the operation log names. With `encryption_key` (32 bytes, a passphrase, or a `KeyProvider`) an
    empty store becomes encrypted. `ttl` is how long a thread lives after its last write ("30d"; see `Lifetimes.of`),
    `retention` which checkpoints of a thread are kept (see `Retention.of`). Raises a StoreError when there is no
    store, it is something else, or the key is not the store's, and InvalidInputError, with no store made, for an
    argument that is none.
    """
    # First, as a slip must not leave a new store behind, and least of all a plain one instead of an encrypted one.
    if encryption_key is not None:
        check_key(encryption_key)
    check_text("actor", actor)
    Options.of(graph, max_checkpoint_size, ttl, retention, types)
    storage = open_storage(url, create=create, readonly=readonly, ahead=HEADER_KEY)
    storage = protected(storage, encryption_key, readonly=readonly)
    try:
        return Repository(
            storage,
            graph=graph,
            max_checkpoint_size=max_checkpoint_size,
            ttl=ttl,
            retention=retention,
            actor=actor,
            types=types,
        )
    except BaseException:
        storage.close()
        raise

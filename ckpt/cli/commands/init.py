"""`ckpt init`: make a store where the next commands will find it."""

from __future__ import annotations

from pathlib import Path

import click

from ckpt.addresses import STORE_FILE, STORE_FOLDER
from ckpt.cli.command import Command
from ckpt.cli.context import Invocation, encryption_key, pass_invocation, usage


@click.command(
    "init",
    cls=Command,
    short_help="Make a store in this folder",
    examples="ckpt init\nckpt init ./agents\nckpt --store sqlite:////srv/agents.db init",
)
@click.argument("folder", required=False, type=click.Path(file_okay=False))
@pass_invocation
def command(invocation: Invocation, folder: str | None) -> None:
    """Make a store in .ckpt/store.db below FOLDER; without one where --store or CKPT_STORE say, else in this folder.

    A saver makes the store by itself on its first write, so this is needed only to choose the place. On a
    store that exists already it does nothing. With CKPT_ENCRYPTION_KEY an empty store becomes encrypted.
    """
    import ckpt
    from ckpt.cli import records
    from ckpt.errors import StoreNotFoundError, StoreUnavailableError
    from ckpt.storage.urls import open_storage

    key = encryption_key()
    if folder is not None and invocation.store_option is not None:
        usage("both FOLDER and --store say where the store is to be", "give one of them")
    given = invocation.named_store() if folder is None else None
    if given is not None:
        url = given
    else:
        place = Path(folder or ".") / STORE_FOLDER
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailableError(
                f"no folder {place} can be made: {error.strerror}", hints=["name another folder: ckpt init FOLDER"]
            ) from error
        url = str((place / STORE_FILE).absolute())
    existed = True
    try:
        open_storage(url, create=False, readonly=True).close()
    except StoreNotFoundError:
        existed = False
    # An empty store becomes encrypted when it is opened for writing with a key.
    with ckpt.open(url, create=not existed, readonly=existed and key is None, encryption_key=key) as repository:
        store = records.store(repository)
    out = invocation.out
    if invocation.json:
        out.document("ckpt.init/1", {"store": store, "created": not existed})
    elif existed:
        out.print(f"There is a store already: {out.text(store['url'])}")
    else:
        out.print(f"Made a store: {out.text(store['url'])}")

"""`ckpt init`: make a store where the next commands will find it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ckpt.cli.command import Command
from ckpt.cli.context import STORE_FILE, STORE_FOLDER, Invocation, inside_folder, pass_invocation


@click.command(
    "init",
    cls=Command,
    short_help="Make a store in this folder.",
    examples="ckpt init\nckpt init ./agents\nckpt --store sqlite:////srv/agents.db init",
)
@click.argument("folder", required=False, type=click.Path(file_okay=False))
@pass_invocation
def command(invocation: Invocation, folder: str | None) -> None:
    """Make a store in .ckpt/store.db below FOLDER, or where --store or CKPT_STORE say.

    A saver makes the store by itself on its first write, so this is needed only to choose the place. On a
    store that exists already it does nothing.
    """
    import ckpt
    from ckpt.cli import records
    from ckpt.errors import StoreNotFoundError

    given = None if folder is not None else invocation.store_option or os.environ.get("CKPT_STORE")
    if given:
        url = inside_folder(given)
    else:
        place = Path(folder or ".") / STORE_FOLDER
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        url = str((place / STORE_FILE).absolute())
    existed = True
    try:
        ckpt.open(url, create=False, readonly=True).close()
    except StoreNotFoundError:
        existed = False
    with ckpt.open(url, create=not existed, readonly=existed) as repository:
        store = records.store(repository)
    out = invocation.out
    if invocation.json:
        out.document("ckpt.init/1", {"store": store, "created": not existed})
    elif existed:
        out.print(f"There is a store already: {out.text(store['url'])}")
    else:
        out.print(f"Made a store: {out.text(store['url'])}")

"""`ckpt key rotate`: change the key of an encrypted store."""

from __future__ import annotations

import click

from ckpt.cli.command import Command, short_help_option
from ckpt.cli.context import Invocation, encryption_key, pass_invocation, usage
from ckpt.cli.format import counted


@click.group(
    "key",
    short_help="Change the keys of an encrypted store",
    context_settings={"help_option_names": ["--help"]},
    no_args_is_help=True,
)
def command() -> None:
    """Change the keys of an encrypted store.

    The key itself is read from CKPT_ENCRYPTION_KEY, or from the file that CKPT_ENCRYPTION_KEY_FILE names.
    """


command.params.append(short_help_option())


@command.command(
    "rotate",
    cls=Command,
    short_help="Put a new key in the place of the old one",
    examples="ckpt key rotate --new-key-file next.key\nckpt key rotate --data",
)
@click.option(
    "--new-key-file",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="The new key: a passphrase, or hex: and 64 digits.",
)
@click.option("--data", is_flag=True, help="Seal all that is stored anew, under a new data key.")
@pass_invocation
def rotate(invocation: Invocation, new_key_file: str | None, data: bool) -> None:
    """Put a new key in the place of the old one, or seal everything anew, while others work with the store.

    A new key takes effect at once, for whoever opens the store from then on. --data reads and writes the whole
    store; when it is interrupted, the next one goes on. After a key became known to others, do both.
    """
    if new_key_file is None and not data:
        usage("there is nothing to rotate", "give --new-key-file, or --data, or both")
    key = encryption_key()
    if key is None:
        usage("no key is given", "set CKPT_ENCRYPTION_KEY or CKPT_ENCRYPTION_KEY_FILE to the store's present key")
    import ckpt
    from ckpt import encryption
    from ckpt.cli import records
    from ckpt.keysources import key_in

    new_key = key_in(new_key_file) if new_key_file is not None else None

    url = invocation.store_url()
    done = encryption.rotate(url, key, new_key=new_key, data=data)
    with ckpt.open(url, create=False, readonly=True, encryption_key=new_key or key) as repository:
        store = records.store(repository)
    out = invocation.out
    if invocation.json:
        document = {"store": store, "new_key": new_key is not None, "new_data_key": data, **done._asdict()}
        out.document("ckpt.key/1", document)
        return
    if new_key is not None:
        out.print(f"The store opens with the key in {out.text(str(new_key_file))} from now on")
    if data:
        out.print(f"Sealed {counted(done.records, 'record')} and {counted(done.frames, 'frame')} anew")

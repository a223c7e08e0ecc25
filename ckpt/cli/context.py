"""What one invocation knows: the global options, where the store is, which thread is meant.

The store is the first of: `--store`, `CKPT_STORE`, the nearest `.ckpt/store.db` upwards from the working
directory. Opening it imports the engine, so nothing here does until `Invocation.repository` is called.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ckpt.addresses import STORE_FILE, STORE_FOLDER
from ckpt.cli.output import Output, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from ckpt.repository import Repository


@dataclass
class Invocation:
    """One run of the command line, shared by the group and the command as click's `ctx.obj`."""

    settings: Settings = field(default_factory=Settings)
    store_option: str | None = None
    graph_option: str | None = None
    thread_option: str | None = None
    namespace: str = ""
    _output: Output | None = None
    _repository: Any = None

    @property
    def out(self) -> Output:
        """The output; made at the first use, when all options have been read."""
        if self._output is None:
            self._output = Output(self.settings)
        return self._output

    @property
    def json(self) -> bool:
        """Whether the result is wanted as JSON."""
        return self.settings.json or self.settings.jsonl

    @property
    def thread(self) -> str | None:
        """The thread given with -t or CKPT_THREAD, verbatim."""
        if self.thread_option is not None:
            return self.thread_option
        return os.environ.get("CKPT_THREAD") or None

    @property
    def graph(self) -> str:
        """The graph given with --graph or CKPT_GRAPH; empty for the default one."""
        if self.graph_option is not None:
            return self.graph_option
        return os.environ.get("CKPT_GRAPH", "")

    def revision(self, given: str | None) -> str:
        """Return the revision of a command; without one, the head of the given thread."""
        if given is not None:
            return given
        if self.thread is None:
            usage("no checkpoint was named", "name a revision such as support-42~1, or a thread with -t")
        return "@"

    def require_whole_threads(self) -> None:
        """Refuse --ns for a command that changes threads with all that is in them."""
        if self.namespace:
            usage("--ns names a subgraph, and this changes whole threads", "leave --ns out; the subgraphs come along")

    def require_all_threads(self, hint: str) -> None:
        """Refuse -t and --ns for a command that is about all threads; a thread from the environment is not meant."""
        if self.thread_option is not None or self.namespace:
            option = "-t" if self.thread_option is not None else "--ns"
            usage(f"{option} names a part, and this is about all threads", f"leave {option} out; {hint}")

    def repository(self, *, write: bool = False) -> Repository:
        """Open the store, for reading only unless `write`; it is closed when the command ends."""
        if self._repository is None:
            import ckpt

            self._repository = ckpt.open(
                self.store_url(),
                create=False,
                readonly=not write,
                graph=self.graph,
                encryption_key=encryption_key(),
                actor=actor() if write else "",
            )
        repository: Repository = self._repository
        return repository

    def named_store(self) -> str | None:
        """Return what --store names, or else CKPT_STORE if it is not empty; None where neither does."""
        if self.store_option == "":
            # As with an unset variable in a script: another store than the one that was meant is none to work on.
            usage("--store is empty", "name a store, or leave --store out")
        return self.store_option or os.environ.get("CKPT_STORE") or None

    def store_url(self) -> str:
        """Return where the store is, or raise StoreNotFoundError."""
        given = self.named_store()
        if given is not None:
            return given
        from ckpt.errors import StoreNotFoundError

        try:
            here = Path.cwd()
        except FileNotFoundError:
            raise StoreNotFoundError(
                "no store here: the working directory does not exist any more",
                hints=["change to another one, or name a store with --store URL or CKPT_STORE"],
            ) from None
        found = nearest_store(here)
        if found is None:
            unread = ["CKPT_CONFIG is set, but only programs read it: give --store the store that it names"]
            raise StoreNotFoundError(
                f"no store here: {STORE_FOLDER}/{STORE_FILE} is in no folder from {here} upwards",
                hints=[
                    "name one with --store URL or CKPT_STORE, or make one with ckpt init",
                    *(unread if os.environ.get("CKPT_CONFIG") else []),
                ],
            )
        return str(found)

    def confirm(self, question: Callable[[], str | None], *, yes: bool) -> None:
        """Ask before something that takes away, and end with exit code 1 if it is not wanted.

        Never ask when nobody can answer, nor where the question turns out to be None.
        """
        if yes:
            return
        if not sys.stdin.isatty():
            usage(
                "this needs a confirmation and stdin is not a terminal",
                "repeat the command with -y to confirm",
            )
        asked = question()
        if asked is None:
            return
        try:
            confirmed = click.confirm(self.out.text(asked), err=True)
        except click.Abort:
            self.out.complain("")  # the question's line ends here
            raise
        if not confirmed:
            self.out.note("Nothing was changed.")
            raise SystemExit(1)

    def close(self) -> None:
        """Close the store and finish the output."""
        try:
            if self._repository is not None:
                self._repository.close()
        finally:
            if self._output is not None:
                self._output.close()


pass_invocation = click.make_pass_decorator(Invocation)


def other_graphs(invocation: Invocation, repository: Repository) -> None:
    """Say which graphs of the store have threads, where the one that was looked into has none."""
    from ckpt.repository.resolve import elsewhere

    hint = elsewhere(repository.graphs())
    if hint is not None:
        invocation.out.note(invocation.out.text(hint))


def thread_and_tag(invocation: Invocation, name: str) -> None:
    """Say how a name that a thread and a tag share is written from now on."""
    from shlex import quote

    from ckpt.history.readings import Reading, TagName, ThreadName
    from ckpt.history.revisions import format_revision

    thread, tag = (quote(format_revision(Reading(anchor))) for anchor in (ThreadName(name), TagName(name)))
    out = invocation.out
    out.note(out.text(f"Note: {name} can mean a thread or a tag from now on. Write {thread} or {tag}"))


def encryption_key() -> str | None:
    """Return the key that the environment holds or names, or raise InvalidInputError; see `key_from`."""
    from ckpt.keysources import key_from

    return key_from(os.environ)


def nearest_store(start: Path) -> Path | None:
    """Return the store file in the nearest `.ckpt` folder from `start` upwards."""
    for folder in (start, *start.parents):
        candidate = folder / STORE_FOLDER / STORE_FILE
        if candidate.is_file():
            return candidate
    return None


def actor() -> str:
    """Return who the operation log names: user@host, as far as the system knows."""
    from getpass import getuser
    from socket import gethostname

    try:
        user = getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        user = f"uid {os.getuid()}" if hasattr(os, "getuid") else "?"
    return f"{user}@{gethostname()}"


def only_one(**given: bool) -> str | None:
    """Return the name of the one option that is given, None for none; refuse several."""
    names = [name for name, is_given in given.items() if is_given]
    if len(names) > 1:
        usage(f"--{names[0]} and --{names[1]} exclude each other", "give one of them")
    return names[0] if names else None


def usage(message: str, hint: str) -> NoReturn:
    """Raise the error of a command that was called wrongly."""
    from ckpt.errors import InvalidInputError

    raise InvalidInputError(message, hints=[hint])

"""`ckpt expire`: say how long a thread lives."""

from __future__ import annotations

import click

from ckpt.cli.arguments import thread_argument
from ckpt.cli.command import Command, dry_run_option
from ckpt.cli.context import Invocation, pass_invocation, usage
from ckpt.cli.format import full_time, rfc3339

_NEVER = "never"


@click.command(
    "expire",
    cls=Command,
    short_help="Say how long a thread lives",
    examples="ckpt expire support-42 30d\nckpt expire support-42 never\nckpt expire -t 'odd id' 12h",
)
@thread_argument("words", nargs=-1, metavar="THREAD DURATION")
@dry_run_option
@pass_invocation
def command(invocation: Invocation, words: tuple[str, ...], dry_run: bool) -> None:
    """Let THREAD, taken verbatim, expire after DURATION (30d, 12h, 1d12h) without a write, or never.

    It counts from now, each write renews it, and the store's policy no longer applies to the thread. An expired
    thread is absent at once; ckpt gc frees its space, and nothing brings it back.
    """
    invocation.require_whole_threads()
    thread, lifetime = _arguments(invocation, words)
    from datetime import UTC, datetime

    from ckpt.repository.lifetimes import duration

    ttl = None if lifetime == _NEVER else duration(lifetime, "DURATION")
    repository = invocation.repository(write=not dry_run)
    if not dry_run:
        expires = repository.expire(thread, ttl)
    elif repository.timeline(thread) is None:
        from ckpt.errors import ThreadNotFoundError

        raise ThreadNotFoundError(f"there is no thread {thread!r}", hints=["ckpt threads lists all"])
    else:
        expires = datetime.now(UTC) + ttl if ttl is not None else None
    out = invocation.out
    stamp = expires.isoformat() if expires is not None else None
    if invocation.json:
        out.document("ckpt.expire/1", {"dry_run": dry_run, "thread": thread, "expires": rfc3339(stamp)})
        return
    name, when = out.name(thread), f"on {full_time(stamp, out.zone)} unless it is written to"
    if dry_run:
        out.print(f"{name} would {f'expire {when}' if stamp else 'never expire'}. Nothing was changed.")
    else:
        out.print(f"{name} {f'expires {when}' if stamp else 'never expires'}. To undo: ckpt undo")


def _arguments(invocation: Invocation, words: tuple[str, ...]) -> tuple[str, str]:
    named = invocation.thread_option
    if len(words) == 2 and named in (None, words[0]):
        return words[0], words[1]
    if len(words) == 1 and named is not None:
        return named, words[0]
    usage("expire takes one thread and one duration", "write ckpt expire THREAD 30d, or ckpt expire -t ID 30d")

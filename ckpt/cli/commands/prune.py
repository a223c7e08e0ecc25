"""`ckpt prune`: drop old checkpoints."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from ckpt.cli.arguments import thread_argument
from ckpt.cli.command import Command, dry_run_option, yes_option
from ckpt.cli.context import Invocation, pass_invocation, usage
from ckpt.cli.format import counted
from ckpt.cli.output import Cell, Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckpt.repository import PruneReport, Repository


@click.command(
    "prune",
    cls=Command,
    short_help="Drop old checkpoints and keep the newest",
    examples="ckpt prune --all --keep-last 20 --keep-within 30d -n\nckpt prune support-42 --keep-last 1 -y",
)
@thread_argument("threads", nargs=-1, metavar="[THREAD]...")
@click.option("--all", "everything", is_flag=True, help="Prune every thread.")
@click.option(
    "--keep-last",
    type=click.IntRange(min=1),
    metavar="N",
    help="Keep the N newest of each thread and of each namespace in it.",
)
@click.option("--keep-within", metavar="DURATION", help="Keep what is younger: 30d, 12h, 1d12h.")
@dry_run_option
@yes_option
@pass_invocation
def command(
    invocation: Invocation,
    threads: tuple[str, ...],
    everything: bool,
    keep_last: int | None,
    keep_within: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Drop all but the newest checkpoints of each THREAD (verbatim), in each of its namespaces (subgraphs
    have their own).

    With both --keep-last and --keep-within, what either keeps stays; one of them at least is needed. Heads,
    tagged and interrupted checkpoints always stay, and so does what they need to load. Each line counts what
    stays by why. A fork goes on showing what its source has pruned. ckpt gc frees the space of what was pruned
    longer ago than its grace (14 days), once no thread shows it.
    """
    invocation.require_whole_threads()
    option = invocation.thread_option
    if threads and option is not None and set(threads) != {option}:
        usage("-t names one thread, and others are named as well", "name all of them as arguments, or one with -t")
    names = list(threads) or ([option] if option is not None else [])
    if names and everything:
        usage("--all means every thread, and threads are named as well", "leave one of the two away")
    if not names and not everything:
        usage("name the threads, or all of them with --all", "add -n to see what would go")
    if keep_last is None and keep_within is None:
        usage("nothing says what to keep", "add --keep-last N, --keep-within 30d, or both")
    from ckpt.repository.lifetimes import duration

    within = duration(keep_within, "--keep-within") if keep_within is not None else None
    repository = invocation.repository(write=not dry_run)
    if everything:
        names = repository.thread_names()

    def question() -> str | None:
        planned = repository.prune(names, keep_last=keep_last, keep_within=within, dry_run=True)
        removed, kept = sum(len(each.removed) for each in planned), sum(len(each.kept) for each in planned)
        changed = counted(sum(bool(each.removed) for each in planned), "thread")
        return f"Remove {counted(removed, 'checkpoint')} of {changed} and keep {kept:,}?" if removed else None

    if not dry_run:
        invocation.confirm(question, yes=yes)
    from ckpt.errors import PartlyDoneError

    try:
        reports = repository.prune(names, keep_last=keep_last, keep_within=within, dry_run=dry_run)
    except PartlyDoneError as error:
        _tell(invocation, repository, error.done, dry_run=dry_run)
        raise
    _tell(invocation, repository, reports, dry_run=dry_run)


def _tell(invocation: Invocation, repository: Repository, reports: Sequence[PruneReport], *, dry_run: bool) -> None:
    from ckpt.cli import records

    out = invocation.out
    if invocation.json:
        document = {"store": records.store(repository), **records.prune(reports, dry_run=dry_run)}
        out.document("ckpt.prune/1", document)
        return
    changed = [report for report in reports if report.removed]
    _table(out, changed)
    removed = counted(sum(len(report.removed) for report in reports), "checkpoint")
    kept = sum(len(report.kept) for report in reports)
    if not changed:
        out.print(f"Nothing to remove, kept {kept:,}")
    elif dry_run:
        out.print(f"Would remove {removed} and keep {kept:,}. Nothing was changed.")
    else:
        each = ", once for each thread" if len(changed) > 1 else ""
        out.print(f"Removed {removed}, kept {kept:,}. To undo: ckpt undo{each}")
        out.print("ckpt gc frees the space after 14 days, or at once with --grace 0s; then undo is over")


def _table(out: Output, reports: Sequence[PruneReport]) -> None:
    width = max((len(f"{len(each.kept):,}") for each in reports), default=0)
    rows = []
    for each in reports:
        total = f"{len(each.kept) + len(each.removed):,}"
        # Each once, by the first of its reasons: they add up to what is kept.
        why = Counter(reasons[0] for reasons in each.reasons)
        namespaces = {namespace for namespace, _ in (*each.kept, *each.removed)}
        rows.append([
            Cell(out.name(each.thread), "key"),
            Cell(f"keep {len(each.kept):>{width},} of {total}"),
            Cell(f"({', '.join(f'{count:,} {reason}' for reason, count in why.most_common())})" if why else "", "dim"),
            Cell(f"in {len(namespaces):,} namespaces" if len(namespaces) > 1 else "", "dim"),
        ])  # fmt: skip
    out.table(rows, flexible=(0,))

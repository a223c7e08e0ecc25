"""What checkout and rewind say: where a thread continues now, and what became of its old tip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckpt.cli.context import Invocation, usage
from ckpt.cli.format import short

if TYPE_CHECKING:
    from ckpt.repository import CheckpointInfo


def require_root(info: CheckpointInfo) -> None:
    """Refuse a checkpoint of a subgraph: a thread continues from the root."""
    if info.namespace:
        usage(
            f"{short(info.id)} belongs to the subgraph {info.namespace}",
            "name a checkpoint of the thread itself; its subgraphs come along",
        )


def show_move(
    invocation: Invocation,
    past: str,
    verb: str,
    target: CheckpointInfo,
    tip: CheckpointInfo,
    done: CheckpointInfo | None,
) -> None:
    """Print the result; `done` is where the thread stands now, None for a dry run."""
    from ckpt.cli import records

    out = invocation.out
    if invocation.json:
        document = {
            "dry_run": done is None,
            "target": records.checkpoint(target),
            "old_head": records.checkpoint(tip),
            "head": records.checkpoint(done) if done else None,
        }
        out.document("ckpt.checkout/1", document)
        return
    step = f" (step {target.step})" if target.step is not None else ""
    thread = out.name(target.thread)
    if target.id == (tip if done is None else done).id:
        out.print(f"{thread} is at {short(target.id)}{step} already. Nothing was changed.")
        return
    if done is None:
        out.print(f"Would {verb} {thread} to {short(target.id)}{step}. Nothing was changed.")
        return
    kept = f"the old tip {short(tip.id)} is kept as another head"
    out.print(f"{past} {thread} to {short(target.id)}{step} as {short(done.id)}; {kept}")
    if target.next:
        nodes = out.text(", ".join(target.next))
        out.note(f"Note: the next run starts at {nodes} and calls tools and models again. To undo: ckpt undo")

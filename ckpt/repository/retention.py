"""Which checkpoints of a thread are kept: what may be asked for, and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ckpt.durations import duration_text
from ckpt.errors import InvalidInputError
from ckpt.history.commits import Commit
from ckpt.repository.lifetimes import duration
from ckpt.repository.plan import Keep, Reason
from ckpt.repository.prune import keep_last
from ckpt.repository.stretches import Found


@dataclass(frozen=True, slots=True)
class Retention:
    """Which checkpoints of a thread are kept: the newest `last` of each namespace, and those younger than `within`.

    The head of each namespace, what carries a tag, and what a fork or a DeltaChannel needs stay whatever the
    policy. Without either everything is kept.
    """

    last: int | None = None
    within: timedelta | None = None

    @staticmethod
    def of(value: Any) -> Retention:
        """Return the policy given as None, `"everything"`, `"keep_latest"`, or `{"keep_last": …, "keep_within": …}`.

        Raises InvalidInputError.
        """
        if value is None or isinstance(value, Retention):
            return value or Retention()
        if value in ("everything", "keep_latest"):
            return Retention(1 if value == "keep_latest" else None)
        if isinstance(value, Mapping) and value and value.keys() <= {"keep_last", "keep_within"}:
            return Retention.keeping(value.get("keep_last"), value.get("keep_within"))
        raise InvalidInputError(
            f"retention={value!r} is not known",
            hints=['write "everything", "keep_latest", {"keep_last": 50} or {"keep_within": "30d"}'],
        )

    @staticmethod
    def keeping(last: object, within: object) -> Retention:
        """Return the policy that keeps so many checkpoints, and those so young. Raises InvalidInputError."""
        if last is not None and (not isinstance(last, int) or isinstance(last, bool) or last < 1):
            raise InvalidInputError(f"keep_last={last!r} is not a number of checkpoints above 0")
        return Retention(last, duration(within, "keep_within") if within is not None else None)

    def __str__(self) -> str:
        """Return the policy as the options of `ckpt prune`."""
        last = [f"--keep-last {self.last}"] if self.last is not None else []
        return " ".join([*last, f"--keep-within {duration_text(self.within)}"] if self.within is not None else last)

    def __bool__(self) -> bool:
        """Whether anything ever goes."""
        return self.last is not None or self.within is not None

    def at_least(self, last: int) -> Retention:
        """Return the policy that keeps the newest `last` besides."""
        return replace(self, last=max(self.last or 0, last))

    def keep(self, now: int) -> Keep | None:
        """Return what chooses the checkpoints to keep at `now`, in milliseconds since 1970; None to keep all."""
        if not self:
            return None
        newest = keep_last(self.last or 1)
        why: Reason = "last" if self.last is not None else "head"
        since = datetime.fromtimestamp(now / 1000, UTC) - self.within if self.within is not None else None

        def keep(namespace: str, rows: list[tuple[Found, Commit]], head: str | None) -> Mapping[str, list[Reason]]:
            kept: dict[str, list[Reason]] = {each: [why] for each in newest(namespace, rows, head)}
            for found, commit in rows:
                if since is not None and _younger(commit.timestamp, since):
                    kept.setdefault(found.checkpoint_id, []).append("within")
            return kept

        return keep


def _younger(timestamp: str | None, since: datetime) -> bool:
    """Whether a checkpoint was made after a moment; one that does not say when is kept."""
    try:
        made = datetime.fromisoformat(timestamp or "")
    except ValueError:
        return True
    return (made if made.tzinfo is not None else made.replace(tzinfo=UTC)) >= since

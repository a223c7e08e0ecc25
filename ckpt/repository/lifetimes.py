"""How long threads live: what may be asked for, and what it means. It is carried out in `ckpt.repository.upkeep`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ckpt.durations import DURATION_FORMS, DURATION_MAX, duration_text, parse_duration
from ckpt.errors import InvalidInputError
from ckpt.history.records import Lifetime, ThreadRecord
from ckpt.repository.arguments import check_names

_ZERO = timedelta(0)
_MS = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def duration(value: object, what: str) -> timedelta:
    """Return a duration given as a timedelta or a text such as `30d`; a bare number is refused, as it has no unit.

    Raises InvalidInputError, also for one that is not above 0 or is longer than a hundred years.
    """
    return _checked(value, what, value)


def _checked(value: object, what: str, given: object) -> timedelta:
    if isinstance(value, str):
        value = parse_duration(value)
    if not isinstance(value, timedelta):
        raise InvalidInputError(f"{what}={value!r} is not a duration", hints=[DURATION_FORMS])
    if value < _MS:
        told = f"{'-' if value < _ZERO else ''}{duration_text(abs(value))}" if given is value else given
        raise InvalidInputError(f"{what} is {told}, which is not a duration above 0", hints=[DURATION_FORMS])
    if value > DURATION_MAX:
        raise InvalidInputError(
            f"{what} is {duration_text(value)}, more than a hundred years",
            hints=["what has no lifetime is kept for ever"],
        )
    return value


def expiry(thread: ThreadRecord) -> datetime | None:
    """Return when a thread expires unless it is written to; None: never."""
    if thread.lifetime is None or not thread.lifetime.expires:
        return None
    return _EPOCH + thread.lifetime.expires * _MS


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long a thread lives after it was last written to, or read if `refresh_on_read`; None: for ever.

    With `sweep_interval` writers look through all threads for expired ones, that often, a few at each put.
    """

    ttl: timedelta | None = None
    refresh_on_read: bool = False
    sweep_interval: timedelta | None = None

    @staticmethod
    def of(value: object) -> Lifetimes:
        """Return the policy given as None, a duration, or a mapping in LangGraph's shape.

        The mapping has `default_ttl`, `refresh_on_read` and `sweep_interval_minutes`; its bare numbers are
        minutes. Raises InvalidInputError.
        """
        if value is None or isinstance(value, Lifetimes):
            return value or Lifetimes()
        if not isinstance(value, Mapping):
            return Lifetimes(duration(value, "ttl"))
        check_names("ttl", value, ("default_ttl", "refresh_on_read", "sweep_interval_minutes"))
        refresh = value.get("refresh_on_read", False)
        if type(refresh) is not bool:
            raise InvalidInputError(f"ttl: refresh_on_read={refresh!r} is neither True nor False")
        return Lifetimes(
            minutes(value.get("default_ttl"), "ttl: default_ttl"),
            refresh,
            minutes(value.get("sweep_interval_minutes"), "ttl: sweep_interval_minutes"),
        )

    def renewed(self, lifetime: Lifetime | None, now: int) -> Lifetime | None:
        """Return the lifetime of a thread that is written to at `now`, in milliseconds since 1970.

        A lifetime of its own stays what it is; else the policy counts, and where there is none the lifetime that
        another writer's policy gave it.
        """
        if lifetime is not None and lifetime.own:
            ttl = lifetime.ttl
        elif self.ttl is not None:
            ttl = self.ttl // _MS
        else:
            ttl = lifetime.ttl if lifetime is not None else 0
        own = lifetime is not None and lifetime.own
        return Lifetime(ttl, now + ttl if ttl else 0, own) if ttl or own else None


def minutes(value: object, what: str) -> timedelta | None:
    """Return a duration given as a number of minutes, or as `duration` takes it; None for None.

    Raises InvalidInputError as `duration` does.
    """
    if value is None:
        return None
    given = value
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            value = timedelta(minutes=value)
        except (OverflowError, ValueError) as error:
            raise InvalidInputError(f"{what}={value!r} is no number of minutes") from error
    return _checked(value, what, given)

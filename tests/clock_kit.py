"""A clock that tests of lifetimes move: the one by which the engine counts them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ckpt.history import clock

NOW = 1_800_000_000_000


class Clock:
    """Milliseconds since 1970, which stand still until the test moves them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = NOW
        monkeypatch.setattr(clock, "now_ms", lambda: self.now)

    def after(self, **parts: float) -> None:
        self.now += timedelta(**parts) // timedelta(milliseconds=1)

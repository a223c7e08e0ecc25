"""Turns: long work in many steps leaves the other writers of a store their share of it.

Whoever waits for a database that another process keeps writing to asks for it from time to time, as SQLite does.
Steps that follow each other at once would be met by one such question after the other; so after each step the work
rests for about as long as the step took.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

_REST_MIN_SECONDS = 0.002
_REST_MAX_SECONDS = 0.1
"""About as long as SQLite waits at most before it asks again."""


class Turns:
    """The turns of one work. A step that fails is not followed by a rest."""

    @contextmanager
    def step(self) -> Iterator[None]:
        """Take a turn: run the block, which keeps others from writing, then rest."""
        begun = time.monotonic()
        yield
        took = time.monotonic() - begun
        # Never in step with somebody who asks at even intervals.
        time.sleep(min(max(took, _REST_MIN_SECONDS), _REST_MAX_SECONDS) * random.uniform(0.75, 1.25))

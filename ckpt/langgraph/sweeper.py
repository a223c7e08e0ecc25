"""Deleting what has expired every so often, in the background: what `CkptStore.start_ttl_sweeper` starts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from datetime import timedelta
from threading import Event, Thread
from typing import Any


class Sweeper(Future[None]):
    """Calls `sweep`, which must not take long, at an interval until it is cancelled or stopped, or the process ends.

    It is a future that is done by then, as LangGraph's PostgresStore returns one; awaited it gives such a future of
    asyncio, as the coroutine of AsyncPostgresStore does. Without an interval it is done at once.
    """

    def __init__(self, sweep: Callable[[], object], interval: timedelta | None) -> None:
        super().__init__()
        self._over = Event()
        self.add_done_callback(lambda _: self._over.set())
        self._thread = Thread(target=self._run, args=(sweep, interval), name="ckpt-ttl-sweeper", daemon=True)
        if interval is None:
            self.set_result(None)
        else:
            self._thread.start()

    @property
    def runs(self) -> bool:
        """Whether it still sweeps; not in a process that was forked from its own."""
        return not self.done() and self._thread.is_alive()

    def stop(self) -> None:
        """Sweep no more, and wait for the thread, which ends at once. A second call does nothing."""
        with suppress(InvalidStateError):
            self.set_result(None)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self, sweep: Callable[[], object], interval: timedelta) -> None:
        while not self._over.wait(interval.total_seconds()):
            sweep()

    async def _here(self) -> asyncio.Future[None]:
        return asyncio.wrap_future(self)

    def __await__(self) -> Generator[Any, None, asyncio.Future[None]]:
        return self._here().__await__()

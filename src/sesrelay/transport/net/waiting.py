"""Waiting on a connection: one caller, woken by what comes or by the end, with one timer for the whole connection.

A timer for each wait would be made and cancelled with each message: this one is left where it is, and put off when it fires early.

Runs on: asyncio's own loop or uvloop.
"""

from __future__ import annotations

import asyncio


class Waiting(asyncio.Protocol):
    """A connection with one caller at a time. `lost`: why it is over, once it is; `_too_late`: why, where nothing came in time.

    Units: `_deadline` on the loop's clock; while there is a wait, whatever comes may put it off.
    """

    def __init__(self, too_late: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._too_late = too_late
        self.lost: str | None = None

    async def _wait(self, until: float | None) -> None:
        """Wait until woken, or lost then; with None for as long as it takes."""
        self._deadline = until
        if until is not None and (self._timer is None or self._timer.when() > until):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(until, self._ring)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = self._deadline = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _ring(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self._deadline > self._loop.time():
            self._timer = self._loop.call_at(self._deadline, self._ring)
        else:
            self._lose(self._too_late)

    def _lose(self, why: str) -> None:
        """It is over; the first reason counts."""
        if self.lost is None:
            self.lost = why
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._wake()

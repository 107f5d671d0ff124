"""What a clock that is set back calls for: mail and pauses keep the wait that they had.

A clock set forward calls for nothing here: mail is due early, and nothing expires but by the outcome of an attempt.

Invariant: a step is told by the two clocks drifting apart, so that neither load nor a machine that slept looks like one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from sesrelay.delivery.scheduler import Scheduler
from sesrelay.seams import Clock, Observer, Spool, SpoolError

EVERY = 5.0  # seconds
STEP = 5.0  # seconds that the clocks may drift apart before it counts


@dataclass(slots=True)
class ClockWatch:
    """Runs beside the scheduler for as long as the daemon does."""

    spool: Spool
    scheduler: Scheduler
    clock: Clock
    observer: Observer
    every: float = field(default=EVERY)
    _offset: float = field(init=False)

    def __post_init__(self) -> None:
        self._offset = self._drift()

    def _drift(self) -> float:
        return self.clock.wall() - self.clock.monotonic()

    async def run(self) -> None:
        """Look for ever; store trouble is told and the next look tries again. Ends by cancellation."""
        while True:
            await asyncio.sleep(self.every)
            try:
                await self.look()
            except SpoolError as error:
                self.observer.trouble("the queue could not be adjusted to the changed clock", error)

    async def look(self) -> None:
        """Follow the clock if it has been set. Raises: SpoolError"""
        step = self._drift() - self._offset
        if abs(step) < STEP:
            return
        if step < 0.0:
            await self.spool.set_back(-step, self.clock.wall())
            self.scheduler.set_back(-step)
        self._offset += step
        self.observer.notice("the system clock was changed", seconds=round(step, 1))
        await self.scheduler.refresh()

"""All lanes of one process: found by their key, filled and emptied, and woken when something is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from sesrelay.delivery.fresh import Fresh
from sesrelay.delivery.lane import Lane, Ready
from sesrelay.mail.delivery import LaneKey, Stream
from sesrelay.policy.concurrency import Standing

STANDINGS = 10_000  # nexthops of which it is known how they served, though nothing waits for them
LONGEST_TIMER = 60.0  # seconds; wall time may jump, so no timer trusts it for longer


class Lanes:
    """`ring` is called when a lane's timer has run out, `crowded_out` for what had to make way for others."""

    def __init__(self, ring: Callable[[Lane], None], crowded_out: Callable[[Ready], None]) -> None:
        self.fresh = Fresh()
        self._ring = ring
        self._crowded_out = crowded_out
        self._lanes: dict[LaneKey, Lane] = {}
        self._standings: dict[LaneKey, Standing] = {}
        self._closed = False

    def get(self, key: LaneKey) -> Lane:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key, self._standings.pop(key, Standing.UNKNOWN))
        return lane

    def values(self) -> list[Lane]:
        return list(self._lanes.values())

    def drop(self, lane: Lane) -> None:
        self._lanes.pop(lane.key, None)
        if lane.standing is not Standing.UNKNOWN:
            self._standings[lane.key] = lane.standing
            if len(self._standings) > STANDINGS:
                del self._standings[next(iter(self._standings))]

    def has_room(self, key: LaneKey, stream: Stream) -> bool:
        lane = self._lanes.get(key)
        return lane is None or lane.has_room(stream)

    def put(self, ready: Ready) -> Lane:
        """Let a batch wait in its lane."""
        lane = self.get(ready.batch.lane)
        self.fresh.add(ready)
        crowded = lane.put(ready)
        if crowded is not None:
            self.fresh.drop(crowded)
            self._crowded_out(crowded)
        return lane

    def keep(self, readies: Iterable[Ready]) -> None:
        """Let batches that the store did not take back wait in their lanes.

        Nothing makes way for them, as it would come back too.
        """
        for ready in readies:
            self.fresh.add(ready)
            self.get(ready.batch.lane).keep(ready)

    def empty(self, lane: Lane, stream: Stream | None = None) -> list[Ready]:
        """Take out all that waits in a lane, or in a stream of it."""
        everything = lane.empty() if stream is None else lane.take(stream)
        for ready in everything:
            self.fresh.drop(ready)
        return everything

    def arm(self, lane: Lane, delay: float) -> None:
        """Ring for `lane` in `delay` seconds, or sooner where it is armed for sooner already."""
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        delay = min(max(delay, 0.001), LONGEST_TIMER)
        if lane.timer is not None:
            if lane.timer.when() <= loop.time() + delay:
                return
            lane.timer.cancel()
        lane.timer = loop.call_later(delay, self._rung, lane)

    def close(self) -> None:
        """Ring no more."""
        self._closed = True
        for lane in self._lanes.values():
            if lane.timer is not None:
                lane.timer.cancel()

    def _rung(self, lane: Lane) -> None:
        lane.timer = None
        self._ring(lane)

"""Attempts under way: so many over all lanes, so many for one way out, and which ways out are still in use.

Invariant: nexthops that do not serve leave slots of their way out to those that are not known, and both to those that serve.

Source: Postfix default_process_limit (a bound on all), and the promise that a slow host holds up nobody else.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from sesrelay.delivery.lane import Lane
from sesrelay.policy.concurrency import Standing
from sesrelay.seams import Transport

ALL = 500  # attempts at once, well below the usual limit of descriptors
ONE = 400  # for one way out, so that hosts which never answer leave something for the others
_SHARE = {Standing.UNKNOWN: 0.8, Standing.TROUBLED: 0.5}  # what part of that those have who stand so, or worse


class Slots:
    def __init__(self) -> None:
        self.taken = 0
        self._by: Counter[int] = Counter()
        self._standing: Counter[tuple[str, Standing]] = Counter()
        self._changed = asyncio.Event()

    def free_for(self, transport: Transport, name: str, standing: Standing) -> bool:
        """Tell whether a lane that stands so may have one. `name`: the transport's, by the lane."""
        if self.taken >= ALL or self._by[id(transport)] >= ONE:
            return False
        worse = 0
        for each, share in reversed(_SHARE.items()) if standing is not Standing.SERVES else ():
            worse += self._standing[name, each]
            if each <= standing and worse >= ONE * share:
                return False
        return True

    def take(self, transport: Transport, lane: Lane) -> None:
        self.taken += 1
        self._by[id(transport)] += 1
        self._standing[lane.key.transport, lane.standing] += 1

    def give_back(self, transport: Transport, lane: Lane) -> None:
        self.taken -= 1
        self._by[id(transport)] -= 1
        self._standing[lane.key.transport, lane.standing] -= 1
        if not self._by[id(transport)]:
            del self._by[id(transport)]
            self._changed.set()

    def learn(self, lane: Lane, standing: Standing) -> None:
        """Take note of how a lane stands now, and with it the slots that it has."""
        if standing is not lane.standing:
            self._standing[lane.key.transport, lane.standing] -= lane.inflight
            self._standing[lane.key.transport, standing] += lane.inflight
            lane.standing = standing

    async def unused(self, transports: Iterable[Transport]) -> None:
        """Wait until no attempt by any of `transports` is under way."""
        wanted = list(transports)
        while any(id(transport) in self._by for transport in wanted):
            self._changed.clear()
            await self._changed.wait()

"""Attempts under way: so many over all lanes, so many for one way out, and which ways out are still in use.

Source: Postfix default_process_limit (a bound on all), and the promise that a slow host holds up nobody else.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from sesrelay.seams import Transport

ALL = 500  # attempts at once, well below the usual limit of descriptors
ONE = 400  # for one way out, so that hosts which never answer leave something for the others


class Slots:
    def __init__(self) -> None:
        self.taken = 0
        self._by: Counter[int] = Counter()
        self._changed = asyncio.Event()

    def free_for(self, transport: Transport) -> bool:
        return self.taken < ALL and self._by[id(transport)] < ONE

    def take(self, transport: Transport) -> None:
        self.taken += 1
        self._by[id(transport)] += 1

    def give_back(self, transport: Transport) -> None:
        self.taken -= 1
        self._by[id(transport)] -= 1
        if not self._by[id(transport)]:
            del self._by[id(transport)]
            self._changed.set()

    async def unused(self, transports: Iterable[Transport]) -> None:
        """Wait until no attempt by any of `transports` is under way."""
        wanted = list(transports)
        while any(id(transport) in self._by for transport in wanted):
            self._changed.clear()
            await self._changed.wait()

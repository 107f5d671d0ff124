"""Hosts that could not be reached lately: they are asked after the others, never left out.

Source: Postfix's memory of dead sites; RFC 5321 §4.5.4.1 (a client keeps a list of hosts it cannot reach).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from sesrelay.seams import Clock

SIZE = 10_000  # hosts remembered


class DeadHosts:
    """Remembers for `seconds` who did not answer."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._until: OrderedDict[Hashable, float] = OrderedDict()

    def mark(self, host: Hashable) -> None:
        """Note that a host did not answer."""
        self._until[host] = self._clock.monotonic() + self._seconds
        self._until.move_to_end(host)
        if len(self._until) > SIZE:
            self._until.popitem(last=False)

    def forget(self, host: Hashable) -> None:
        """Note that a host answers."""
        if self._until:
            self._until.pop(host, None)

    def __contains__(self, host: Hashable) -> bool:
        if not self._until:
            return False
        until = self._until.get(host)
        if until is None:
            return False
        if until <= self._clock.monotonic():
            del self._until[host]
            return False
        return True

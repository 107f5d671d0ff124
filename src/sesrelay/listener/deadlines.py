"""One timer a session, for deadlines that progress moves.

Runs on: the session's loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Units: seconds, `rate` octets a second. See ListenerOptions."""

    silence: float
    line: float
    rate: float
    content: float

    @property
    def grace(self) -> float:
        """What a client has at least for whatever it has begun."""
        return min(self.line, self.silence, self.content)


class Watch:
    """Calls `look` once a grace, and at the deadline.

    A new deadline is never nearer than the grace or the deadline before, so a look once a grace misses none, and
    moving a deadline costs an assignment. `look` returns whether to go on; it finds out by `passed`.
    """

    __slots__ = ("_handle", "_look", "_loop", "deadline", "grace")

    def __init__(self, loop: asyncio.AbstractEventLoop, grace: float, look: Callable[[float], bool]) -> None:
        self._loop = loop
        self._look: Callable[[float], bool] | None = look
        self._handle: asyncio.TimerHandle | None = None
        self.grace = grace
        self.deadline = 0.0

    def start(self, seconds: float) -> None:
        """Let the deadline be so many seconds from now, and watch it."""
        now = self._loop.time()
        self.deadline = now + seconds
        if self._handle is not None:
            self._handle.cancel()
        self._arm(now)

    def stop(self) -> None:
        """Look no more."""
        if self._handle is not None:
            self._handle.cancel()
        self._look = None  # or session and watch would keep each other until a collection

    def _arm(self, now: float) -> None:
        self._handle = self._loop.call_at(min(self.deadline, now + self.grace), self._ring)

    def _ring(self) -> None:
        now = self._loop.time()
        if self._look is not None and self._look(now):
            self._arm(now)

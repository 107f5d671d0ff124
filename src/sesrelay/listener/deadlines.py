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

    Units: seconds; `deadline` and whatever ends on the loop's clock. `line_begun`: some of a line has come, and not all.

    A look once a grace finds each deadline within a grace of it, and moving one costs an assignment. `look` returns whether
    to go on; it compares `deadline` itself.
    """

    __slots__ = ("_handle", "_look", "_loop", "_since", "_spent", "deadline", "grace", "limits", "line_begun")

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Deadlines, look: Callable[[float], bool]) -> None:
        self._loop = loop
        self._look: Callable[[float], bool] | None = look
        self._handle: asyncio.TimerHandle | None = None
        self.limits = limits
        self.grace = limits.grace
        self.deadline = 0.0
        self.line_begun = False
        self._since = 0.0  # when the line was begun that has not all come
        self._spent = 0.0  # seconds that lines have taken from their first octets to their last ones

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

    # --- what the client is given time for ---

    def allow(self, seconds: float) -> None:
        """Let the deadline be so many seconds from now."""
        self.deadline = self._loop.time() + seconds

    def allow_more(self, seconds: float) -> None:
        """Let the deadline be no nearer than that, because the client waits for us."""
        self.deadline = max(self.deadline, self._loop.time() + seconds + self.grace)

    def expect_line(self, *, begun: bool) -> None:
        """Wait for a line of which nothing has come, or, `begun`, not all: what comes of it moves its deadline no more.

        All lines that come in pieces share one grace, or whoever drips whole commands would stay for ever; see `forgive`.
        """
        if not begun:
            if self.line_begun:
                self.line_ended()
            self.deadline = self._loop.time() + self.limits.silence
        elif not self.line_begun:
            self.line_begun = True
            self._since = self._loop.time()
            self.deadline = self._since + max(self.grace - self._spent, 0.0)

    def line_ended(self) -> None:
        """Take note that all of the line has come, if one was begun."""
        if self.line_begun:
            self.line_begun = False
            self._spent += self._loop.time() - self._since

    def forgive(self) -> None:
        """Give lines their whole time again: the client has brought a message."""
        self._spent = 0.0

    def expect_content(self, ends: float) -> None:
        """Wait for the first octets of content."""
        self.deadline = min(self._loop.time() + self.grace, ends)

    def earn(self, octets: int, ends: float) -> None:
        """Give time for octets that have come, at the minimum rate, up to the longest silence allowed.

        So a steady slow upload lives and a dripping one does not.
        """
        limits = self.limits
        self.deadline = min(self.deadline + octets / limits.rate, self._loop.time() + limits.silence, ends)

    def _arm(self, now: float) -> None:
        self._handle = self._loop.call_at(min(self.deadline, now + self.grace), self._ring)

    def _ring(self) -> None:
        now = self._loop.time()
        if self._look is not None and self._look(now):
            self._arm(now)

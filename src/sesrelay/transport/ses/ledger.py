"""What one AWS account may still send in one region, whichever key or protocol its mail leaves by.

Invariant: the pace starts at the sandbox's 1 a second until the account has been asked, and is never above what it said.

Source: Amazon SES developer guide, "Sending quotas" (counted in recipients, by account and region).
"""

from __future__ import annotations

import asyncio

from sesrelay.mail.delivery import Priority
from sesrelay.policy.pace import Governor
from sesrelay.policy.quota import Window
from sesrelay.seams import Clock
from sesrelay.transport.ses.seam import Figures, Reputation

FIRST_RATE = 1.0  # the sandbox's
FALLBACK_RATE = 14.0  # what a new account out of the sandbox has, where the figures may not be read
FRESH = 900.0  # seconds for which an answer about the 24 hours keeps mail back; then SES itself has to say so
RESERVE_WAIT = 60.0  # seconds between looks at whether the window has freed something for others than urgent mail

Way = float | str
"""A rate of the configuration's own in recipients a second, or `auto`."""


class Ledger:
    """The paces, the window and the figures that all transports of an account share."""

    def __init__(self, clock: Clock) -> None:
        self.window = Window(at=clock.monotonic())
        self.figures: Figures | None = None
        self.reputation: Reputation | None = None
        self.asking = asyncio.Lock()
        self.asked_at: float | None = None
        self.answers = 0
        self._told_at: float | None = None
        self.reserving = False  # mail that is not urgent waits, for what is left is kept
        self._clock = clock
        self._rate, self._climbs = FIRST_RATE, False
        self._governors: dict[tuple[Way, float], Governor] = {}

    def governor(self, rate: Way, share: float) -> Governor:
        """Return the pace for a fixed rate, or for a share of the account's own."""
        key = (rate, share)
        if key not in self._governors:
            now = self._clock.monotonic()
            own = self._rate * share if isinstance(rate, str) else rate
            self._governors[key] = Governor(own, now, climbs=isinstance(rate, str) and self._climbs)
        return self._governors[key]

    def set_rate(self, rate: float, *, climbs: bool = False) -> None:
        """Go by another rate of the account's. `climbs`: it is a guess, to begin with."""
        self._rate, self._climbs = rate, climbs
        now = self._clock.monotonic()
        for (way, share), governor in self._governors.items():
            if isinstance(way, str):
                governor.set_rate(rate * share, now, climbs=climbs)

    def throttled(self) -> None:
        now = self._clock.monotonic()
        for governor in self._governors.values():
            governor.throttled(now)

    def spent(self, recipients: int) -> None:
        """Count recipients that the service took, in the call whose answer came just now."""
        now = self._clock.monotonic()
        self.window.spend(recipients, now)
        for governor in self._governors.values():
            governor.taken(now)

    def reserved_from(self, recipients: int, priority: Priority, reserve: float) -> bool:
        """Tell whether mail of `priority` waits, because what is left of the window is kept for urgent mail."""
        if self.window.most < 0 or not self._fresh:
            self.reserving = False
            return False
        keeps = self.window.keeps_from(recipients, priority, reserve)
        if priority is not Priority.HIGH:
            self.reserving = keeps
        return keeps

    @property
    def exhausted(self) -> bool:
        """Tell whether the account's 24 hours are used up."""
        return self.window.used_up and self._fresh

    @property
    def _fresh(self) -> bool:
        return self._told_at is not None and self._clock.monotonic() - self._told_at < FRESH

    def told(self, figures: Figures, spent_before: float) -> None:
        """Take over what the account said; `spent_before`: what the window had spent when it was asked."""
        self.figures, self._told_at = figures, self._clock.monotonic()
        self.answers += 1
        self.window.told(figures.max_24h_send, figures.sent_last_24h, spent_before)
        self.set_rate(figures.max_send_rate)

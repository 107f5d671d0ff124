"""A token bucket that counts recipients and may go into debt, and what yields to a next hop that finds it too fast.

SES lets a message to N recipients through while one token is left, and then refuses for the seconds that follow: so
does this bucket. Mutable, but without a clock: time is an argument.

Source: Amazon SES developer guide, "Sending quotas"; AIMD as in TCP (RFC 5681), its way back to the last known limit as
in CUBIC (RFC 9438 §4.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sesrelay.policy.turnaround import Turnaround

HEADROOM = 0.99
"""Of the rate that is used. What is left over fills the next hop's bucket little by little, so that calls which arrive
closer together than they left find tokens there."""
BURST = 0.9  # seconds of the rate that may be saved up while nothing is sent: less than the next hop saves up meanwhile
YIELD = 0.7  # what is left of the pace after a refusal
LEAST = 1 / 16  # of the rate, however often it is refused: the limit may have been lowered, but not to nothing
FAST = 0.05  # of the rate a second, on the way back to the last known limit
NEAR = 0.95  # of the pace that was last refused: from here on slowly
PAST = 1.1  # of the pace that was last refused: that limit is no more, as another host has stopped sending; quickly again
SLOW, SLOW_BY_CALL = 0.005, 0.0002  # of the rate: a second at most, and a recipient, so that few of those on the way are refused
SCANT = 1.0  # a second: with no more than that a next hop saves up nothing that could meet a call which overtakes another


@dataclass(slots=True)
class Pace:
    """Units: `rate` recipients a second, None for no limit; `burst` recipients; times in seconds on one monotonic clock."""

    rate: float | None
    burst: float = 1.0
    tokens: float = 1.0
    at: float = 0.0

    def take(self, recipients: int, now: float) -> float:
        """Take `recipients` tokens and return 0.0, or take none and return the seconds until it is worth asking again."""
        if self.rate is None:
            return 0.0
        if self.rate <= 0:
            return 60.0
        self.refill(now)
        if self.tokens >= 1.0 - 1e-9:
            self.tokens -= recipients
            return 0.0
        return (1.0 - self.tokens) / self.rate

    def give_back(self, recipients: int) -> None:
        """Return tokens of an attempt that was never made."""
        if self.rate is not None:
            self.tokens = min(self.tokens + recipients, max(self.burst, 1.0))

    def refill(self, now: float) -> None:
        if self.rate is not None and now > self.at:
            self.tokens = min(self.tokens + (now - self.at) * self.rate, max(self.burst, 1.0))
        self.at = max(self.at, now)

    def set_rate(self, rate: float | None, now: float) -> None:
        """Change the rate from `now` on; what was saved up at the old one stays, up to the new burst."""
        self.refill(now)
        self.rate = rate
        self.burst = max(1.0, rate or 1.0) if rate is not None else 1.0
        self.tokens = min(self.tokens, self.burst)
        self.at = max(self.at, now)


class Governor:
    """A pace that yields when it is refused and comes back little by little. Units: recipients a second; None: no limit.

    `climbs`: the rate is only where to begin, as the limit is not known; without refusals the pace goes above it.
    """

    def __init__(self, rate: float | None, now: float, *, climbs: bool = False) -> None:
        self.rate = rate
        self._climbs = climbs
        self._factor = 1.0
        self._refused = math.inf if climbs else 1.0  # the factor at which the next hop last refused
        self._at = self._yielded = now
        self._turnaround = _by_answers(rate, climbs)
        self._pace = Pace(None, tokens=1.0, at=now)
        self._apply(now)
        self._pace.tokens = 1.0

    @property
    def current(self) -> float | None:
        """The pace now, the headroom aside."""
        return None if self.rate is None else self.rate * self._factor

    def take(self, recipients: int, now: float) -> float:
        """Take `recipients` and return 0.0, or take none and return the seconds until it is worth asking again."""
        if now - self._at >= 1.0:
            self._recover(now)
        if self._turnaround is None:
            return self._pace.take(recipients, now)
        wait = self._turnaround.wait(now, self._pace.rate or 1.0) or self._pace.take(recipients, now)
        if wait == 0.0:
            self._turnaround.left(recipients, now)
        return wait

    def give_back(self, recipients: int) -> None:
        self._pace.give_back(recipients)
        if self._turnaround is not None:
            self._turnaround.withdrawn()

    def taken(self, now: float) -> None:
        """Take note that a call was taken; its answer came now."""
        if self._turnaround is not None:
            self._turnaround.taken(now, self._pace.rate or 1.0)

    def set_rate(self, rate: float | None, now: float, *, climbs: bool = False) -> None:
        """Go by another rate from `now` on; what was learnt of the former one is forgotten."""
        if (rate, climbs) != (self.rate, self._climbs):
            self.rate, self._climbs = rate, climbs
            self._factor, self._refused, self._at = 1.0, math.inf if climbs else 1.0, now
            self._turnaround = _by_answers(rate, climbs)
            self._apply(now)

    def throttled(self, now: float) -> None:
        """Yield; calls that were under way together count once."""
        if self._turnaround is not None and self._turnaround.refused():
            self._pace.tokens = 1.0
            return
        if self.rate is None or (now - self._yielded < 1.0 and self._factor != 1.0):
            return
        self._refused, self._factor = self._factor, max(self._factor * YIELD, LEAST / 4 if self._climbs else LEAST)
        self._at = self._yielded = now
        self._apply(now)
        self._pace.tokens = min(self._pace.tokens, 0.0)

    def _recover(self, now: float) -> None:
        waited, self._at = now - self._at, now
        top = math.inf if self._climbs else 1.0
        if self.rate is None or self._factor >= top:
            return
        if self._factor > self._refused * PAST:
            self._refused = top
        known = self._refused < math.inf
        around = self._refused if known else self._factor  # steps are parts of the limit, where it is far from the rate
        near = min(self._refused * NEAR, top)
        if self._factor < near:
            quick = min((near - self._factor) / (FAST * around), waited)
            self._factor, waited = self._factor + FAST * around * quick, waited - quick
        slow = min(SLOW, SLOW_BY_CALL * self.rate * around) if known else FAST
        self._factor = min(self._factor + slow * around * waited, top)
        self._apply(now)

    def _apply(self, now: float) -> None:
        current = self.current
        headroom = HEADROOM if self._turnaround is None else 1.0
        self._pace.set_rate(None if current is None else current * headroom, now)
        if current is not None:
            self._pace.burst = max(1.0, current * BURST)
            self._pace.tokens = min(self._pace.tokens, self._pace.burst)

    def owes_like(self, other: Governor, now: float) -> None:
        """Take note that what went by `other` until `now` was spent here as well: nothing is saved up, and its debt is ours."""
        for pace in (self._pace, other._pace):
            pace.refill(now)
        self._pace.tokens = min(self._pace.tokens, other._pace.tokens, 0.0)


class Narrowed:
    """A pace of one's own within another that is shared: what goes wants tokens of both."""

    def __init__(self, own: Governor, shared: Governor) -> None:
        self._own, self._shared = own, shared

    def take(self, recipients: int, now: float) -> float:
        """Take `recipients` of both and return 0.0, or take none and return the seconds until it is worth asking again."""
        wait = self._own.take(recipients, now)
        if wait == 0.0:
            wait = self._shared.take(recipients, now)
            if wait > 0.0:
                self._own.give_back(recipients)
        return wait

    def give_back(self, recipients: int) -> None:
        self._own.give_back(recipients)
        self._shared.give_back(recipients)


def _by_answers(rate: float | None, climbs: bool) -> Turnaround | None:
    """Return what a scant rate is paced by; None where time alone will do."""
    return Turnaround() if rate is not None and rate <= SCANT and not climbs else None

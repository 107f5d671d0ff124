"""A token bucket that counts recipients and may go into debt.

SES lets a message to N recipients through while one token is left, and then refuses for the seconds that follow: so
does this bucket. Mutable, but without a clock: time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass


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

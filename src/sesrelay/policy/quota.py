"""The rolling 24 hours of an account: what is left of them, and for whom.

Between two answers of the account what was sent meanwhile is counted here, so that neither the quota nor what is kept
of it for urgent mail is overrun. Mutable, but without a clock: time is an argument.

Source: Amazon SES developer guide, "Sending quotas" (a rolling window, counted in recipients; -1: unlimited).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sesrelay.mail.delivery import Priority

DAY = 86_400.0
RESERVE_WAIT = 60.0  # seconds between looks at whether the window has freed something for others than urgent mail
RESERVE = "daily_reserve"
"""The reason of what waits because what is left is kept for urgent mail: the name of the key."""
KEPT = "the rest of the SES account's 24 hour quota is reserved for mail of priority high"
RESERVE_REMEDY = (
    "other mail continues when part of the quota becomes free again; request a higher quota (SES console, Account dashboard), or "
    "lower daily_reserve"
)
MEMORY = 900.0  # seconds over which the present rate of sending is told


def next_look(since: float, now: float) -> float:
    """Return when what has waited for the reserve `since` then is looked at next. Units: seconds of one clock."""
    return now + RESERVE_WAIT - max(now - since, 0.0) % RESERVE_WAIT


@dataclass(slots=True)
class Window:
    """Units: `most` and `sent` recipients, `most` -1: unlimited; `per_second` as of `at`, monotonic seconds;
    `spent` all that was ever counted here.
    """

    most: float = -1.0
    sent: float = 0.0
    per_second: float = 0.0
    at: float = 0.0
    spent: float = 0.0

    def told(self, most: float, sent: float, spent_before: float) -> None:
        """Take over what the account says. `spent_before`: of what was spent here, what was known when it was asked."""
        self.most = most
        self.sent = sent + max(self.spent - spent_before, 0.0)

    def spend(self, recipients: int, now: float) -> None:
        """Count what was taken by the service."""
        self.sent += recipients
        self.spent += recipients
        self._fade(now)
        self.per_second += recipients / MEMORY

    def left(self) -> float:
        """Return how many recipients are left; infinite where there is no quota."""
        return math.inf if self.most < 0 else max(self.most - self.sent, 0.0)

    @property
    def used_up(self) -> bool:
        return self.left() <= 0.0

    def left_to(self, priority: Priority, reserve: float) -> float:
        """Return how many recipients are left to mail of `priority`, below 0 where it has had of what is kept for urgent mail;
        infinite where nothing is kept from it. `reserve`: a part of 1.
        """
        if priority is Priority.HIGH or self.most < 0 or reserve <= 0.0:
            return math.inf
        return self.left() - self.most * reserve

    def seconds_left(self, now: float) -> float:
        """Return in how many seconds the quota is used up at the rate of late; infinite where nothing is sent."""
        self._fade(now)
        rate = max(self.per_second, self.sent / DAY if self.most >= 0 else 0.0)
        return self.left() / rate if rate > 1e-9 and self.most >= 0 else math.inf

    def _fade(self, now: float) -> None:
        if now > self.at:
            self.per_second *= math.exp((self.at - now) / MEMORY)
            self.at = now

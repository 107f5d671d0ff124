"""When to try again: the schedule of the configuration with jitter, and when to give up."""

from __future__ import annotations

from dataclasses import dataclass, replace

JITTER = 0.1  # ± a tenth, so that what failed together does not come back together
AMBIGUOUS_WAIT = 60.0  # seconds at least before what may have been sent is sent again
DOUBTS_MAX = 3  # ambiguous attempts after which a delivery is held, never failed


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Units: seconds. `schedule`: waits after the 1st, 2nd, … attempt, the last one repeats; `delay_warning` None: off."""

    schedule: tuple[float, ...] = (30.0, 120.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0)
    max_age: float = 3 * 86400.0
    delay_warning: float | None = 4 * 3600.0

    def delay(self, attempts: int, chance: float) -> float:
        """Return the wait after `attempts` spent attempts (1 is the first); `chance` in [0, 1) sets the jitter."""
        base = self.schedule[min(max(attempts, 1), len(self.schedule)) - 1]
        return base * (1.0 - JITTER + 2.0 * JITTER * chance)

    def next_due(self, attempts: int, accepted: float, now: float, chance: float) -> float:
        """Return when to try again; a last attempt is made at the moment of expiry rather than long after it."""
        due = now + self.delay(attempts, chance)
        expiry = accepted + self.max_age
        return min(due, expiry) if expiry > now else due

    def expired(self, accepted: float, now: float) -> bool:
        return now - accepted >= self.max_age

    def warning_due(self, accepted: float, now: float) -> bool:
        return self.delay_warning is not None and now - accepted >= self.delay_warning

    def longer(self, seconds: float) -> RetryPolicy:
        """Return the same with more patience, for mail that had to wait so long for us before it could be tried."""
        warning = None if self.delay_warning is None else self.delay_warning + seconds
        return replace(self, max_age=self.max_age + seconds, delay_warning=warning)

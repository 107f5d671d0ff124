"""How much a route may send of its own accord: rate, attempts at once, caps by the hour and the day, and a warm-up.

What was sent is counted in slots of five minutes. An hour and a day are the last ones up to now, as SES counts its quota, and
the slot in which they begin counts whole, so that no hour and no day has more than its cap; a day of a warm-up begins at
midnight UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SLOT = 300.0
HOUR = 3600.0
DAY = 86400.0

CapName = Literal["hourly_cap", "daily_cap", "warm_up"]


@dataclass(frozen=True, slots=True)
class WarmUp:
    """A daily cap that grows by a plan, and ends with it. Units: `start` Unix seconds of a midnight UTC; `plan` recipients."""

    start: float
    plan: tuple[int, ...]

    def cap(self, now: float) -> int | None:
        """Return the cap of the day; before the first day it is the first one's, after the last there is none."""
        day = max(int((now - self.start) // DAY), 0)
        return self.plan[day] if day < len(self.plan) else None


@dataclass(frozen=True, slots=True)
class RouteLimits:
    """Units: `rate` recipients a second; caps recipients; `storm_limit` identical messages an hour. None: no limit."""

    rate: float | None = None
    concurrency: int | None = None
    hourly_cap: int | None = None
    daily_cap: int | None = None
    warm_up: WarmUp | None = None
    storm_limit: int | None = None

    @property
    def capped(self) -> bool:
        return not (self.hourly_cap is None and self.daily_cap is None and self.warm_up is None)


NO_LIMITS = RouteLimits()


class Sent:
    """Recipients sent, by slot. Mutable, but without a clock."""

    __slots__ = ("slots",)

    def __init__(self, slots: Mapping[int, int] | None = None) -> None:
        self.slots = dict(slots or {})

    def add(self, recipients: int, now: float) -> int:
        """Count `recipients`, or take as many back where it is negative; return the slot that they count in."""
        slot = slot_of(now)
        if slot not in self.slots:
            for old in [each for each in self.slots if each < slot - DAY // SLOT]:
                del self.slots[old]
        self.slots[slot] = max(self.slots.get(slot, 0) + recipients, 0)
        return slot

    def since(self, first: int) -> int:
        """Return how many were sent in slot `first` and later."""
        return sum(n for slot, n in self.slots.items() if slot >= first)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left to send. Where nothing is: the cap that was reached, and `until` when, in Unix seconds."""

    left: int
    cap: CapName
    limit: int
    until: float


def slot_of(now: float) -> int:
    return int(now // SLOT)


def allowance(limits: RouteLimits, sent: Sent, now: float) -> Allowance | None:
    """Return what the caps of `limits` leave now, by the one that leaves least; None where there is no cap."""
    found = [_rolling("hourly_cap", limits.hourly_cap, HOUR, sent, now), _rolling("daily_cap", limits.daily_cap, DAY, sent, now)]
    cap = limits.warm_up.cap(now) if limits.warm_up else None
    if cap is not None:
        midnight = now // DAY * DAY
        found.append(Allowance(max(cap - sent.since(slot_of(midnight)), 0), "warm_up", cap, midnight + DAY))
    there = [each for each in found if each is not None]
    return min(there, key=lambda each: (each.left, -each.until), default=None)


def _rolling(name: CapName, cap: int | None, window: float, sent: Sent, now: float) -> Allowance | None:
    if cap is None:
        return None
    first = slot_of(now - window)
    used = sent.since(first)
    until, remains = now, used
    for slot in sorted(slot for slot in sent.slots if slot >= first):
        if remains < cap:
            break
        remains -= sent.slots[slot]
        until = (slot + 1) * SLOT + window
    return Allowance(max(cap - used, 0), name, cap, until)

"""What one AWS account may still send in one region, whichever key or protocol its mail leaves by.

Invariant: the pace starts at the sandbox's 1 a second until the account has been asked, and all transports together are never
above what it said or, where that is more, the highest `rate` in the configuration; nor one of them above its own `rate` or `share`.

Source: Amazon SES developer guide, "Sending quotas" (counted in recipients, by account and region).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterable

from sesrelay.mail.delivery import Priority
from sesrelay.policy.pace import Governor, Narrowed
from sesrelay.policy.quota import Window
from sesrelay.seams import Clock
from sesrelay.transport.ses.seam import Figures, Reputation

FIRST_RATE = 1.0  # the sandbox's
FALLBACK_RATE = 14.0  # what a new account out of the sandbox has, where the figures may not be read
FRESH = 900.0  # seconds for which an answer about the 24 hours keeps mail back; then SES itself has to say so

Rate = float | str
"""A rate of the configuration's own in recipients a second, or `auto`."""
Way = tuple[Rate, float]
"""What tells the pace of one transport from another's: its `rate` and its `share`, a part of 1."""
WHOLE: Way = ("auto", 1.0)


class Ledger:
    """The paces, the window and the figures that all transports of an account share.

    `counts`: the account has a rate of its own, told or not; else, as at any relay, each transport's is all there is.
    """

    def __init__(self, clock: Clock, *, counts: bool = True) -> None:
        self.window = Window(at=clock.monotonic())
        self.figures: Figures | None = None
        self.reputation: Reputation | None = None
        self.asking = asyncio.Lock()
        self.answers = 0
        self.told_at: float | None = None
        self._under_way = 0
        self._keeping: dict[float, tuple[float, int]] = {}  # by reserve: since when, and how many recipients wait for it
        self._clock = clock
        self._rate, self._climbs = FIRST_RATE, False
        self._counts = counts
        self._whole = Governor(FIRST_RATE if counts else None, clock.monotonic())
        self._own: dict[Way, Governor] = {}
        self._paces: dict[Way, Governor | Narrowed] = {}

    def governor(self, rate: Rate, share: float) -> Governor | Narrowed:
        """Return the pace for a fixed rate, or for a share of the account's own. Ask anew each time: others may have joined."""
        pace = self._paces.get((rate, share))
        return pace if pace is not None else self._joined((rate, share))

    def _joined(self, way: Way) -> Governor | Narrowed:
        now = self._clock.monotonic()
        if len(self._paces) == 1:
            for alone in self._own.values():
                self._whole.owes_like(alone, now)
        self._own[way] = Governor(self._narrow(*way), now, climbs=isinstance(way[0], str) and self._climbs)
        self._whole.set_rate(self._most(), now, climbs=self._climbs)
        self._arrange((*self._paces, way))
        return self._paces[way]

    def retain(self, ways: Collection[Way]) -> None:
        """Forget the paces of ways that nobody goes any more: a `rate` that is no longer configured vouches for nothing."""
        gone = self._own.keys() - ways
        if gone:
            for way in gone:
                del self._own[way], self._paces[way]
            self._whole.set_rate(self._most(), self._clock.monotonic(), climbs=self._climbs)
            self._arrange(self._paces)

    def _arrange(self, ways: Iterable[Way]) -> None:
        ways, most = list(ways), self._most()
        for way in ways:
            if self._counts and way == WHOLE and most == self._rate:
                self._paces[way] = self._whole
            else:
                self._paces[way] = self._own[way] if len(ways) == 1 else Narrowed(self._own[way], self._whole)

    def _narrow(self, rate: Rate, share: float) -> float:
        return self._rate * share if isinstance(rate, str) else rate

    def _most(self) -> float | None:
        """Return the account's rate: what it said, or more where some transport's `rate` overrides that."""
        return max([self._rate, *(rate for rate, _ in self._own if not isinstance(rate, str))]) if self._counts else None

    def set_rate(self, rate: float, *, climbs: bool = False) -> None:
        """Go by another rate of the account's. `climbs`: it is a guess, to begin with."""
        self._rate, self._climbs = rate, climbs
        now = self._clock.monotonic()
        self._whole.set_rate(self._most(), now, climbs=climbs)
        for (own_rate, share), governor in self._own.items():
            governor.set_rate(self._narrow(own_rate, share), now, climbs=climbs and isinstance(own_rate, str))
        self._arrange(self._paces)

    def throttled(self) -> None:
        now = self._clock.monotonic()
        for governor in (self._whole, *self._own.values()):
            governor.throttled(now)

    def spent(self, recipients: int) -> None:
        """Count recipients that the service took, in the call whose answer came just now."""
        now = self._clock.monotonic()
        self.window.spend(recipients, now)
        self._whole.taken(now)
        for governor in self._own.values():
            governor.taken(now)

    def reserved_from(self, recipients: int, priority: Priority, reserve: float) -> bool:
        """Tell whether mail of `priority` waits, because what is left of the window is kept for urgent mail.

        Where nothing is left, nothing is kept: that is for an attempt to find out, which pauses the account.
        """
        if self.window.most < 0 or self.window.used_up or not self._fresh:
            self._keeping.clear()
            return False
        keeps = self.unreserved(priority, reserve) < recipients
        if keeps:
            since, _ = self._keeping.get(reserve, (self._clock.wall(), 0))
            self._keeping[reserve] = since, recipients
        elif self._keeping:
            self._still_keeping()
        return keeps

    def begun(self, recipients: int) -> None:
        """Count recipients of an attempt for the reserve, until it has `ended`.

        By then what the service took is counted as `spent`.
        """
        self._under_way += recipients

    def ended(self, recipients: int) -> None:
        self._under_way = max(self._under_way - recipients, 0)  # it may have begun by the ledger that was there before this one

    def unreserved(self, priority: Priority, reserve: float) -> float:
        """Return to how many more recipients mail of `priority` may go now, beside what is kept."""
        if self.window.most < 0 or self.window.used_up or not self._fresh:
            return math.inf
        return self.window.left_to(priority, reserve) - self._under_way

    def reserved_since(self, reserve: float) -> float | None:
        """Return since when mail that is not urgent waits by that reserve, in Unix seconds; None where none does."""
        return self._keeping[reserve][0] if reserve in self._keeping else None

    def _still_keeping(self) -> None:
        """Forget what could go by now: a transport that has nothing more to send does not ask again."""
        self._keeping = {of: kept for of, kept in self._keeping.items() if self.unreserved(Priority.NORMAL, of) < kept[1]}

    @property
    def reserving(self) -> bool:
        """Tell whether mail that is not urgent waits, by the reserve of some transport."""
        return bool(self._keeping)

    @property
    def exhausted(self) -> bool:
        """Tell whether the account's 24 hours are used up."""
        return self.window.used_up and self._fresh

    @property
    def _fresh(self) -> bool:
        return self.told_at is not None and self._clock.monotonic() - self.told_at < FRESH

    def told(self, figures: Figures, spent_before: float) -> None:
        """Take over what the account said; `spent_before`: what the window had spent when it was asked."""
        self.figures, self.told_at = figures, self._clock.monotonic()
        self.answers += 1
        self.window.told(figures.max_24h_send, figures.sent_last_24h, spent_before)
        self._still_keeping()
        # An account that may send nothing is not waited for in silence: SES says why, and that pauses it.
        self.set_rate(figures.max_send_rate if figures.max_send_rate > 0.0 else FIRST_RATE)

"""When the next call is certain to be taken, told from the answers, for a next hop that saves up no more than one token.

A call that was taken proves that there was a token; another one is there `recipients / rate` later. When it arrived is
not known, but it was before its answer, and no call arrives sooner than the quickest one did. So the next may leave that much
later than the answer came, less the shortest time that a call has taken. Mutable, but without a clock: time is an argument.

Invariant: what varies on the way delays a call and never brings it too near to the one before it.
"""

from __future__ import annotations

import math

EPOCH = 200  # calls: the shortest time is that of this epoch and the one before it, so a way that has become longer is noticed
FEW = 16  # calls, after which it is taken for known how much they vary


class Turnaround:
    """Units: seconds on one monotonic clock; `rate` recipients a second."""

    def __init__(self) -> None:
        self._open: list[float] = []  # when the calls left that have no answer
        self._recipients = 0  # of the last of them
        self._due = self._certain = -math.inf  # when the next may leave, and when it may whatever the way is like
        self._now, self._before = _Span(), _Span()

    def wait(self, now: float, rate: float) -> float:
        """Return the seconds until it is worth asking again; 0.0 where a call may leave."""
        if not self._open:
            return max(self._due - now, 0.0)
        usual = self._open[-1] + self._recipients / rate
        if now < usual:
            return usual - now
        # An answer that is longer under way than one more call would take is not waited for.
        left = usual + 1.0 / rate - now
        return min(left, 0.1 / rate) if left > 0.0 else 0.0

    def left(self, recipients: int, now: float) -> None:
        """Take note of a call that leaves now."""
        self._open.append(now)
        self._recipients = recipients

    def taken(self, now: float, rate: float) -> None:
        """Take note that a call was taken; its answer came now."""
        if not self._open:
            return
        if len(self._open) == 1:  # else it is not certain whose answer it is
            if self._now.calls == EPOCH:
                self._now, self._before = _Span(), self._now
            self._now.add(now - self._open[0])
        self._certain = now + self._recipients / rate
        self._due = self._certain - self._lead()
        self._open.clear()

    def refused(self) -> bool:
        """Take note that a call was refused: it used up nothing. Return whether it may only have come too early: the way was
        shorter than was thought, and is learnt anew.
        """
        early, self._due = self._due < self._certain, self._certain
        self._open.clear()
        if early:
            self._now.calls = self._before.calls = 0
        return early

    def withdrawn(self) -> None:
        """Take note that the last call was never made."""
        if self._open:
            self._open.pop()

    def _lead(self) -> float:
        """Return how long a call takes at the very least, by what was seen: the fewer calls, the less is taken for granted."""
        calls = self._now.calls + self._before.calls
        least = min(self._now.least, self._before.least)
        spread = max(self._now.most, self._before.most) - least
        return max(least - 2 * spread / calls, 0.0) if calls >= FEW else 0.0


class _Span:
    """How long the calls of an epoch took."""

    __slots__ = ("calls", "least", "most")

    def __init__(self) -> None:
        self.calls, self.least, self.most = 0, math.inf, 0.0

    def add(self, seconds: float) -> None:
        self.calls += 1
        self.least, self.most = min(self.least, seconds), max(self.most, seconds)

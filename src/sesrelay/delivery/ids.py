"""Handing out queue ids, none twice in the life of a process.

Source: `mail.queue_id` (the form); the store refuses an id that it has.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sesrelay.mail import queue_id
from sesrelay.seams import Clock

ENTROPY = 1 << 15  # what two relays that start from one moment differ by


@dataclass(slots=True)
class Ids:
    """Ids grow, also while the clock stands still or goes back."""

    clock: Clock
    _last: int = field(default=0, init=False)

    def new(self) -> str:
        now = queue_id.number(self.clock.wall(), int(self.clock.chance() * ENTROPY))
        self._last = max(now, self._last + 1)
        return queue_id.encode(self._last)

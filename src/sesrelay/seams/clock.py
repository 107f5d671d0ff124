"""Time and chance, which are arguments everywhere below `app`."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Units: seconds. `wall` is Unix time and may jump; `monotonic` never goes back; `chance` is in [0, 1)."""

    def wall(self) -> float: ...
    def monotonic(self) -> float: ...
    def chance(self) -> float: ...

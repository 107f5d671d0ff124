"""Stand-ins that tests share: a clock that moves only when told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class FakeClock:
    """Implements `sesrelay.seams.Clock`."""

    now: float = 1_800_000_000.0
    ticks: float = 1_000.0
    luck: float = 0.5

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.ticks

    def chance(self) -> float:
        return self.luck

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.ticks += seconds

"""The one place that reads clocks and throws dice.

Implements `seams.Clock`.
"""

from __future__ import annotations

import random
import time


class SystemClock:
    def __init__(self) -> None:
        self.wall = time.time
        self.monotonic = time.monotonic
        self.chance = random.random

"""How many lines of one kind are logged: a client that is refused a thousand times a second must not fill the disk.

Metrics count all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

BURST = 8  # lines of one kind in a window; beside two sessions in progress and the start, below 20 for any crowd
WINDOW = 10.0  # seconds


@dataclass(slots=True)
class _Window:
    began: float
    shown: int = 0
    hidden: int = 0


class Flood:
    """`now`: seconds that never go back."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._windows: dict[str, _Window] = {}

    def passes(self, kind: str) -> tuple[bool, int]:
        """Tell whether a line of that kind is to be shown, and how many were hidden in the window that is over."""
        now = self._now()
        window = self._windows.get(kind)
        hidden = 0
        if window is None or now - window.began >= WINDOW:
            hidden = window.hidden if window is not None else 0
            window = self._windows[kind] = _Window(now)
        if window.shown < BURST:
            window.shown += 1
            return True, hidden
        window.hidden += 1
        return False, hidden

    def last(self, kind: str) -> bool:
        """Tell whether the line just shown is the last one of its window."""
        return self._windows[kind].shown == BURST

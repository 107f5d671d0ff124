"""How many lines of one kind are logged: what happens a thousand times a second must not fill the disk.

Metrics count all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

WINDOW = 10.0  # seconds

Kind = tuple[str, str]
"""The name of an event, and what of it is counted together: of the program's own words, which are few."""


@dataclass(slots=True)
class _Window:
    began: float
    shown: int = 0
    hidden: int = 0


class Flood:
    """`now`: seconds that never go back. `hiding`: lines were hidden, and `over` has not told of them yet."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._windows: dict[Kind, _Window] = {}
        self.hiding = False

    def passes(self, kind: Kind, burst: int) -> int:
        """Return how many more lines of that kind its window has room for, this one counted; 0: it is not to be shown.

        A window that has ended goes on until `over` has told what it hid.
        """
        now = self._now()
        window = self._windows.get(kind)
        if window is None or (now - window.began >= WINDOW and not window.hidden):
            window = self._windows[kind] = _Window(now)
        if window.shown < burst:
            window.shown += 1
            return burst - window.shown + 1
        window.hidden += 1
        self.hiding = True
        return 0

    def noted(self, left: int) -> dict[str, str]:
        """Return what the line that `passes` had so many for says of those to come."""
        return {"note": f"further log lines of this kind are only counted for {WINDOW:g} s"} if left == 1 else {}

    def over(self) -> Iterator[tuple[Kind, int]]:
        """Yield each kind whose window has ended, with the number of lines that were hidden in it."""
        now = self._now()
        ended = [kind for kind, window in self._windows.items() if now - window.began >= WINDOW]
        for kind in ended:
            hidden = self._windows.pop(kind).hidden
            if hidden:
                yield kind, hidden
        self.hiding = any(window.hidden for window in self._windows.values())

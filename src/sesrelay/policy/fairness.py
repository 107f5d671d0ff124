"""Who goes next where the way is narrow: a higher priority first, and within a priority the sites in turn.

Invariant: a lower priority that waits is passed over `PASSED_OVER_MAX` times in a row at most, so it never starves; and a
site waits for no more than one batch of each other site of its priority (by recipients, over time).

Source: Shreedhar and Varghese, deficit round robin.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

from sesrelay.mail.delivery import Priority

PASSED_OVER_MAX = 20
"""Batches that go ahead of a lower priority which waits: what a flood of high leaves to low is a twentieth."""
ROOM_FOR_URGENT = 4
"""Attempts at once from which on some are kept free of low: else a slow next hop, busy with it, would make the others wait."""
QUANTUM = 1
"""Recipients of credit that a site gets each time its turn comes."""


def attempts_at_once(priority: Priority, limit: int) -> int:
    """Return how many of a lane's `limit` attempts mail of that priority may take: low leaves one in ten to what is urgent."""
    return limit if priority is not Priority.LOW or limit < ROOM_FOR_URGENT else limit - max(limit // 10, 1)


class Turns:
    """How often each priority that waits was passed over."""

    __slots__ = ("_passed",)

    def __init__(self) -> None:
        self._passed = [0] * len(Priority)

    def order(self, waiting: Collection[Priority]) -> list[Priority]:
        """Return those that wait, the one to be served first in front."""
        found = sorted(waiting)
        for priority in reversed(found):
            if self._passed[priority] >= PASSED_OVER_MAX:
                found.remove(priority)
                found.insert(0, priority)
                break
        return found

    def served(self, priority: Priority, waiting: Collection[Priority]) -> None:
        """Note that a batch of `priority` goes out, while those wait."""
        self._passed[priority] = 0
        for other in waiting:
            if other > priority:
                self._passed[other] += 1


class Rounds:
    """Deficit round robin over the sites of one priority that have something waiting."""

    __slots__ = ("_credit", "_ring")

    def __init__(self) -> None:
        self._ring: deque[str] = deque()
        self._credit: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._ring)

    def join(self, site: str) -> None:
        """Take in a site that has something waiting now; its turn comes last."""
        self._ring.append(site)
        self._credit[site] = 0

    def leave(self, site: str) -> None:
        """Drop a site that has nothing more; credit that it did not use is lost."""
        self._ring.remove(site)
        del self._credit[site]

    def next(self, size: Callable[[str], int], closed: Callable[[str], bool] | None = None) -> str | None:
        """Return the site whose batch goes next, or None where all are closed. The same again until `served` or a change.

        `size`: recipients of a site's first batch; `closed`: whether limits of its own keep a site waiting.
        """
        ring, credit = self._ring, self._credit
        shut = 0
        while shut < len(ring):
            site = ring[0]
            if closed is not None and closed(site):
                shut += 1
            elif len(ring) == 1:
                return site
            else:
                if credit[site] >= size(site):
                    return site
                shut = 0
                credit[site] += QUANTUM
                if credit[site] >= size(site):
                    return site
            ring.rotate(-1)
        return None

    def served(self, site: str, size: int) -> None:
        """Note that a batch of `size` recipients goes out for `site`."""
        self._credit[site] = max(self._credit[site] - size, 0)
        if self._ring[0] == site:
            self._ring.rotate(-1)

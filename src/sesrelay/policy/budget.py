"""How much memory mail may hold on its way in and out: one number of octets, shared by both.

Invariant: what one direction holds never keeps the other from its floor, so neither slow clients nor slow next hops stop
the mail of the other side.

Source: docs/decisions/0015.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

MEMORY = 256 * 1024 * 1024
"""Octets, where the configuration does not say."""
COPIES_IN = 2
"""What a message needs of its size on its way in: the pieces, and the whole that is made of them."""
COPIES_OUT = 3
"""On its way out: as it is stored, and what is made of it for the next hop (dots doubled, base64)."""


class Share:
    """One direction. Units: octets.

    `promised`: what messages that have been let in by their declared size have yet to bring. It keeps further large ones
    out, but takes nothing from a message whose octets are there: a client that only promises holds up no other's mail.
    """

    __slots__ = ("_budget", "floor", "other", "promised", "used")

    def __init__(self, budget: ByteBudget, floor: int) -> None:
        self._budget = budget
        self.other = self
        self.floor = floor
        self.used = 0
        self.promised = 0

    @property
    def room(self) -> int:
        """What can be taken now."""
        return self._budget.limit - self.used - max(self.other.used, self.other.floor)

    def fits(self, octets: int) -> bool:
        """Tell whether a message of that size is likely to find room, beside all that is promised already."""
        return octets <= self.room - self.promised

    def take(self, octets: int) -> bool:
        """Take so much if it is there."""
        if octets > self.room:
            return False
        self.used += octets
        return True

    def give(self, octets: int) -> None:
        """Give back what was taken; whoever waits for it is called."""
        self.used -= octets
        if self._budget.waiting:
            self._budget.serve()


class ByteBudget:
    """The whole. `incoming` and `outgoing` are the floors: what one message needs on its way in, and on its way out."""

    __slots__ = ("incoming", "limit", "outgoing", "waiting")

    def __init__(self, limit: int, incoming: int = 0, outgoing: int = 0) -> None:
        self.limit = limit
        self.incoming = Share(self, incoming)
        self.outgoing = Share(self, outgoing)
        self.incoming.other, self.outgoing.other = self.outgoing, self.incoming
        self.waiting: deque[tuple[int, Callable[[], bool]]] = deque()

    def resize(self, limit: int, incoming: int, outgoing: int) -> None:
        """Go by other figures from now on; what is taken stays taken."""
        self.limit, self.incoming.floor, self.outgoing.floor = limit, incoming, outgoing
        self.serve()

    def take_outgoing(self, octets: int, granted: Callable[[], bool]) -> None:
        """Take for an attempt, now or once it is there, in order of asking; `granted` is called then.

        It returns False where nobody wants it any more. One attempt is always let through, however large it is: mail
        that was accepted under another configuration leaves too.
        """
        self.waiting.append((octets, granted))
        self.serve()

    def serve(self) -> None:
        """Let those through who wait, as far as there is room."""
        while self.waiting:
            octets, granted = self.waiting[0]
            share = self.outgoing
            if not share.take(octets):
                if share.used:
                    return
                share.used += octets
            self.waiting.popleft()
            if not granted():
                share.used -= octets

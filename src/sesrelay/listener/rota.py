"""Whose turn it is among clients that speak at once: who has brought little is answered at once, who has brought much in turn.

A loop answers all that has come before it looks for more. So a client with one password reset waits, at each of its
commands, for a whole round of those that bring a newsletter. While there is such a client, the others are answered one in
each turn of the loop, and what has come meanwhile is seen between two of them. That costs throughput (smaller groups to be
stored), so without such a client, and where such clients are most of the load, all are answered as they come.

Invariant: whoever has something to be answered is, after at most one answer to each of those in line.
Invariant: no more answers go ahead of the line than in their turn, but for `AHEAD` of them.
Invariant: nobody goes ahead for long: what is answered ahead counts, and who has brought half as much as the others waits.

Runs on: one event loop. Source: Nuyens and Wierman, foreground-background (least attained service) scheduling.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

MUCH = 64 * 1024
"""Octets that a client has brought lately, up to which nobody goes ahead of it."""
LATELY = 2 * 1024 * 1024
"""Octets that all clients bring until what each has brought counts half."""
ATTENTION = 256
"""Answers for which the others are still answered in turn, once somebody has gone ahead of them."""
AHEAD = 64
"""Answers ahead of others beyond as many in turn; then they are no exception, and nobody goes ahead for `CROWDED` answers."""
CROWDED = 2048


class Place:
    """What a client has brought lately, in octets, and whether it is in line."""

    __slots__ = ("halvings", "in_line", "octets")

    def __init__(self) -> None:
        self.octets = 0
        self.halvings = 0
        self.in_line = False


class Speaker(Protocol):
    """A client's connection. `proceed` answers what there is to be answered, if anything is; it raises nothing."""

    place: Place

    def proceed(self) -> None: ...


class Rota:
    """One for all clients of a loop."""

    __slots__ = ("_ahead", "_attention", "_brought", "_crowded", "_halvings", "_line", "_measure", "_one_was_answered")

    def __init__(self) -> None:
        self._line: deque[Speaker] = deque()
        self._measure = 0  # octets: what the one that was answered last, and not ahead of others, had brought
        self._attention = 0  # answers for which the others are answered in turn
        self._ahead = AHEAD  # answers ahead that are left
        self._crowded = 0  # answers for which nobody goes ahead
        self._one_was_answered = False  # of those in line, in this turn of the loop
        self._brought = 0  # octets since the last halving
        self._halvings = 0

    def ask(self, speaker: Speaker, octets: int) -> None:
        """Have a client answered that has brought so much more; 0 where what it waited for is there."""
        if self._brought >= LATELY:
            self._brought = 0
            self._halvings += 1
            self._measure >>= 1
        place = speaker.place
        if place.halvings != self._halvings:
            place.octets >>= self._halvings - place.halvings
            place.halvings = self._halvings
        self._brought += octets
        brought = place.octets = place.octets + octets
        if self._measure > MUCH and 2 * brought < self._measure and not self._crowded:
            self._goes_ahead()
        elif not self._attention:
            self._measure = brought
            if self._crowded:
                self._crowded -= 1
        elif self._one_was_answered:
            self._put_in_line(speaker)
            return
        else:
            self._in_turn(brought)
            self._look_again()
        speaker.proceed()

    def ask_again(self, speaker: Speaker) -> None:
        """Have a client answered further, in a later turn of the loop: there is more to be answered than is at once."""
        self._put_in_line(speaker)
        if not self._one_was_answered:
            self._look_again()

    def _put_in_line(self, speaker: Speaker) -> None:
        place = speaker.place
        if not place.in_line:
            place.in_line = True
            self._line.append(speaker)

    def _goes_ahead(self) -> None:
        self._attention = ATTENTION
        self._ahead -= 1
        if not self._ahead:
            self._ahead, self._attention, self._crowded = AHEAD, 0, CROWDED

    def _in_turn(self, octets: int) -> None:
        """Take note that one is answered, and not ahead of others, who has brought so much."""
        self._measure = octets
        self._attention = max(self._attention - 1, 0)
        self._ahead = min(self._ahead + 1, AHEAD)

    def _look_again(self) -> None:
        """Answer no other in line before the next turn of the loop."""
        self._one_was_answered = True
        asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        if self._line:
            self._look_again()
            self._answer_first()
        else:
            self._one_was_answered = False

    def _answer_first(self) -> None:
        speaker = self._line.popleft()
        place = speaker.place
        place.in_line = False
        self._in_turn(place.octets >> (self._halvings - place.halvings))
        speaker.proceed()

"""Since when the oldest of what is open waits, by transport: mail that its sender wants sent later waits from its hour on.

Mail is looked at in order of arrival, which is the order of age but for such mail: up to the first that was meant to go
at once. What is left to its hour is passed over by its row alone; where whole stretches of it stand in front, the place
behind them is remembered, so that a queue full of it is not gone through at each question.

Invariant: no statement looks at more than SCAN rows, so no reader holds up a checkpoint for long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import apsw

from sesrelay.policy.scheduling import SCHEDULED
from sesrelay.spool.query import row
from sesrelay.spool.reader import Reader
from sesrelay.spool.reading import START, Messages
from sesrelay.spool.records import QUEUED, Key
from sesrelay.spool.selecting import BOUNDARY, END, OPEN, OPEN_RUN, SCAN

LOOK_AGAIN = 300.0  # seconds; what becomes due in a stretch that was passed over is seen so much later at most
RELEASED_MAX = 100  # messages with an hour that are asked for it one by one, as it has come or they are held: few of them wait

Run = tuple[int, str]
"""State and transport."""

MEANT = (
    "SELECT message, n FROM (SELECT message, n, state, reason, due FROM delivery INDEXED BY delivery_open "
    "WHERE state = ? AND state < 3 AND transport = ? AND (message, n) > (?, ?) ORDER BY message, n LIMIT ?) "
    f"WHERE state <> {QUEUED} OR reason IS NOT '{SCHEDULED}' OR due <= ? LIMIT 1"
)
FURTHER = BOUNDARY.format(run=OPEN_RUN, where=OPEN)


class Oldest:
    """Asked by one loop; remembers for LOOK_AGAIN. `monotonic`: the clock's."""

    def __init__(self, reader: Reader, monotonic: Callable[[], float]) -> None:
        self._reader = reader
        self._monotonic = monotonic
        self._passed: dict[Run, Key] = {}
        self._began = 0.0

    async def by_transport(self, counts: Iterable[tuple[str, int]], now: float) -> dict[str, float]:
        """Return the moment by transport, in Unix seconds; `now` where all of one is left to its hour.

        `counts`: what transports and states there are. Raises: SpoolError
        """
        if self._monotonic() - self._began >= LOOK_AGAIN:
            self._passed, self._began = {}, self._monotonic()
        found: dict[str, float] = {}
        starts = {(state, transport): self._passed.get((state, transport), START) for transport, state in counts}
        while starts:
            looked = await self._reader.run(partial(_look, starts=starts, now=now))
            for (_, transport), (since, _) in looked.items():
                if since is not None:
                    found[transport] = min(since, found.get(transport, now))
            starts = {run: further for run, (_, further) in looked.items() if further is not None}
            self._passed.update(starts)
        return found


def _look(cursor: apsw.Cursor, starts: dict[Run, Key], now: float) -> dict[Run, tuple[float | None, Key | None]]:
    """Return for each run since when the oldest of its next stretch waits.

    Where all of that stretch is to leave later, return where to go on instead.
    """
    messages = Messages(cursor)
    return {run: _stretch(cursor, run, start, now, messages) for run, start in starts.items()}


def _stretch(cursor: apsw.Cursor, run: Run, after: Key, now: float, messages: Messages) -> tuple[float | None, Key | None]:
    since = now
    for _ in range(RELEASED_MAX):
        key = row(cursor, MEANT, (*run, *after, SCAN, now))
        if key is None:
            further = row(cursor, FURTHER, (*run, *after, SCAN - 1))
            return (since, None) if further is None or since < now else (None, (further[0], further[1]))
        message = messages[key[0]]
        since = min(since, message.began)
        if message.envelope.release is None:
            return since, None
        after = (key[0], END[1])
    return (since, None) if since < now else (None, after)

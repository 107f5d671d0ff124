"""How much is open, counted in the transactions that change it: one row written a group for each count that moved.

Invariant: `counts`, `messages` and `octets` are what is committed; `moved` is what the open transaction adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import apsw

from sesrelay.spool.query import rows, write
from sesrelay.spool.records import HELD

Count = tuple[str, str, int, int]
"""Transport, nexthop, priority, state."""

_ADD = (
    "INSERT INTO backlog (transport, nexthop, priority, state, n) SELECT * FROM ({rows}) WHERE true "
    "ON CONFLICT DO UPDATE SET n = n + excluded.n"
)
COUNTS = "SELECT transport, state, sum(n) FROM backlog GROUP BY transport, state HAVING sum(n) > 0"
_TOTAL = "UPDATE total SET n = n + CASE what WHEN 'messages' THEN ? ELSE ? END"


class Counts(NamedTuple):
    """How much is open. Units: `octets` of the messages; `deliveries` by transport and state."""

    deliveries: Mapping[tuple[str, int], int]
    messages: int
    octets: int


class Tally:
    """Kept by the writer; other threads may read `open`, whose parts are replaced and never changed."""

    def __init__(self, db: apsw.Connection) -> None:
        self.counts: dict[tuple[str, int], int] = {}
        self.messages = 0
        self.octets = 0
        self.moved: dict[Count, int] = {}
        self.moved_messages = 0
        self.moved_octets = 0
        # What was flushed in this transaction is part of it, and only counts once it is committed.
        self._flushed: dict[tuple[str, int], int] = {}
        self._flushed_messages = 0
        self._flushed_octets = 0
        self.load(db)

    def load(self, db: apsw.Connection) -> None:
        """Read the committed counts: at start, and after anything that may have left them behind."""
        found = rows(db.cursor(), COUNTS)
        self.counts = {(transport, state): n for transport, state, n in found}
        totals: dict[str, int] = dict(rows(db.cursor(), "SELECT what, n FROM total"))
        self.messages, self.octets = totals["messages"], totals["bytes"]
        self.forget()

    @property
    def open(self) -> Counts:
        return Counts(self.counts, self.messages, self.octets)

    def add(self, count: Count) -> None:
        self.moved[count] = self.moved.get(count, 0) + 1

    def carry(self, before: Count, after: Count) -> None:
        """Count a delivery that goes from one lane, priority and state to another, all of them open."""
        if before != after:
            self.moved[before] = self.moved.get(before, 0) - 1
            self.moved[after] = self.moved.get(after, 0) + 1

    def move(self, transport: str, nexthop: str, priority: int, before: int, after: int, n: int = 1) -> None:
        """Count `n` deliveries that go from one state to another; ended ones are not counted."""
        if before == after:
            return
        moved = self.moved
        if before <= HELD:
            count = (transport, nexthop, priority, before)
            moved[count] = moved.get(count, 0) - n
        if after <= HELD:
            count = (transport, nexthop, priority, after)
            moved[count] = moved.get(count, 0) + n

    def message(self, messages: int, octets: int) -> None:
        self.moved_messages += messages
        self.moved_octets += octets

    def flush(self, cursor: apsw.Cursor) -> None:
        """Write what moved; wanted before COMMIT, and before an operation reads `backlog`."""
        moved = [(*count, n) for count, n in self.moved.items() if n]
        self.moved = {}
        if moved:
            write(cursor, _ADD, moved)
            for transport, _, _, state, n in moved:
                self._flushed[transport, state] = self._flushed.get((transport, state), 0) + n
        if self.moved_messages or self.moved_octets:
            cursor.execute(_TOTAL, (self.moved_messages, self.moved_octets))
            self._flushed_messages += self.moved_messages
            self._flushed_octets += self.moved_octets
            self.moved_messages = self.moved_octets = 0

    def committed(self) -> None:
        """Take what the transaction moved into the counts."""
        if self._flushed:
            counts = dict(self.counts)
            for count, n in self._flushed.items():
                counts[count] = counts.get(count, 0) + n
            self.counts = {count: n for count, n in counts.items() if n > 0}
        self.messages += self._flushed_messages
        self.octets += self._flushed_octets
        self.forget()

    def forget(self) -> None:
        """Drop what the transaction moved: it was rolled back, or is counted."""
        self.moved = {}
        self._flushed = {}
        self.moved_messages = self.moved_octets = self._flushed_messages = self._flushed_octets = 0

    def snapshot(self) -> tuple[object, ...]:
        """Return what `restore` takes: the state at a savepoint."""
        return (
            dict(self.moved), self.moved_messages, self.moved_octets,
            dict(self._flushed), self._flushed_messages, self._flushed_octets,
        )  # fmt: skip

    def restore(self, snapshot: tuple[object, ...]) -> None:
        (
            self.moved, self.moved_messages, self.moved_octets, self._flushed, self._flushed_messages, self._flushed_octets,
        ) = snapshot  # type: ignore[assignment]  # fmt: skip

    def transports(self) -> list[str]:
        """Return the transports that have anything open, the open transaction included."""
        names = {transport for transport, _ in self.counts}
        names.update(count[0] for count in self.moved)
        names.update(transport for transport, _ in self._flushed)
        return sorted(names)

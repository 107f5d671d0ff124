"""Which deliveries are handed out or on their way, and what is known of them. In memory alone: after a crash all are free.

Invariant: what a transaction took or gave back is undone when it is rolled back.
Invariant: what is known may have been overtaken, and is demanded of the store by whoever acts on it: see `bulk`.
"""

from __future__ import annotations

from typing import NamedTuple

from sesrelay.spool.records import Key


class Standing(NamedTuple):
    """How a delivery stands in the store.

    `alone`: the size of its message in octets, where it is the only delivery of it, and the content is in the table.
    """

    state: int
    transport: str
    nexthop: str
    priority: int
    alone: int | None = None


class Claims:
    """Kept by the writer, and touched by nobody else."""

    def __init__(self) -> None:
        self.taken: set[Key] = set()
        self._log: list[tuple[Key, bool]] = []
        self._known: dict[Key, Standing] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self.taken

    def take(self, key: Key) -> None:
        if key not in self.taken:
            self.taken.add(key)
            self._log.append((key, True))

    def give_back(self, key: Key) -> None:
        self._known.pop(key, None)
        if key in self.taken:
            self.taken.discard(key)
            self._log.append((key, False))

    def know(self, key: Key, standing: Standing) -> None:
        """Note how a delivery stands that is handed out or on its way, until it is given back."""
        self._known[key] = standing

    def known(self, key: Key) -> Standing | None:
        return self._known.get(key)

    def mark(self) -> int:
        return len(self._log)

    def undo(self, mark: int = 0) -> None:
        """Take back what happened since `mark`, last first."""
        self._known.clear()
        while len(self._log) > mark:
            key, was_taken = self._log.pop()
            if was_taken:
                self.taken.discard(key)
            else:
                self.taken.add(key)

    def committed(self) -> None:
        self._log.clear()

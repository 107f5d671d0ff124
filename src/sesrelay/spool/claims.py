"""Which deliveries are handed out. In memory alone: after a crash all are free.

Invariant: what a transaction took or gave back is undone when it is rolled back.
"""

from __future__ import annotations

from sesrelay.spool.records import Key


class Claims:
    """Kept by the writer thread, and touched by no other."""

    def __init__(self) -> None:
        self.taken: set[Key] = set()
        self._log: list[tuple[Key, bool]] = []

    def __contains__(self, key: Key) -> bool:
        return key in self.taken

    def take(self, key: Key) -> None:
        if key not in self.taken:
            self.taken.add(key)
            self._log.append((key, True))

    def give_back(self, key: Key) -> None:
        if key in self.taken:
            self.taken.discard(key)
            self._log.append((key, False))

    def mark(self) -> int:
        return len(self._log)

    def undo(self, mark: int = 0) -> None:
        """Take back what happened since `mark`, last first."""
        while len(self._log) > mark:
            key, was_taken = self._log.pop()
            if was_taken:
                self.taken.discard(key)
            else:
                self.taken.add(key)

    def committed(self) -> None:
        self._log.clear()

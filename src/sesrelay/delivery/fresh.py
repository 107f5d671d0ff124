"""Content that stays in memory between acceptance and its attempt, so that it need not be read back.

Invariant: no more than `FRESH_BYTES` of it waits in lanes, and nothing large, which has its share of memory when it is sent.
"""

from __future__ import annotations

from sesrelay.delivery.lane import Ready
from sesrelay.delivery.room import LARGE
from sesrelay.mail.filed import Filed, Large
from sesrelay.mail.lineends import Canonical

FRESH_BYTES = 32 << 20


class Fresh:
    """Units: `octets` in lanes now."""

    def __init__(self) -> None:
        self.octets = 0

    def worth(self, content: Large) -> Canonical | None:
        """Return `content` if it is to be kept, else None."""
        if isinstance(content, Filed):
            return None
        return content if len(content) <= LARGE and self.octets + len(content) <= FRESH_BYTES else None

    def add(self, ready: Ready) -> None:
        """Note that it waits in a lane."""
        self.octets += len(ready.content or b"")

    def drop(self, ready: Ready) -> None:
        """Note that it no longer does."""
        self.octets -= len(ready.content or b"")

"""Content of a message for a transport: from memory where it came fresh, else from the store.

Implements `seams.Content`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sesrelay.mail.lineends import Canonical
from sesrelay.seams import Spool


@dataclass(slots=True)
class MessageContent:
    """Fetched at the first read and kept for the attempt. Units: `size` octets. Raises: SpoolError at `read`."""

    spool: Spool
    queue_id: str
    size: int
    fresh: Canonical | None = None

    async def read(self) -> Canonical:
        if self.fresh is None:
            self.fresh = await self.spool.content(self.queue_id)
        return self.fresh

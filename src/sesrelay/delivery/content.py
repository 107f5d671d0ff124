"""Content of a message for a transport: from memory where it came fresh or with the opening of its attempt, else from the store.

Implements `seams.Content`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sesrelay.mail.dsn import FULL_ASKED_MAX
from sesrelay.mail.filed import Filed, Large
from sesrelay.mail.lineends import Canonical
from sesrelay.seams import ContentGone, Spool


@dataclass(slots=True)
class MessageContent:
    """Fetched at the first read and kept for the attempt. Units: `size` octets. Raises: SpoolError at `read`."""

    spool: Spool
    queue_id: str
    size: int
    fresh: Large | None = None

    async def read(self) -> Large:
        """Return it whole: what the store has less of does not leave as if it were all. Raises: SpoolError, ContentGone"""
        if self.fresh is None:
            content = await self.spool.content(self.queue_id)
            if len(content) != self.size:
                raise ContentGone(f"{self.queue_id}: the content is damaged: {len(content)} octets of {self.size}")
            self.fresh = content
        return self.fresh

    async def reported(self) -> Canonical:
        """Return what a report may have of it: all, or of what is in its file as much as makes a report hold the header alone."""
        content = await self.read()
        if isinstance(content, Filed):
            return Canonical(await asyncio.to_thread(content.__getitem__, slice(FULL_ASKED_MAX + 1)))
        return content
